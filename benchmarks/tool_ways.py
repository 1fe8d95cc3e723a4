"""Ways of asking the same loaded model for a tool call: ours, prompting alone, and LangChain's local class."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import minicpm_core.answers
from benchmarks.tool_cases import Call, Case
from minicpm_core import Chunk, Engine, Sampling
from minicpm_core.guidance import Guide
from minicpm_core.prefix import Prefixes
from minicpm_core.rendering import SCHEMA_TEXT, add_to_system
from minicpm_core.speculation import Lookup
from minicpm_core.tools import read_tools


@dataclass(frozen=True)
class Measured:
    """One answer and what it took.

    Args:
        calls: its tool calls.
        text: its words, or its JSON.
        tokens: of the answer.
        steps: of the model; the prompt's counts as one.
        seconds: processor time from the end of the prompt to the end of the answer.
        own_seconds: of these, outside the model.
        refused: why the question was not accepted; there is no answer then.
    """

    calls: Sequence[Call] = ()
    text: str = ""
    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0
    own_seconds: float = 0.0
    refused: str = ""


class Meter:
    """Counts a model's forward calls, and times an answer in the process's processor time.

    Other processes change that time little; what waits for a lock or for another thread is not in it.
    """

    def __init__(self) -> None:
        self.steps = 1
        self.seconds = 0.0
        self.own_seconds = 0.0

    @contextmanager
    def watch(self, model: Any, prompt_tokens: int) -> Iterator[None]:
        """Watch one answer; the calls that take the first `prompt_tokens` tokens read the prompt."""
        forward, left = model.forward, prompt_tokens
        prompt_end = outside_since = 0.0

        @functools.wraps(forward)
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left, prompt_end, outside_since
            if left <= 0:
                self.own_seconds += time.process_time() - outside_since
                self.steps += 1
            result = forward(*args, **options)
            outside_since = time.process_time()
            if left > 0:
                left -= options["input_ids"].shape[-1]
                prompt_end = outside_since
            return result

        model.forward = counted
        try:
            yield
        finally:
            del model.forward  # the class's own is seen again
            end = time.process_time()
            self.seconds = end - prompt_end
            self.own_seconds += end - outside_since


Way = Callable[[Case, str, Sampling], Measured]


def ask_ours(engine: Engine, case: Case, request: str, sampling: Sampling) -> Measured:
    """Ask with the grammar, forced tokens without a step of the model."""
    options = {"tools": case.tools, "tool_choice": case.choice} if case.tools else {"response_schema": case.schema}
    answer, meter = _generate(engine, [{"role": "user", "content": request}], sampling, **options)
    return _measured(answer, meter, answer.content)


def ask_step_by_step(engine: Engine, case: Case, request: str, sampling: Sampling) -> Measured:
    """Ask with the grammar, every token by a step of the model."""

    def guide(*args: Any, **options: Any) -> Guide:
        return Guide(*args, **{**options, "fast_forward": False})

    with patch.object(minicpm_core.answers, "Guide", guide):
        return ask_ours(engine, case, request, sampling)


def ask_in_words(engine: Engine, case: Case, request: str, sampling: Sampling) -> Measured:
    """Ask with the same prompt and no grammar, and read what comes with the reader of the same dialect."""
    messages = [{"role": "user", "content": request}]
    if case.schema is not None:
        messages = add_to_system(messages, SCHEMA_TEXT.format(schema=json.dumps(case.schema, ensure_ascii=False)))
    prompt = engine.render(messages, tools=case.tools or None)
    answer, meter = _generate(engine, prompt, sampling)
    at = answer.content.find(engine.family.dialect.opening) if case.tools else -1
    if at < 0:
        return _measured(answer, meter, answer.content)
    reader = engine.family.dialect.reader(read_tools(case.tools))
    pieces = [*reader.push(answer.content[at:]), *reader.flush()]
    read = sum((Chunk(tool_calls=(piece,)) for piece in pieces), answer)
    return _measured(read, meter, answer.content[:at])


def _generate(engine: Engine, prompt: Any, sampling: Sampling, **options: Any) -> tuple[Chunk, Meter]:
    options |= {"sampling": sampling}
    meter, prompt_tokens = Meter(), len(engine.prepare(prompt, **options).prompt_ids)
    cold, unguessed = patch.object(engine, "_prefixes", Prefixes(0)), patch.object(Lookup, "draft", lambda *_: [])
    with cold, unguessed, meter.watch(engine.model, prompt_tokens):  # what the grammar alone gains
        return engine.generate(prompt, **options), meter


def _measured(answer: Chunk, meter: Meter, text: str) -> Measured:
    calls = [(call.name, call.arguments if call.is_valid else None) for call in answer.tool_calls]
    tokens = answer.usage.completion_tokens if answer.usage else 0
    return Measured(calls, text, tokens, meter.steps, meter.seconds, meter.own_seconds)


class LangChainLocal:
    """LangChain's ChatHuggingFace over HuggingFacePipeline, on an engine's own weights and tokenizer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chats: dict[bool, Any] = {}

    def ask(self, case: Case, request: str, sampling: Sampling) -> Measured:
        """Ask as the class's documentation says: bind_tools, or with_structured_output."""
        import torch

        torch.manual_seed(sampling.seed or 0)
        meter = Meter()
        try:
            asked = self._bind(self._chat(sampling), case)
            with meter.watch(self._engine.model, 1):
                answer = asked.invoke(request)
        except (ValueError, NotImplementedError) as error:
            return Measured(refused=str(error))
        message = answer["raw"] if case.schema is not None else answer
        calls = [(call["name"], call["args"]) for call in message.tool_calls]
        calls += [(call["name"], None) for call in message.invalid_tool_calls]
        return Measured(calls, message.content, meter.steps, meter.steps, meter.seconds, meter.own_seconds)

    @staticmethod
    def _bind(chat: Any, case: Case) -> Any:
        if case.schema is not None:
            return chat.with_structured_output(case.schema, method="json_schema", include_raw=True)
        choice = {"any": "required", "auto": None}.get(case.choice, case.choice)
        return chat.bind_tools(case.tools, tool_choice=choice)

    def _chat(self, sampling: Sampling) -> Any:
        from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
        from transformers import pipeline

        drawn = bool(sampling.temperature)
        if drawn not in self._chats:
            options: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens, "do_sample": drawn}
            if drawn:
                options |= {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
            made = pipeline(
                "text-generation",
                model=self._engine.model,
                tokenizer=self._engine.tokenizer,
                return_full_text=False,
                **options,
            )
            self._chats[drawn] = ChatHuggingFace(
                llm=HuggingFacePipeline(pipeline=made), tokenizer=self._engine.tokenizer
            )
        return self._chats[drawn]
