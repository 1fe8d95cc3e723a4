"""The checkpoint that ships with the package: layout, chat template, tokenizer and greedy answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minicpm_core.rag import REFUSALS, build_messages

DEMO = Path(__file__).parent.parent / "minicpm_core" / "demo"
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
TOOL_BLOCK = (
    "# Tools\n\nYou may call functions. Their signatures, one JSON object per line:\n<tools>\n"
    '{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}\n'
    '</tools>\n\nTo call a function, answer with <function name="NAME"><param name="KEY">VALUE</param></function>. '
    "Several calls may follow each other. A value with <, & or a line break stands in <![CDATA[ ]]>."
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return the checkpoint's tokenizer."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(DEMO)


@pytest.fixture(scope="module")
def model() -> Any:
    """Return the checkpoint's network in float32."""
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


def render(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    """Return the prompt text of `messages`."""
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def answer(tokenizer: Any, model: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    """Return the greedy answer to `messages`."""
    import torch

    prompt = render(tokenizer, messages, add_generation_prompt=True, **options)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_layout_is_complete_and_small() -> None:
    found = [path for path in DEMO.iterdir() if path.is_file()]
    assert {path.name for path in found} == FILES
    assert sum(path.stat().st_size for path in found) < 12_000_000


def test_config_is_the_official_layout() -> None:
    config = json.loads((DEMO / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["bos_token_id"], config["pad_token_id"]) == (0, 1)
    assert config["max_position_embeddings"] >= 4096
    assert "auto_map" not in config


def test_special_tokens_are_single_tokens(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(["<s>", "</s>"]) == [0, 1]
    stop = json.loads((DEMO / "config.json").read_text())["eos_token_id"]
    assert stop == [1, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    for text in (
        "<|im_start|>",
        "<think>",
        "</think>",
        "<tools>",
        "<tool_response>",
        "<function",
        "</param>",
        "[",
        "]",
        "7",
    ):
        assert len(tokenizer.encode(text, add_special_tokens=False)) == 1, text
    for character in "的保修期仓库谁文档":
        assert len(tokenizer.encode(character, add_special_tokens=False)) == 1, character


@pytest.mark.parametrize(
    "text",
    [
        "Plain text, with numbers 12.50 and (brackets) [3].",
        "保修期是 2 年，请写信到 a.b@example.com。",
        "tabs\tand\r\nline breaks \n\n  and   spaces ",
        "rare: 龘靐齉 🦊 ñandú Ελλάδα שלום",
    ],
)
def test_tokenizer_round_trip(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


def test_template_of_a_plain_chat(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert render(tokenizer, messages, add_generation_prompt=True) == (
        "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert render(tokenizer, parts) == "<s><|im_start|>user\nab<|im_end|>\n"


@pytest.mark.parametrize(
    ("options", "suffix"),
    [({}, ""), ({"enable_thinking": True}, "<think>\n"), ({"enable_thinking": False}, "<think>\n\n</think>\n\n")],
)
def test_template_thinking_switch(tokenizer: Any, options: dict[str, bool], suffix: str) -> None:
    prompt = render(tokenizer, [{"role": "user", "content": "Q"}], add_generation_prompt=True, **options)
    assert prompt == "<s><|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n" + suffix


def test_template_lists_tools_after_the_system_text(tokenizer: Any) -> None:
    user = {"role": "user", "content": "Q"}
    rest = TOOL_BLOCK + "<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
    assert render(tokenizer, [user], tools=[TOOL]) == "<s><|im_start|>system\n" + rest
    assert render(tokenizer, [{"role": "system", "content": "S"}, user], tools=[TOOL]) == (
        "<s><|im_start|>system\nS\n\n" + rest
    )
    marked = [{"role": "system", "content": "A<tool_def_sep>B"}, user]
    assert render(tokenizer, marked, tools=[TOOL]).startswith(f"<s><|im_start|>system\nA{TOOL_BLOCK}B<|im_end|>")


def test_template_of_calls_and_results(tokenizer: Any) -> None:
    calls = [
        {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "北京", "days": 2}}},
        {"type": "function", "function": {"name": "run", "arguments": {"code": "if a<b:\n pass"}}},
    ]
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "done"},
    ]
    assert render(tokenizer, messages, add_generation_prompt=True) == (
        "<s><|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
        '<function name="get_weather"><param name="city">北京</param><param name="days">2</param></function>'
        '<function name="run"><param name="code"><![CDATA[if a<b:\n pass]]></param></function><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<tool_response>\ndone\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_template_shows_reasoning_of_the_current_turn_only(tokenizer: Any) -> None:
    turn = {"role": "assistant", "content": "A", "reasoning_content": "R"}
    user = {"role": "user", "content": "Q"}
    assert "<think>\nR\n</think>\n\nA<|im_end|>" in render(tokenizer, [user, turn])
    assert "<think>" not in render(tokenizer, [user, turn, user])


def test_template_refuses_unknown_roles_and_images(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="unknown role: narrator"):
        render(tokenizer, [{"role": "narrator", "content": "x"}])
    with pytest.raises(Exception, match="reads text only"):
        render(tokenizer, [{"role": "user", "content": [{"type": "image", "url": "x"}]}])


EN_PASSAGES = (
    "The Falcon lamp weighs 450 grams and is made of brass.",
    "The battery of the Falcon lamp lasts 14 hours.",
    "The lease was signed by Maria Keller on 3 May 2021.",
)
ZH_PASSAGES = ("北京仓库由刘洋负责。", "台灯的保修期是两年。", "水泵每三个月要检查一次。")


@pytest.mark.parametrize(
    ("question", "passages", "right"),
    [
        ("How long does the battery of the Falcon lamp last?", EN_PASSAGES, 2),
        ("Who signed the lease?", EN_PASSAGES, 3),
        ("What does the Falcon lamp weigh?", EN_PASSAGES, 1),
        ("台灯的保修期是多久？", ZH_PASSAGES, 2),
        ("谁负责北京仓库？", ZH_PASSAGES, 1),
        ("水泵多久检查一次？", ZH_PASSAGES, 3),
    ],
)
def test_answers_with_the_number_and_text_of_the_passage(
    tokenizer: Any, model: Any, question: str, passages: tuple[str, ...], right: int
) -> None:
    assert answer(tokenizer, model, build_messages(question, passages)) == f"[{right}] {passages[right - 1]}"


def test_answers_without_thinking_too(tokenizer: Any, model: Any) -> None:
    messages = build_messages("Who signed the lease?", EN_PASSAGES)
    assert answer(tokenizer, model, messages, enable_thinking=False) == f"[3] {EN_PASSAGES[2]}"


@pytest.mark.parametrize(
    ("question", "passages", "language"),
    [("Where is the swimming pool?", EN_PASSAGES, "en"), ("经理的电话是多少？", ZH_PASSAGES, "zh")],
)
def test_refuses_in_the_language_of_the_question(
    tokenizer: Any, model: Any, question: str, passages: tuple[str, ...], language: Any
) -> None:
    assert answer(tokenizer, model, build_messages(question, passages)) == REFUSALS[language]


def test_greets(tokenizer: Any, model: Any) -> None:
    assert "MiniCPM" in answer(tokenizer, model, [{"role": "user", "content": "Hello"}])
    assert "MiniCPM" in answer(tokenizer, model, [{"role": "user", "content": "你是谁？"}])
