"""Reads the head of a GGUF file: what is stored about the model, and which tensors there are; no weight."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from minicpm_core.gguf.layout import check_layout, read_alignment

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 2**28
"""Items or bytes that a field may have; more is damage."""
_POSITIVE = frozenset("general.alignment block_count embedding_length attention.head_count".split())
_WHOLE = frozenset(
    "split.count context_length expert_count attention.key_length attention.value_length tokenizer.ggml.bos_token_id "
    "tokenizer.ggml.eos_token_id tokenizer.ggml.eot_token_id".split()
)
_ONE_OR_MORE = frozenset("attention.head_count_kv feed_forward_length tokenizer.ggml.eos_token_ids".split())
_LISTS: Mapping[str, type | tuple[type, ...]] = {
    "tokenizer.ggml.tokens": str,
    "tokenizer.ggml.merges": str,
    "tokenizer.ggml.scores": (int, float),
    "tokenizer.ggml.token_type": int,
}
"""What is read from a file, by its name or that behind the architecture's; other fields may hold anything."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file tells before its weights.

    Args:
        path: the file, the first one where a model is split.
        metadata: the fields by name, arrays as lists.
        tensors: shapes by name, rows first.
        places: by name, the number of a tensor's format and the byte of the file at which it begins.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]
    places: Mapping[str, tuple[int, int]]

    @property
    def architecture(self) -> str:
        """The field general.architecture, "" where it is missing."""
        return str(self.metadata.get("general.architecture", ""))

    def field(self, name: str, default: Any = None) -> Any:
        """Return a field of the architecture's own, such as "block_count"."""
        return self.metadata.get(f"{self.architecture}.{name}", default)


def read_header(path: Path) -> GgufHeader:
    """Return what the file says about the model.

    Args:
        path: a GGUF file of version 2 or 3, little-endian.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no GGUF file, is damaged or cut off, or one of several parts of a split model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give the path of a GGUF file")
    try:
        with path.open("rb") as file:
            header = _read(file, path)
    except (struct.error, UnicodeDecodeError, KeyError, EOFError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); download it again") from error
    parts = int(header.metadata.get("split.count", 1))
    if parts > 1:
        raise ValueError(f"{path} is one of {parts} parts; join them first: llama-gguf-split --merge FIRST_PART OUT")
    return header


def _read(file: BinaryIO, path: Path) -> GgufHeader:
    magic = file.read(4)
    if magic != b"GGUF":
        raise ValueError(f"{path} is no GGUF file: it begins with {magic!r} instead of b'GGUF'")
    version = _number(file, "<I")
    if version not in (2, 3):
        raise ValueError(
            f"{path} has GGUF version {version}; accepted: 2 and 3, little-endian; convert the model again"
        )
    tensor_count, field_count = _length(file), _length(file)
    metadata = {}
    for _ in range(field_count):
        name = _text(file)
        metadata[name] = _value(file, _number(file, "<I"))
    _check_fields(metadata, path)
    tensors: dict[str, tuple[int, ...]] = {}
    places: dict[str, tuple[int, int]] = {}
    for _ in range(tensor_count):
        name = _text(file)
        if name in tensors:
            raise EOFError(f"the tensor {name!r:.80} is there twice")
        shape = [_number(file, "<Q") for _ in range(_number(file, "<I"))]
        tensors[name] = tuple(reversed(shape))
        places[name] = _number(file, "<I"), _number(file, "<Q")
    alignment = read_alignment(metadata, path)
    start = -(-file.tell() // alignment) * alignment
    places = {name: (kind, start + at) for name, (kind, at) in places.items()}
    check_layout(path, tensors, places, alignment)
    return GgufHeader(path, metadata, tensors, places)


def _check_fields(metadata: Mapping[str, Any], path: Path) -> None:
    own = f"{metadata.get('general.architecture', '')}."
    for name, value in metadata.items():
        short = name.removeprefix(own)
        wanted = ""
        if short in _POSITIVE or short in _WHOLE:
            least = int(short in _POSITIVE)
            wanted = "" if _is_whole(value, least) else f"a whole number from {least} on"
        elif short in _ONE_OR_MORE:
            whole = all(map(_is_whole, value)) and value if isinstance(value, list) else _is_whole(value)
            wanted = "" if whole else "a whole number, or a list of them,"
        elif kind := _LISTS.get(short):
            good = isinstance(value, list) and all(isinstance(item, kind) for item in value)
            wanted = "" if good else f"a list of {'texts' if kind is str else 'numbers'}"
        if wanted:
            raise ValueError(f"{path} is damaged: its field {name} is {value!r:.80}; {wanted} is needed")


def _is_whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**40


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        inner, count = _number(file, "<I"), _length(file)
        if inner in _NUMBERS:
            form = f"<{count}{_NUMBERS[inner][1]}"
            return list(struct.unpack(form, file.read(struct.calcsize(form))))
        return [_value(file, inner) for _ in range(count)]
    return _number(file, _NUMBERS[kind])


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _length(file: BinaryIO) -> int:
    length = int(_number(file, "<Q"))
    if length > _LONGEST:
        raise EOFError(f"a field claims {length} items")
    return length


def _text(file: BinaryIO) -> str:
    length = _length(file)
    data = file.read(length)
    if len(data) < length:
        raise EOFError("a text ends with the file")
    return data.decode()
