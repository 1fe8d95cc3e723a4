"""llama.cpp as a language model: tokens in, logits out, keys and values of one text kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.prefix import Context, Prefixes, shared

if TYPE_CHECKING:
    from minicpm_core.vision.prompt import Pictures

_NO_MEMORY = -2
"""What llama_decode returns for GGML_STATUS_ALLOC_FAILED."""


class LlamaCppModel:
    """A model that llama.cpp has loaded, with room for one text.

    Args:
        path: the GGUF file.
        context_window: tokens.
        batch: tokens per pass at most.
        threads: of the CPU.
        gpu_layers: layers on the GPU; -1 for all.

    Raises:
        ValueError: llama.cpp cannot load the file.
        MemoryError: there is no room for the keys and values.
    """

    def __init__(self, path: Path, *, context_window: int, batch: int, threads: int, gpu_layers: int) -> None:
        import llama_cpp
        import torch

        log = logging.getLogger("llama-cpp-python")
        if log.level == logging.NOTSET:  # it would write what it loads to stderr
            log.setLevel(logging.ERROR)
        self.device = torch.device("cpu")  # of the tokens and logits
        self._batch_size = batch
        self._model = self._context = self._batch = None
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 10_000 if gpu_layers < 0 else gpu_layers
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise ValueError(
                f"llama.cpp {llama_cpp.__version__} cannot load {path}: the file is damaged, or of an architecture "
                "that this version does not know; download the file again, or: pip install -U llama-cpp-python"
            )
        sizes = llama_cpp.llama_context_default_params()
        sizes.n_ctx = context_window
        sizes.n_batch = sizes.n_ubatch = batch
        sizes.n_threads = sizes.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, sizes)
        if not self._context:
            self.close()
            raise MemoryError(f"llama.cpp has no room for {context_window} tokens of {path}; give a context_window")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._width = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self._cells = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)
        self._embedding_width = int(llama_cpp.llama_model_n_embd(self._model))
        self.sight: Any = None
        """What reads pictures (`vision.model.VisionLanguageModel`), None for a model that reads text only."""
        self.feature_scale = 1.0
        """By which llama.cpp multiplies all embeddings, though features of pictures stay as they are."""
        recurrent = llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        self.can_rewind = not recurrent
        """Whether it can forget the end of a text; the states of linear attention cannot."""

    def read(self, ids: Sequence[int], start: int, rows: int) -> Any:
        """Read tokens behind the first `start` of the text; return the logits of the last `rows`, [rows, vocabulary].

        Raises:
            RuntimeError: llama.cpp failed.
        """
        batch = self._batch
        assert batch is not None

        def put(n: int, token: int) -> None:
            batch.token[n] = token

        return self._decode(batch, ids, put, start, rows)

    def read_features(self, features: Any, start: int, rows: int) -> Any:
        """Do what `read` does with features of pictures, [tokens, width]."""
        import ctypes

        import llama_cpp
        import numpy as np

        values = np.ascontiguousarray(features, np.float32)
        batch = llama_cpp.llama_batch_init(self._batch_size, self._embedding_width, 1)
        size = 4 * self._embedding_width

        def put(n: int, row: Any) -> None:
            ctypes.memmove(ctypes.addressof(batch.embd.contents) + n * size, row.ctypes.data, size)

        try:
            return self._decode(batch, list(values), put, start, rows)
        finally:
            llama_cpp.llama_batch_free(batch)

    def _decode(self, batch: Any, items: Sequence[Any], put: Callable[[int, Any], None], start: int, rows: int) -> Any:
        import llama_cpp
        import numpy as np
        import torch

        found = []
        for first in range(0, len(items), self._batch_size):
            part = items[first : first + self._batch_size]
            batch.n_tokens = len(part)
            wanted = []
            for n, item in enumerate(part):
                put(n, item)
                batch.pos[n] = start + first + n
                batch.n_seq_id[n], batch.seq_id[n][0] = 1, 0
                batch.logits[n] = first + n >= len(items) - rows
                wanted += [n] if batch.logits[n] else []
            if code := llama_cpp.llama_decode(self._context, batch):
                why = "llama.cpp failed to allocate what it needs" if code == _NO_MEMORY else "llama.cpp could not read"
                raise RuntimeError(f"{why}: {len(part)} tokens behind {start + first} (code {code})")
            for n in wanted:  # llama.cpp writes the next logits to the same place
                row = llama_cpp.llama_get_logits_ith(self._context, n)
                found.append(np.ctypeslib.as_array(row, (self._width,)).copy())
        return torch.from_numpy(np.stack(found)) if found else None

    @property
    def joint(self) -> bool:
        """Whether a picture's features depend on the others of its prompt."""
        return bool(self.sight.joint)

    def prefill(
        self, input_ids: Any, pictures: Pictures, cancelled: threading.Event | None = None, cache: Any = None
    ) -> tuple[dict[str, Any], int]:
        """Return the prompt's ids, and where slots are, features in their stead; no positions are skipped.

        Args:
            input_ids: [1, tokens].
            pictures: with spans in token ids.
            cancelled: looked at before each batch of views.
            cache: features of earlier pictures (`vision.features.FeatureCache`).

        Raises:
            Cancelled: it was set.
        """
        import torch

        def encode(new: Pictures) -> Any:
            return self.sight.encode(new, cancelled)

        found = encode(pictures) if cache is None else cache.encode(pictures, encode, joint=self.joint)
        features = torch.zeros(1, input_ids.shape[1], self._embedding_width)
        seen = torch.zeros(1, input_ids.shape[1], dtype=torch.bool)
        for (start, end), tokens in zip(pictures.spans, found, strict=True):
            if end - start != len(tokens):
                raise ValueError(
                    f"a picture has {len(tokens)} feature tokens and its placeholder {end - start} token ids: the "
                    "file's tokenizer does not keep the placeholder's text as one token each; convert the model again"
                )
            features[0, start:end] = tokens.float() / self.feature_scale
            seen[0, start:end] = True
        return {"input_ids": input_ids, "features": features, "seen": seen}, 0

    def place(self, input_ids: Any, pictures: Pictures) -> tuple[dict[str, Any], int]:
        """Return nothing: pictures take the places of their tokens; see `NativeVisionModel.place`."""
        return {}, 0

    def cut(self, length: int) -> bool:
        """Forget all behind the first `length` tokens of the text; tell whether the model can."""
        import llama_cpp

        return bool(llama_cpp.llama_memory_seq_rm(self._cells, 0, length, -1))

    def clear(self) -> None:
        """Forget the text."""
        import llama_cpp

        llama_cpp.llama_memory_clear(self._cells, True)

    def tokenize(self, text: str) -> list[int]:
        """Return llama.cpp's own tokens of a text, special ones read as such."""
        import llama_cpp

        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), room, len(room), False, True)
        return list(room[: max(count, 0)])

    def get_memory_footprint(self) -> int:
        """Return the bytes of the weights, those that read pictures included."""
        import llama_cpp

        parts = (self.sight.vpm, self.sight.resampler) if self.sight else ()
        seeing = sum(value.numel() * value.element_size() for part in parts for value in part.parameters())
        return int(llama_cpp.llama_model_size(self._model) + seeing)

    def close(self) -> None:
        """Free the weights, and the keys and values."""
        import llama_cpp

        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._model = self._context = self._batch = self.sight = None


class LastText(Prefixes):
    """Remembers the one text whose keys and values llama.cpp holds; the next prompt goes on where they part."""

    def __init__(self) -> None:
        super().__init__(0)
        self._ids: list[int] = []

    def open(self, model: LlamaCppModel, ids: Sequence[int]) -> Context:
        """Return a context that has read what `ids` share with the last text; the last token is read for its logits."""
        common = min(shared(self._ids, ids), len(ids) - 1)
        self._ids = []  # until the new text is whole
        if common and not model.cut(common):
            common = 0
        if not common:
            model.clear()
        return LlamaCppContext(model, self, ids[:common])

    def keep_copy(self, context: Context) -> None:
        """Keep nothing: the library has one memory."""

    def keep(self, context: Context) -> None:
        """Remember what a request has read."""
        self._ids = context.ids

    def make_room(self, tokens: int) -> None:
        """Do nothing: the room is the context window's."""

    def clear(self) -> None:
        """Forget the text."""
        self._ids = []


class LlamaCppContext(Context):
    """What llama.cpp has read in a request."""

    def __init__(self, model: LlamaCppModel, prefixes: LastText, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self.prompt = 0, None
        self.skipped = 0
        self.can_rewind = model.can_rewind
        self._model, self._prefixes = model, prefixes

    def read(self, ids: Sequence[int], inputs: dict[str, Any] | None = None, *, rows: int = 1) -> Any:
        """Let the model read on, and return the logits of the last `rows` tokens, [rows, vocabulary]."""
        if inputs is None or "features" not in inputs:
            logits = self._model.read(ids, len(self.ids), rows)
            self.ids += ids
            return logits
        tokens, seen = inputs["input_ids"][0].tolist(), inputs["seen"][0].tolist()
        at = 0
        for feature, group in groupby(seen):
            end = at + len(list(group))
            wanted = rows if end == len(ids) else 0
            if feature:
                logits = self._model.read_features(inputs["features"][0, at:end].numpy(), len(self.ids), wanted)
            else:
                logits = self._model.read(tokens[at:end], len(self.ids), wanted)
            self.ids += ids[at:end]
            at = end
        return logits

    def forget(self, count: int) -> None:
        """Take back the last `count` tokens."""
        if count:
            del self.ids[-count:]
            self._model.cut(len(self.ids))
