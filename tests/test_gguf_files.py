"""What needs no llama.cpp: reading GGUF files, recognising families, tokenizers, plans and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minicpm_core import load
from minicpm_core.chat_templates import CHATML_TEMPLATE, PLAIN_CHATML_TEMPLATE, ROLES_TEMPLATE
from minicpm_core.gguf import installation
from minicpm_core.gguf.checkpoint import open_gguf
from minicpm_core.gguf.engine import gguf_limits, plan_gguf
from minicpm_core.gguf.header import read_header
from minicpm_core.gguf.tokenizer import read_tokenizer
from minicpm_core.memory import plan
from tests.fuzzing.bodies import BODIES_SEEDS, write_body
from tests.toy import write_llama
from tests.toy_gguf import convert, write_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("gguf") / "toy")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return convert(folder, folder.parent / "toy.gguf")


def test_the_head_of_a_file_is_read(file: Path, folder: Path) -> None:
    header = read_header(file)
    config = json.loads((folder / "config.json").read_text())
    assert header.architecture == "llama"
    assert header.field("attention.head_count_kv") == 2
    assert header.field("attention.layer_norm_rms_epsilon") == pytest.approx(config["rms_norm_eps"])
    assert header.tensors["token_embd.weight"] == (config["vocab_size"], 64)
    assert header.tensors["blk.1.ffn_down.weight"] == (64, 128)
    assert header.metadata["tokenizer.ggml.tokens"][:2] == ["<s>", "</s>"]


@pytest.mark.parametrize("size", [3, 20, 400])
def test_a_file_that_is_cut_off_is_refused(file: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"download it again|is no GGUF file"):
        read_header(cut)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("offset", 2, 2**63), r"ends at byte 9,223,372,036,854,77.*, and the file at"),
        (("offset", 2, 33), "no multiple of 32"),
        (("offset", 2, 0), "lies within"),
        (("dims", 0, [8, 2**62]), "has the shape"),
        (("dims", 0, []), "has the shape"),
        (("dims", 0, [1, 1, 1, 1, 1]), "has the shape"),
        (("kind", 0, 8), "has rows of 8 numbers in a format of blocks of 32"),
        (("name", 1, "token_embd.weight"), "is there twice"),
    ],
)
def test_tensors_that_cannot_be_where_they_are_said_to_be_are_refused(
    tmp_path: Path, change: tuple[str, int, object], sentence: str
) -> None:
    body = json.loads(json.dumps(BODIES_SEEDS["language"]))
    file = tmp_path / "body.gguf"
    file.write_bytes(write_body(body))
    assert len(read_header(file).tensors) == len(body["tensors"])
    field, number, value = change
    body["tensors"][number][field] = value
    file.write_bytes(write_body(body))
    with pytest.raises(ValueError, match=sentence):
        read_header(file)


@pytest.mark.parametrize(
    ("alignment", "good"), [(32, True), (16, False), (64, False), (3, False), (0, False), (2**31, False)]
)
def test_alignments_that_are_none_are_refused(tmp_path: Path, alignment: int, good: bool) -> None:
    file = tmp_path / "body.gguf"
    file.write_bytes(write_body(BODIES_SEEDS["language"] | {"alignment": alignment}))
    if good:
        assert len(read_header(file).tensors) == len(BODIES_SEEDS["language"]["tensors"])
    else:
        with pytest.raises(ValueError, match=r"general.alignment is|no multiple of 64"):
            read_header(file)


def test_files_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.gguf"):
        open_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(ValueError, match=r"vision part \(mmproj\)"):
        open_gguf(write_gguf(tmp_path / "mmproj.gguf", {"general.architecture": "clip"}))
    with pytest.raises(ValueError, match="is an adapter"):
        open_gguf(write_gguf(tmp_path / "a.gguf", {"general.architecture": "llama", "general.type": "adapter"}))
    with pytest.raises(ValueError, match="one of 2 parts; join them first"):
        open_gguf(write_gguf(tmp_path / "p.gguf", {"general.architecture": "llama", "split.count": 2}))


@pytest.mark.parametrize(
    ("changes", "path", "family"),
    [
        ({"tokenizer.chat_template": CHATML_TEMPLATE}, "m.gguf", "minicpm5"),
        ({"tokenizer.chat_template": ROLES_TEMPLATE}, "m.gguf", "minicpm-llama"),
        ({"general.name": "MiniCPM-V 4.5", "general.architecture": "qwen3"}, "m.gguf", "minicpm-v-4.5"),
        ({"general.architecture": "qwen2"}, "MiniCPM-o-2_6-Q4_K_M.gguf", "minicpm-v-2.6"),
        ({"general.architecture": "minicpm", "tokenizer.chat_template": ROLES_TEMPLATE}, "m.gguf", "minicpm"),
        ({"general.architecture": "minicpm", "tokenizer.chat_template": CHATML_TEMPLATE}, "m.gguf", "minicpm4.1"),
        ({"general.architecture": "minicpm3", "tokenizer.chat_template": PLAIN_CHATML_TEMPLATE}, "m.gguf", "minicpm3"),
    ],
)
def test_the_family_is_told_from_the_fields(
    folder: Path, tmp_path: Path, changes: dict[str, str], path: str, family: str
) -> None:
    name = changes.get("general.architecture", "llama")
    written = convert(folder, tmp_path / path, **changes, **{f"{name}.block_count": 2})
    checkpoint = open_gguf(written)
    assert (checkpoint.family.name, checkpoint.family.vision) == (family, None)


def test_another_architecture_needs_a_family(folder: Path, tmp_path: Path) -> None:
    changes = {"general.architecture": "gemma", "gemma.block_count": 2}
    other = convert(folder, tmp_path / "other.gguf", **changes)
    with pytest.raises(ValueError, match=r"general\.architecture 'gemma'.*name it with family=.*minicpm5"):
        open_gguf(other)
    assert open_gguf(other, "minicpm4").family.name == "minicpm4"


@pytest.mark.parametrize(
    "text", ["hello 你好", " The  lamp\n\n costs 35 EUR.", "<|im_start|>user\n<think>it's", "naïve — 🙂\t12345", ""]
)
def test_the_tokenizer_is_that_of_the_checkpoint(file: Path, folder: Path, text: str) -> None:
    from transformers import PreTrainedTokenizerFast

    own, other = read_tokenizer(open_gguf(file)), PreTrainedTokenizerFast.from_pretrained(folder)
    ids = own.encode(text, add_special_tokens=False)
    assert ids == other.encode(text, add_special_tokens=False)
    assert own.decode(ids, clean_up_tokenization_spaces=False) == text
    assert (own.bos_token, own.eos_token, own.chat_template) == ("<s>", "</s>", "<s>" + CHATML_TEMPLATE)


def test_sentence_pieces_are_merged_by_score(folder: Path, tmp_path: Path) -> None:
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "\u2581",
        "a",
        "b",
        "c",
        "ab",
        "bc",
        "\u2581ab",
        *(f"<0x{n:02X}>" for n in range(256)),
    ]
    scores = [0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0, *[0.0] * 256]
    changes = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3, *[1] * 7, *[6] * 256],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": False,
    }
    tokenizer = read_tokenizer(open_gguf(convert(folder, tmp_path / "spm.gguf", **changes)))
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("abc ab", add_special_tokens=False)) == [
        "a",
        "bc",
        "\u2581ab",
    ]
    ids = tokenizer.encode("a</s>é", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "</s>", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "a</s>é"


def test_an_unknown_way_to_split_words_is_refused(folder: Path, tmp_path: Path) -> None:
    other = convert(folder, tmp_path / "pre.gguf", **{"tokenizer.ggml.pre": "default"})
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.pre is 'default'; accepted: gpt-2, .*minicpm5"):
        read_tokenizer(open_gguf(other))


def test_the_window_is_fitted_to_the_memory(file: Path) -> None:
    checkpoint = open_gguf(file)
    whole = plan_gguf(checkpoint, None, None)
    assert (whole.context_window, whole.weights) == (512, file.stat().st_size)
    assert whole.kv_cache == 512 * 2 * 2 * 2 * 2 * 16  # tokens, layers, keys and values, heads, bytes, size
    tight = plan_gguf(checkpoint, 300, None)
    smallest = plan_gguf(checkpoint, 300, tight.total - 1)
    assert smallest.prefill_chunk == 256
    assert smallest.fits
    assert not plan_gguf(checkpoint, None, 1000).fits
    with pytest.raises(ValueError, match="context_window is 513; this model accepts 1 to 512"):
        plan_gguf(checkpoint, 513, None)


def test_the_plan_of_a_file_is_asked_for_as_that_of_a_folder(file: Path) -> None:
    alone = plan(file, context_window=300, device="cpu")
    assert (alone.weights, alone.kv_cache, alone.embeddings) == (file.stat().st_size, 300 * 256, 0)
    beside = plan(file, memory_limit="16GiB", device="cpu", embeddings="demo")
    assert (beside.context_window, beside.limit, beside.fits) == (512, 2**34, True)
    assert beside.total == alone.total + 212 * 256 + beside.embeddings
    assert beside.embeddings > 2**20
    with pytest.raises(ValueError, match="is used as it was quantised"):
        plan(file, quantization="int4")
    with pytest.raises(ValueError, match="computed in its own formats"):
        plan(file, dtype="float32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int4"}, "is used as it was quantised"),
        ({"dtype": "float32"}, "computed in its own formats"),
        ({"adapter": "folder"}, "merge them into the checkpoint first"),
        ({"revision": "main"}, "belongs to a hub id"),
    ],
)
def test_what_a_file_cannot_have_is_refused(file: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(file, **options)  # type: ignore[arg-type]


def test_a_missing_library_is_told_with_the_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"DGGML_NATIVE=OFF .*pip install .*llama-cpp-python"):
        load(file, device="cpu")


def test_a_crash_is_told_with_the_command(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: True)
    monkeypatch.setattr(installation, "_PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    installation._probe.cache_clear()
    with pytest.raises(ImportError, match=r"crashes on this machine \(SIGSEGV\).*DGGML_NATIVE=OFF.*--force-reinstall"):
        installation.check_installation(file)
    installation._probe.cache_clear()
    monkeypatch.setattr(installation, "_PROBE", "import nothing_of_that_name")
    with pytest.raises(ImportError, match=r"cannot be used \(ModuleNotFoundError: .*nothing_of_that_name"):
        installation.check_installation(file)
    installation._probe.cache_clear()
    monkeypatch.setattr(installation, "_PROBE", "pass")
    installation.check_installation(file)
    installation._probe.cache_clear()


def test_not_enough_memory_is_told_before_anything_is_loaded(file: Path) -> None:
    with pytest.raises(MemoryError, match="the limit is"):
        load(file, device="cpu", memory_limit="100MiB")


def test_the_limits_are_known_before_the_model_is_loaded(file: Path) -> None:
    assert gguf_limits(str(file), "cpu", None, None, None) == (512, 2048)
    assert gguf_limits(str(file), "cpu", None, 300, "minicpm4") == (300, 1024)
