"""One answer in the making: from token ids to chunks of text, reasoning and tool calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from minicpm_core.decoding import MarkerSplitter, ReasoningSplitter, StopTexts, TokenDecoder
from minicpm_core.guidance import Constraint, Guide
from minicpm_core.logprobs import read_logprob
from minicpm_core.sampler import Sampler
from minicpm_core.types import Chunk, FinishReason, Sampling, TokenLogprob, ToolCall, Usage, make_call_id

if TYPE_CHECKING:
    from minicpm_core.families import Family
    from minicpm_core.vocabulary import Vocabulary


class CallReader(Protocol):
    """Reads the text of tool calls as it comes; see `dialects`."""

    @property
    def rest(self) -> str:
        """The text behind the last call."""
        ...

    def push(self, text: str) -> list[ToolCall]:
        """Return the pieces of calls that are certain."""
        ...

    def flush(self) -> list[ToolCall]:
        """Return what the end of the text makes certain; a call that is still open is an error."""
        ...


@dataclass(frozen=True)
class Request:
    """An encoded prompt with every option decided.

    Args:
        prompt_ids: the prompt's token ids.
        sampling: no value is None but top_k, top_p and seed.
        stop: texts that end the answer.
        thinking_opened: the prompt ends with the opening tag, so the answer begins inside the reasoning.
        pictures: the prompt's pictures (`vision.prompt.Pictures`), with the places of their tokens.
        constraint: the grammar that the answer follows.
        openings: texts that begin a tool call, none where there are no tools.
        read_calls: makes the reader of the calls behind them.
        logprobs: how many of the likeliest tokens to report beside the drawn ones; None reports nothing.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    thinking_opened: bool = False
    pictures: Any = None
    constraint: Constraint | None = None
    openings: tuple[str, ...] = ()
    read_calls: Callable[[], CallReader] | None = None
    logprobs: int | None = None


class Answer:
    """Chooses the next tokens from logits, and turns tokens into chunks."""

    def __init__(self, request: Request, family: Family, vocabulary: Vocabulary) -> None:
        self._request, self._vocabulary = request, vocabulary
        self._decoder = TokenDecoder(vocabulary.tokenizer, hidden=vocabulary.hidden_ids)
        self._reasoning = ReasoningSplitter(family.tags, opened=request.thinking_opened)
        self._marked = MarkerSplitter(request.openings)
        self._reader = request.read_calls() if request.read_calls else None
        self._stops = StopTexts(request.stop)
        self._sampler = Sampler(request.sampling, list(request.prompt_ids))
        self._left = request.sampling.max_new_tokens or 0
        self._guide = Guide(
            request.constraint,
            vocabulary.grammar,
            self._reasoning,
            self._left,
            fast_forward=request.logprobs is None,
        )
        self._finish: FinishReason | None = None
        self._count = self._reasoning_count = 0
        self._called = self._calls_tools = self._is_cut = False
        self.cached_tokens = 0  # of the prompt; for the usage

    @property
    def left(self) -> int:
        """Tokens that the answer may still have."""
        return self._left

    @property
    def ended(self) -> bool:
        """Whether no further token is wanted."""
        return self._finish is not None

    def begin(self) -> list[int]:
        """Return the tokens with which the answer has to begin; they can be part of the prompt's computation."""
        return self._cut(self._guide.begin())

    def choose(self, logits: Any) -> tuple[list[int], tuple[TokenLogprob, ...]]:
        """Return the next token and those that a grammar forces behind it, and the first one's probability.

        Args:
            logits: of the last position, [vocabulary].
        """
        tokens = self._cut(self._guide.choose(self._sampler, logits))
        if self._request.logprobs is None or tokens[0] in self._vocabulary.stop_ids:
            return tokens, ()
        return tokens, (read_logprob(logits, tokens[0], self._request.logprobs, self._vocabulary.grammar.read_bytes),)

    def _cut(self, tokens: list[int]) -> list[int]:
        """Return as many tokens as there is room for: forced ones may be more."""
        self._is_cut = len(tokens) > self._left
        return tokens[: self._left]

    def read(self, tokens: Sequence[int], logprobs: tuple[TokenLogprob, ...] = ()) -> Iterator[Chunk]:
        """Yield the chunks that the tokens complete."""
        for token in tokens:
            self._count += 1
            self._left -= 1
            if token in self._vocabulary.stop_ids:
                self._finish = "length" if self._guide.is_cut else "stop"
                return
            with self._vocabulary.lock:
                text = self._decoder.push(token)
            self._reasoning_count += self._reasoning.in_reasoning
            chunk = self._split(text, logprobs)
            if chunk:
                yield chunk
            if self._stops.found:
                self._finish = "stop"
                return
        if self._guide.ended and not self._is_cut:
            self._finish = "stop"
        elif self._left <= 0:
            self._finish = "length"

    def last(self) -> Chunk:
        """Return the last chunk: what was held back, why the answer ended, and the tokens it took."""
        with self._vocabulary.lock:
            rest = self._decoder.flush()
        chunk = self._split(rest)
        reasoning, content = self._reasoning.flush()
        chunk += self._route(content) + Chunk(reasoning=reasoning)
        chunk += Chunk(self._stops.push(self._marked.flush()))
        if self._reader and self._marked.found:
            chunk += self._take(self._reader.flush())
            chunk += self._leave(self._reader.rest.strip())
        chunk += Chunk(self._stops.flush())
        usage = Usage(
            len(self._request.prompt_ids),
            self._count,
            self.cached_tokens,
            reasoning_tokens=self._reasoning_count,
            forced_tokens=min(self._guide.forced_tokens, self._count),
        )
        finish: FinishReason = "stop" if self._stops.found else self._finish or "length"
        if finish == "stop" and self._calls_tools:
            finish = "tool_calls"
        return chunk + Chunk(finish_reason=finish, usage=usage)

    def _split(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> Chunk:
        reasoning, content = self._reasoning.push(text)
        return self._route(content) + Chunk(reasoning=reasoning, logprobs=logprobs)

    def _route(self, text: str) -> Chunk:
        """Part the answer's text into what is shown and what is read as tool calls."""
        content, calls = self._marked.push(text)
        chunk = Chunk(self._stops.push(content))
        return chunk + self._take(self._reader.push(calls)) if self._reader and calls else chunk

    def _leave(self, text: str) -> Chunk:
        """Return the text behind the calls; where the answer is nothing but calls, it is one that was hardly begun."""
        if text and self._request.openings == ("",):
            if self._called:
                return Chunk()
            begun = ToolCall(make_call_id(), text=text, error="cut off before the tool's name")
            return Chunk(tool_calls=(begun,))
        return Chunk(self._stops.push(text))

    def _take(self, pieces: Sequence[ToolCall]) -> Chunk:
        """Return the pieces of calls as a chunk; a stop text in front of them has ended the answer already."""
        if self._stops.found:
            return Chunk()
        self._called |= bool(pieces)
        self._calls_tools |= any(piece.is_valid for piece in pieces)
        return sum((Chunk(tool_calls=(piece,)) for piece in pieces), Chunk())
