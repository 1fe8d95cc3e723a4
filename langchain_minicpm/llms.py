"""The completion class: text in, text out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import ConfigDict

from langchain_minicpm.answers import to_text_chunk
from langchain_minicpm.batching import BATCH_SIZE
from langchain_minicpm.settings import MiniCPMSettings
from minicpm_core.types import Prompt


class MiniCPMLLM(MiniCPMSettings, BaseLLM):
    """A MiniCPM model on this machine as a LangChain completion model: text in, text out.

    Instantiate:
        `llm = MiniCPMLLM(model="openbmb/MiniCPM5-1B", temperature=0)`. Arguments: see `MiniCPMSettings`; besides them
        `raw`: False (default) asks the text as one user turn of a chat, True completes it as it stands. A call may
        change `raw` too.

    Invoke, stream, async:
        `llm.invoke("Hello")`, `llm.stream(...)`, `llm.ainvoke(...)`, `llm.astream(...)`, `llm.batch([...])`. The answer
        never contains the prompt; reasoning and, with `logprobs=True`, log probabilities are in `generation_info` of
        `llm.generate([...])`. Several prompts are answered side by side, 8 at a time.
    """

    model_config = ConfigDict(extra="forbid")

    raw: bool = False

    @property
    def _llm_type(self) -> str:
        return "minicpm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, "raw": self.raw}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._tracing_params("llm", stop, kwargs)

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Answer several inputs side by side; see `Runnable.batch`.

        Args:
            inputs: what `invoke` takes, several times.
            config: one for all, or one each; `max_concurrency` is the number of inputs that are answered together.
            return_exceptions: put the error of an input that cannot be answered into its place.
            **kwargs: what `invoke` takes.
        """
        configs = get_config_list(config, len(inputs))
        refused = self._find_refused(inputs, kwargs) if return_exceptions else set()
        good = [n for n in range(len(inputs)) if n not in refused]
        options: dict[str, Any] = {"return_exceptions": return_exceptions, **kwargs}
        results: dict[int, Any] = {}
        for n in refused:  # asked alone, so that its callbacks are told of the error
            results |= {n: super().batch([inputs[n]], [configs[n]], **options)[0]}
        results |= zip(
            good, super().batch([inputs[n] for n in good], [configs[n] for n in good], **options), strict=True
        )
        return [results[n] for n in range(len(inputs))]

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Do what `batch` does without blocking the event loop.

        Args:
            inputs: see `batch`.
            config: see `batch`.
            return_exceptions: see `batch`.
            **kwargs: see `batch`.
        """
        configs = get_config_list(config, len(inputs))
        refused = await asyncio.to_thread(self._find_refused, inputs, kwargs) if return_exceptions else set()
        good = [n for n in range(len(inputs)) if n not in refused]
        options: dict[str, Any] = {"return_exceptions": return_exceptions, **kwargs}
        results: dict[int, Any] = {}
        for n in refused:
            results |= {n: (await super().abatch([inputs[n]], [configs[n]], **options))[0]}
        answers = await super().abatch([inputs[n] for n in good], [configs[n] for n in good], **options)
        results |= zip(good, answers, strict=True)
        return [results[n] for n in range(len(inputs))]

    def _find_refused(self, inputs: Sequence[LanguageModelInput], options: dict[str, Any]) -> set[int]:
        """Return the places of the inputs that the engine refuses, such as those beyond the context window."""
        options = dict(options)
        stop, raw = options.pop("stop", None), options.pop("raw", None)
        refused = set()
        for n, value in enumerate(inputs):
            try:
                prompt = self._prompt(self._convert_input(value).to_string(), raw)
                self.load_engine(options.get("model")).prepare(prompt, **self._request(stop, options))
            except Exception:  # asked again alone, it is raised once more
                refused.add(n)
        return refused

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        raw: bool | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        for chunk in self._stream_chunks(self._prompt(prompt, raw), stop, kwargs):
            piece = to_text_chunk(chunk, kwargs.get("model") or self.model)
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=piece)
            yield piece

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        raw: bool | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        async for chunk in self._astream_chunks(self._prompt(prompt, raw), stop, kwargs):
            piece = to_text_chunk(chunk, kwargs.get("model") or self.model)
            if run_manager:
                await run_manager.on_llm_new_token(piece.text, chunk=piece)
            yield piece

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        raw: bool | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if len(prompts) == 1:
            return to_result([reduce(add, self._stream(prompts[0], stop, run_manager, raw=raw, **kwargs))])
        answers = []
        for start in range(0, len(prompts), BATCH_SIZE):
            part = [self._prompt(prompt, raw) for prompt in prompts[start : start + BATCH_SIZE]]
            answers += self._generate_batch(part, stop, kwargs)
        return to_result([to_text_chunk(answer, kwargs.get("model") or self.model) for answer in answers])

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        raw: bool | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if len(prompts) == 1:
            stream = self._astream(prompts[0], stop, run_manager, raw=raw, **kwargs)
            return to_result([reduce(add, [piece async for piece in stream])])
        answers = []
        for start in range(0, len(prompts), BATCH_SIZE):
            part = [self._prompt(prompt, raw) for prompt in prompts[start : start + BATCH_SIZE]]
            answers += await self._agenerate_batch(part, stop, kwargs)
        return to_result([to_text_chunk(answer, kwargs.get("model") or self.model) for answer in answers])

    def _prompt(self, text: str, raw: bool | None) -> Prompt:
        return text if (self.raw if raw is None else raw) else [{"role": "user", "content": text}]


def to_result(answers: Sequence[GenerationChunk]) -> LLMResult:
    """Return the answers to several prompts, with the tokens of all of them together."""
    infos = [answer.generation_info or {} for answer in answers]
    usages = [info["usage_metadata"] for info in infos if "usage_metadata" in info]
    total: UsageMetadata | None = reduce(add_usage, usages, None)
    tokens = total and {
        "prompt_tokens": total["input_tokens"],
        "completion_tokens": total["output_tokens"],
        "total_tokens": total["total_tokens"],
    }
    output = {"token_usage": tokens, "model_name": next((i["model_name"] for i in infos if "model_name" in i), None)}
    return LLMResult(generations=[[answer] for answer in answers], llm_output=output)
