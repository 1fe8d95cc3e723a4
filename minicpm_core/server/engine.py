"""The engine over HTTP: the same stream of chunks from any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import math
import random
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from minicpm_core.engine import Engine
from minicpm_core.families import Family, find_family
from minicpm_core.handover import Stop
from minicpm_core.rag import CHARS_PER_TOKEN, detect_language
from minicpm_core.server.answers import ServerAnswer
from minicpm_core.server.loop import BackgroundLoop
from minicpm_core.server.requests import ServerRequest, make_request, to_openai, with_older_schema
from minicpm_core.types import Chunk, Message, Prompt, Sampling
from minicpm_core.urls import refuse_password

RETRIES = 3
"""How often a request is sent again after 408, 429, 5xx or a broken connection, as long as no text has come."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before it is sent again: the first pause, doubled each time, and the longest that a server may ask for."""
HINT = "; check that the server runs there, and that nothing (a proxy, a firewall) stands in between"
CONNECT_SECONDS, READ_SECONDS = 10.0, 600.0
"""Longest wait for the connection, and for the next piece of an answer; the first one waits in the server's queue."""
DEFAULT_WINDOW = 4096
_PICTURE_TOKENS = 640
_SERVED = Family(
    "served",
    "any model behind base_url",
    lambda *_: False,
    lambda config: config,
    "",
    Sampling(max_new_tokens=1024),
    "",
)


@dataclass(frozen=True)
class Served:
    """What stands in for a checkpoint: the model's name on the server."""

    name: str
    family: Family
    url: str


class ServerEngine(Engine):
    """A model behind a URL; requests run side by side, as many as the server takes.

    Leaving a stream early closes the request. A connection that breaks after text has come is an error: the server is
    not asked twice for an answer that was partly delivered.
    """

    takes_grammar = False

    def __init__(self, served: Served, client: Any, context_window: int) -> None:
        self.checkpoint: Any = served
        self.family = served.family
        self.model: Any = served.name
        self.tokenizer: Any = None
        self.context_window = context_window
        self._client = client
        self._loop = BackgroundLoop(served.name)
        self._close = weakref.finalize(self, partial(self._loop.close, client.close))

    def stream(self, messages: Prompt, *, timeout: float | None = None, **options: Any) -> Iterator[Chunk]:
        """Yield the answer piece by piece; the arguments are those of `Engine.stream`."""
        request = make_request(self.checkpoint.name, messages, **options)

        def run() -> Iterator[Chunk]:
            with closing(self._loop.stream(lambda: self._ask(request), timeout)) as chunks:
                yield from chunks

        return run()

    def astream(self, messages: Prompt, *, timeout: float | None = None, **options: Any) -> AsyncIterator[Chunk]:
        """Do what `stream` does without blocking the event loop."""

        async def run() -> AsyncIterator[Chunk]:
            request = await asyncio.to_thread(make_request, self.checkpoint.name, messages, **options)
            async with aclosing(self._loop.astream(lambda: self._ask(request), timeout)) as chunks:
                async for chunk in chunks:
                    yield chunk

        return run()

    def generate_batch(
        self, prompts: Sequence[Prompt], *, batch_size: int = 8, timeout: float | None = None, **options: Any
    ) -> list[Chunk]:
        """Return the answers to several prompts, at most `batch_size` of them asked for at a time."""
        requests = [make_request(self.checkpoint.name, prompt, **options) for prompt in prompts]
        return self._loop.run(lambda: self._ask_all(requests, batch_size, timeout))

    async def agenerate_batch(
        self, prompts: Sequence[Prompt], *, batch_size: int = 8, timeout: float | None = None, **options: Any
    ) -> list[Chunk]:
        """Do what `generate_batch` does without blocking the event loop."""
        requests = [make_request(self.checkpoint.name, prompt, **options) for prompt in prompts]
        return await self._loop.arun(lambda: self._ask_all(requests, batch_size, timeout))

    def prepare(self, messages: Prompt, **options: Any) -> Any:
        """Check the options and return the request."""
        return make_request(self.checkpoint.name, messages, **options)

    def count_tokens(self, text: str | Sequence[Message], *, tools: Any = None, pictures: Any = None) -> int:
        """Return about how many tokens a text or messages take: the server's tokenizer is not here."""
        if isinstance(text, str):
            return math.ceil(len(text) / CHARS_PER_TOKEN[detect_language(text)])
        total = self.count_tokens(str(list(tools))) if tools else 0
        for message in to_openai(text, pictures):
            content = message["content"] or ""
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts = "".join(part.get("text", "") for part in parts) + str(message.get("tool_calls", ""))
            seen = sum(part["type"] == "image_url" for part in parts)
            total += 4 + self.count_tokens(texts) + seen * _PICTURE_TOKENS
        return total

    def tokenize(self, text: str) -> list[int]:
        """Refuse: OpenAI-compatible servers have no common way to tell token ids.

        Raises:
            ValueError: always.
        """
        raise ValueError("token ids are not known behind base_url; count_tokens estimates how many there are")

    def encode(self, messages: Prompt, **options: Any) -> list[int]:
        """Refuse, as `tokenize` does."""
        return self.tokenize(str(messages))

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """Refuse: the chat template is the server's.

        Raises:
            ValueError: always.
        """
        raise ValueError("the chat template is applied behind base_url; what it makes of the messages is not known")

    def memory_report(self) -> dict[str, int]:
        """Return {"total": 0}: the memory is the server's."""
        return {"total": 0}

    def set_adapter(self, name: str | None) -> None:
        """Refuse: a server chooses adapters by the model's name.

        Raises:
            ValueError: always, unless `name` is None.
        """
        if name is not None:
            raise ValueError("a server chooses adapters by the model's name; give that name as model")

    def close(self) -> None:
        """Close the requests that run and the connections."""
        self.model = None
        self._close()

    async def _ask_all(self, requests: Sequence[ServerRequest], batch_size: int, timeout: float | None) -> list[Chunk]:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; accepted: 1 or more")
        free = asyncio.Semaphore(batch_size)

        async def one(request: ServerRequest) -> Chunk:
            answer = Chunk()
            async with free:
                async for chunk in self._ask(request):
                    answer += chunk
            return answer

        stop = Stop(timeout)
        stop.begun = True
        try:
            return list(await asyncio.wait_for(asyncio.gather(*map(one, requests)), timeout))
        except asyncio.TimeoutError:
            if not stop.is_late:  # the server's own
                raise
            raise stop.error() from None

    async def _ask(self, request: ServerRequest) -> AsyncIterator[Chunk]:
        """Yield the chunks of one answer, asking again where nothing has come of it yet."""
        import openai

        for attempt in range(RETRIES + 1):
            answer, delivered = ServerAnswer(request.tools), False
            failure: Exception | None = None
            cause: Exception | None = None
            pause: float | None = FIRST_PAUSE * 2**attempt
            try:
                async with await self._open(request) as events:
                    async for event in events:
                        if chunk := answer.push(event):
                            delivered = True
                            yield chunk
                if answer.finish is not None:
                    yield answer.last()
                    return
                reason = "it ended before the answer did"
            except openai.APIStatusError as error:
                older = with_older_schema(request, error.message)
                if older and attempt < RETRIES:
                    request = older
                    continue
                failure, cause, pause = _translate(error, self.checkpoint), error, _pause_after(error, attempt)
            except openai.APITimeoutError as error:
                raise TimeoutError(f"{self.checkpoint.url} did not answer in time: {error}") from error
            except openai.APIError as error:
                reason, cause = f"{type(error).__name__}: {error.__cause__ or error}", error
            if failure is None:
                again = "; it is not asked again, since a part of the answer was delivered" if delivered else HINT
                failure = ConnectionError(f"the connection to {self.checkpoint.url} broke, {reason}{again}")
            if delivered or pause is None or attempt == RETRIES:
                raise failure from cause
            await asyncio.sleep(pause * random.uniform(1.0, 1.25))  # so that many callers do not come back at once

    async def _open(self, request: ServerRequest) -> Any:
        if "prompt" in request.body:
            completions = self._client.completions
        else:
            completions = self._client.chat.completions
        return await completions.create(**request.body, stream=True, stream_options={"include_usage": True})


def _pause_after(error: Any, attempt: int) -> float | None:
    """Return the seconds to wait after a refusal, as `Retry-After` says; None where asking again is of no use."""
    if error.status_code not in (408, 429) and error.status_code < 500:
        return None
    try:
        asked = float(error.response.headers.get("retry-after") or 0)
    except ValueError:  # a date: the growing pauses come near enough
        asked = 0.0
    return max(FIRST_PAUSE * 2**attempt, asked) if asked <= LONGEST_PAUSE else None


def _translate(error: Any, served: Served) -> Exception:
    said = f"{served.url} answered {error.status_code}: {error.message}"
    if error.status_code in (401, 403):
        return PermissionError(f"{said}; give the server's key as api_key")
    if error.status_code == 404:
        return ValueError(f"{said}; is {served.name!r} the model's name there, and does base_url end with /v1?")
    return ValueError(said) if error.status_code < 500 and error.status_code != 429 else ConnectionError(said)


def load_server(
    model: str,
    *,
    base_url: str,
    api_key: str | None = None,
    context_window: int | None = None,
    family: str | None = None,
    **loading: Any,
) -> ServerEngine:
    """Return an engine that asks the OpenAI-compatible server at `base_url`; nothing is sent before the first request.

    Args:
        model: the model's name on the server.
        base_url: such as "http://localhost:8000/v1".
        api_key: sent as a bearer token; None sends a placeholder, which servers without keys ignore.
        context_window: tokens of prompt and answer that the server allows; None plans with 4096.
        family: a name of the family table, for what the frameworks ask about the model.
        **loading: arguments of `load` about weights, which must be left at their defaults.

    Raises:
        ImportError: the openai package is missing.
        ValueError: `base_url` is no http(s) URL, or an argument is for weights that are loaded here.
    """
    if given := [name for name, value in loading.items() if value not in (None, "auto", "none")]:
        raise ValueError(f"{', '.join(given)}: the weights are loaded behind base_url; set it there and leave it out")
    refuse_password(base_url, "base_url", "give the server's key as api_key")
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url is {base_url!r}; accepted: an http(s) URL such as http://localhost:8000/v1")
    try:
        from openai import AsyncOpenAI, Timeout
    except ImportError as error:
        raise ImportError('base_url needs the openai client: pip install "minicpm-integrations[server]"') from error
    client = AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        max_retries=0,  # the engine asks again itself: it knows what was delivered
        timeout=Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
    )
    served = Served(str(model), find_family({}, "", family) if family else _SERVED, base_url)
    return ServerEngine(served, client, context_window or DEFAULT_WINDOW)
