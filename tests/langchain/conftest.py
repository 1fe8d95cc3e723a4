"""What the LangChain tests share: loaded toy models, a scripted engine, and a counter of tokens and events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk

from langchain_minicpm import ChatMiniCPM, MiniCPMLLM, build_index, load_index
from langchain_minicpm.vectorstores import MiniCPMChroma
from minicpm_core import Chunk, Engine
from minicpm_core.rag import RagSettings
from tests.toy import write_llama
from tests.toy_families import write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # models this small are slowed down by threads that wait for each other


@pytest.fixture(scope="session")
def other_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkpoint, which answers differently."""
    return write_llama(tmp_path_factory.mktemp("other") / "minicpm5-other", seed=1)


TOYS: dict[str, Callable[[Path], Path]] = {
    "minicpm5": lambda folder: write_llama(folder, max_position_embeddings=4096),
    "python": lambda folder: write_family(folder, "minicpm4", max_position_embeddings=4096),
    "qwen3_coder": lambda folder: write_native(folder, "minicpmv4_6"),
    "hermes": lambda folder: write_minicpmv(folder, "4.5", max_position_embeddings=4096),
    "json": lambda folder: write_family(folder, "minicpm", max_position_embeddings=4096),
}
"""By syntax of tool calls: what writes a random checkpoint of a family that has it, with room for tools."""


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("toys")
    return {name: write(folder / f"toy-{name}") for name, write in TOYS.items()}


@pytest.fixture
def chat(toy: Path) -> ChatMiniCPM:
    return ChatMiniCPM(model=toy, temperature=0, max_tokens=16)


@pytest.fixture
def llm(toy: Path) -> MiniCPMLLM:
    return MiniCPMLLM(model=toy, temperature=0, max_tokens=16)


@pytest.fixture
def engine(chat: ChatMiniCPM) -> Engine:
    """The engine that `chat` and `llm` share."""
    return chat.load_engine()


def add(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """The message that a stream adds up to."""
    return chunks[0] + chunks[1:]


class ScriptedEngine:
    """Says the given chunks, and keeps what it was asked."""

    context_window = 512
    model = None

    def __init__(self, *chunks: Chunk, name: str = "scripted") -> None:
        self.chunks = chunks
        self.checkpoint = SimpleNamespace(name=name)
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.batches: list[tuple[int, int, dict[str, Any]]] = []

    def stream(self, messages: Any, **options: Any) -> Iterator[Chunk]:
        self.asked.append((messages, options))
        yield from self.chunks

    def prepare(self, messages: Any, **options: Any) -> None:
        if "refuse" in str(messages):
            raise ValueError("refused")

    def generate_batch(self, prompts: list[Any], *, batch_size: int, **options: Any) -> list[Chunk]:
        """Answer each prompt with its last message's text behind the script."""
        self.batches.append((len(prompts), batch_size, options))
        return [sum(self.chunks, Chunk(f"{prompt[-1]['content']}: ")) for prompt in prompts]

    async def agenerate_batch(self, prompts: list[Any], **options: Any) -> list[Chunk]:
        return self.generate_batch(prompts, **options)

    async def astream(self, messages: Any, **options: Any) -> AsyncIterator[Chunk]:
        for chunk in self.stream(messages, **options):
            yield chunk


class Recorder(BaseCallbackHandler):
    """Keeps what the callbacks are told."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.started: list[dict[str, Any]] = []
        self.prompts: list[Any] = []
        self.ends: list[Any] = []
        self.errors: list[BaseException] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.started.append(kwargs)
        self.prompts.extend(messages)

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        self.started.append(kwargs)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ends.append(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


TEXTS = {
    "lamp.txt": "The Aurora desk lamp has a warranty of two years. It costs 35 EUR and weighs 800 grams.",
    "returns.txt": "Goods may be returned within fourteen days. The customer pays for the parcel.",
    "staff.txt": "Anna Keller leads the warehouse in Hamburg. Her office opens at eight in the morning.",
    "zh.txt": "台灯的保修期为两年。北京的仓库由王芳负责。",
}


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four short files, one of them Chinese."""
    folder = tmp_path_factory.mktemp("documents")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def store(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniCPMChroma]:
    """An index of these files, made with the demo embeddings."""
    folder = tmp_path_factory.mktemp("index")
    settings = replace(RagSettings.demo(), k=4)
    build_index(documents, persist_directory=folder, embeddings="demo", settings=settings)
    chroma = load_index(folder)
    yield chroma
    chroma.index.close()
