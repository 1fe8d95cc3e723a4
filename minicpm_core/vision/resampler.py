"""The resampler of MiniCPM-V 1.0 to 4.5: learned queries read a slice's features into a fixed number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

HEAD_DIM = 128
"""Width of an attention head; the official code has embed // 128 of them."""


@dataclass(frozen=True)
class ResamplerSizes:
    """The shape of a resampler; `placed_queries` where the queries have stored positions of their own (1.0, 2.0)."""

    queries: int
    embed: int
    features: int
    placed_queries: bool = False


class Resampler(nn.Module):
    """One layer of cross attention, keys placed by sines and cosines of their row and column."""

    def __init__(self, sizes: ResamplerSizes) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(sizes.queries, sizes.embed))
        self.pos_embed = nn.Parameter(torch.empty(sizes.queries, sizes.embed)) if sizes.placed_queries else None
        same = sizes.features == sizes.embed
        self.kv_proj = nn.Identity() if same else nn.Linear(sizes.features, sizes.embed, bias=False)
        self.attn = nn.MultiheadAttention(sizes.embed, max(sizes.embed // HEAD_DIM, 1))
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(sizes.embed, 1e-6) for _ in range(3))
        self.proj = nn.Parameter(torch.empty(sizes.embed, sizes.embed))

    def forward(
        self,
        features: Sequence[Tensor],
        grids: Sequence[tuple[int, int]],
        frames: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """Return tokens, [groups, queries, embed]; without `frames` every slice is a group of its own.

        Args:
            features: per slice, [patches, features].
            grids: per slice, (rows, columns) of its patches.
            frames: temporal ids in tenths of a second per group, together one for each slice; the slices of a group
                are read as one sequence. -1 is a still picture (MiniCPM-V 4.5).
        """
        values = [self.ln_kv(self.kv_proj(slice_)) for slice_ in features]
        keys = [value + self._places(grid, value) for value, grid in zip(values, grids, strict=True)]
        if frames is not None:
            keys, values = _join_frames(keys, values, frames)
        lengths = [len(value) for value in values]
        padding = None
        if len(set(lengths)) > 1:
            padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
            padding = padding.to(values[0].device)
        query = self.ln_q(self.query)
        if self.pos_embed is not None:
            query = query + self.pos_embed.to(query.dtype)
        # Contiguous, and the patches first: torch multiplies others with a copy of the weights for each patch.
        attended, _ = self.attn(
            query[:, None].repeat(1, len(values), 1),
            pad_sequence(keys),
            pad_sequence(values),
            key_padding_mask=padding,
            need_weights=False,
        )
        return self.ln_post(attended.transpose(0, 1).contiguous()) @ self.proj  # type: ignore[no-any-return]

    def _places(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        return grid_sines(*grid, like.shape[-1]).to(like.device, like.dtype)


class SquareResampler(Resampler):
    """The resampler of V-1.0: keys are placed by the stored square of query positions, resized to the slice's grid."""

    def _places(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        assert self.pos_embed is not None
        side = int(len(self.pos_embed) ** 0.5)
        square = self.pos_embed.float().view(1, side, side, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1).flatten(0, 2).to(like.dtype)


def sines(places: Any, width: int) -> Any:
    """Return sines then cosines of `places`, [..., width]; Vaswani et al. 2017, section 3.5, base 10000."""
    omega = np.arange(width // 2, dtype=np.float32)
    omega /= width / 2.0
    omega = 1.0 / 10000**omega
    angles = np.einsum("...,d->...d", places, omega)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def grid_sines(rows: int, columns: int, width: int) -> Tensor:
    """Return the places of a grid, [rows * columns, width]: the first half of a row tells the column."""
    across, down = np.meshgrid(np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32))
    places = np.concatenate([sines(across, width // 2), sines(down, width // 2)], axis=-1)
    return torch.from_numpy(places).float().flatten(0, 1)


def _join_frames(
    keys: list[Tensor], values: list[Tensor], frames: Sequence[Sequence[int]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return keys with their frame's time added, and both joined per group."""
    times = [time for group in frames for time in group]
    if len(times) != len(keys):
        raise ValueError(f"there are {len(times)} temporal ids for {len(keys)} frames; give one for each frame")
    moved = []
    for key, time in zip(keys, times, strict=True):
        vector = torch.from_numpy(sines(np.float32(time), key.shape[-1])) if time >= 0 else None
        moved.append(key if vector is None else key + vector.to(key.device, key.dtype))
    starts = np.cumsum([0, *(len(group) for group in frames)])
    spans = list(pairwise(starts))
    return [torch.cat(moved[a:b]) for a, b in spans], [torch.cat(values[a:b]) for a, b in spans]
