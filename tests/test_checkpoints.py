"""Weights and tokenizers in every form that they are published and saved in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core.copies import convert
from tests.toy_families import CONFIGS, official_state, write_family

FAMILIES = tuple(CONFIGS)
IDS = [[0, 30, 41, 52, 63, 30, 7, 99, 120, 31, 12, 44]]
CHAT = [{"role": "user", "content": "Hello, who are you?"}]


def logits_of(folder: Path, **options: Any) -> Any:
    import torch

    with minicpm_core.load(folder, **{"dtype": "float32", **options}) as engine, torch.inference_mode():
        return engine.model(input_ids=torch.tensor(IDS)).logits.float()


def read_config(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return value


def write_shards(folder: Path, *, pickled: bool, count: int = 3) -> None:
    """Replace model.safetensors by shards with an index."""
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    name, end = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    weight_map = {}
    for i in range(count):
        shard = f"{name}-{i + 1:05}-of-{count:05}.{end}"
        part = dict(list(state.items())[i::count])
        weight_map |= dict.fromkeys(part, shard)
        torch.save(part, folder / shard) if pickled else save_file(part, folder / shard)
    (folder / f"{name}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def pickle_weights(folder: Path) -> None:
    """Replace model.safetensors by pytorch_model.bin."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("family", ["minicpm", "minicpm-moe", "minicpm5"])
@pytest.mark.parametrize("form", ["pickle", "pickle shards", "shards"])
def test_every_form_of_weights_gives_the_same_logits(family: str, form: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, family)
    expected = logits_of(folder)
    if form == "pickle":
        pickle_weights(folder)
    else:
        write_shards(folder, pickled=form == "pickle shards")
    assert logits_of(folder).equal(expected)


def test_the_old_pickle_format_is_read_too(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = write_family(tmp_path, "minicpm")
    expected = logits_of(folder)
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()
    assert logits_of(folder).equal(expected)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_weights_are_those_that_were_stored(dtype: str, pickled: bool, tmp_path: Path) -> None:
    import torch

    folder = write_family(tmp_path, "minicpm", dtype=dtype)
    if pickled:
        pickle_weights(folder)
    expected = official_state("minicpm", CONFIGS["minicpm"] | {"vocab_size": read_config(folder)["vocab_size"]}, 0)
    with minicpm_core.load(folder, dtype="float32") as engine:
        for name, value in engine.model.state_dict().items():
            if name in expected:
                assert value.dtype is torch.float32
                assert value.equal(expected[name].to(getattr(torch, dtype)).float()), name
    with minicpm_core.load(folder, dtype="bfloat16") as engine:
        assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_save_pretrained_writes_loads_again(family: str, tmp_path: Path) -> None:
    import torch

    folder = write_family(tmp_path / "published", family)
    with minicpm_core.load(folder, dtype="float32") as engine:
        engine.model.save_pretrained(tmp_path / "saved")
        engine.tokenizer.save_pretrained(tmp_path / "saved")
        prompt = engine.encode(CHAT)
        with torch.inference_mode():
            expected = engine.model(input_ids=torch.tensor(IDS)).logits
    with minicpm_core.load(tmp_path / "saved", dtype="float32") as engine:
        assert engine.family.name == family
        assert engine.encode(CHAT) == prompt
        with torch.inference_mode():
            assert engine.model(input_ids=torch.tensor(IDS)).logits.equal(expected)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "minicpm-s"])
def test_convert_writes_what_stock_transformers_opens(family: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = write_family(tmp_path / "published", family)
    out = convert(folder, tmp_path / "stock")
    assert "auto_map" not in (out / "config.json").read_text()
    stock = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=False, dtype=torch.float32).eval()
    with torch.inference_mode():
        assert (stock(input_ids=torch.tensor(IDS)).logits - logits_of(folder)).abs().max() <= 1e-6
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    with minicpm_core.load(folder) as engine:
        text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        assert text == engine.render(CHAT)
        assert tokenizer.encode(text, add_special_tokens=False) == engine.tokenize(text)


def test_convert_writes_the_names_that_older_versions_know(tmp_path: Path) -> None:
    from safetensors import safe_open

    out = convert(write_family(tmp_path / "published", "minicpm-moe"), tmp_path / "stock")
    with safe_open(out / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "model.layers.0.block_sparse_moe.input_linear.weight" in names
    assert "model.layers.1.block_sparse_moe.router.layer.weight" in names


def test_convert_refuses_what_no_stock_class_computes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no stock class of transformers has the activation fatrelu_0\.2"):
        convert(write_family(tmp_path / "published", "minicpm-s"), tmp_path / "stock")


def test_convert_overwrites_nothing(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "published", "minicpm")
    with pytest.raises(FileExistsError, match="is not empty"):
        convert(folder, folder)


def test_a_stored_copy_of_a_tied_head_is_left_out(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_family(tmp_path, "minicpm")
    expected = logits_of(folder)
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = torch.zeros_like(state["model.embed_tokens.weight"])
    save_file(state, folder / "model.safetensors")
    assert logits_of(folder).equal(expected)


def test_buffers_of_old_checkpoints_are_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_family(tmp_path, "minicpm")
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(state, folder / "model.safetensors")
    logits_of(folder)
    assert not caplog.records
    state["model.extra.weight"] = torch.ones(8)
    save_file(state, folder / "model.safetensors")
    logits_of(folder)
    assert "ignored tensors: model.extra.weight" in caplog.text


@pytest.mark.parametrize(
    ("family", "missing", "sentence"),
    [
        ("minicpm", "model.layers.1.mlp.up_proj.weight", "lacks 1 tensors .* model.layers.1.mlp.up_proj.weight"),
        ("minicpm5", "lm_head.weight", "lacks 1 tensors .* lm_head.weight"),
        ("minicpm-moe", "model.layers.1.mlp.experts.2.w3.weight", "lacks tensor .*experts.2.w3.weight"),
        ("minicpm-moe", "model.layers.1.mlp.gate.weight", "lacks 1 tensors .*router.weight"),
    ],
)
def test_a_missing_tensor_is_named(family: str, missing: str, sentence: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_family(tmp_path, family)
    state = load_file(folder / "model.safetensors")
    del state[missing]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=sentence):
        minicpm_core.load(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers in config.json is 3, and the files hold 2"),
        ({"vocab_size": 10_000}, r"the embedding in the files has the shape .* config.json says \(10000, 64\)"),
        ({"intermediate_size": 128}, "do not fit its config.json"),
    ],
)
def test_files_that_do_not_fit_the_config_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm")
    (folder / "config.json").write_text(json.dumps(read_config(folder) | change))
    with pytest.raises(ValueError, match=sentence):
        minicpm_core.load(folder)


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", MemoryError, "did not suffice"),
        ("CUDA out of memory. Tried to allocate 9 GiB", MemoryError, "did not suffice to load"),
        ("size mismatch for model.norm.weight", ValueError, "do not fit its config.json: size mismatch"),
        ("the model is out of order", RuntimeError, "^the model is out of order$"),
    ],
)
def test_what_went_wrong_in_torch_is_told_as_what_it_is(
    text: str, kind: type[Exception], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(text)

    folder = write_family(tmp_path, "minicpm5")
    monkeypatch.setattr(transformers.LlamaForCausalLM, "from_pretrained", fail)
    with pytest.raises(kind, match=sentence):
        minicpm_core.load(folder)


def test_bos_is_put_first_once_for_chats_and_plain_texts(tmp_path: Path) -> None:
    for name in ("minicpm", "minicpm5"):  # the template of the second writes it itself
        with minicpm_core.load(write_family(tmp_path / name, name)) as engine:
            for prompt in (CHAT, "Hello", "<s>Hello", ""):
                ids = engine.encode(prompt)
                assert ids[0] == 0
                assert ids.count(0) == 1


def sentencepiece_model(folder: Path, *, prefix: bool) -> None:
    """Train tokenizer.model, with the settings of MiniCPM-2B's."""
    import sentencepiece

    from tests.toy import CORPUS

    (folder / "corpus.txt").write_text("\n".join(CORPUS * 4), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )


@pytest.mark.parametrize("prefix", [False, True])
def test_tokenizer_model_is_used_where_there_is_no_tokenizer_json(prefix: bool, tmp_path: Path) -> None:
    import sentencepiece

    folder = write_family(tmp_path, "minicpm")
    own = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    sentencepiece_model(folder, prefix=prefix)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    with minicpm_core.load(folder) as engine:
        for text in ("The lamp has a warranty", "保修期为两年 <用户>", "a  b\n\tc 😀"):
            assert engine.encode(text) == [1, *pieces.encode(text)], text
    (folder / "tokenizer.json").write_text(own)
    with minicpm_core.load(folder) as engine:
        assert engine.encode("The lamp")[1:] != pieces.encode("The lamp")


def test_a_folder_without_tokenizer_says_so(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer.json nor tokenizer.model"):
        minicpm_core.load(folder)


def test_the_hub_caches_links_are_followed(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "published", "minicpm")
    cache = tmp_path / "models--openbmb--x"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(file, cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    assert logits_of(snapshot).equal(logits_of(folder))
