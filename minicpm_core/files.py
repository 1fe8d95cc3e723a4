"""The files of a checkpoint folder, none of them trusted: sizes, links and headers are checked before use."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_JSON = 64 * 2**20
"""Largest JSON file that is read, in bytes; the largest of a real checkpoint is a tokenizer.json of about 20 MB."""
_MAX_HEADER = 100_000_000
_MAX_GROWTH = 1000.0
_DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}


def has_file(folder: Path, name: str) -> bool:
    """Tell whether the folder has a regular file `name`.

    Raises:
        ValueError: it is a link out of the folder, other than the hub cache's own links to its blobs.
    """
    file = folder / name
    if not file.is_file():
        return False
    if file.is_symlink():
        target, home = file.resolve(), folder.resolve()
        in_cache = home.parent.name == "snapshots" and home.parent.parent / "blobs" in target.parents
        if home not in target.parents and not in_cache:
            raise ValueError(f"{file} is a link to {target}, outside the checkpoint's folder; put a copy there instead")
    return True


def read_text(folder: Path, name: str) -> str:
    """Return the content of the text file `name`, or raise ValueError where it is too large or no UTF-8."""
    file = folder / name
    if not has_file(folder, name):
        raise FileNotFoundError(f"{folder} has no file {name}")
    if (size := file.stat().st_size) > MAX_JSON:
        raise ValueError(f"{file} has {size:,} bytes; at most {MAX_JSON:,} are accepted")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no UTF-8 text ({error.reason} at byte {error.start}); download it again"
        ) from error


def read_json(folder: Path, name: str) -> Mapping[str, Any]:
    """Return the JSON object in the file `name`, or raise ValueError that names the file and the place."""
    file = folder / name
    try:
        value = json.loads(read_text(folder, name))
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply; download it again") from error
    except ValueError as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds a JSON {type(value).__name__}, not an object; download it again")
    return value


def find_weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files, checked against the index and their own headers.

    Raises:
        FileNotFoundError: there are none, or shards named by the index are missing.
        ValueError: a safetensors file is truncated or damaged, or the index names files elsewhere.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if has_file(folder, index.name):
            shards = _read_index(folder, index.name)
        elif has_file(folder, name):
            shards = [name]
        else:
            continue
        missing = [s for s in shards if not has_file(folder, s)]
        if missing or not shards:
            raise FileNotFoundError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files that {index.name} names: "
                f"{', '.join(missing[:5]) or 'none named'}; download them again"
            )
        files = tuple(folder / s for s in shards)
        for file in files:
            if file.suffix == ".safetensors":
                read_header(file)
        return files
    raise FileNotFoundError(f"{folder} has no model.safetensors and no pytorch_model.bin, whole or in shards")


def _read_index(folder: Path, name: str) -> list[str]:
    shards = read_json(folder, name).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{folder / name} has no weight_map of tensors to file names; download it again")
    for shard in set(shards.values()):
        if Path(shard).name != shard or "\\" in shard or Path(shard).suffix not in (".safetensors", ".bin"):
            raise ValueError(f"{folder / name} names {shard!r}, which is no weight file in its own folder")
    return sorted(set(shards.values()))


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """Return a safetensors file's tensors: name -> {"dtype", "shape", "data_offsets"}; ValueError if it is damaged."""
    header, length = _read_header(file)
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    size = file.stat().st_size
    try:
        end = 8 + length + _data_size(tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error or 'no header'}; download it again") from error
    if end != size:
        raise ValueError(f"{file} has {size:,} bytes where its header says {end:,}: truncated; download it again")
    return tensors


def read_metadata(file: Path) -> dict[str, str]:
    """Return the texts in a safetensors file's header; ValueError if it is damaged."""
    metadata = _read_header(file)[0].get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Return the header as it stands and its length in bytes."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size - 8, _MAX_HEADER):
                raise ValueError("the header is cut off")
            header = json.loads(stream.read(length))
            if not isinstance(header, dict):
                raise ValueError("the header is no object")
            return header, length
    except RecursionError as error:
        raise ValueError(f"{file} is damaged: its header is nested too deeply; download it again") from error
    except (struct.error, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error or 'no header'}; download it again") from error


def _data_size(tensors: Mapping[str, Mapping[str, Any]]) -> int:
    """Return where the data end; ValueError unless the tensors follow one another without gap or overlap."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        shape, (start, stop) = tensor["shape"], tensor["data_offsets"]
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in (*shape, start, stop)):
            raise ValueError(f"tensor {name} has the shape {shape} at {start} to {stop}")
        if start != end:
            raise ValueError(f"tensor {name} begins at byte {start} where the one before ends at {end}")
        bits = _DTYPE_BITS.get(tensor["dtype"])
        if bits and math.prod(shape) * bits != (stop - start) * 8:
            raise ValueError(f"tensor {name} of shape {shape} and dtype {tensor['dtype']} has {stop - start} bytes")
        end = stop
    return end


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer.json whose replacement rules blow a short text up to an enormous one.

    Raises:
        ValueError: they do, or the file is too large or no JSON.
    """
    tokenizer = read_json(folder, "tokenizer.json")
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if (growth := _growth(tokenizer.get(part))) > _MAX_GROWTH:
            raise ValueError(f"the {part} in {folder / 'tokenizer.json'} makes a text {growth:.3g} times as long")


def _growth(step: Any) -> float:
    """Return how many times as long a text can become by a step of a tokenizer."""
    if isinstance(step, list):
        return math.prod((_growth(inner) for inner in step), start=1.0)
    if not isinstance(step, Mapping):
        return 1.0
    inner = math.prod((_growth(value) for value in step.values() if isinstance(value, (list, Mapping))), start=1.0)
    if step.get("type") != "Replace":
        return inner
    pattern = step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    return inner * max(1.0, len(str(step.get("content", ""))) / len(text or " "))
