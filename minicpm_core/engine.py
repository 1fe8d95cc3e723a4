"""The engine: one model, one token stream, any number of callers."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from typing import Any

from minicpm_core.adapters import switch as switch_adapter
from minicpm_core.answers import Answer, Request
from minicpm_core.batching import generate_batch, group_requests
from minicpm_core.checkpoints import Checkpoint
from minicpm_core.exhaustion import explain_exhaustion
from minicpm_core.generation import generate_chunks
from minicpm_core.handover import Stop
from minicpm_core.memory_plan import MemoryPlan
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.plans import AnswerPlan, Grammar, plan_answer
from minicpm_core.prefix import Prefixes
from minicpm_core.prompts import PromptEncoder
from minicpm_core.tools import read_tools
from minicpm_core.types import Chunk, Message, Prompt, Sampling
from minicpm_core.vision.features import FeatureCache
from minicpm_core.vocabulary import Vocabulary
from minicpm_core.worker import Worker


class Engine:
    """A loaded model that answers messages with a stream of chunks.

    Callers in any number of threads and asyncio tasks share it: requests run one after another, in order of arrival.
    Leaving a stream early stops the model within one token.
    """

    takes_grammar = True
    """Whether answers can be made to follow a Lark grammar."""

    def __init__(
        self, checkpoint: Checkpoint, model: Any, tokenizer: Any, memory: MemoryPlan, adapted: Any = None
    ) -> None:
        self.checkpoint = checkpoint
        self.family = checkpoint.family
        self.model = model
        self._adapted = adapted  # PEFT's handle on the adapters inside the model
        self.tokenizer = tokenizer
        self.context_window = memory.context_window
        self._memory = memory
        self._prompts = PromptEncoder(checkpoint, tokenizer)
        self._vocabulary = Vocabulary.read(checkpoint, tokenizer, self._prompts.lock)
        self._prefixes = Prefixes(memory.context_window)  # the plan has room for so many tokens
        self._features = FeatureCache(memory.picture_cache)
        self._worker = Worker(checkpoint.name)
        self._close = weakref.finalize(self, self._worker.close)

    def stream(self, messages: Prompt, *, timeout: float | None = None, **options: Any) -> Iterator[Chunk]:
        """Yield the answer piece by piece; the last chunk has finish_reason and usage.

        Args:
            messages: chat messages (dicts with "role" and "content"), or a string that is completed as it stands.
            timeout: seconds from the first `next` to the whole answer, the wait for other requests included.
            **options: see `prepare`, which also tells further errors.

        Raises:
            QueueFullError: `max_waiting` requests wait already.
            AnswerTimeoutError: the answer is not whole within `timeout`.
            OutOfMemoryError: the memory did not suffice in the middle of the answer; the engine goes on.
        """
        request = self.prepare(messages, **options)

        def run() -> Iterator[Chunk]:
            with closing(self._worker.stream(partial(self._generate, request), Stop(timeout))) as chunks:
                yield from chunks

        return run()

    def astream(self, messages: Prompt, *, timeout: float | None = None, **options: Any) -> AsyncIterator[Chunk]:
        """Do what `stream` does without blocking the event loop."""

        async def run() -> AsyncIterator[Chunk]:
            request = await asyncio.to_thread(self.prepare, messages, **options)
            stream = self._worker.astream(partial(self._generate, request), Stop(timeout))
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    yield chunk

        return run()

    def generate(self, messages: Prompt, **options: Any) -> Chunk:
        """Return the whole answer: the sum of `stream`."""
        return sum(self.stream(messages, **options), Chunk())

    async def agenerate(self, messages: Prompt, **options: Any) -> Chunk:
        """Do what `generate` does without blocking the event loop."""
        answer = Chunk()
        async for chunk in self.astream(messages, **options):
            answer += chunk
        return answer

    def generate_batch(
        self, prompts: Sequence[Prompt], *, batch_size: int = 8, timeout: float | None = None, **options: Any
    ) -> list[Chunk]:
        """Return the answers to several prompts, computed together where the model can.

        Greedy answers are those of single calls. Prompts with pictures, and families that see, run one after another.

        Args:
            prompts: each as for `stream`.
            batch_size: prompts computed together at most; fewer where the memory does not suffice.
            timeout: seconds for all of them; see `stream`.
            **options: see `prepare`; the same for all prompts.
        """
        requests, stop = [self.prepare(prompt, **options) for prompt in prompts], Stop(timeout)
        answers: dict[int, Chunk] = {}
        for group in group_requests(requests, batch_size, self._batch_tokens):
            answers.update(self._worker.stream(partial(self._generate_group, requests, group), stop.renewed()))
        return [answers[n] for n in range(len(requests))]

    async def agenerate_batch(
        self, prompts: Sequence[Prompt], *, batch_size: int = 8, timeout: float | None = None, **options: Any
    ) -> list[Chunk]:
        """Do what `generate_batch` does without blocking the event loop."""
        requests, stop = [await asyncio.to_thread(self.prepare, prompt, **options) for prompt in prompts], Stop(timeout)
        answers: dict[int, Chunk] = {}
        for group in group_requests(requests, batch_size, self._batch_tokens):
            stream = self._worker.astream(partial(self._generate_group, requests, group), stop.renewed())
            async with aclosing(stream) as finished:
                async for place, answer in finished:
                    answers[place] = answer
        return [answers[n] for n in range(len(requests))]

    def prepare(
        self,
        messages: Prompt,
        *,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = "auto",
        parallel_tool_calls: bool = True,
        response_schema: Any = None,
        grammar: Grammar | None = None,
        sampling: Sampling | None = None,
        stop: Sequence[str] | None = None,
        enable_thinking: bool | None = None,
        logprobs: int | None = None,
        pictures: PictureSettings | None = None,
    ) -> Request:
        """Check the options and encode the prompt; what `stream` runs.

        Args:
            messages: chat messages (dicts with "role" and "content"), or a string that is completed as it stands.
            tools: what the model may call: OpenAI's or Anthropic's dicts, or {"name", "description", "parameters"}.
            tool_choice: "auto", "none", "any" (or "required", True), a tool's name, or OpenAI's dict of one.
            parallel_tool_calls: False allows one call in an answer.
            response_schema: JSON schema (or pydantic class) that the answer follows; with tools, unless it calls one.
            grammar: a Lark grammar in llguidance's syntax that the whole answer follows, instead of the three above.
            sampling: values that are None are the family's recommendation.
            stop: texts that end the answer; they are not part of it. Reasoning and tool calls are not searched.
            enable_thinking: switches reasoning on or off where the family has it; None leaves it to the chat template.
            pictures: how pictures are read; values that are None are the checkpoint's.
            logprobs: report the drawn tokens' log probabilities, and those of so many of the likeliest (0 to 20).

        Raises:
            ValueError: the prompt is longer than the context window, or an option is not accepted.
            TypeError: a schema of a kind that is not known.
        """
        self._worker.refuse_forked()
        if isinstance(stop, str):
            raise ValueError(f"stop is the string {stop!r}; give a list of strings")
        if enable_thinking and not self.family.thinking:
            raise ValueError(f"family {self.family.name} has no thinking mode; leave enable_thinking out")
        if logprobs is not None and not (isinstance(logprobs, int) and 0 <= logprobs <= 20):
            raise ValueError(f"logprobs is {logprobs!r}; accepted: None, or 0 to 20")
        plan = plan_answer(
            self.family.dialect,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_schema=response_schema,
            grammar=grammar,
        )
        prompt = self._prompts.encode(messages, plan, enable_thinking=enable_thinking, pictures=pictures)
        room = prompt.leave_room(self.context_window)
        defaults = (self.family.thinking_sampling if enable_thinking else None) or self.family.sampling
        chosen = (sampling or Sampling()).over(defaults)
        chosen = replace(chosen, max_new_tokens=min(chosen.max_new_tokens or room, room))
        characters = min(max(prompt.characters_per_token, 0.5), 2.0)  # models may write rarer text
        constraint = plan.constrain(self._vocabulary.grammar.marker, characters)
        if constraint and not constraint.forbidden:  # what is wrong with it is told before the request waits
            self._vocabulary.grammar.compile(constraint.write(chosen.max_new_tokens or room))
        return Request(
            prompt.ids,
            chosen,
            tuple(stop or ()),
            self.family.thinking and prompt.opens_thinking,
            prompt.pictures,
            constraint,
            plan.openings,
            plan.read_calls,
            logprobs,
        )

    def encode(self, messages: Prompt, *, tools: Any = None, **options: Any) -> list[int]:
        """Return the prompt's token ids, BOS included where the family begins with it.

        Args:
            messages: as for `stream`.
            tools: that the prompt tells of.
            **options: `enable_thinking` and `pictures`, as for `prepare`.
        """
        return list(self._prompts.encode(messages, self._show(tools), **options).ids)

    def render(self, messages: Sequence[Message], *, tools: Any = None, **options: Any) -> str:
        """Return the prompt text that the chat template makes of the messages; the arguments are those of `encode`."""
        return self._prompts.render(messages, self._show(tools), **options)

    def _show(self, tools: Any) -> AnswerPlan:
        return AnswerPlan(self.family.dialect, shown=read_tools(tools or ()))

    def count_tokens(
        self, text: str | Sequence[Message], *, tools: Any = None, pictures: PictureSettings | None = None
    ) -> int:
        """Return the number of tokens of a text as it stands, or of messages with the chat template around them.

        Pictures are cut for it and not run: what they cost is known before.
        """
        return len(self.tokenize(text) if isinstance(text, str) else self.encode(text, tools=tools, pictures=pictures))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands, nothing added."""
        return self._prompts.tokenize(text)

    def memory_report(self) -> dict[str, int]:
        """Return bytes: the plan's parts, its "weights" (of all kinds) and "total"; "parameters" are those in fact."""
        sums = {"weights": self._memory.weights, "total": self._memory.total}
        return self._memory.parts | sums | {"parameters": int(self.model.get_memory_footprint())}

    def set_adapter(self, name: str | None) -> None:
        """Use the adapter `name` from the next request on; None turns adapters off.

        Raises:
            ValueError: no adapter of that name was loaded.
        """

        def switch(cancelled: threading.Event) -> Iterator[Chunk]:
            switch_adapter(self._adapted, name)
            self._forget()
            return iter(())

        for _ in self._worker.stream(switch):  # in its turn, so that no answer is begun with one and ended with another
            pass

    def close(self) -> None:
        """Stop what runs, refuse what waits, and free the model's memory."""
        self._close()
        self.model = self._adapted = None
        self._forget()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"the engine of {self.checkpoint.name} cannot be copied or sent to another process; load it there, or send "
            "one of the frameworks' classes, which load it at their first call"
        )

    def _generate(self, request: Request, cancelled: threading.Event) -> Iterator[Chunk]:
        answer = Answer(request, self.family, self._vocabulary)
        ids, kept = list(request.prompt_ids), (self._prefixes, self._features)
        chunk = self._memory.prefill_chunk
        chunks = generate_chunks(self.model, ids, request.pictures, answer, cancelled, *kept, prefill_chunk=chunk)
        return explain_exhaustion(chunks, self._memory, [request], self._forget)

    @property
    def _batch_tokens(self) -> int:
        """Tokens that the caches of prompts which run together may hold; 0 where they run one by one."""
        return 0 if self.family.vision else self._memory.cache_tokens

    def _forget(self) -> None:
        """Free what is kept of earlier requests."""
        self._prefixes.clear()
        self._features.clear()

    def _generate_group(
        self, requests: Sequence[Request], group: Sequence[int], cancelled: threading.Event
    ) -> Iterator[tuple[int, Chunk]]:
        asked = [requests[n] for n in group]
        if len(group) == 1:
            chunks = list(self._generate(asked[0], cancelled))
            if not cancelled.is_set():
                yield group[0], sum(chunks, Chunk())
            return
        self._prefixes.clear()  # a batch may take all the memory there is for caches
        answers = [Answer(request, self.family, self._vocabulary) for request in asked]
        prompts = [request.prompt_ids for request in asked]
        finished = generate_batch(self.model, prompts, answers, cancelled, prefill_chunk=self._memory.prefill_chunk)
        for place, answer in explain_exhaustion(finished, self._memory, asked, self._forget):
            yield group[place], answer
