"""Questions over an index: a LangChain runnable that streams the answer, with citations and what it was found in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import cached_property, partial, reduce
from operator import add
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseLLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables.utils import AddableDict
from typing_extensions import NotRequired, TypedDict

from langchain_minicpm.chat_models import ChatMiniCPM
from langchain_minicpm.retrievers import MiniCPMRetriever, Searchable, open_searchable, to_document, to_passage
from langchain_minicpm.settings import MiniCPMSettings
from langchain_minicpm.unwrapping import refuse_other, takes_grammar, unwrap
from minicpm_core.answer_grammar import answer_grammar
from minicpm_core.answerability import is_unanswered
from minicpm_core.follow_up import condense_messages, condense_options, search_query, settle_question
from minicpm_core.index import Index
from minicpm_core.page_prompt import EngineSeat, show_pages
from minicpm_core.rag import (
    CHARS_PER_TOKEN,
    Passage,
    RagSettings,
    RefusalLanguage,
    build_messages,
    describe_dropped,
    detect_language,
    fit_passages,
    is_out_of_scope,
    is_refusal,
    prompt_room,
    refuse_local_settings,
)
from minicpm_core.support import find_sources, find_support


class RagInput(TypedDict):
    """A question and the conversation before it: messages, ("human", "...") tuples or dicts."""

    question: str
    chat_history: NotRequired[Sequence[Any]]


class RagOutput(TypedDict):
    """The answer, the passages that it names, and the passages that it was made from, in the order of their numbers.

    `support` tells for each sentence of the answer what it rests on: see `minicpm_core.support.Support`. `dropped` are
    the passages that the context window had no room for, best first: dicts of id, source and page.
    """

    answer: str
    citations: list[dict[str, Any]]
    support: list[dict[str, Any]]
    context: list[Document]
    dropped: list[dict[str, Any]]


def create_rag_chain(
    llm: Any, index: Searchable | BaseRetriever | str | Path, *, settings: RagSettings | None = None
) -> Runnable[Any, Any]:
    """Return a runnable that answers questions from the passages of an index, or says that they do not tell.

    Its input is a question, or {"question": ..., "chat_history": [...]}; its output is {"answer", "citations",
    "support", "context", "dropped"}: see `RagOutput`. `stream` yields context and dropped first, then the answer in
    pieces, then citations and support; the parts add up. A MiniCPM model writes under a grammar: `[n]` can only be the
    number of a passage that it was given. Pages that are stored as pictures are shown to it as pictures.

    Args:
        llm: any LangChain chat or completion model, also bound or `with_retry`, or the name of a model for
            `ChatMiniCPM`.
        index: the folder of an index, what `load_index` returns, or another LangChain vector store; or a retriever,
            whose own `k`, `where`, `reranker` and `budget` hold then.
        settings: None takes those of the index.

    Raises:
        TypeError: an argument that is none of these.
        ValueError: `settings.quote_only` or `min_answerability` with a model that is not loaded here.
    """
    llm = ChatMiniCPM(model=str(llm)) if isinstance(llm, str | Path) else llm
    refuse_other(llm)
    if not isinstance(settings, RagSettings | None):
        raise TypeError(f"settings is a {type(settings).__name__}; accepted: RagSettings, of minicpm_core.rag")
    retriever = index if isinstance(index, BaseRetriever) else MiniCPMRetriever(index=open_searchable(index))
    searchable = getattr(retriever, "index", None)
    rules = settings or getattr(searchable, "settings", None) or RagSettings()
    steps = RagSteps(llm, retriever, rules)
    if not takes_grammar(steps.llm):
        refuse_local_settings(rules, f"this {type(unwrap(steps.llm)[0]).__name__}", "a local ChatMiniCPM")
    answer: Any = steps.answer  # LangChain passes the config too, which its annotation does not tell
    aanswer: Any = steps.aanswer
    chain: Runnable[Any, Any] = (
        RunnableLambda(steps.read)
        | RunnablePassthrough.assign(query=RunnableLambda(steps.rewrite))
        | RunnableLambda(steps.search)
        | RunnableGenerator(answer, aanswer)
    )
    return chain.with_types(input_type=RagInput, output_type=RagOutput).with_config(run_name="minicpm_rag")


@dataclass(frozen=True)
class RagSteps:
    """The steps of the chain; each takes what the earlier ones found."""

    llm: Any
    retriever: BaseRetriever
    settings: RagSettings

    @cached_property
    def seat(self) -> EngineSeat | None:
        """Where the engine of a MiniCPM model is loaded, and makes room for the embedders of pages."""
        model, options = unwrap(self.llm)
        if not isinstance(model, MiniCPMSettings):
            return None
        searched = getattr(self.retriever, "index", None)
        index = searched if isinstance(searched, Index) else None
        load = partial(model.load_engine, options.get("model"))
        return EngineSeat(load, index, model.memory_limit, own=model.engine is None)

    def read(self, value: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return {"question", "history"} with the history as plain turns."""
        given = {"question": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            raise TypeError(f'the input is a {type(value).__name__}; accepted: a question, or {{"question": ...}}')
        if given.keys() - {"question", "chat_history"} or "question" not in given:
            raise ValueError(f'the input has {sorted(map(str, given))}; accepted: "question" (text) and "chat_history"')
        question, said = given["question"], given.get("chat_history") or []
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"the question is {question!r:.200}; give a text that is not empty")
        if isinstance(said, str):
            raise TypeError(
                "chat_history is a text; give a list of messages, such as [('human', '...'), ('ai', '...')]"
            )
        roles = {HumanMessage: "user", AIMessage: "assistant"}
        history = [
            {"role": role, "content": message.text}
            for message in convert_to_messages(said)
            for kind, role in roles.items()
            if isinstance(message, kind)
        ]
        return {"question": question, "history": history}

    def rewrite(self, state: Mapping[str, Any]) -> str | Runnable[Any, str]:
        """Return the text to search with: a follow-up question is made to stand alone."""
        question, history = state["question"], state["history"]
        if not history:
            return str(question)
        if self.settings.follow_up == "history":
            return search_query(question, history)
        room = self._room()
        messages = condense_messages(question, history, self.settings, room=room, count_tokens=self._counter(question))
        prompt = self._prompt(messages)
        engine = self.seat.open() if self.seat else None
        options = condense_options(engine, grammar=takes_grammar(self.llm)) if engine else {}
        settle = partial(settle_question, question=question, history=history, settings=self.settings)
        rewritten: Runnable[Any, str] = (
            RunnableLambda(lambda _: prompt)
            | self.llm.bind(**options)
            | RunnableLambda(lambda said: settle(_text(said)))
        )
        return rewritten

    def search(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state with the passages that are shown to the model, best first, and those without room."""
        if self.seat:
            self.seat.before_search()
        passages = self._find(state["query"])
        kept = passages
        if not is_out_of_scope(passages, self.settings):
            kept = self._fit(self._question(state), passages)
        context = [to_document(passage) for passage in kept]
        return {**state, "context": context, "dropped": describe_dropped(passages, len(kept))}

    def _find(self, query: str) -> list[Passage]:
        if isinstance(self.retriever, MiniCPMRetriever):
            return self.retriever.search(query, k=self.retriever.k or self.settings.k)
        return [to_passage(document) for document in self.retriever.invoke(query)]

    # The model is the last step and not one before a parser: LangChain runs a step's input to its end when the stream
    # is left early, so that the model would go on answering for nobody.

    def answer(self, states: Iterator[dict[str, Any]], config: RunnableConfig) -> Iterator[AddableDict]:
        """Yield the context, the answer in pieces, and the citations."""
        state = reduce(add, map(AddableDict, states))
        yield AddableDict(context=state["context"], dropped=state["dropped"])
        source, prompt = self._ask(state)
        text, wording = "", RefusalLanguage(state["question"], self.settings)
        for piece in source.stream(prompt, config):
            if shown := wording.push(_text(piece)):
                text += shown
                yield AddableDict(answer=shown)
        if shown := wording.flush():
            yield AddableDict(answer=shown)
        yield self._end(state, text + shown)

    async def aanswer(
        self, states: AsyncIterator[dict[str, Any]], config: RunnableConfig
    ) -> AsyncIterator[AddableDict]:
        """Do the same in asyncio."""
        state = reduce(add, [AddableDict(chunk) async for chunk in states])
        yield AddableDict(context=state["context"], dropped=state["dropped"])
        source, prompt = await asyncio.to_thread(self._ask, state)
        text, wording = "", RefusalLanguage(state["question"], self.settings)
        stream: Any = source.astream(prompt, config)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                if shown := wording.push(_text(piece)):
                    text += shown
                    yield AddableDict(answer=shown)
        if shown := wording.flush():
            yield AddableDict(answer=shown)
        yield self._end(state, text + shown)

    def _ask(self, state: Mapping[str, Any]) -> tuple[Runnable[Any, Any], Any]:
        """Return the model and its prompt, or what says the refusal where nothing near the question was found."""
        passages = [to_passage(document) for document in state["context"]]
        if is_out_of_scope(passages, self.settings):
            return RunnablePassthrough(), self.settings.refusals[detect_language(state["question"])]
        question = self._question(state)
        messages = self._messages(question, passages)
        if self.seat and is_unanswered(self.seat.open, question, messages, self.settings):
            return RunnablePassthrough(), self.settings.refusals[detect_language(question)]
        prompt = self._prompt(messages)
        if not takes_grammar(self.llm):
            return self.llm, prompt
        grammar = answer_grammar(question, [passage.text for passage in passages], self.settings)
        return self.llm.bind(grammar=grammar), prompt

    def _end(self, state: Mapping[str, Any], answer: str) -> AddableDict:
        passages = [to_passage(document) for document in state["context"]]
        refused = is_refusal(answer, self.settings)
        found = [] if refused else find_sources(self._question(state), answer, passages)
        support = [] if refused else find_support(answer, passages)
        end = AddableDict(
            citations=[asdict(citation) for citation in found], support=[asdict(sentence) for sentence in support]
        )
        return end if answer else end + AddableDict(answer="")

    def _question(self, state: Mapping[str, Any]) -> str:
        """Return the question as the model is asked it: the rewritten one stands alone, the searched one may not."""
        return str(state["query"] if self.settings.follow_up == "model" else state["question"])

    def _messages(self, question: str, passages: Sequence[Passage]) -> list[dict[str, Any]]:
        texts = [passage.text for passage in passages]
        pictures = self._show(passages)
        return build_messages(question, texts, **self.settings.prompts, pictures=pictures)

    def _show(self, passages: Sequence[Passage]) -> Mapping[int, Mapping[str, Any]]:
        if not any(passage.thumbnail for passage in passages):
            return {}
        model, _ = unwrap(self.llm)
        sees = not isinstance(model, BaseLLM) and (self.seat is None or self.seat.open().family.vision is not None)
        return show_pages(passages, sees=sees, name=str(getattr(model, "model", type(model).__name__)))

    def _prompt(self, messages: list[dict[str, Any]]) -> Any:
        model, _ = unwrap(self.llm)
        return "\n\n".join(m["content"] for m in messages) if isinstance(model, BaseLLM) else messages

    def _fit(self, question: str, passages: list[Passage]) -> list[Passage]:
        """Return the passages without the lowest-ranked ones that the context window has no room for."""
        room = self._room()
        if room is None:
            return passages
        count = self._counter(question)
        return fit_passages(question, passages, self.settings, room=room, count_tokens=count, show=self._show)

    def _room(self) -> int | None:
        """Return the longest prompt in tokens; None where the model does not tell its context window."""
        model, options = unwrap(self.llm)
        told = (getattr(model, "profile", None) or {}).get("max_input_tokens")
        window: int | None = self.seat.open().context_window if self.seat else told
        longest = options.get("max_tokens", getattr(model, "max_tokens", None))
        return None if window is None else prompt_room(window, longest)

    def _counter(self, question: str) -> Callable[[list[dict[str, Any]]], int]:
        if self.seat:
            return self.seat.open().count_tokens
        return partial(count_tokens_approximately, chars_per_token=CHARS_PER_TOKEN[detect_language(question)])


def _text(said: Any) -> str:
    """Return the text of a message, or of a completion model's answer."""
    if not isinstance(said, str | BaseMessage):
        raise TypeError(f"llm answers with a {type(said).__name__}, and not with text; give the model itself")
    return said if isinstance(said, str) else str(said.text)
