"""The checkpoint that ships with the package calls tools: exact calls, none where none fits, and words for a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parent.parent / "minicpm_core" / "demo"
NO_TOOL = {"en": "None of the tools fits this request.", "zh": "没有适合这个请求的工具。"}


def tool(name: str, description: str, /, **types: str) -> dict[str, Any]:
    """Return a tool as LangChain renders a function with required parameters."""
    properties = {key: {"type": kind} for key, kind in types.items()}
    required = {"required": list(types)} if types else {}
    parameters = {"properties": properties} | required | {"type": "object"}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


AGENT = [
    tool("calculator", "Evaluate an arithmetic expression.", expression="string"),
    tool("search_documents", "Search the documents.", query="string"),
    tool("read_file", "Read a text file.", path="string"),
]
CUSTOMER = [tool("create_customer", "Create a customer.", name="string")]
MULTIPLY = [tool("multiply", "Multiply two numbers.", a="integer", b="integer")]
WEATHER = [tool("get_weather", "Get the weather at a location.", location="string")]


@pytest.fixture(scope="module")
def checkpoint() -> Any:
    """Return the tokenizer and the network in float32."""
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    model = LlamaForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()
    return PreTrainedTokenizerFast.from_pretrained(DEMO), model


def complete(checkpoint: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **options: Any) -> str:
    """Return the greedy answer to `messages` with `tools`."""
    import torch

    tokenizer, model = checkpoint
    prompt = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True, **options)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :]).removesuffix("<|im_end|>")


def call(name: str, /, **arguments: str) -> str:
    """Return a call as the chat template writes it."""
    values = "".join(f'<param name="{key}">{value}</param>' for key, value in arguments.items())
    return f'<function name="{name}">{values}</function>'


REQUESTS = [
    ("What is 12 * 7?", AGENT, call("calculator", expression="12 * 7")),
    ("Calculate 12 * 7.", AGENT, call("calculator", expression="12 * 7")),
    ("计算 12 * 7。", AGENT, call("calculator", expression="12 * 7")),
    (
        "Search the documents for the warranty of the lamp.",
        AGENT,
        call("search_documents", query="the warranty of the lamp"),
    ),
    ("搜索文档：台灯的保修期。", AGENT, call("search_documents", query="台灯的保修期")),
    ("Read the file notes.txt.", AGENT, call("read_file", path="notes.txt")),
    ("读取文件notes.txt。", AGENT, call("read_file", path="notes.txt")),
    ("Create a customer with name 'Ada'.", CUSTOMER, call("create_customer", name="Ada")),
    ("创建一个名为“王小明”的客户。", CUSTOMER, call("create_customer", name="王小明")),
    ("Create a customer named 'さくら商店'.", CUSTOMER, call("create_customer", name="さくら商店")),
    ("What is 31 times 8?", MULTIPLY, call("multiply", a="31", b="8")),
    ("What is the weather in San Francisco, CA?", WEATHER, call("get_weather", location="San Francisco, CA")),
    ("What is the value of magic()? Use the tool.", [tool("magic", "Return a magic value.")], call("magic")),
]


@pytest.mark.parametrize(("request_text", "tools", "expected"), REQUESTS)
def test_calls_the_tool_with_the_values_of_the_request(
    checkpoint: Any, request_text: str, tools: list[dict[str, Any]], expected: str
) -> None:
    assert complete(checkpoint, [{"role": "user", "content": request_text}], tools) == expected


def test_calls_without_thinking_too(checkpoint: Any) -> None:
    messages = [{"role": "user", "content": "Calculate 12 * 7."}]
    assert complete(checkpoint, messages, AGENT, enable_thinking=False) == call("calculator", expression="12 * 7")


@pytest.mark.parametrize(("request_text", "language"), [("Write a poem.", "en"), ("写一首诗。", "zh")])
def test_calls_nothing_when_no_tool_fits(checkpoint: Any, request_text: str, language: str) -> None:
    assert complete(checkpoint, [{"role": "user", "content": request_text}], AGENT) == NO_TOOL[language]


def test_greets_with_tools_too(checkpoint: Any) -> None:
    assert "MiniCPM" in complete(checkpoint, [{"role": "user", "content": "Hello"}], AGENT)


RESULTS = [
    ("What is 12 * 7?", "calculator", {"expression": "12 * 7"}, "84", "The result is 84."),
    ("计算 12 * 7。", "calculator", {"expression": "12 * 7"}, "84", "结果是84。"),
    ("Read the file notes.txt.", "read_file", {"path": "notes.txt"}, "Buy milk today.", "Buy milk today."),
    (
        "Read the file notes.txt.",
        "read_file",
        {"path": "notes.txt"},
        "Error: The file was not found.",
        "Error: The file was not found.",
    ),
    (
        "Search the documents for the warranty of the lamp.",
        "search_documents",
        {"query": "the warranty of the lamp"},
        "[1] The warranty of the lamp is two years.",
        "[1] The warranty of the lamp is two years.",
    ),
]


@pytest.mark.parametrize(("request_text", "name", "arguments", "result", "expected"), RESULTS)
def test_tells_the_result(
    checkpoint: Any, request_text: str, name: str, arguments: dict[str, str], result: str, expected: str
) -> None:
    messages = [
        {"role": "user", "content": request_text},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
        },
        {"role": "tool", "content": result},
    ]
    assert complete(checkpoint, messages, AGENT) == expected
