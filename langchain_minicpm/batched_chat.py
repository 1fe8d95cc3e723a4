"""LangChain's chat model with a `batch` that is one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list

from langchain_minicpm.batching import BATCH_SIZE, Asked, arun_batch, run_batch
from langchain_minicpm.convert import add_types, to_portable
from minicpm_core.types import Chunk


class BatchedChatModel(BaseChatModel):
    """A chat model whose `_generate` asks through `batching.take_seat` where there is one."""

    @abstractmethod
    def _answer_batch(self, asked: list[Asked]) -> list[Chunk]:
        """Answer what the inputs of a batch asked."""

    @abstractmethod
    async def _aanswer_batch(self, asked: list[Asked]) -> list[Chunk]:
        """Do the same without blocking the event loop."""

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer several inputs side by side; see `Runnable.batch`.

        Args:
            inputs: what `invoke` takes, several times.
            config: one for all, or one each; `max_concurrency` is the number of inputs that are answered together.
            return_exceptions: put an input's error into its place instead of raising it.
            **kwargs: what `invoke` takes.
        """
        configs = get_config_list(config, len(inputs))
        asks = [partial(self.invoke, value, own, **kwargs) for value, own in zip(inputs, configs, strict=True)]
        results = self._run_batches(asks, _batch_size(configs))
        return results if return_exceptions else _raise_first(results)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Do what `batch` does without blocking the event loop.

        Args:
            inputs: see `batch`.
            config: see `batch`.
            return_exceptions: see `batch`.
            **kwargs: see `batch`.
        """
        configs = get_config_list(config, len(inputs))
        asks = [partial(self.ainvoke, value, own, **kwargs) for value, own in zip(inputs, configs, strict=True)]
        results = await self._arun_batches(asks, _batch_size(configs))
        return results if return_exceptions else _raise_first(results)

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Answer several conversations side by side; see `BaseChatModel.generate`.

        Args:
            messages: conversations.
            stop: texts that end an answer.
            callbacks: for all of them.
            **kwargs: what `invoke` takes.
        """
        one = partial(super().generate, stop=stop, callbacks=callbacks)
        messages = self._to_traceable(messages)
        if len(messages) < 2:
            return one(messages, **kwargs)
        asks = [partial(one, [turns], **_own_run(kwargs, n)) for n, turns in enumerate(messages)]
        return self._join(_raise_first(self._run_batches(asks, BATCH_SIZE)))

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Do what `generate` does without blocking the event loop.

        Args:
            messages: see `generate`.
            stop: see `generate`.
            callbacks: see `generate`.
            **kwargs: see `generate`.
        """
        one = partial(super().agenerate, stop=stop, callbacks=callbacks)
        messages = self._to_traceable(messages)
        if len(messages) < 2:
            return await one(messages, **kwargs)
        asks = [partial(one, [turns], **_own_run(kwargs, n)) for n, turns in enumerate(messages)]
        return self._join(_raise_first(await self._arun_batches(asks, BATCH_SIZE)))

    def _convert_input(self, model_input: LanguageModelInput) -> PromptValue:
        value = super()._convert_input(model_input)
        return ChatPromptValue(messages=add_types(value.to_messages()))

    def _to_traceable(self, messages: list[list[BaseMessage]]) -> list[list[BaseMessage]]:
        """Return conversations as LangChain can trace them; where a cache looks at their texts, these tell all."""
        typed = [add_types(turns) for turns in messages]
        uses_cache = self.cache if self.cache is not None else get_llm_cache() is not None
        return [to_portable(turns) for turns in typed] if uses_cache else typed

    def _run_batches(self, asks: Sequence[Callable[[], Any]], size: int) -> list[Any]:
        results: list[Any] = []
        for start in range(0, len(asks), size):
            results += run_batch(self, asks[start : start + size], self._answer_batch)
        return results

    async def _arun_batches(self, asks: Sequence[Callable[[], Any]], size: int) -> list[Any]:
        results: list[Any] = []
        for start in range(0, len(asks), size):
            results += await arun_batch(self, asks[start : start + size], self._aanswer_batch)
        return results

    def _join(self, results: list[LLMResult]) -> LLMResult:
        """Return the results of single conversations as one."""
        runs = [run for result in results for run in result.run or ()]
        joined = LLMResult(
            generations=[generations for result in results for generations in result.generations],
            llm_output=self._combine_llm_outputs([result.llm_output for result in results]),
        )
        joined.run = runs or None
        return joined


def _batch_size(configs: list[RunnableConfig]) -> int:
    return (configs[0].get("max_concurrency") if configs else None) or BATCH_SIZE


def _own_run(options: dict[str, Any], n: int) -> dict[str, Any]:
    """Return the n-th conversation's options; a run_id is the first one's."""
    return {name: value for name, value in options.items() if name != "run_id" or n == 0}


def _raise_first(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
