"""Strategies of Hypothesis for bytes that are nearly a good file, and for any JSON."""
# ruff: noqa: E501

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_FORMS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
TEXTS = (
    "",
    " ",
    "a",
    "1",
    "\x00",
    "\ud800",
    "é",
    "😀",
    "<|im_end|>",
    "../../etc/passwd",
    "%s",
    "{}",
    "\u202e",
    "a" * 5000,
)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], tokens: Sequence[bytes] = (b"\0",)) -> bytes:
    """Bytes of one of the seeds, changed in up to six places: a number, a token, a cut, a copy, a piece of another."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(data), 1)))
        way = draw(st.sampled_from(("number", "byte", "token", "cut", "copy", "splice", "truncate", "repeat")))
        length = draw(st.sampled_from((1, 2, 4, 8, 16, 64, 512)))
        if way == "number":
            form = draw(st.sampled_from(_FORMS))
            number = draw(st.sampled_from(_NUMBERS)) % 2 ** (8 * struct.calcsize(form))
            data[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif way == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif way == "token":
            data[at : at + draw(st.sampled_from((0, 1, 4)))] = draw(st.sampled_from(tokens))
        elif way == "cut":
            del data[at : at + length]
        elif way == "copy":
            start = draw(st.integers(0, max(len(data), 1)))
            data[at:at] = data[start : start + length]
        elif way == "repeat":
            data[at : at + length] = data[at : at + length] * draw(st.sampled_from((2, 10, 200)))
        elif way == "splice":
            other = draw(st.sampled_from(seeds))
            start = draw(st.integers(0, len(other)))
            data[at : at + length] = other[start : start + length]
        elif draw(st.booleans()):
            del data[at:]
    return bytes(data)


@st.composite
def mutated_members(draw: st.DrawFn, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """A zip archive with one or two changed members, packed again; now and then its raw bytes are changed instead."""
    seed = draw(st.sampled_from(seeds))
    if draw(st.integers(0, 3)) == 0:
        return draw(mutated([seed], tokens))
    members = dict(_members(seed))
    for name in draw(st.lists(st.sampled_from(sorted(members)), min_size=1, max_size=2)):
        way = draw(st.integers(0, 9))
        if way == 0:
            members.pop(name, None)
        elif way == 1:
            members[draw(st.sampled_from(("../x.xml", "/etc/x.xml", "x" * 300, "a/../../b.txt", "C:\\x.txt")))] = b"x"
        elif name in members:
            members[name] = draw(mutated([members[name]], tokens))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


@lru_cache(maxsize=64)
def _members(data: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return tuple((info.filename, archive.read(info)) for info in archive.infolist())


def json_values(words: Sequence[str] = TEXTS) -> st.SearchStrategy[Any]:
    """Any JSON value; its texts and keys are often one of the words."""
    texts = st.one_of(st.sampled_from(words), st.text(max_size=6))
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(-2, 3), st.sampled_from((10**30, -1, 1.5, 1e308, float("nan"), float("inf"))),
        texts,
    )  # fmt: skip
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=4)),
        max_leaves=8,
    )


@st.composite
def mutated_json(draw: st.DrawFn, seeds: Sequence[Any], words: Sequence[str]) -> Any:
    """A JSON value of one of the seeds, with up to four of its parts replaced, removed or added."""
    value = _copy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        place: Any = value
        while isinstance(place, (dict, list)) and place:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or draw(st.booleans()):
                way = draw(st.integers(0, 5))
                if way == 0:
                    del place[key]
                elif way == 1 and isinstance(place, dict):
                    place[draw(st.sampled_from(words))] = draw(json_values(words))
                else:
                    place[key] = draw(json_values(words))
                break
            place = inner
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value
