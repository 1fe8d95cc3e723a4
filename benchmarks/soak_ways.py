"""The ways in which `benchmarks.soak` asks: the engine, LangChain's class, LlamaIndex's class."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, Protocol

from benchmarks.soak_cases import Case
from minicpm_core import Chunk, Engine


class Way(Protocol):
    """An interface to the engine; an answer is a `Chunk` or a text."""

    name: str
    nothing: Any
    """What no pieces add up to."""

    def takes(self, case: Case) -> bool:
        """Tell whether the case's options are those of this interface."""
        ...

    def answer(self, case: Case) -> Any:
        """Return the whole answer."""
        ...

    async def aanswer(self, case: Case) -> Any:
        """Do the same in asyncio."""
        ...

    def stream(self, case: Case) -> Generator[Any, None, None]:
        """Return the pieces of the answer."""
        ...

    async def astream(self, case: Case) -> AsyncGenerator[Any, None]:
        """Do the same in asyncio."""
        ...

    def add(self, answer: Any, piece: Any) -> Any:
        """Return the answer with one more piece."""
        ...


class _Engine:
    name, nothing = "engine", Chunk()

    def __init__(self, engine: Engine, timeout: float) -> None:
        self._engine, self._timeout = engine, timeout

    def takes(self, case: Case) -> bool:
        return True

    def answer(self, case: Case) -> Any:
        return self._engine.generate(case.messages, timeout=self._timeout, **case.options)

    async def aanswer(self, case: Case) -> Any:
        return await self._engine.agenerate(case.messages, timeout=self._timeout, **case.options)

    def stream(self, case: Case) -> Any:
        return self._engine.stream(case.messages, timeout=self._timeout, **case.options)

    async def astream(self, case: Case) -> Any:
        return self._engine.astream(case.messages, timeout=self._timeout, **case.options)

    def add(self, answer: Any, piece: Any) -> Any:
        return answer + piece


class _Texts:
    """What both frameworks' classes have in common here: texts and stop texts, and no other options."""

    nothing = ""

    def __init__(self, model: Any) -> None:
        self._model = model

    def takes(self, case: Case) -> bool:
        return not set(case.options) - {"sampling", "stop"}


class _LangChain(_Texts):
    name = "langchain"

    def answer(self, case: Case) -> Any:
        return self._model.invoke(case.text, stop=case.options.get("stop")).text

    async def aanswer(self, case: Case) -> Any:
        return (await self._model.ainvoke(case.text, stop=case.options.get("stop"))).text

    def stream(self, case: Case) -> Any:
        return self._model.stream(case.text, stop=case.options.get("stop"))

    async def astream(self, case: Case) -> Any:
        return self._model.astream(case.text, stop=case.options.get("stop"))

    def add(self, answer: Any, piece: Any) -> Any:
        return answer + piece.text


class _LlamaIndex(_Texts):
    name = "llamaindex"

    def answer(self, case: Case) -> Any:
        return self._model.complete(case.text, stop=case.options.get("stop")).text

    async def aanswer(self, case: Case) -> Any:
        return (await self._model.acomplete(case.text, stop=case.options.get("stop"))).text

    def stream(self, case: Case) -> Any:
        return self._model.stream_complete(case.text, stop=case.options.get("stop"))

    async def astream(self, case: Case) -> Any:
        return await self._model.astream_complete(case.text, stop=case.options.get("stop"))

    def add(self, answer: Any, piece: Any) -> Any:
        return piece.text  # all so far


def make_ways(engine: Engine, most: int, timeout: float) -> list[Way]:
    """Return the ways to ask an engine for at most `most` tokens, greedily, within so many seconds."""
    from langchain_minicpm import ChatMiniCPM
    from llamaindex_minicpm import MiniCPM

    options: dict[str, Any] = {"engine": engine, "temperature": 0, "max_tokens": most, "timeout": timeout}
    return [_Engine(engine, timeout), _LangChain(ChatMiniCPM(**options)), _LlamaIndex(MiniCPM(**options))]
