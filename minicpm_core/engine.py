"""The engine: one model, one token stream, any number of callers."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from minicpm_core.adapters import switch as switch_adapter
from minicpm_core.answers import Answer, Request, Vocabulary
from minicpm_core.batching import generate_batch
from minicpm_core.checkpoints import Checkpoint
from minicpm_core.control_tokens import ControlTokens, find_markers, refuse_half_characters
from minicpm_core.decoding import THINK
from minicpm_core.exhaustion import explain_exhaustion
from minicpm_core.families import Family
from minicpm_core.generation import generate_chunks
from minicpm_core.guidance import GrammarTokenizer
from minicpm_core.handover import Stop
from minicpm_core.memory_plan import MemoryPlan
from minicpm_core.messages import check_messages
from minicpm_core.picture_settings import PictureSettings
from minicpm_core.plans import AnswerPlan, Grammar, plan_answer
from minicpm_core.prefix import Prefixes
from minicpm_core.rendering import lay_out
from minicpm_core.templates import render_template
from minicpm_core.tools import read_tools
from minicpm_core.types import Chunk, Message, Prompt, Sampling
from minicpm_core.vision.features import FeatureCache
from minicpm_core.vision.prompt import Pictures, take_pictures
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
        vision = checkpoint.family.vision
        self._reader = import_module(vision.module).load_pictures(checkpoint) if vision else None
        self.model = model
        self._adapted = adapted  # PEFT's handle on the adapters inside the model
        self.tokenizer = tokenizer
        self.context_window = memory.context_window
        self._memory = memory
        self._tokenizer_lock = threading.Lock()  # fast tokenizers are not safe to share between threads
        stop_ids = _stop_ids(checkpoint, tokenizer)
        grammar = GrammarTokenizer(tokenizer, self._tokenizer_lock, sorted(stop_ids))
        hidden = _hidden_ids(checkpoint.family, tokenizer)
        self._vocabulary = Vocabulary(tokenizer, self._tokenizer_lock, stop_ids, hidden, grammar)
        self._prefixes = Prefixes(memory.context_window)  # the plan has room for so many tokens
        self._features = FeatureCache(memory.picture_cache)
        self._control = ControlTokens(
            tokenizer,
            template=str(tokenizer.chat_template),
            markers=find_markers(self.family).union(self._reader.markers.texts if self._reader else ()),
            thoughts=self.family.tags,
        )
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
            import asyncio

            request = await asyncio.to_thread(self.prepare, messages, **options)
            stream = self._worker.astream(partial(self._generate, request), Stop(timeout))
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    yield chunk

        return run()

    def generate(self, messages: Prompt, **options: Any) -> Chunk:
        """Return the whole answer: the sum of `stream`."""
        return sum_chunks(self.stream(messages, **options))

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
        for group in self._group(requests, batch_size):
            answers.update(self._worker.stream(partial(self._generate_group, requests, group), stop.renewed()))
        return [answers[n] for n in range(len(requests))]

    async def agenerate_batch(
        self, prompts: Sequence[Prompt], *, batch_size: int = 8, timeout: float | None = None, **options: Any
    ) -> list[Chunk]:
        """Do what `generate_batch` does without blocking the event loop."""
        import asyncio

        requests, stop = [await asyncio.to_thread(self.prepare, prompt, **options) for prompt in prompts], Stop(timeout)
        answers: dict[int, Chunk] = {}
        for group in self._group(requests, batch_size):
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
        text, prompt_ids, shown = self._encode(messages, enable_thinking, plan, pictures)
        if not prompt_ids:
            raise ValueError("the prompt is empty; give at least one character")
        room = self.context_window - len(prompt_ids)
        if room < 1:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens{shown.describe() if shown else ''} and the context window "
                f"{self.context_window}, of which one must be left for the answer; shorten the prompt, or load with a "
                "larger context_window or memory_limit"
            )
        family = self.family
        defaults = (family.thinking_sampling if enable_thinking else None) or family.sampling
        chosen = (sampling or Sampling()).over(defaults)
        chosen = replace(chosen, max_new_tokens=min(chosen.max_new_tokens or room, room))
        opened = family.thinking and text.rstrip().endswith(THINK[0])
        characters = min(max(len(text) / len(prompt_ids), 0.5), 2.0)  # models may write rarer text
        constraint = plan.constrain(self._vocabulary.grammar.marker, characters)
        if constraint and not constraint.forbidden:  # what is wrong with it is told before the request waits
            self._vocabulary.grammar.compile(constraint.write(chosen.max_new_tokens or room))
        return Request(
            tuple(prompt_ids),
            chosen,
            tuple(stop or ()),
            opened,
            shown,
            constraint,
            plan.openings,
            plan.read_calls,
            logprobs,
        )

    def encode(
        self,
        messages: Prompt,
        *,
        enable_thinking: bool | None = None,
        tools: Any = None,
        pictures: PictureSettings | None = None,
    ) -> list[int]:
        """Return the prompt's token ids, BOS included where the family begins with it."""
        return self._encode(messages, enable_thinking, self._show(tools), pictures)[1]

    def _encode(
        self, messages: Prompt, enable_thinking: bool | None, plan: AnswerPlan, settings: PictureSettings | None
    ) -> tuple[str, list[int], Pictures | None]:
        """Return the prompt's text, seams inside what only looks like control tokens, its token ids and pictures."""
        text, pictures = (
            (messages, None) if isinstance(messages, str) else self._render(messages, enable_thinking, plan, settings)
        )
        with self._tokenizer_lock:
            ids, offsets = self._control.encode(text, offsets=pictures is not None)
        bos = self.tokenizer.bos_token_id
        added = self.family.add_bos and bos is not None and ids[:1] != [bos]
        if pictures:
            pictures = pictures.at_tokens(offsets, shift=int(added))
        return text, [bos, *ids] if added else ids, pictures

    def render(
        self,
        messages: Sequence[Message],
        *,
        enable_thinking: bool | None = None,
        tools: Any = None,
        pictures: PictureSettings | None = None,
    ) -> str:
        """Return the prompt text that the chat template makes of the messages."""
        return self._control.join(self._render(messages, enable_thinking, self._show(tools), pictures)[0])

    def _show(self, tools: Any) -> AnswerPlan:
        return AnswerPlan(self.family.dialect, shown=read_tools(tools or ()))

    def _render(
        self,
        messages: Sequence[Message],
        enable_thinking: bool | None,
        plan: AnswerPlan,
        settings: PictureSettings | None = None,
    ) -> tuple[str, Pictures | None]:
        settings, reader = settings or PictureSettings(), None
        if self._reader:
            settings = settings.over(self._reader.defaults)
            reader = self._reader.adapt(settings)
        else:
            settings.refuse_unseen()
        checked = check_messages(messages, vision=reader is not None, settings=settings)
        template = str(self.tokenizer.chat_template)
        laid, tools = lay_out(checked, plan.shown, plan.schema, plan.dialect, template, self._control)
        options = {"tools": tools, "enable_thinking": enable_thinking}
        options = {name: value for name, value in options.items() if value is not None}
        marked = take_pictures(laid, reader) if reader else None
        with self._tokenizer_lock:
            text = render_template(self.tokenizer, marked.messages if marked else laid, **options)
        return marked.insert_into(text) if marked else (text, None)

    def count_tokens(
        self, text: str | Sequence[Message], *, tools: Any = None, pictures: PictureSettings | None = None
    ) -> int:
        """Return the number of tokens of a text as it stands, or of messages with the chat template around them.

        Pictures are cut for it and not run: what they cost is known before.
        """
        return len(self.tokenize(text) if isinstance(text, str) else self.encode(text, tools=tools, pictures=pictures))

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands, nothing added."""
        refuse_half_characters(text)
        with self._tokenizer_lock:
            return list(self.tokenizer.encode(text, add_special_tokens=False))

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
        ids, pictures = list(request.prompt_ids), request.pictures
        chunk = self._memory.prefill_chunk
        kept = self._prefixes, self._features
        chunks = generate_chunks(self.model, ids, pictures, answer, cancelled, *kept, prefill_chunk=chunk)
        return explain_exhaustion(chunks, self._memory, [request], self._forget)

    def _forget(self) -> None:
        """Free what is kept of earlier requests."""
        self._prefixes.clear()
        self._features.clear()

    def _generate_group(
        self, requests: Sequence[Request], group: Sequence[int], cancelled: threading.Event
    ) -> Iterator[tuple[int, Chunk]]:
        if len(group) == 1:
            chunks = list(self._generate(requests[group[0]], cancelled))
            if not cancelled.is_set():
                yield group[0], sum_chunks(iter(chunks))
            return
        self._prefixes.clear()  # a batch may take all the memory there is for caches
        answers = [Answer(requests[n], self.family, self._vocabulary) for n in group]
        prompts = [requests[n].prompt_ids for n in group]
        chunk = self._memory.prefill_chunk
        finished = generate_batch(self.model, prompts, answers, cancelled, prefill_chunk=chunk)
        asked = [requests[n] for n in group]
        for place, answer in explain_exhaustion(finished, self._memory, asked, self._forget):
            yield group[place], answer

    def _group(self, requests: Sequence[Request], batch_size: int) -> Iterator[list[int]]:
        """Yield the places of requests that run together: of similar length, and whose caches fit into the memory."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; accepted: 1 or more")
        memory = self._memory
        spare = max((memory.limit or memory.total) - memory.total, 0) + memory.kv_cache
        tokens = spare // max(memory.kv_cache // memory.context_window, 1)
        group: list[int] = []
        for n in sorted(range(len(requests)), key=lambda n: len(requests[n].prompt_ids)):
            longest = len(requests[n].prompt_ids) + max(requests[m].sampling.max_new_tokens or 0 for m in [*group, n])
            if group and (len(group) == batch_size or self.family.vision or longest * (len(group) + 1) > tokens):
                yield group
                group = []
            group.append(n)
        if group:
            yield group


def sum_chunks(chunks: Iterator[Chunk]) -> Chunk:
    """Return the whole that the chunks add up to."""
    return sum(chunks, Chunk())


def _stop_ids(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    ids: set[int] = set()
    for value in (checkpoint.config.get("eos_token_id"), checkpoint.generation_config.get("eos_token_id")):
        ids.update(value if isinstance(value, list) else [] if value is None else [value])
    vocabulary = tokenizer.get_vocab()
    ids.update(vocabulary[text] for text in checkpoint.family.stop_tokens if text in vocabulary)
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return frozenset(ids)


def _hidden_ids(family: Family, tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that are no part of an answer's text; those of reasoning and calls are read as text."""
    seen = family.dialect.write_calls([("f", {"x": "<", "y": 1})]) + "".join("".join(tags) for tags in family.tags)
    seen += "<ref></ref><box></box>"  # of texts with places (`ocr`)
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special and token.content not in seen)
