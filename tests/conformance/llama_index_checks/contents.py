"""Checks of what responses hold besides text: thinking and log probabilities."""

from __future__ import annotations

import math

from llama_index.core.base.llms.types import ThinkingBlock

from tests.conformance.llama_index_checks.base import Conformance, check_stream, text_of


class ContentTests(Conformance):
    """Thinking and log probabilities."""

    def test_thinking(self) -> None:
        """Thinking stands in a ThinkingBlock in front of the answer, and its deltas add up to it."""
        self.need("has_thinking")
        llm = self.create()
        block = llm.chat(self.ask(), **self.thinking_options).message.blocks[0]
        assert isinstance(block, ThinkingBlock)
        assert block.content
        responses = list(llm.stream_chat(self.ask(), **self.thinking_options))
        check_stream(responses)
        deltas = "".join(response.additional_kwargs.get("thinking_delta") or "" for response in responses)
        last = responses[-1].message.blocks[0]
        assert isinstance(last, ThinkingBlock)
        assert deltas == last.content

    def test_logprobs(self) -> None:
        """Each token of the answer has a log probability, and at least the asked number of likely tokens."""
        self.need("has_logprobs")
        response = self.create().chat(self.ask(), logprobs=True, top_logprobs=2)
        assert response.logprobs
        if self.has_token_usage:
            unseen = response.raw["usage"]["completion_tokens"] - len(response.logprobs)
            assert unseen in (0, 1)  # the token that ends the answer is no part of it
        for place in response.logprobs:
            assert len(place) >= 2
            assert all(-math.inf < token.logprob <= 1e-4 for token in place)
            assert sum(math.exp(token.logprob) for token in place) < 1.001

    def test_logprobs_of_completions_and_streams(self) -> None:
        """Completions and the last response of a stream have the same log probabilities as chat."""
        self.need("has_logprobs", "is_deterministic")
        llm = self.create()
        chat = llm.chat(self.ask(), logprobs=True, top_logprobs=1)
        assert list(llm.stream_chat(self.ask(), logprobs=True, top_logprobs=1))[-1].logprobs == chat.logprobs
        completion = llm.complete(self.question, logprobs=True, top_logprobs=1)
        assert completion.logprobs
        if completion.text == text_of(chat):
            assert completion.logprobs == chat.logprobs

    def test_logprobs_only_on_request(self) -> None:
        """Without the request a response has no log probabilities."""
        assert not self.create().chat(self.ask()).logprobs
