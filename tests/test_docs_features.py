"""The tables of features in docs/langchain say what the classes do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, BaseLLM

from langchain_minicpm import ChatMiniCPM, ChatMiniCPMV, MiniCPMLLM
from tests.toy_minicpmv import write_minicpmv
from tools.docs_blocks import ROOT

CHAT = (ROOT / "docs" / "langchain" / "chat.md").read_text(encoding="utf-8")
LLM = (ROOT / "docs" / "langchain" / "llm.md").read_text(encoding="utf-8")


def read_table(page: str, heading: str) -> dict[str, str]:
    """Return the first row of the table below a heading, by its columns."""
    lines = page.split(f"### {heading}\n", 1)[1].lstrip().splitlines()
    columns, cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], lines[2]))
    return dict(zip(columns, cells, strict=True))


def overrides(kind: type[Any], base: type[Any], *methods: str) -> bool:
    return all(getattr(kind, method) is not getattr(base, method) for method in methods)


def test_the_features_of_the_chat_model(tmp_path: Path) -> None:
    model = ChatMiniCPMV(model=write_minicpmv(tmp_path, "2.6"), temperature=0, max_tokens=4)
    profile: Any = model.profile
    answer = model.invoke("Hello!", logprobs=True)
    json_mode = model.with_structured_output({"title": "A", "type": "object"}, method="json_mode")
    has = {
        "Tool calling": profile["tool_calling"] and overrides(ChatMiniCPM, BaseChatModel, "bind_tools"),
        "Structured output": profile["structured_output"]
        and overrides(ChatMiniCPM, BaseChatModel, "with_structured_output"),
        "JSON mode": json_mode is not None,
        "Image input": profile["image_inputs"],
        "Audio input": profile["audio_inputs"],
        "Video input": profile["video_inputs"],
        "Token-level streaming": len(list(ChatMiniCPM(model="demo", temperature=0).stream("Hello!"))) > 20,
        "Native async": overrides(ChatMiniCPM, BaseChatModel, "_agenerate", "_astream"),
        "Token usage": answer.usage_metadata["output_tokens"] > 0,
        "Logprobs": len(answer.response_metadata["logprobs"]["content"]) == answer.usage_metadata["output_tokens"],
    }
    assert read_table(CHAT, "Model features") == {name: "✅" if value else "❌" for name, value in has.items()}


def test_a_text_model_sees_nothing() -> None:
    profile: Any = ChatMiniCPM(model="demo").profile
    assert (profile["image_inputs"], profile["video_inputs"], profile["reasoning_output"]) == (False, False, True)


@pytest.mark.parametrize(("page", "kind"), [(CHAT, ChatMiniCPM), (LLM, MiniCPMLLM)])
def test_the_details_of_the_classes(page: str, kind: type[BaseChatModel] | type[BaseLLM]) -> None:
    details = read_table(page, "Integration details")
    assert details.pop("Class").startswith(f"[{kind.__name__}]")
    assert details.pop("Package") == "`minicpm-integrations`, imported as `langchain_minicpm`"
    serializable = "✅" if kind.is_lc_serializable() else "❌"
    assert details == {"Local": "✅", "Serializable": serializable, "JS support": "❌"}
