"""Checks of the eight ways to ask, and of what a call can say."""

from __future__ import annotations

import time

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate

from tests.conformance.llama_index_checks.base import Conformance, check_is_llm, check_stream, dump, gather, text_of


class AskingTests(Conformance):
    """chat, complete, their streams and their asynchronous twins."""

    def test_class_is_an_llm(self) -> None:
        """The object is a LlamaIndex LLM whose class_name is a non-empty text."""
        llm = self.create()
        check_is_llm(llm)
        assert llm.class_name()

    def test_metadata(self) -> None:
        """The metadata has a positive context window and answer length, a model name and the right flags."""
        metadata = self.create().metadata
        assert metadata.context_window > 0
        assert 0 < metadata.num_output <= metadata.context_window
        assert metadata.model_name
        assert metadata.is_function_calling_model is self.has_tool_calling

    def test_construction_is_cheap(self) -> None:
        """Ten objects are made within two seconds: weights are loaded once, and not by the constructor."""
        begin = time.perf_counter()
        for _ in range(10):
            self.create()
        assert time.perf_counter() - begin < 2

    def test_chat(self) -> None:
        """Chat gives an assistant's message with text."""
        response = self.create().chat(self.ask())
        assert response.message.role == MessageRole.ASSISTANT
        assert text_of(response)

    async def test_achat(self) -> None:
        """Achat gives an assistant's message with text."""
        response = await self.create().achat(self.ask())
        assert response.message.role == MessageRole.ASSISTANT
        assert text_of(response)

    def test_complete(self) -> None:
        """Complete gives text."""
        assert text_of(self.create().complete(self.question))

    async def test_acomplete(self) -> None:
        """Acomplete gives text."""
        assert text_of(await self.create().acomplete(self.question))

    def test_stream_chat(self) -> None:
        """stream_chat's deltas add up to the text of each response."""
        assert check_stream(list(self.create().stream_chat(self.ask())))

    async def test_astream_chat(self) -> None:
        """astream_chat's deltas add up to the text of each response."""
        assert check_stream(await gather(self.create().astream_chat(self.ask())))

    def test_stream_complete(self) -> None:
        """stream_complete's deltas add up to the text of each response."""
        assert check_stream(list(self.create().stream_complete(self.question)))

    async def test_astream_complete(self) -> None:
        """astream_complete's deltas add up to the text of each response."""
        assert check_stream(await gather(self.create().astream_complete(self.question)))

    def test_streams_end_with_the_answer(self) -> None:
        """The last response of a stream is the answer that is given without streaming."""
        self.need("is_deterministic")
        llm = self.create()
        assert text_of(list(llm.stream_chat(self.ask()))[-1]) == text_of(llm.chat(self.ask()))
        assert text_of(list(llm.stream_complete(self.question))[-1]) == text_of(llm.complete(self.question))

    async def test_async_gives_the_same(self) -> None:
        """The asynchronous twins give the same answers."""
        self.need("is_deterministic")
        llm = self.create()
        chat, completion = text_of(llm.chat(self.ask())), text_of(llm.complete(self.question))
        assert text_of(await llm.achat(self.ask())) == chat
        assert text_of((await gather(llm.astream_chat(self.ask())))[-1]) == chat
        assert text_of(await llm.acomplete(self.question)) == completion
        assert text_of((await gather(llm.astream_complete(self.question)))[-1]) == completion

    async def test_predict(self) -> None:
        """Predict, stream and their twins fill the template and give the chat's answer."""
        llm, template = self.create(), PromptTemplate("{greeting}, who are you?")
        answers = [llm.predict(template, greeting="Hello"), "".join(llm.stream(template, greeting="Hello"))]
        answers.append(await llm.apredict(template, greeting="Hello"))
        answers.append("".join([token async for token in await llm.astream(template, greeting="Hello")]))
        assert all(answers)
        if self.is_deterministic:
            ask = llm.chat(self.ask("Hello, who are you?")) if llm.metadata.is_chat_model else None
            assert set(answers) == {text_of(ask) if ask else answers[0]}

    def test_stop(self) -> None:
        """Stop cuts the answer of chat and complete right in front of the text."""
        self.need("has_exact_stop", "is_deterministic")
        llm = self.create()
        for ask in (lambda **more: llm.chat(self.ask(), **more), lambda **more: llm.complete(self.question, **more)):
            whole = text_of(ask())
            stop = _middle(whole)
            assert text_of(ask(stop=[stop])) == whole[: whole.index(stop)]

    async def test_stop_in_streams(self) -> None:
        """No piece of the stop text, nor anything after it, is ever streamed."""
        self.need("has_exact_stop", "is_deterministic")
        llm = self.create()
        whole = text_of(llm.chat(self.ask()))
        stop = _middle(whole)
        cut = whole[: whole.index(stop)]
        assert "".join(r.delta or "" for r in llm.stream_chat(self.ask(), stop=[stop])) == cut
        assert "".join([r.delta or "" for r in await gather(llm.astream_chat(self.ask(), stop=[stop]))]) == cut

    def test_max_tokens_of_the_constructor(self) -> None:
        """max_tokens=1 in the constructor makes the answer shorter than a long one."""
        assert len(text_of(self.create(max_tokens=1).chat(self.ask()))) < len(self._long_answer())

    def test_max_tokens_of_a_call(self) -> None:
        """max_tokens=1 in a call makes that answer shorter, and only that one."""
        llm = self.create()
        before = text_of(llm.chat(self.ask()))
        assert len(text_of(llm.chat(self.ask(), max_tokens=1))) < len(self._long_answer())
        if self.is_deterministic:
            assert text_of(llm.chat(self.ask())) == before

    def _long_answer(self) -> str:
        return text_of(self.create().chat(self.ask(), **self.long_options))

    def test_system_prompt(self) -> None:
        """The constructor's system_prompt is part of the prompt."""
        self.need("has_system_prompt", "has_token_usage")
        prompt = "You are a pirate and answer with pirate words only."
        short = self.create().chat(self.ask()).raw["usage"]["prompt_tokens"]
        assert self.create(system_prompt=prompt).chat(self.ask()).raw["usage"]["prompt_tokens"] > short + 5

    def test_conversation(self) -> None:
        """A conversation of all usual roles is answered."""
        turns = [("system", "Be brief."), ("user", "hello"), ("assistant", "hi"), ("user", "how are you?")]
        assert text_of(self.create().chat([ChatMessage(role=role, content=text) for role, text in turns]))

    def test_consecutive_roles(self) -> None:
        """Two messages of the same role in a row are answered."""
        roles = ("system", "system", "user", "user", "assistant", "assistant", "user", "user")
        assert text_of(self.create().chat([ChatMessage(role=role, content="hello") for role in roles]))

    def test_messages_are_not_changed(self) -> None:
        """The messages that are given stay as they are, also with a system prompt."""
        history = [*self.ask("hello"), ChatMessage(role="assistant", content="hi"), *self.ask()]
        before = dump(history)
        llm = self.create(system_prompt="Be brief.")
        llm.chat(history)
        list(llm.stream_chat(history))
        assert dump(history) == before

    def test_unicode(self) -> None:
        """Chinese, emoji and combined characters can be asked and streamed."""
        assert check_stream(list(self.create().stream_chat(self.ask("你好，🙂 e\u0301 \u202eabc"))))

    def test_long_prompts_are_refused(self) -> None:
        """A prompt longer than the context window is an error, not a silent cut."""
        self.need("refuses_long_prompts")
        llm = self.create()
        with pytest.raises(Exception, match=r"(?i)context|token|long"):
            llm.chat(self.ask("word 你好 " * llm.metadata.context_window))


def _middle(text: str) -> str:
    """Return a text of three characters from the middle of an answer."""
    assert len(text) >= 6, f"the answer {text!r} is too short to be cut; ask for a longer one"
    return text[len(text) // 2 : len(text) // 2 + 3]
