"""Folders made to do harm: nothing in them runs, nothing hangs, and the error is one clear line."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import templates
from tests.toy_families import write_family

CHAT = [{"role": "user", "content": "Hello"}]
LIMIT = 60.0
"""Seconds in which every refusal must come, on a busy machine; most take none."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_family(tmp_path / "checkpoint", "minicpm")


_LOOP, _END = "{% for i in range(99999) %}", "{% endfor %}"


def refused(folder: Path, sentence: str, kind: type[Exception] = ValueError) -> None:
    """Check that `load` refuses the folder in one line, and soon."""
    started = time.monotonic()
    with pytest.raises(kind, match=sentence) as caught:
        minicpm_core.load(folder)
    assert time.monotonic() - started < LIMIT
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def change_json(file: Path, change: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change), encoding="utf-8")


def write_header(file: Path, header: Any, data: bytes = b"") -> None:
    """Write a safetensors file by hand."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


class _Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.witness, "run")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_pickled_weights_is_not_run(zipped: bool, folder: Path) -> None:
    import torch

    witness = folder.parent / "witness"
    (folder / "model.safetensors").unlink()
    attack = {"model.norm.weight": _Attack(witness)}
    torch.save(attack, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    refused(folder, "holds code and not only tensors; nothing in it was run")
    assert not witness.exists()
    with (folder / "pytorch_model.bin").open("wb") as stream:
        pickle.dump(_Attack(witness), stream)
    refused(folder, "holds code and not only tensors; nothing in it was run")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["modeling_minicpm.py", "configuration_minicpm.py", "custom_generate/generate.py"])
def test_python_files_in_the_folder_are_not_run(name: str, folder: Path) -> None:
    witness = folder.parent / "witness"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"open({str(witness)!r}, 'w').write('run')")
    for file in ("config.json", "tokenizer_config.json"):
        change_json(
            folder / file,
            {
                "auto_map": {
                    "AutoConfig": "configuration_minicpm.Config",
                    "AutoModelForCausalLM": "modeling_minicpm.Model",
                    "AutoTokenizer": ["modeling_minicpm.Tokenizer", "modeling_minicpm.Tokenizer"],
                }
            },
        )
    with minicpm_core.load(folder) as engine:
        engine.generate(CHAT, sampling=minicpm_core.Sampling(max_new_tokens=1))
    assert not witness.exists()


def test_an_adapter_config_in_the_folder_loads_nothing_else(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/nowhere", "peft_type": "LORA"}')
    with minicpm_core.load(folder) as engine:
        assert engine.family.name == "minicpm"


def test_an_enormous_tokenizer_is_not_read(folder: Path) -> None:
    with (folder / "tokenizer.json").open("r+b") as stream:
        stream.truncate(8 * 2**30)  # a sparse file
    refused(folder, r"tokenizer.json has 8,589,934,592 bytes; at most")


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
def test_a_tokenizer_that_blows_texts_up_is_refused(part: str, folder: Path) -> None:
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    change_json(folder / "tokenizer.json", {part: {"type": "Sequence", f"{part}s": [double] * 40}})
    refused(folder, rf"the {part} in .*tokenizer.json makes a text 1.1e\+12 times as long")


def test_a_tokenizer_that_is_an_archive_is_refused(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tokenizer.json", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tokenizer.json", b"0" * 10_000_000)
    refused(folder, r"tokenizer.json is (no UTF-8 text|not valid JSON)")


@pytest.mark.parametrize(
    "content", ["{}", '{"model": null}', '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}']
)
def test_a_tokenizer_of_nonsense_is_refused(content: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(content)
    refused(folder, "the tokenizer in .* cannot be read")


def test_compressed_weights_are_not_unpacked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 50_000_000)
    refused(folder, r"pytorch_model.bin is compressed")


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads"])
@pytest.mark.parametrize("value", [-1, 0, 10**30, "64", None, [64]])
def test_sizes_in_the_config_that_cannot_be_are_refused(key: str, value: Any, folder: Path) -> None:
    change_json(folder / "config.json", {key: value})
    refused(folder, f"{key} in config.json is")


def test_a_model_that_is_much_larger_than_its_files_is_not_built(folder: Path) -> None:
    change_json(folder / "config.json", {"num_hidden_layers": 1000})
    refused(folder, "num_hidden_layers in config.json is 1000, and the files hold 2")


TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"a": TENSOR | {"shape": [-2, -2]}}, r"tensor a has the shape \[-2, -2\]"),
        ({"a": TENSOR | {"shape": [2**62, 4]}}, "tensor a of shape .* has 16 bytes"),
        ({"a": TENSOR | {"shape": [True, 4]}}, "tensor a has the shape"),
        ({"a": TENSOR | {"data_offsets": [-16, 0]}}, "tensor a has the shape .* at -16 to 0"),
        ({"a": TENSOR | {"data_offsets": [0, 10**15]}}, "has 1000000000000000 bytes"),
        ({"a": TENSOR | {"data_offsets": [16, 0]}}, "tensor a begins at byte 16"),
        ({"a": TENSOR, "b": TENSOR}, "tensor b begins at byte 0 where the one before ends at 16"),
        ({"a": TENSOR, "b": TENSOR | {"data_offsets": [8, 24]}}, "tensor b begins at byte 8"),
        ({"a": TENSOR | {"data_offsets": "ab"}}, "is damaged"),
        ({"a": []}, "is damaged"),
        ([], "is damaged"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_headers_that_lie_are_refused(header: Any, sentence: str, folder: Path) -> None:
    write_header(folder / "model.safetensors", header, b"\0" * 16)
    refused(folder, sentence)


def test_a_header_longer_than_its_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refused(folder, "the header is cut off")


@pytest.mark.parametrize(
    "shard", ["../../etc/passwd", "/etc/passwd", "../secret.safetensors", "a/b.safetensors", "x.py"]
)
def test_an_index_that_names_files_elsewhere_is_refused(shard: str, folder: Path) -> None:
    (folder.parent / "secret.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index = {"weight_map": {"model.norm.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "which is no weight file in its own folder")


@pytest.mark.parametrize("index", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": ["b"]}}])
def test_an_index_of_nonsense_is_refused(index: Any, folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "has no weight_map")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_links_out_of_the_folder_are_not_followed(name: str, folder: Path) -> None:
    outside = folder.parent / f"outside-{name}"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    refused(folder, f"{name} is a link to .*, outside the checkpoint's folder")


def test_a_cache_like_folder_does_not_excuse_links_elsewhere(folder: Path) -> None:
    snapshot = folder.parent / "models--a--b" / "snapshots" / "1"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    outside = folder.parent / "outside.safetensors"
    (snapshot / "model.safetensors").rename(outside)
    (snapshot / "model.safetensors").symlink_to(outside)
    refused(snapshot, "outside the checkpoint's folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, "has no|neither", FileNotFoundError)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("options", [{}, {"quantization": "int4"}, {"dtype": "bfloat16"}])
def test_weights_that_are_no_numbers_are_refused(value: float, options: dict[str, Any], folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    if "quantization" in options:
        pytest.importorskip("bitsandbytes")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor model.layers.1.mlp.up_proj.weight holds numbers that are not finite"):
        minicpm_core.load(folder, **options)


@pytest.mark.parametrize(
    "template",
    [
        _LOOP * 3 + _END * 3,
        "{% macro again(n) %}" + _LOOP * 2 + _END * 2 + "{% endmacro %}{{ again(1) }}{{ again(2) }}",
    ],
)
def test_a_chat_template_that_does_not_end_is_ended(
    template: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(templates, "TIME_LIMIT", 0.5)
    change_json(folder / "tokenizer_config.json", {"chat_template": template})
    with minicpm_core.load(folder, family="minicpm") as engine:
        with pytest.raises(ValueError, match=r"the chat template did not end within 0.5 seconds"):
            engine.generate(CHAT)
        deadline = time.monotonic() + LIMIT
        while any(t.name == "minicpm chat template" for t in threading.enumerate()):
            assert time.monotonic() < deadline, "the template still runs"
            time.sleep(0.05)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch witness') }}",
        "{{ messages.append(1) }}",
        "{{ ''.format.__self__ }}",
        "{{ '{0.__class__.__base__}'.format(messages) }}",
        "{{ lipsum.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ raise_exception('never') }}",
        "{% if %}",
    ],
)
def test_a_chat_template_stays_in_its_sandbox(template: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    change_json(folder / "tokenizer_config.json", {"chat_template": template})
    with minicpm_core.load(folder, family="minicpm") as engine:
        with pytest.raises(ValueError, match="the chat template cannot be used") as caught:
            engine.generate(CHAT)
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "witness").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content", ['{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 100_000, "[]", "", '{"a": 1' + "0" * 10_000 + "}"]
)
def test_json_that_is_nested_or_cut_off_is_refused(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    refused(folder, f"{name} (is nested too deeply|is not valid JSON|holds a JSON)")


def test_a_chat_template_of_another_type_is_refused(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", {"chat_template": {"a": "b"}})
    refused(folder, "chat_template in .* is a dict")
