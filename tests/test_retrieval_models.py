"""Embedding and reranking checkpoints against the formula written out in plain torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from minicpm_core.retrieval_models import EmbeddingModel, RerankerModel
from tests.toy_families import write_family

TEXTS = ["The lamp has a warranty of two years.", "保修期为两年", "a", "Question: What is the name of the city? " * 6]


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def hidden_states(folder: Path, ids: list[int], *, causal: bool) -> Any:
    """Return the last hidden states of one text, computed as the official code does it, step by step."""
    import torch

    state, config = read_state(folder)
    state = {name.removeprefix("llm.").removeprefix("model."): value.float() for name, value in state.items()}
    heads, groups, layers = (
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["num_hidden_layers"],
    )
    size = config["hidden_size"] // heads
    frequencies = 10000.0 ** -(torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(len(ids)).float(), frequencies).repeat(1, 2)

    def norm(x: Any, name: str) -> Any:
        return x * (x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]).rsqrt() * state[f"{name}.weight"]

    def rotate(x: Any) -> Any:
        half = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], dim=-1)
        return x * angles.cos() + half * angles.sin()

    x = state["embed_tokens.weight"][ids] * config["scale_emb"]
    branch = config["scale_depth"] / math.sqrt(layers)
    for i in range(layers):
        at = f"layers.{i}"
        y = norm(x, f"{at}.input_layernorm")
        q, k, v = (
            (y @ state[f"{at}.self_attn.{part}_proj.weight"].T).view(len(ids), n, size).transpose(0, 1)
            for part, n in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k, v = rotate(q), rotate(k).repeat_interleave(heads // groups, 0), v.repeat_interleave(heads // groups, 0)
        scores = q @ k.transpose(1, 2) / math.sqrt(size)
        if causal:
            scores = scores.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf)
        y = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(ids), -1)
        x = x + branch * (y @ state[f"{at}.self_attn.o_proj.weight"].T)
        y = norm(x, f"{at}.post_attention_layernorm")
        gate, up = (y @ state[f"{at}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + branch * ((torch.nn.functional.silu(gate) * up) @ state[f"{at}.mlp.down_proj.weight"].T)
    return norm(x, "norm")


def weighted_mean(hidden: Any) -> Any:
    import torch

    weights = torch.arange(1, hidden.shape[0] + 1).float()[:, None]
    return torch.nn.functional.normalize((hidden * weights).sum(0) / weights.sum(), dim=0)


def rename(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors")


def without_prefix(state: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("model."): value for name, value in state.items() if not name.startswith("lm_head")}


@pytest.mark.parametrize("bare", [False, True])
def test_embeddings_are_the_weighted_mean_without_causal_mask(bare: bool, tmp_path: Path) -> None:
    import torch

    folder = write_family(tmp_path, "minicpm")
    if bare:  # as saved from the class without a head
        rename(folder, without_prefix)
    model = EmbeddingModel(folder, dtype="float32", batch_size=3)
    vectors = model.embed_documents(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = [0, *model._tokenizer.encode(text, add_special_tokens=False)]
        expected = weighted_mean(hidden_states(folder, ids, causal=False))
        assert (torch.tensor(vector) - expected).abs().max() < 1e-5, text
        assert math.isclose(sum(x * x for x in vector), 1, rel_tol=1e-5)
    assert model.embed_query("a") == pytest.approx(model.embed_documents(["Query: a"])[0], abs=1e-6)


def test_instructions_stand_before_the_query_only(tmp_path: Path) -> None:
    model = EmbeddingModel(write_family(tmp_path, "minicpm"), dtype="float32", instruction="Find the answer.")
    expected = model.embed_documents(["Instruction: Find the answer. Query: a"])[0]
    assert model.embed_query("a") == pytest.approx(expected, abs=1e-6)
    assert model.embed_documents(["a"])[0] != pytest.approx(expected, abs=1e-3)


def test_vectors_can_be_cut_and_keep_length_one(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "minicpm")
    whole = EmbeddingModel(folder, dtype="float32").embed_documents(TEXTS)[0]
    cut = EmbeddingModel(folder, dtype="float32", dimensions=16).embed_documents(TEXTS)[0]
    length = math.sqrt(sum(x * x for x in whole[:16]))
    assert cut == pytest.approx([x / length for x in whole[:16]], abs=1e-6)
    with pytest.raises(ValueError, match="dimensions is 65; accepted: 1 to 64"):
        EmbeddingModel(folder, dimensions=65)


def test_the_tokenizers_own_special_tokens_are_kept(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    folder = write_family(tmp_path, "minicpm4")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|im_end|>", special_tokens=[("<s>", 0), ("<|im_end|>", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    model = EmbeddingModel(folder, dtype="float32")
    assert model._encode("a b")[0] == 0
    assert model._encode("a b")[-1] == 3
    long = model._encode("word " * 2000)
    assert (len(long), long[0], long[-1]) == (model.max_tokens, 0, 3)
    model.embed_documents(["word " * 2000])


def test_the_text_side_of_a_vision_embedder_is_causal(tmp_path: Path) -> None:
    import torch

    folder = write_family(tmp_path, "minicpm", tie_word_embeddings=False)
    rename(folder, lambda state: {f"llm.{name}": value for name, value in state.items()} | {"vpm.x": torch.ones(1)})
    config = json.loads((folder / "config.json").read_text())
    change = {"model_type": "minicpmv", "hidden_size": 64, "query_num": 64, "slice_mode": True, "version": "2.0"}
    (folder / "config.json").write_text(json.dumps(config | change))
    model = EmbeddingModel(folder, dtype="float32")
    assert model.max_tokens == 256
    query = "Represent this query for retrieving relevant documents: Where?"
    ids = [0, *model._tokenizer.encode(query, add_special_tokens=False)]
    expected = weighted_mean(hidden_states(folder, ids, causal=True))
    assert (torch.tensor(model.embed_query("Where?")) - expected).abs().max() < 1e-5
    (folder / "config.json").write_text(json.dumps(config | change | {"is_causal": False}))
    expected = weighted_mean(hidden_states(folder, ids, causal=False))
    assert (torch.tensor(EmbeddingModel(folder, dtype="float32").embed_query("Where?")) - expected).abs().max() < 1e-5


def write_reranker(folder: Path) -> Path:
    import torch

    write_family(folder, "minicpm")
    torch.manual_seed(7)
    rename(folder, lambda state: state | {"score.weight": torch.randn(1, 64)})
    return folder


def test_scores_come_from_the_first_token_of_query_and_document(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path)
    model = RerankerModel(folder, dtype="float32", batch_size=2, instruction="Find it.")
    state, _ = read_state(folder)
    scores = model.score("Where?", TEXTS)
    query = model._tokenizer.encode("Instruction: Find it. Query: Where?", add_special_tokens=False)
    for text, score in zip(TEXTS, scores, strict=True):
        ids = [0, *query, 1, *model._tokenizer.encode(text, add_special_tokens=False)]
        expected = hidden_states(folder, ids, causal=False)[0] @ state["score.weight"][0]
        assert score == pytest.approx(float(expected), abs=1e-4), text
    assert model.score("Where?", []) == []
    squashed = model.score("Where?", TEXTS, normalize=True)
    assert squashed == pytest.approx([1 / (1 + math.exp(-score)) for score in scores], abs=1e-5)


def test_long_pairs_are_cut_to_the_models_length(tmp_path: Path) -> None:
    model = RerankerModel(write_reranker(tmp_path), dtype="float32")
    assert model.max_tokens == 256
    pair = model._pair([5] * 1000, [6] * 1000)
    assert pair == [0, *[5] * 128, 1, *[6] * 126]
    assert model.score("Where? " * 500, ["There. " * 500]) != []


@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_quantised_models_give_about_the_same(quantization: str, tmp_path: Path) -> None:
    import torch

    pytest.importorskip("bitsandbytes")
    folder = write_family(tmp_path, "minicpm")
    plain = EmbeddingModel(folder, dtype="float32").embed_documents(TEXTS)
    small = EmbeddingModel(folder, dtype="float32", quantization=quantization).embed_documents(TEXTS)
    assert torch.nn.functional.cosine_similarity(torch.tensor(plain), torch.tensor(small)).min() > 0.9


def test_other_checkpoints_are_refused(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(ValueError, match="model_type 'llama' is none of: MiniCPM-Embedding"):
        EmbeddingModel(toy)
    with pytest.raises(ValueError, match=r"score.weight of a reranker has the shape \(1, 64\); .* it is missing"):
        RerankerModel(write_family(tmp_path, "minicpm"))
    with pytest.raises(MemoryError, match="needs"):
        EmbeddingModel(tmp_path, memory_limit="1MiB")
    with pytest.raises(ValueError, match="batch_size is 0"):
        EmbeddingModel(tmp_path, batch_size=0)


def test_a_released_model_is_loaded_again(tmp_path: Path) -> None:
    model = EmbeddingModel(write_family(tmp_path, "minicpm"))
    vector = model.embed_query("a")
    model.release()
    assert model.model is None
    assert model.embed_query("a") == vector
