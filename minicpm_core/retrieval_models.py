"""Models that embed texts or rank documents: the body of a language model with another last step."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicpm_core.checkpoints import Checkpoint, load_tokenizer, load_weights, open_checkpoint
from minicpm_core.control_tokens import ControlTokens
from minicpm_core.devices import available_memory, choose_device, choose_dtype
from minicpm_core.memory import checkpoint_needs
from minicpm_core.memory_plan import refuse_if_too_large
from minicpm_core.quantization import bitsandbytes_config
from minicpm_core.retrieval_families import EMBEDDERS, RERANKERS, Retrieval, find_retrieval
from minicpm_core.weights import Tensors, open_tensors

_BODY = "model."
_SCORE = "score.weight"


class _Body:
    """A language model without its head, over padded batches of texts."""

    def __init__(
        self,
        rows: tuple[Retrieval, ...],
        model: str | Path,
        quantization: str | None,
        dtype: str,
        device: str,
        memory_limit: int | str | None,
        instruction: str | None,
        batch_size: int,
        revision: str | None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least one text is needed")
        self.name = str(model)
        self._checkpoint = _headless(open_checkpoint(model, revision=revision))
        self._row = find_retrieval(rows, self._checkpoint.config)
        self._causal = bool(self._checkpoint.config.get("is_causal", self._row.causal))
        self._instruction, self._batch_size = instruction, batch_size
        self._lock = threading.Lock()
        chosen = choose_device(device)
        torch_dtype = choose_dtype(dtype, self._checkpoint, chosen)
        size = float(torch_dtype.itemsize)
        longest = self._checkpoint.family.translate(self._checkpoint.config).max_position_embeddings
        self.max_tokens = min(self._row.max_tokens, longest)
        limit = memory_limit if memory_limit is not None else available_memory(chosen)
        needs = checkpoint_needs(self._checkpoint, quantization, limit, bytes_per_value=size, device=chosen)
        memory = needs.plan(self.max_tokens)
        refuse_if_too_large(memory, self.name)
        quantized = memory.quantization and bitsandbytes_config(memory.quantization, compute_dtype=torch_dtype)
        self._tokenizer = load_tokenizer(self._checkpoint)
        self._control = ControlTokens(self._tokenizer)
        self._loading = {"dtype": torch_dtype, "device": chosen, "quantization_config": quantized}
        self.memory_bytes = memory.weights
        self.model: Any = None
        self._load()

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text, without special tokens."""
        return len(self._ids(text))

    def release(self) -> None:
        """Free the model's memory; it is loaded again when it is used."""
        with self._lock:
            self.model = None

    def _load(self) -> None:
        """Load the weights where they are not in memory."""
        if self.model is None:
            self.model = load_weights(self._checkpoint, **self._loading).model

    def _query(self, query: str) -> str:
        if self._instruction is None:
            return self._row.query.format(query=query)
        return self._row.instructed.format(query=query, instruction=self._instruction)

    def _ids(self, text: str) -> list[int]:
        """Return the ids of a text, in which names of special tokens are words."""
        return self._control.encode(self._control.cut(text))[0]

    def _hidden(self, inputs: Sequence[list[int]]) -> Iterator[tuple[Any, Any]]:
        """Yield (hidden states [batch, tokens, size] in float32, mask [batch, tokens]), batch by batch, in order."""
        import torch

        for start in range(0, len(inputs), self._batch_size):
            part = inputs[start : start + self._batch_size]
            width = max(len(ids) for ids in part)
            ids = torch.tensor([row + [0] * (width - len(row)) for row in part])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
            with self._lock, torch.inference_mode():
                self._load()
                device, dtype = self.model.device, self.model.dtype
                hidden = self.model(
                    input_ids=ids.to(device),
                    attention_mask=self._attention_mask(mask, dtype).to(device),
                    use_cache=False,
                ).last_hidden_state
            yield hidden.float().cpu(), mask

    def _attention_mask(self, mask: Any, dtype: Any) -> Any:
        """Return what is added to the scores [batch, 1, tokens, tokens]: nothing where a token may look, else -max."""
        import torch

        width = mask.shape[1]
        seen = mask[:, None, None, :].bool().expand(-1, 1, width, -1)
        if self._causal:
            seen = seen & torch.ones(width, width, dtype=torch.bool).tril()
        return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


class EmbeddingModel(_Body):
    """Turns texts into vectors of length one: the mean of the hidden states, later tokens weighing more.

    The weights are the positions (Muennighoff 2022, SGPT, section 4.1). Has what an index asks of an embedder.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        quantization: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        memory_limit: int | str | None = None,
        instruction: str | None = None,
        dimensions: int | None = None,
        batch_size: int = 8,
        revision: str | None = None,
    ) -> None:
        """Load an embedding checkpoint; no code from it is run.

        Args:
            model: a folder in the hub's layout, or a hub id.
            quantization: as of `load`.
            dtype: as of `load`.
            device: as of `load`.
            memory_limit: as of `load`.
            instruction: what the queries are for, where the model takes it; documents have none.
            dimensions: length of the vectors, for models trained to be cut (MRL); None keeps all.
            batch_size: texts per forward pass.
            revision: branch, tag or commit on the hub.

        Raises:
            FileNotFoundError: no such folder, or files are missing in it.
            ValueError: no embedding checkpoint, damaged files, or an argument that is not accepted.
            MemoryError: the model does not fit into `memory_limit`.
        """
        super().__init__(EMBEDDERS, model, quantization, dtype, device, memory_limit, instruction, batch_size, revision)
        size = int(self.model.config.hidden_size)
        if dimensions is not None and not 1 <= dimensions <= size:
            raise ValueError(f"dimensions is {dimensions}; accepted: 1 to {size}")
        self.dimensions = dimensions or size

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text, in order; long texts are cut to `max_tokens`."""
        vectors = []
        for hidden, mask in self._hidden([self._encode(text) for text in texts]):
            vectors += weighted_mean(hidden, mask, self.dimensions).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, with the instruction and the words that the model expects around it."""
        return self.embed_documents([self._query(text)])[0]

    def _encode(self, text: str) -> list[int]:
        """Return the ids with the special tokens that the tokenizer itself puts around a text, BOS in any case."""
        bos = self._tokenizer.bos_token_id
        begin, end = _around(self._tokenizer)
        if bos is not None and begin[:1] != [bos]:
            begin = [bos, *begin]
        return begin + self._ids(text)[: self.max_tokens - len(begin) - len(end)] + end


class RerankerModel(_Body):
    """Tells how well documents answer a query: one number per pair, from the hidden state of the first token."""

    def __init__(
        self,
        model: str | Path,
        *,
        quantization: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        memory_limit: int | str | None = None,
        instruction: str | None = None,
        batch_size: int = 8,
        revision: str | None = None,
    ) -> None:
        """Load a reranking checkpoint; no code from it is run.

        Args:
            model: a folder in the hub's layout, or a hub id.
            quantization: as of `load`; the scoring layer is never quantised.
            dtype: as of `load`.
            device: as of `load`.
            memory_limit: as of `load`.
            instruction: what the queries are for, where the model takes it.
            batch_size: pairs per forward pass.
            revision: branch, tag or commit on the hub.

        Raises:
            FileNotFoundError: no such folder, or files are missing in it.
            ValueError: no reranking checkpoint, damaged files, or an argument that is not accepted.
            MemoryError: the model does not fit into `memory_limit`.
        """
        super().__init__(RERANKERS, model, quantization, dtype, device, memory_limit, instruction, batch_size, revision)
        size = int(self.model.config.hidden_size)
        with open_tensors(self._checkpoint.weight_files) as tensors:
            stored = tensors.get(_SCORE)
            if stored is None or stored.shape != (1, size):
                shape = stored.shape if stored else "missing"
                raise ValueError(f"{_SCORE} of a reranker has the shape (1, {size}); in {self.name} it is {shape}")
            self._score = stored[...].float().clone()[0]

    def score(self, query: str, documents: Sequence[str], *, normalize: bool = False) -> list[float]:
        """Return one score per document, in order; higher is better.

        Args:
            query: the question, without the words that the model expects around it.
            documents: texts; long ones are cut so that query and document have `max_tokens` together.
            normalize: squash the scores to 0 to 1 (sigmoid).
        """
        if not documents:
            return []
        pairs = [self._pair(self._ids(self._query(query)), self._ids(document)) for document in documents]
        scores: list[float] = []
        for hidden, _ in self._hidden(pairs):
            logits = hidden[:, 0] @ self._score
            scores += (logits.sigmoid() if normalize else logits).tolist()
        return scores

    def _pair(self, query: list[int], document: list[int]) -> list[int]:
        """Return `<s>query</s>document` in ids; a very long query is cut to half of the room."""
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        query = query[: self.max_tokens // 2]
        return [bos, *query, eos, *document][: self.max_tokens]


def weighted_mean(hidden: Any, mask: Any, dimensions: int | None = None) -> Any:
    """Return [batch, dimensions] vectors of length one: the mean of the hidden states weighted by their positions.

    Args:
        hidden: [batch, tokens, size], padded on the right.
        mask: [batch, tokens], 1 where there is a token.
        dimensions: of the vectors; None keeps all.
    """
    import torch

    weights = (mask * mask.cumsum(dim=1)).float()
    mean = (hidden * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)
    return torch.nn.functional.normalize(mean[:, :dimensions], dim=1)


def _headless(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with a row that loads the body only, under names with or without "model."."""
    family = checkpoint.family

    def translate(config: Any) -> Any:
        translated = family.translate(config)
        translated.tie_word_embeddings = True  # so that the class asks for no head
        return translated

    def arrange(tensors: Tensors) -> Tensors:
        named = {
            name if name.startswith((_BODY, "lm_head.", "score.")) else _BODY + name: tensor
            for name, tensor in family.arrange(tensors).items()
        }
        return {name: tensor for name, tensor in named.items() if name.startswith(_BODY)}

    row = replace(family, translate=translate, arrange=arrange, vision=None, quantized_class=None)
    return replace(checkpoint, family=row)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    bare = list(tokenizer.encode("a", add_special_tokens=False))
    whole = list(tokenizer.encode("a", add_special_tokens=True))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []
