"""Pad encoded examples into one batch of arrays."""

from __future__ import annotations

import numpy as np

from tools.demo_model.encoding import Encoded
from tools.demo_model.network import NOWHERE, PROBE_CLASSES


def collate(batch: list[Encoded], *, multiple: int = 16) -> dict[str, np.ndarray]:
    """Pad a batch on the right and list the positions and targets of each loss."""
    longest = max(len(e.ids) for e in batch)
    width = -(-longest // multiple) * multiple
    ids = np.ones((len(batch), width), dtype=np.int64)
    passage = np.full((len(batch), width), -1, dtype=np.int64)
    where, target, weight, offset, tools = [], [], [], [], []
    found_at, found, choice_at, choice = [], [], [], []
    for row, e in enumerate(batch):
        ids[row, : len(e.ids)] = e.ids
        passage[row, : len(e.passage_of)] = e.passage_of
        for position in range(e.answer_start, len(e.ids)):
            where.append(row * width + position - 1)
            target.append(e.ids[position])
            weight.append(e.weights.get(position - e.answer_start, 1.0))
            offset.append(position - e.answer_start)
            tools.append(e.tools)
        if e.choice >= 0:  # the tokens between question and answer
            known = range(1 - e.choice_ahead, 6)
            choice_at += [row * width + e.answer_start - n for n in known]
            choice += [e.choice] * len(known)
        for position, labels in e.found_in.items():
            spread = np.zeros(PROBE_CLASSES, dtype=np.float32)
            spread[labels or [NOWHERE]] = 1.0 / max(1, len(labels))
            found_at.append(row * width + position)
            found.append(spread)
    most = max((len(e.pointers) for e in batch), default=0)
    query = np.zeros((len(batch), most), dtype=np.int64)
    source = np.zeros((len(batch), most, width), dtype=bool)
    for row, e in enumerate(batch):
        for n, (position, places) in enumerate(e.pointers.items()):
            query[row, n] = position - 1
            source[row, n, places] = True
    flat = passage.reshape(-1)
    at = np.flatnonzero(flat >= 0)
    return {
        "ids": ids,
        "where": np.array(where),
        "target": np.array(target),
        "weight": np.array(weight, dtype=np.float32),
        "offset": np.array(offset),
        "tools": np.array(tools),
        "query": query,
        "source": source,
        "passage_at": at,
        "passage": flat[at],
        "choice_at": np.array(choice_at, dtype=np.int64),
        "choice": np.array(choice, dtype=np.int64),
        "found_at": np.array(found_at, dtype=np.int64),
        "found": np.array(found, dtype=np.float32).reshape(-1, PROBE_CLASSES),
    }
