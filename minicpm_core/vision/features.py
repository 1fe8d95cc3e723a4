"""Features of pictures that were seen before are not computed again; and numbers that tell pictures apart."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING

from minicpm_core.vision.prompt import Picture, Pictures

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[Pictures], "Sequence[Tensor] | Tensor"]
"""Runs the tower: pictures to the features of their groups of views, [tokens, width] each."""
Unit = tuple[bytes, tuple[Picture, ...]]
"""A key, and the pictures whose features depend on each other and on nothing else."""


def find_units(pictures: Pictures, *, joint: bool) -> list[Unit]:
    """Return the pictures of a prompt in units that can be computed apart; equal keys mean equal features.

    Args:
        pictures: of a prompt.
        joint: features depend on the prompt's other pictures too (V-2.5 pads them together).
    """
    if not joint:
        return [(picture.digest, (picture,)) for picture in pictures.pictures]
    whole = blake2b(b"".join(picture.digest for picture in pictures.pictures), digest_size=16)
    return [(whole.digest(), pictures.pictures)] if pictures.pictures else []


def count_groups(unit: Sequence[Picture]) -> int:
    """Return how many runs of slots pictures fill: one for each view, or one for frames that are read together."""
    return sum(len(picture.views) if picture.frames is None else 1 for picture in unit)


def mark_slots(ids: Sequence[int], pictures: Pictures, *, joint: bool) -> list[int]:
    """Return token ids in which the slots of pictures are numbers below zero that stand for their content.

    The token ids of slots are the same for all pictures, and what a model has read of one must not serve for another.
    """
    marked = list(ids)
    spans = iter(pictures.spans)
    for key, unit in find_units(pictures, joint=joint):
        content = -1 - int.from_bytes(key, "big")
        for start, end in islice(spans, count_groups(unit)):
            marked[start:end] = [content] * (end - start)
    return marked


class FeatureCache:
    """Keeps the features of the pictures that were used last; any thread may use it.

    Args:
        limit: bytes that it may hold; 0 keeps nothing.
    """

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self._kept: OrderedDict[bytes, list[Tensor]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The bytes that it holds."""
        with self._lock:
            return self._size

    def encode(self, pictures: Pictures, encode: Encode, *, joint: bool) -> list[Tensor]:
        """Return the features of all groups of views; the pictures that are not kept go through the tower together.

        Args:
            pictures: of a prompt.
            encode: runs the tower.
            joint: see `find_units`.
        """
        units = find_units(pictures, joint=joint)
        with self._lock:
            found = {key: self._kept[key] for key, _ in units if key in self._kept}
        new = {key: unit for key, unit in units if key not in found}
        if new:
            features = iter(encode(Pictures(tuple(picture for unit in new.values() for picture in unit), ())))
            for key, unit in new.items():
                found[key] = list(islice(features, count_groups(unit)))
        self._keep(found)
        return [group for key, _ in units for group in found[key]]

    def clear(self) -> None:
        """Forget everything; for when the model computes something else from now on."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def _keep(self, used: Mapping[bytes, list[Tensor]]) -> None:
        with self._lock:
            for key, groups in used.items():
                if key in self._kept:
                    self._kept.move_to_end(key)
                elif count_bytes(groups) <= self._limit:
                    self._kept[key] = [group.clone() for group in groups]  # a part of a batch would hold all of it
                    self._size += count_bytes(groups)
            while self._size > self._limit:
                self._size -= count_bytes(self._kept.popitem(last=False)[1])


def count_bytes(groups: Sequence[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(group.numel() * group.element_size() for group in groups)
