"""Language model, vision tower and resampler as one torch module."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minicpm_core.vision import BATCH, Vision, refuse_cancelled
from minicpm_core.vision.features import FeatureCache
from minicpm_core.vision.prompt import Pictures
from minicpm_core.vision.resampler import Resampler
from minicpm_core.vision.tower import Tower

STILL = (-1,)
"""Temporal ids of a view that is no frame of a video."""

Grid = tuple[int, int]
"""(rows, columns) of patches."""


class VisionLanguageModel(nn.Module):
    """A language model that also reads features of pictures; called like the language model itself.

    Args:
        llm: a causal language model of transformers.
        vpm: the vision tower.
        resampler: from the tower's features to the language model's width.
        vision: how the family places patches.
        mean: per channel, taken off pixel values of 0 to 1.
        std: per channel, by which they are divided then.
        together: slices of a prompt share one padded strip (V-2.5 with `batch_vision_input`).
    """

    def __init__(
        self,
        llm: Any,
        vpm: Tower,
        resampler: Resampler,
        vision: Vision,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        together: bool = True,
    ) -> None:
        super().__init__()
        self.llm, self.vpm, self.resampler = llm, vpm, resampler
        self._vision, self._together = vision, together
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    @property
    def config(self) -> Any:
        """The language model's config."""
        return self.llm.config

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.llm.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tower and of the embeddings."""
        return self.resampler.query.dtype

    @property
    def joint(self) -> bool:
        """Whether a picture's features depend on the others of its prompt."""
        return self._vision.tower == "strip" and self._together

    def get_memory_footprint(self) -> int:
        """Return the bytes of all parameters and buffers."""
        own = sum(p.numel() * p.element_size() for part in (self.vpm, self.resampler) for p in part.parameters())
        return int(self.llm.get_memory_footprint()) + own

    def forward(self, *args: Any, **arguments: Any) -> Any:
        """Run the language model on `input_ids` or `inputs_embeds`."""
        return self.llm(*args, **arguments)

    def prepare_inputs_for_generation(self, *args: Any, **arguments: Any) -> Any:
        """Return what the language model does; PEFT asks a causal model for this, the engine does not."""
        return self.llm.prepare_inputs_for_generation(*args, **arguments)

    def prefill(
        self,
        input_ids: Tensor,
        pictures: Pictures,
        cancelled: threading.Event | None = None,
        cache: FeatureCache | None = None,
    ) -> tuple[dict[str, Tensor], int]:
        """Return the prompt's inputs by name, features in their slots, and the positions that decoding skips (none).

        Args:
            input_ids: [1, tokens].
            pictures: with spans in token ids.
            cancelled: looked at before each batch of views.
            cache: features of earlier pictures.

        Raises:
            Cancelled: it was set.
        """
        embeds = self.llm.get_input_embeddings()(input_ids).clone()
        cache = FeatureCache() if cache is None else cache
        features = cache.encode(pictures, lambda new: self.encode(new, cancelled), joint=self.joint)
        # Granite multiplies all its inputs by this; the official code leaves features as they are.
        scale = getattr(self.config, "embedding_multiplier", 1)
        for (start, end), tokens in zip(pictures.spans, features, strict=True):
            if end - start != len(tokens):
                raise ValueError(
                    f"a picture has {len(tokens)} feature tokens and its placeholder {end - start} token ids: the "
                    "tokenizer does not keep the placeholder's text as one token each; use the checkpoint's tokenizer"
                )
            embeds[0, start:end] = tokens.to(embeds.dtype) / scale
        return {"inputs_embeds": embeds}, 0

    def place(self, input_ids: Tensor, pictures: Pictures) -> tuple[dict[str, Tensor], int]:
        """Return nothing: pictures take the places of their tokens; see `NativeVisionModel.place`."""
        return {}, 0

    def encode(self, pictures: Pictures, cancelled: threading.Event | None = None) -> Tensor:
        """Return the feature tokens of the pictures' views, [views, queries, width]."""
        patches, grids = zip(*(self._patches(view) for view in pictures.views), strict=True)
        frames: list[tuple[int, ...]] = []
        for picture in pictures.pictures:
            frames += [picture.frames] if picture.frames is not None else [STILL] * len(picture.views)
        if self._vision.tower == "strip":
            features = self._strip(patches, cancelled)
        else:
            features = self._grids(patches, grids, cancelled)
        return self.resampler(features, grids, frames)  # type: ignore[no-any-return]

    def _patches(self, view: Any) -> tuple[Tensor, Grid]:
        """Return normalised patches, [patches, 3 * patch * patch], of a uint8 view, [height, width, 3]."""
        size = self.vpm.sizes.patch
        pixels = (view.astype(np.float32) / 255 - self._mean) / self._std
        rows, columns = view.shape[0] // size, view.shape[1] // size
        tiles = torch.from_numpy(pixels).view(rows, size, columns, size, 3).permute(0, 2, 4, 1, 3)
        return tiles.reshape(rows * columns, -1).to(self.device, self.dtype), (rows, columns)

    def _grids(
        self, patches: Sequence[Tensor], grids: Sequence[Grid], cancelled: threading.Event | None
    ) -> list[Tensor]:
        """Return the tower's features per slice; slices of equal size go through it together."""
        same: dict[Grid, list[int]] = defaultdict(list)
        for place, grid in enumerate(grids):
            same[grid].append(place)
        features: dict[int, Tensor] = {}
        for grid, places in same.items():
            position = self.vpm.resized_positions if self._vision.tower == "square" else self.vpm.grid_positions
            for start in range(0, len(places), BATCH):
                refuse_cancelled(cancelled)
                batch = places[start : start + BATCH]
                out = self.vpm(torch.stack([patches[i] for i in batch]), position(*grid))
                features.update(zip(batch, out, strict=True))
        return [features[i] for i in range(len(patches))]

    def _strip(self, patches: Sequence[Tensor], cancelled: threading.Event | None) -> list[Tensor]:
        """Return features as V-2.5's code computes them: places along one line, as long as the largest slice.

        The mask there never hides the padding, which is why every slice is padded and attends to it.
        """
        padded = pad_sequence(list(patches), batch_first=True)
        batches = torch.split(padded, BATCH) if self._together else [one[None] for one in patches]
        features: list[Tensor] = []
        for batch in batches:
            refuse_cancelled(cancelled)
            features += self.vpm(batch, self.vpm.grid_positions(1, batch.shape[1]))
        return [out[: len(one)] for out, one in zip(features, patches, strict=True)]
