"""Embedders of pictures and texts alike: a vision language model without its head, native tower and resampler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.checkpoints import open_checkpoint
from minicpm_core.devices import available_memory, choose_device, choose_dtype
from minicpm_core.memory import checkpoint_needs
from minicpm_core.memory_plan import refuse_if_too_large
from minicpm_core.retrieval_families import PICTURE_EMBEDDERS, find_retrieval
from minicpm_core.retrieval_models import EmbeddingModel, weighted_mean
from minicpm_core.vision.minicpmv import LLM, load_pictures, read_scale
from minicpm_core.weights import open_tensors

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureEmbeddingModel(EmbeddingModel):
    """Turns pictures, such as pages of documents, and questions into vectors of length one that compare.

    Source: the official code of VisRAG-Ret; a picture is its placeholder and a line break behind BOS, no chat markers.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        memory_limit: int | str | None = None,
        revision: str | None = None,
    ) -> None:
        """Load a checkpoint with all its parts; no code from it is run.

        Args:
            model: a folder in the hub's layout, or a hub id.
            dtype: as of `load`.
            device: as of `load`.
            memory_limit: as of `load`.
            revision: branch, tag or commit on the hub.

        Raises:
            FileNotFoundError: no such folder, or files are missing in it.
            ValueError: the checkpoint embeds no pictures, or its files are damaged.
            MemoryError: the model does not fit into `memory_limit`.
        """
        self._whole = open_checkpoint(model, revision=revision)
        find_retrieval(PICTURE_EMBEDDERS, self._whole.config)
        self._reader = load_pictures(self._whole)
        self._sight: Any = None
        chosen = choose_device(device)
        size = float(choose_dtype(dtype, self._whole, chosen).itemsize)
        limit = memory_limit if memory_limit is not None else available_memory(chosen)
        needs = checkpoint_needs(self._whole, None, limit, bytes_per_value=size, device=chosen)
        refuse_if_too_large(needs.plan(None), str(model))
        super().__init__(model, dtype=dtype, device=device, memory_limit=memory_limit, revision=revision)
        self.memory_bytes = sum(file.stat().st_size for file in self._whole.weight_files)

    def embed_images(self, images: Sequence[Image]) -> list[list[float]]:
        """Return one vector per picture, in order; each goes through the model on its own.

        Args:
            images: upright RGB pictures, cut into views as the checkpoint's files say.
        """
        return [self._embed_image(image) for image in images]

    def release(self) -> None:
        """Free the memory of all parts; they are loaded again when they are used."""
        with self._lock:
            self.model = self._sight = None

    def _embed_image(self, image: Image) -> list[float]:
        import torch

        from minicpm_core.vision.prompt import Pictures

        picture = self._reader.read(image, 0)
        text = f"{picture.text}\n"
        slot, start, spans = self._reader.markers.slot, 0, []
        while (start := text.find(slot, start)) >= 0:
            end = start
            while text.startswith(slot, end):
                end += len(slot)
            spans.append((start, end))
            start = end
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        bos = self._tokenizer.bos_token_id
        begin = [] if bos is None else [bos]
        ids = [*begin, *encoded["input_ids"]]
        if len(ids) > self.max_tokens:
            raise ValueError(
                f"a picture of {image.width} x {image.height} pixels takes {len(ids)} tokens, and {self.name} reads "
                f"{self.max_tokens}; make it smaller"
            )
        pictures = Pictures((picture,), tuple(spans)).at_tokens(encoded["offset_mapping"], shift=len(begin))
        with self._lock, torch.inference_mode():
            self._load()
            inputs, _ = self._sight.prefill(torch.tensor([ids]).to(self.model.device), pictures)
            mask = torch.ones(1, len(ids), dtype=torch.long)
            hidden = self.model(
                **inputs, attention_mask=self._attention_mask(mask, self.model.dtype).to(self.model.device),
                use_cache=False,
            ).last_hidden_state  # fmt: skip
        vector: list[float] = weighted_mean(hidden.float().cpu(), mask)[0].tolist()
        return vector

    def _load(self) -> None:
        super()._load()
        if self._sight is not None or not hasattr(self, "_whole"):
            return
        from minicpm_core.vision.four_bit import unpacked
        from minicpm_core.vision.loading import load_sight
        from minicpm_core.vision.model import VisionLanguageModel

        vision = self._whole.family.vision
        assert vision is not None
        with open_tensors(self._whole.weight_files) as stored:
            tensors = unpacked({name: tensor for name, tensor in stored.items() if not name.startswith(LLM)})
            kind = {name: self._loading[name] for name in ("dtype", "device")}
            tower, resampler = load_sight(self._whole, tensors, **kind)
        mean, std = read_scale(self._whole.folder, "norm_mean", "norm_std")
        self._sight = VisionLanguageModel(self.model, tower, resampler, vision, mean=mean, std=std).eval()
