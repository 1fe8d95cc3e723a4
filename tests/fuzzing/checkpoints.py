"""Targets: the files of a checkpoint that are read before a weight is: configs, and the headers of weight files."""
# ruff: noqa: E501

from __future__ import annotations

import json
import struct
import tempfile
from collections import Counter
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzzing.mutation import TEXTS, mutated, mutated_json
from tests.fuzzing.target import CORPUS, Target, attempt

_NAMES = ("config", "tokenizer_config", "generation_config", "preprocessor_config", "index")
_FILES = {"index": "model.safetensors.index.json"}
_WORDS = (
    "model_type architectures version llama minicpm minicpm3 minicpmv minicpmo qwen2 qwen3 hidden_size num_hidden_layers "
    "num_attention_heads num_key_value_heads vocab_size rope_scaling rope_parameters rope_type longrope yarn linear factor "
    "long_factor short_factor original_max_position_embeddings hidden_act silu fatrelu quantization_config quant_method "
    "bitsandbytes gptq awq load_in_4bit bnb_4bit_quant_type text_config vision_config slice_config eos_token_id auto_map "
    "chat_template torch_dtype dtype num_experts tie_word_embeddings scale_emb weight_map model.safetensors "
    "model-00001-of-00002.safetensors image_size patch_size query_num default"
).split()
_SAFETENSORS = [
    b'"dtype":"F32"', b'"BF16"', b'"shape":[', b'"data_offsets":[0,', b"]", b"}", b"{", b"null", b"true", b"-1", b"1e9",
    b"99999999999999999999", b'"__metadata__":{"a":1}', b'"a":{}', b"\xff", b"[" * 100, b"NaN",
]  # fmt: skip
_GGUF = [
    b"GGUF", b"general.architecture", b"general.alignment", b"split.count", b"llama", b"minicpm", b"clip", b"mmproj",
    b"llama.block_count", b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges", b"tokenizer.chat_template", b"\xff\xfe",
    *(kind.to_bytes(4, "little") for kind in range(14)), b"\x09\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0",
]  # fmt: skip


@lru_cache(maxsize=1)
def _folder() -> Path:
    from tests.toy import write_tokenizer

    folder = Path(tempfile.mkdtemp(prefix="minicpm-fuzz-"))
    write_tokenizer(folder)
    return folder


def _check_config(example: Any) -> Counter[str]:
    from minicpm_core.checkpoints import load_tokenizer, open_checkpoint
    from minicpm_core.files import find_weight_files
    from minicpm_core.quantization import stored_quantization

    seen: Counter[str] = Counter()
    if not isinstance(example, dict):
        return seen
    folder = _folder()
    for name in _NAMES:
        file = folder / _FILES.get(name, f"{name}.json")
        file.unlink(missing_ok=True)
        if name in example:
            file.write_text(json.dumps(example[name]), encoding="utf-8")
    attempt(lambda: find_weight_files(folder), seen)
    checkpoint = attempt(lambda: open_checkpoint(folder), seen)
    if checkpoint is None:
        return seen
    attempt(lambda: checkpoint.family.translate(checkpoint.config), seen)
    attempt(lambda: checkpoint.family.notice(checkpoint.config), seen)
    attempt(lambda: stored_quantization(checkpoint.config), seen)
    attempt(lambda: checkpoint.generation_config, seen)
    attempt(lambda: load_tokenizer(checkpoint), seen)
    if vision := checkpoint.family.vision:
        attempt(lambda: import_module(vision.module).load_pictures(checkpoint), seen)
    return seen


def _check_safetensors(data: Any) -> Counter[str]:
    from minicpm_core.files import read_header, read_metadata

    seen: Counter[str] = Counter()
    file = _folder() / "fuzzed.safetensors"
    file.write_bytes(data)
    attempt(lambda: read_metadata(file), seen)
    if attempt(lambda: read_header(file), seen) is None:
        return seen
    for mapped in (True, False):
        attempt(partial(_read_all, file, mapped), seen)
    return seen


def _read_all(file: Path, mapped: bool) -> None:
    from minicpm_core.weights import open_tensors

    with open_tensors((file,), mapped=mapped) as tensors:
        for tensor in tensors.values():
            assert tuple(tensor[...].shape) == tensor.shape


def _check_gguf(data: Any) -> Counter[str]:
    from minicpm_core.gguf.checkpoint import open_gguf
    from minicpm_core.gguf.header import read_header
    from minicpm_core.gguf.tokenizer import read_tokenizer

    seen: Counter[str] = Counter()
    file = _folder() / "fuzzed.gguf"
    file.write_bytes(data)
    attempt(lambda: read_header(file), seen)
    checkpoint = attempt(lambda: open_gguf(file), seen)
    if checkpoint is not None:
        attempt(lambda: checkpoint.family.translate(checkpoint.config), seen)
        attempt(lambda: read_tokenizer(checkpoint), seen)
    return seen


def _seeds(name: str) -> list[Any]:
    files = sorted((CORPUS / name).glob("seed-*"))
    return [json.loads(file.read_bytes()) if file.suffix == ".json" else file.read_bytes() for file in files]


FIELDS: list[dict[str, Any]] = [
    {
        "general.architecture": "llama", "general.name": "MiniCPM5", "general.alignment": 32, "llama.block_count": 1,
        "llama.embedding_length": 8, "llama.attention.head_count": 2, "llama.attention.head_count_kv": [1, 1],
        "llama.context_length": 64, "llama.rope.freq_base": 10000.0, "split.count": 1, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": ["a", "b", "ab", "<s>", "</s>"],
        "tokenizer.ggml.token_type": [1, 1, 1, 3, 3], "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 3, "tokenizer.ggml.eos_token_id": 4, "x.flag": True,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    },
    {
        "general.architecture": "minicpm", "general.name": "MiniCPM", "minicpm.block_count": 1,
        "minicpm.attention.head_count": 2, "minicpm.embedding_length": 8, "minicpm.context_length": 64,
        "minicpm.expert_count": 0, "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "a", "▁a"],
        "tokenizer.ggml.scores": [0.0, -1.0, -2.0], "tokenizer.ggml.token_type": [2, 1, 1],
        "tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.eos_token_ids": [1],
    },
]  # fmt: skip


def write_gguf(fields: Any) -> bytes:
    """Return a GGUF file with any fields, of a tensor that every model has."""
    stored = fields if isinstance(fields, dict) else {}
    tensor = write_text("token_embd.weight") + struct.pack("<I2QIQ", 2, 8, 5, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(stored))
    head += b"".join(write_text(name) + write_field(value) for name, value in stored.items()) + tensor
    return head + bytes(-len(head) % 32) + bytes(160)


def write_text(text: str) -> bytes:
    """Return a text as GGUF has it."""
    data = text.encode(errors="surrogatepass")
    return struct.pack("<Q", len(data)) + data


def write_field(value: Any) -> bytes:
    """Return the kind and the value of a field."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Iq", 11, max(min(value, 2**63 - 1), -(2**63)))
    if isinstance(value, float):
        return struct.pack("<Id", 12, value)
    if isinstance(value, list) and value:
        kinds = [write_field(part) for part in value]
        if len({kind[:4] for kind in kinds}) == 1:
            return struct.pack("<I", 9) + kinds[0][:4] + struct.pack("<Q", len(kinds)) + b"".join(k[4:] for k in kinds)
        return write_field([str(part) for part in value])
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, 0)
    return struct.pack("<I", 8) + write_text(str(value))


CONFIGS = Target("configs", st.deferred(lambda: mutated_json(_seeds("configs"), [*_WORDS, *TEXTS])), _check_config)
SAFETENSORS = Target(
    "safetensors", st.deferred(lambda: mutated(_seeds("safetensors"), _SAFETENSORS)), _check_safetensors
)
GGUF = Target(
    "gguf",
    st.deferred(
        lambda: st.one_of(mutated(_seeds("gguf"), _GGUF), mutated_json(FIELDS, [*_WORDS, *FIELDS[0]]).map(write_gguf))
    ),
    _check_gguf,
)
