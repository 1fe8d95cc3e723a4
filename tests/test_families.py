"""The family table: recognition, config translation on the published numbers, real shapes, prompts."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import translation
from minicpm_core.activations import register_activation
from minicpm_core.chat_templates import CHATML_TEMPLATE, PLAIN_CHATML_TEMPLATE, ROLES_TEMPLATE
from minicpm_core.families import FAMILIES, find_family
from tests.toy_families import CONFIGS, write_family

TEXT_FAMILIES = tuple(CONFIGS)

MUP = {"scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4}
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "MiniCPM-2B": (
        "minicpm",
        MUP
        | {
            "architectures": ["MiniCPMForCausalLM"],
            "hidden_size": 2304,
            "intermediate_size": 5760,
            "num_hidden_layers": 40,
            "num_attention_heads": 36,
            "num_key_value_heads": 36,
            "vocab_size": 122753,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_scaling": None,
        },
    ),
    "MiniCPM-1B": (
        "minicpm",
        MUP
        | {
            "model_type": "minicpm",
            "hidden_size": 1536,
            "intermediate_size": 3840,
            "num_hidden_layers": 52,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "vocab_size": 73440,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        },
    ),
    "MiniCPM4-0.5B": (
        "minicpm4",
        MUP
        | {
            "model_type": "minicpm",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 73448,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "mup_denominator": 32,
            "eos_token_id": [2, 73440],
            "rope_scaling": {
                "rope_type": "longrope",
                "long_factor": [1.0] * 32,
                "short_factor": [1.0] * 32,
                "original_max_position_embeddings": 32768,
            },
        },
    ),
    "MiniCPM4-8B": (
        "minicpm4",
        MUP
        | {
            "model_type": "minicpm",
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "vocab_size": 73448,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "eos_token_id": [2, 73440],
            "rope_scaling": {
                "rope_type": "longrope",
                "long_factor": [1.0] * 64,
                "short_factor": [1.0] * 64,
                "original_max_position_embeddings": 32768,
            },
        },
    ),
    "MiniCPM-MoE-8x2B": (
        "minicpm-moe",
        MUP
        | {
            "architectures": ["MiniCPMForCausalLM"],
            "hidden_size": 2304,
            "intermediate_size": 5760,
            "num_hidden_layers": 40,
            "num_attention_heads": 36,
            "num_key_value_heads": 36,
            "vocab_size": 122753,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    "MiniCPM3-4B": (
        "minicpm3",
        MUP
        | {
            "model_type": "minicpm3",
            "hidden_size": 2560,
            "intermediate_size": 6400,
            "num_hidden_layers": 62,
            "num_attention_heads": 40,
            "num_key_value_heads": 40,
            "vocab_size": 73448,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "q_lora_rank": 768,
            "kv_lora_rank": 256,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 32,
            "eos_token_id": [2, 73440],
            "rope_scaling": {
                "type": "longrope",
                "long_factor": [1.0] * 16,
                "short_factor": [1.0] * 16,
                "original_max_position_embeddings": 32768,
            },
        },
    ),
    "MiniCPM5-1B": (
        "minicpm5",
        {
            "model_type": "llama",
            "hidden_size": 1536,
            "intermediate_size": 4608,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "vocab_size": 130560,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5e6,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": [1, 130073],
            "pad_token_id": 1,
        },
    ),
    "MiniCPM5-2B": (
        "minicpm5",
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "vocab_size": 130560,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
    ),
}
REAL["MiniCPM-S-1B"] = ("minicpm-s", REAL["MiniCPM-1B"][1] | {"hidden_act": "fatrelu", "hidden_act_param": 0.01})
REAL["MiniCPM-2B-128k"] = (
    "minicpm-128k",
    REAL["MiniCPM-2B"][1] | {"vocab_size": 127660, "tie_word_embeddings": False, "max_position_embeddings": 65536},
)
REAL["MiniCPM4.1-8B"] = ("minicpm4.1", REAL["MiniCPM4-8B"][1] | {"max_position_embeddings": 65536})
REAL["MiniCPM-2B-llama-format"] = (
    "minicpm-llama",
    {k: v for k, v in REAL["MiniCPM-2B"][1].items() if k not in MUP} | {"model_type": "llama", "architectures": None},
)
"""Numbers of the published config files; where a file was not at hand, those of the paper."""


def test_every_text_family_is_in_these_tests() -> None:
    table = {row.name for row in FAMILIES if getattr(row, "vision", None) is None}
    assert table == set(TEXT_FAMILIES) == {family for family, _ in REAL.values()}


@pytest.mark.parametrize("name", REAL)
def test_published_configs_are_recognised(name: str) -> None:
    family, config = REAL[name]
    own_template = find_family({}, "", family).chat_template
    assert find_family(config, own_template).name == family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("MiniCPM-2B", "minicpm"),
        ("MiniCPM-S-1B", "minicpm-s"),
        ("MiniCPM-MoE-8x2B", "minicpm-moe"),
        ("MiniCPM3-4B", "minicpm3"),
        ("MiniCPM4-8B", "minicpm4"),
        ("MiniCPM-2B-llama-format", "minicpm-llama"),
    ],
)
def test_families_are_recognised_without_a_template(name: str, family: str) -> None:
    assert find_family(REAL[name][1], "").name == family


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "minicpm_sala"}, "MiniCPM-SALA.*lightning attention.*use openbmb/MiniCPM4.1-8B"),
        ({"model_type": "minicpm", "mixer_types": ["lightning-attn"]}, "MiniCPM-SALA"),
        ({"model_type": "omnilmm"}, "OmniLMM-12B.*EVA-02.*use openbmb/MiniCPM-V-4.6"),
        ({"model_type": "bert"}, "no MiniCPM family has model_type 'bert'.*known families: .*minicpm5"),
        ({"model_type": "granite", "hidden_size": 8}, "no MiniCPM family"),  # IBM's own
        ({}, "no MiniCPM family has model_type ''"),
    ],
)
def test_what_is_not_loaded_says_why(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        find_family(config, "<|start_of_role|>")


@pytest.mark.parametrize(
    ("name", "embedding", "residual", "attention", "logits"),
    [
        ("MiniCPM-2B", 12, 0.2213594, 0.125, 9.0),
        ("MiniCPM-2B-128k", 12, 0.2213594, 0.125, 9.0),
        ("MiniCPM-MoE-8x2B", 12, 0.2213594, 0.125, 9.0),
        ("MiniCPM-1B", 12, 0.1941451, 0.125, 6.0),
        ("MiniCPM-S-1B", 12, 0.1941451, 0.125, 6.0),
        ("MiniCPM4-0.5B", 12, 0.2857738, 0.125, 4.0),
        ("MiniCPM4-8B", 12, 0.2474874, 0.0883883, 16.0),
        ("MiniCPM4.1-8B", 12, 0.2474874, 0.0883883, 16.0),
    ],
)
def test_factors_of_the_published_models(
    name: str, embedding: float, residual: float, attention: float, logits: float
) -> None:
    config = find_family({}, "", REAL[name][0]).translate(REAL[name][1])
    assert config.embedding_multiplier == embedding
    assert config.residual_multiplier == pytest.approx(residual, abs=1e-7)
    assert config.attention_multiplier == pytest.approx(attention, abs=1e-7)
    assert config.logits_scaling == logits


@pytest.mark.parametrize(
    ("name", "parameters", "precision"),
    [
        ("MiniCPM5-1B", 1_080_632_832, 0),
        ("MiniCPM5-2B", 2.52e9, 5e6),
        ("MiniCPM-2B", 2.72e9, 1e7),
        ("MiniCPM-2B-llama-format", 2.72e9 + 122753 * 2304, 1e7),  # untied: the folded head differs
        ("MiniCPM-2B-128k", 3.03e9, 1e7),
        ("MiniCPM-1B", 1.25e9 + 73440 * 1536, 1e7),
        ("MiniCPM-S-1B", 1.25e9 + 73440 * 1536, 1e7),
        ("MiniCPM-MoE-8x2B", 13.6e9 + 122753 * 2304, 5e7),
        ("MiniCPM3-4B", 4.07e9, 1e7),
        ("MiniCPM4-0.5B", 0.43e9, 5e6),
        ("MiniCPM4-8B", 8.2e9, 5e7),
        ("MiniCPM4.1-8B", 8.2e9, 5e7),
    ],
)
def test_real_shapes_have_the_published_number_of_parameters(name: str, parameters: float, precision: float) -> None:
    import torch
    import transformers

    family = find_family({}, "", REAL[name][0])
    config = family.translate(REAL[name][1])
    register_activation(config.hidden_act)
    with torch.device("meta"):
        model = getattr(transformers, family.model_class)(config)
    model.tie_weights()
    assert sum(p.numel() for p in set(model.parameters())) == pytest.approx(parameters, abs=precision)


def test_every_real_shape_is_counted() -> None:
    marks = test_real_shapes_have_the_published_number_of_parameters.pytestmark  # type: ignore[attr-defined]
    assert {values[0] for values in marks[0].args[1]} == set(REAL)


def test_missing_keys_take_the_official_defaults() -> None:
    config = {
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    granite = translation.to_granite(config)
    assert granite.tie_word_embeddings is True
    assert granite.num_key_value_heads == 4
    assert granite.max_position_embeddings == 2048
    assert granite.rms_norm_eps == 1e-6
    assert (granite.embedding_multiplier, granite.residual_multiplier, granite.logits_scaling) == (1, 0.5, 64)
    assert granite.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    latent = translation.to_latent(config)
    assert (latent.scale_emb, latent.scale_depth, latent.dim_model_base) == (1, 1, 1)
    assert latent.v_head_dim == 16
    assert latent.tie_word_embeddings is True
    assert translation.to_llama(config).tie_word_embeddings is False


def test_special_tokens_are_kept_lists_included() -> None:
    _, config = REAL["MiniCPM4-8B"]
    granite = translation.to_granite(config | {"bos_token_id": 1, "pad_token_id": 2})
    assert (granite.bos_token_id, granite.eos_token_id, granite.pad_token_id) == (1, [2, 73440], 2)


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_both_keys_of_the_rope_kind_are_read(key: str) -> None:
    _, config = REAL["MiniCPM-2B"]
    granite = translation.to_granite(config | {"rope_scaling": {key: "dynamic", "factor": 4.0}, "rope_theta": 2e4})
    assert granite.rope_parameters == {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 2e4}


@pytest.mark.parametrize("family", ["minicpm4", "minicpm3"])
def test_long_factors_hold_from_the_first_token_where_the_window_was_extended(family: str) -> None:
    config = CONFIGS[family]
    translate = find_family({}, "", family).translate
    same = translate(config).rope_parameters
    assert same["short_factor"] == config["rope_scaling"]["short_factor"] != same["long_factor"]
    assert same["attention_factor"] == 1
    longer = translate(config | {"max_position_embeddings": 1024}).rope_parameters
    assert longer["short_factor"] == longer["long_factor"] == config["rope_scaling"]["long_factor"]
    assert longer["attention_factor"] == pytest.approx(math.sqrt(1 + math.log(4) / math.log(256)))


def test_norms_inside_latent_attention_keep_their_own_epsilon(tmp_path: Path) -> None:
    with minicpm_core.load(write_family(tmp_path, "minicpm3"), dtype="float32") as engine:
        layer = engine.model.model.layers[0]
        assert layer.input_layernorm.variance_epsilon == 1e-5
        assert layer.self_attn.q_a_layernorm.variance_epsilon == 1e-6
        assert layer.self_attn.kv_a_layernorm.variance_epsilon == 1e-6


def test_fatrelu_is_zero_up_to_its_threshold(tmp_path: Path) -> None:
    import torch

    with minicpm_core.load(write_family(tmp_path, "minicpm-s"), dtype="float32") as engine:
        activation = engine.model.model.layers[0].mlp.act_fn
        assert activation(torch.tensor([-1.0, 0.1, 0.2, 0.3])).tolist() == pytest.approx([0, 0, 0, 0.3])
        assert engine.model.config.hidden_act == "fatrelu_0.2"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_size": -64}, "hidden_size in config.json is -64"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers in config.json is 1000000; at most"),
        ({"num_attention_heads": True}, "num_attention_heads in config.json is True"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"hidden_size": 66}, "hidden_size 66 in config.json is not a multiple"),
        ({"vocab_size": "600"}, "vocab_size in config.json is '600'"),
        ({"scale_emb": float("nan")}, "scale_emb in config.json is nan"),
        ({"dim_model_base": 0}, "dim_model_base in config.json is 0"),
        ({"rope_scaling": "longrope"}, "rope_scaling in config.json is 'longrope'"),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}}, "long_factor .* needs 8"),
        ({"rms_norm_eps": "small"}, "config.json is not accepted by GraniteConfig"),
    ],
)
def test_configs_that_cannot_be_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        translation.to_granite(CONFIGS["minicpm"] | change)


def test_nothing_but_known_keys_reaches_transformers() -> None:
    hostile = {"transformers_weights": "../x", "_attn_implementation": "kernels-community/x", "fusion_config": {"a": 1}}
    for family in ("minicpm", "minicpm5", "minicpm3", "minicpm-moe"):
        config = find_family({}, "", family).translate(CONFIGS[family] | hostile)
        assert not hasattr(config, "transformers_weights")
        assert not getattr(config, "fusion_config", None)
        assert config._attn_implementation != "kernels-community/x"


def test_sparse_attention_is_said_once_to_be_dense(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_family(tmp_path, "minicpm4.1")
    with caplog.at_level(logging.WARNING), minicpm_core.load(folder):
        lines = [r.getMessage() for r in caplog.records if "sparse_config" in r.getMessage()]
    assert len(lines) == 1
    assert "beyond 8192 tokens" in lines[0]


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "system", "content": "Answer in English."},
    {"role": "user", "content": " Hello "},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
    {"role": "assistant", "content": "A small one."},
    {"role": "user", "content": "你好"},
]


@pytest.mark.parametrize("name", TEXT_FAMILIES)
def test_every_family_loads_answers_and_takes_turns_of_one_role(name: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, name)
    with minicpm_core.load(folder, dtype="float32") as engine:
        assert engine.family.name == name
        prompt = engine.render(CHAT)
        places = [prompt.index(str(message["content"]).strip()) for message in CHAT]
        assert places == sorted(places)
        ids = engine.encode(CHAT)
        assert ids.count(0) == 1  # one BOS, at the beginning
        assert ids[0] == 0
        answer = engine.generate(CHAT, sampling=minicpm_core.Sampling(max_new_tokens=4, seed=1))
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(ids)


@pytest.mark.parametrize("name", TEXT_FAMILIES)
def test_the_familys_template_stands_in_for_a_missing_one(name: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, name)
    with minicpm_core.load(folder) as engine:
        expected = engine.encode(CHAT)
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    del tokenizer_config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    with minicpm_core.load(folder, family=name) as engine:
        assert engine.encode(CHAT) == expected


def test_prompts_are_the_official_ones() -> None:
    import jinja2

    def render(template: str, **options: Any) -> str:
        messages = [
            {"role": "system", "content": "S"},
            {"role": "user", "content": " a "},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
        return jinja2.Template(template).render(messages=messages, add_generation_prompt=True, **options)

    chatml = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n a <|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    chatml += "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    assert render(ROLES_TEMPLATE) == "S<用户>a<AI>b<用户>c<AI>"
    assert render(PLAIN_CHATML_TEMPLATE) == render(CHATML_TEMPLATE) == chatml
    assert render(CHATML_TEMPLATE, enable_thinking=True) == chatml + "<think>\n"
    assert render(CHATML_TEMPLATE, enable_thinking=False) == chatml + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("name", "sampling", "thinking"),
    [
        ("minicpm", (0.5, 0.8, 1.02), False),
        ("minicpm-llama", (0.3, 0.8, 1.02), False),
        ("minicpm3", (0.7, 0.7, 1.0), False),
        ("minicpm4", (0.7, 0.7, 1.0), False),
        ("minicpm4.1", (0.6, 0.95, 1.0), True),
        ("minicpm5", (0.7, 0.95, 1.0), True),
    ],
)
def test_recommended_sampling(name: str, sampling: tuple[float, ...], thinking: bool) -> None:
    family = find_family({}, "", name)
    row = family.sampling
    assert (row.temperature, row.top_p, row.repetition_penalty) == sampling
    assert row.top_k == 0
    assert family.thinking is thinking
