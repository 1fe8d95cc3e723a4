"""Target: what stands behind the fields of a GGUF file, places and numbers of its tensors, for us and for llama.cpp."""

from __future__ import annotations

import atexit
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.checkpoints import FIELDS, write_field, write_text
from tests.fuzzing.target import CORPUS, Target, attempt

_ALIGNMENT = 32
_EXTREMES = (0, 1, 2, 7, 9, 31, 33, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 32)
_FILLS = ("00", "ff", "7f", "0000c07f", "0000807f", "ffff7f7f", "01")
"""Bytes that are repeated as numbers: NaN, infinity and the largest float among them."""
_LANGUAGE: dict[str, Any] = FIELDS[0] | {
    "llama.feed_forward_length": 16, "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": 5,
}  # fmt: skip
_WORDS = frozenset(name for name, value in _LANGUAGE.items() if isinstance(value, int) and not isinstance(value, bool))
_ROLES = {
    "token_embd.weight": (5, 8), "output_norm.weight": (8,), "output.weight": (5, 8), "blk.0.attn_norm.weight": (8,),
    **{f"blk.0.attn_{part}.weight": (8, 8) for part in ("q", "k", "v", "output")}, "blk.0.ffn_norm.weight": (8,),
    "blk.0.ffn_gate.weight": (16, 8), "blk.0.ffn_up.weight": (16, 8), "blk.0.ffn_down.weight": (8, 16),
}  # fmt: skip
_SIGHT = {
    "v.patch_embd.weight": (4, 3, 2, 2), "v.blk.0.ffn_down.weight": (8, 4), "v.blk.0.ffn_up.weight": (4, 8),
    **{f"resampler.attn.{part}.weight": (4, 4) for part in "qkv"}, "resampler.proj.weight": (4, 8),
    "resampler.query": (3, 4),
}  # fmt: skip


def make_body(shapes: dict[str, tuple[int, ...]], kind: int = 0) -> dict[str, Any]:
    """Return a good body: tensors in order, 32-bit or 16-bit floats."""
    tensors, place = [], 0
    for name, shape in shapes.items():
        size = (2 if kind else 4) * math.prod(shape)
        tensors.append({"name": name, "dims": list(reversed(shape)), "kind": kind, "offset": place})
        place += size + -size % _ALIGNMENT
    return {"tensors": tensors, "bytes": place, "alignment": None, "fill": "00"}


BODIES_SEEDS = {"language": make_body(_ROLES), "sight": make_body(_SIGHT), "sight-half": make_body(_SIGHT, 1)}


def write_body(body: dict[str, Any]) -> bytes:
    """Return the file."""
    seeing = any(str(tensor["name"]).startswith("v.") for tensor in body["tensors"])
    fields = {"general.architecture": "clip"} if seeing else _LANGUAGE
    fields = {name: value for name, value in fields.items() if name not in ("general.alignment", "split.count")}
    head = b"".join(write_text(name) + _field(name, value) for name, value in fields.items())
    count = len(fields)
    if body["alignment"] is not None:
        head += write_text("general.alignment") + struct.pack("<II", 4, body["alignment"])
        count += 1
    for tensor in body["tensors"]:
        dims = tensor["dims"]
        form = f"<I{len(dims)}QIQ"
        head += write_text(tensor["name"]) + struct.pack(form, len(dims), *dims, tensor["kind"], tensor["offset"])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(body["tensors"]), count) + head
    head += bytes(-len(head) % (body["alignment"] or _ALIGNMENT if (body["alignment"] or 1) < 4096 else _ALIGNMENT))
    fill = bytes.fromhex(body["fill"])
    return head + (fill * (body["bytes"] // len(fill) + 1))[: body["bytes"]]


def _field(name: str, value: Any) -> bytes:
    """Return a field as llama.cpp wants it: whole numbers and floats of 32 bits."""
    if name in _WORDS:
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, list) and value and isinstance(value[0], int):
        return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    return write_field(value)


@st.composite
def _changed(draw: st.DrawFn) -> dict[str, Any]:
    """A good body with up to four changes."""
    body = json.loads(json.dumps(BODIES_SEEDS[draw(st.sampled_from(sorted(BODIES_SEEDS)))]))
    numbers = st.one_of(st.sampled_from(_EXTREMES), st.integers(0, 4096))
    for _ in range(draw(st.integers(0, 4))):
        tensors = body["tensors"]
        tensor = draw(st.sampled_from(tensors))
        way = draw(st.sampled_from("offset step dims rank kind name drop order bytes alignment fill".split()))
        if way == "offset":
            tensor["offset"] = draw(numbers)
        elif way == "step":
            tensor["offset"] = max(0, tensor["offset"] + 32 * draw(st.integers(-3, 3)))
        elif way == "dims" and tensor["dims"]:
            tensor["dims"][draw(st.integers(0, len(tensor["dims"]) - 1))] = draw(numbers)
        elif way == "rank":
            tensor["dims"] = draw(st.lists(st.sampled_from((0, 1, 2, 4, 5, 8, 16)), max_size=6))
        elif way == "kind":
            tensor["kind"] = draw(st.one_of(st.integers(0, 41), st.sampled_from((255, 2**31, 2**32 - 1))))
        elif way == "name":
            tensor["name"] = draw(st.sampled_from([*_ROLES, *_SIGHT, "", "x" * 70, "blk.99.attn_q.weight"]))
        elif way == "drop" and len(tensors) > 1:
            tensors.remove(tensor)
        elif way == "order":
            tensors.reverse()
        elif way == "bytes":
            body["bytes"] = max(0, body["bytes"] + draw(st.sampled_from((-4096, -33, -1, 1, 32, 4096))))
        elif way == "alignment":
            body["alignment"] = draw(st.sampled_from((0, 1, 3, 8, 16, 31, 64, 2**20, 2**31, 2**32 - 1)))
        elif way == "fill":
            body["fill"] = draw(st.sampled_from(_FILLS))
    return body  # type: ignore[no-any-return]


class LlamaCpp:
    """llama.cpp in a process of its own, which it may end: files are loaded, and a token is read."""

    _CODE = """
import sys
from pathlib import Path
from minicpm_core.gguf.model import LlamaCppModel
for line in sys.stdin:
    try:
        model = LlamaCppModel(Path(line.strip()), context_window=16, batch=8, threads=1, gpu_layers=0)
        model.read([0, 1], 0, 1)
        model.close()
        print("read", flush=True)
    except (ValueError, MemoryError, RuntimeError):
        print("refused", flush=True)
"""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def load(self, file: Path) -> str:
        """Return "read" or "refused"; AssertionError where the process ended."""
        if self._process is None:
            command, pipe = [sys.executable, "-c", self._CODE], subprocess.PIPE
            given: dict[str, Any] = {"cwd": CORPUS.parent.parent, "env": os.environ | {"GGML_NO_BACKTRACE": "1"}}
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, **given
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{file}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if said not in ("read", "refused"):
            code = self.close()
            raise AssertionError(f"llama.cpp ended its process with {code}")
        return said

    def close(self) -> int:
        """End the process; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.communicate()
        return int(process.returncode)


_llama = LlamaCpp()
atexit.register(_llama.close)


@lru_cache(maxsize=1)
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="minicpm-fuzz-"))


def _check_body(body: Any) -> Counter[str]:
    from minicpm_core.gguf.header import read_header
    from minicpm_core.gguf.mmproj import open_projector

    seen: Counter[str] = Counter()
    file = _folder() / "fuzzed.gguf"
    data = write_body(body)
    file.write_bytes(data)
    header = attempt(lambda: read_header(file), seen)
    if header is None:
        return seen
    for name, (kind, start) in header.places.items():
        if kind < 2:
            assert start + (2 if kind else 4) * math.prod(header.tensors[name]) <= len(data)
    if header.architecture == "clip":
        for tensor in (attempt(lambda: open_projector(header), seen) or {}).values():
            attempt(lambda tensor=tensor: tensor[...], seen)
    elif find_spec("llama_cpp"):
        seen[_llama.load(file)] += 1
    return seen


BODIES = Target("gguf_bodies", st.deferred(_changed), _check_body)
