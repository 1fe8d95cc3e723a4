"""The RAG chain over a real index: what the model is asked, what comes out, and in which order."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_minicpm import ChatMiniCPM, MiniCPMEmbeddings, MiniCPMLLM, MiniCPMRetriever, create_rag_chain
from langchain_minicpm.vectorstores import MiniCPMChroma
from minicpm_core import Engine, Sampling
from minicpm_core.answer_grammar import cite_grammar
from minicpm_core.checkpoints import DEMO
from minicpm_core.rag import REFUSALS, SYSTEM_PROMPTS, RagSettings, build_messages
from tests.langchain.conftest import Recorder

QUESTION = "How long is the warranty of the lamp?"
ANSWER = "The warranty is two years [1]."
SETTINGS = RagSettings(k=3)
HISTORY = [("human", "What does the Aurora lamp cost?"), ("ai", "It costs 35 EUR [1].")]


def says(*answers: str, **options: Any) -> FakeListChatModel:
    return FakeListChatModel(responses=list(answers), **options)


def test_the_answer_comes_with_its_citations_and_passages(store: MiniCPMChroma, recorder: Recorder) -> None:
    chain = create_rag_chain(says(ANSWER), store, settings=SETTINGS)
    output = chain.invoke({"question": QUESTION}, {"callbacks": [recorder]})
    passages = store.index.search(QUESTION, 3)
    assert output["answer"] == ANSWER
    assert [document.id for document in output["context"]] == [passage.id for passage in passages]
    assert output["citations"] == [
        {
            "n": 1,
            "source": passages[0].source,
            "page": None,
            "quote": "The Aurora desk lamp has a warranty of two years.",
        }
    ]
    (prompt,) = recorder.prompts
    expected = build_messages(QUESTION, [passage.text for passage in passages])
    assert [(m.type, m.content) for m in prompt] == [
        ("system", expected[0]["content"]),
        ("human", expected[1]["content"]),
    ]


async def test_every_way_of_asking_gives_the_same(store: MiniCPMChroma) -> None:
    chain = create_rag_chain(says(ANSWER), store, settings=SETTINGS)
    expected = chain.invoke(QUESTION)
    assert set(expected) == {"answer", "citations", "support", "context", "dropped"}
    assert reduce(add, chain.stream(QUESTION)) == expected
    assert await chain.ainvoke({"question": QUESTION}) == expected
    assert reduce(add, [chunk async for chunk in chain.astream(QUESTION)]) == expected
    assert chain.batch([QUESTION, {"question": QUESTION}]) == [expected, expected]


async def test_a_stream_gives_context_then_answer_then_citations(store: MiniCPMChroma) -> None:
    chain = create_rag_chain(says(ANSWER), store, settings=SETTINGS)
    for chunks in (list(chain.stream(QUESTION)), [chunk async for chunk in chain.astream(QUESTION)]):
        keys = [next(iter(chunk)) for chunk in chunks]
        assert keys == ["context", *["answer"] * len(ANSWER), "citations"]
        assert set(chunks[0]) == {"context", "dropped"}
        assert all(len(chunk) == 1 for chunk in chunks[1:-1])
        assert set(chunks[-1]) == {"citations", "support"}
        assert "".join(chunk["answer"] for chunk in chunks[1:-1]) == ANSWER


def test_only_passages_that_were_shown_can_be_cited(store: MiniCPMChroma) -> None:
    answer = "See [2], [9] and [2], then [1]."
    output = create_rag_chain(says(answer), store, settings=SETTINGS).invoke(QUESTION)
    assert [citation["n"] for citation in output["citations"]] == [2, 1]
    for citation in output["citations"]:
        document = output["context"][citation["n"] - 1]
        assert citation["source"] == document.metadata["source"]
        assert citation["quote"] in document.page_content


def test_an_answer_without_a_mark_has_the_sources_of_its_words(store: MiniCPMChroma) -> None:
    output = create_rag_chain(says("The lamp has a warranty of two years."), store, settings=SETTINGS).invoke(QUESTION)
    assert output["answer"] == "The lamp has a warranty of two years."
    assert [citation["quote"] for citation in output["citations"]] == [
        "The Aurora desk lamp has a warranty of two years."
    ]
    unfounded = create_rag_chain(says("Perhaps forever, nobody knows."), store, settings=SETTINGS).invoke(QUESTION)
    assert unfounded["citations"] == []


def test_quote_only_answers_with_sentences_of_the_passages(store: MiniCPMChroma, toy: Path) -> None:
    settings = RagSettings(k=2, quote_only=True)
    for seed in range(4):
        model = ChatMiniCPM(model=toy, temperature=2.0, seed=seed, max_tokens=400)
        output = create_rag_chain(model, store, settings=settings).invoke(QUESTION)
        if output["answer"] == REFUSALS["en"]:
            continue
        texts = [" ".join(document.page_content.split()) for document in output["context"]]
        for line in output["answer"].split("\n"):
            assert re.fullmatch(r"\[[12]\] .+", line)
            assert line[4:] in texts[int(line[1]) - 1]
        assert all(sentence["verbatim"] for sentence in output["support"])
    with pytest.raises(ValueError, match=r"quote_only decodes under a grammar, which this FakeListChatModel cannot"):
        create_rag_chain(says(ANSWER), store, settings=settings)


def test_a_retriever_keeps_its_own_number_condition_and_order(store: MiniCPMChroma) -> None:
    class Shortest:
        def score(self, query: str, documents: Sequence[str]) -> list[float]:
            return [-float(len(document)) for document in documents]

    source = store.index.search(QUESTION, 1)[0].source
    retriever = MiniCPMRetriever(index=store, k=2, where={"source": {"$ne": source}}, reranker=Shortest())
    context = create_rag_chain(says(ANSWER), retriever, settings=SETTINGS).invoke(QUESTION)["context"]
    assert [d.id for d in context] == [d.id for d in retriever.invoke(QUESTION)]
    assert len(context) == 2
    assert source not in {document.metadata["source"] for document in context}
    assert len(context[0].page_content) <= len(context[1].page_content)
    without_k = MiniCPMRetriever(index=store, where={"source": source})
    found = create_rag_chain(says(ANSWER), without_k, settings=RagSettings(k=1)).invoke(QUESTION)["context"]
    assert [document.metadata["source"] for document in found] == [source]


def test_another_retriever_is_asked_as_it_is() -> None:
    retriever = InMemoryVectorStore.from_texts(
        ["The lamp has a warranty of two years.", "The rent is due on Monday."], DeterministicFakeEmbedding(size=8)
    ).as_retriever(search_kwargs={"k": 2})
    output = create_rag_chain(says(ANSWER), retriever, settings=RagSettings(k=1)).invoke(QUESTION)
    assert [d.page_content for d in output["context"]] == [d.page_content for d in retriever.invoke(QUESTION)]
    assert output["answer"] == ANSWER


def test_a_model_that_is_asked_again_after_errors_writes_under_the_grammar_too(store: MiniCPMChroma, toy: Path) -> None:
    model = ChatMiniCPM(model=toy, temperature=1.0, max_tokens=200)
    settings, numbers = RagSettings(k=2, quote_only=True), []
    for seed in range(3):
        again = model.bind(seed=seed).with_retry()
        answer = create_rag_chain(again, store, settings=settings).invoke(QUESTION)["answer"]
        assert answer == REFUSALS["en"] or re.match(r"\[[12]\] ", answer)
        numbers += re.findall(r"^\[(\d+)\] ", answer, re.M)
    assert set(numbers) <= {"1", "2"}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (7, TypeError, "the input is a int; accepted: a question"),
        ([HumanMessage("Hi")], TypeError, "the input is a list"),
        ({"input": "Hi"}, ValueError, r"the input has \['input'\]"),
        (" ", ValueError, "the question is ' '; give a text that is not empty"),
        ({"question": None}, ValueError, "the question is None"),
        ({"question": "Hi", "chat_history": "Human: Hello"}, TypeError, "chat_history is a text; give a list"),
    ],
)
def test_an_input_that_is_no_question_is_refused(
    store: MiniCPMChroma, given: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        create_rag_chain(says(ANSWER), store, settings=SETTINGS).invoke(given)


def test_arguments_of_other_kinds_are_refused_when_the_chain_is_made(store: MiniCPMChroma) -> None:
    model: Any = object()
    settings: Any = {"k": 3}
    with pytest.raises(TypeError, match="llm is a object; accepted: a LangChain model, or the name of one"):
        create_rag_chain(model, store)
    chat = ChatMiniCPM(model="demo")
    for options in ({"tools": [{"title": "look"}]}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(TypeError, match=f"llm has {next(iter(options))} bound; give the model without"):
            create_rag_chain(chat.bind(**options).with_retry(), store)
    parsed = says(ANSWER) | RunnableLambda(lambda message: [message])
    with pytest.raises(TypeError, match="llm answers with a list, and not with text; give the model itself"):
        create_rag_chain(parsed, store, settings=SETTINGS).invoke(QUESTION)
    with pytest.raises(TypeError, match="settings is a dict; accepted: RagSettings"):
        create_rag_chain(says(ANSWER), store, settings=settings)


def test_a_wild_answer_names_only_passages_that_were_given(store: MiniCPMChroma, toy: Path) -> None:
    settings, numbers = RagSettings(k=2), []
    for seed in range(3):
        model = ChatMiniCPM(model=toy, temperature=1.0, seed=seed, max_tokens=200)
        answer = create_rag_chain(model, store, settings=settings).invoke(QUESTION)["answer"]
        numbers += re.findall(r"[\[【](\d+)", answer)
    assert set(numbers) <= {"1", "2"}


@pytest.mark.parametrize(("question", "language"), [(QUESTION, "en"), ("台灯的保修期多长？", "zh")])
def test_a_refusal_of_the_model_has_no_citations(store: MiniCPMChroma, question: str, language: str) -> None:
    output = create_rag_chain(says(REFUSALS[language]), store, settings=SETTINGS).invoke(question)
    assert (output["answer"], output["citations"]) == (REFUSALS[language], [])


@pytest.mark.parametrize(
    ("question", "language"), [("Who won the chess olympiad?", "en"), ("谁赢得了象棋比赛？", "zh")]
)
def test_out_of_scope_is_refused_without_asking_the_model(
    store: MiniCPMChroma, recorder: Recorder, question: str, language: str
) -> None:
    settings = RagSettings(k=2, min_similarity=0.99, min_coverage=0.9)
    chain = create_rag_chain(says(ANSWER), store, settings=settings)
    output = chain.invoke(question, {"callbacks": [recorder]})
    assert (output["answer"], output["citations"]) == (REFUSALS[language], [])
    assert recorder.prompts == []
    assert reduce(add, chain.stream(question)) == output


@pytest.mark.parametrize(
    "history",
    [
        HISTORY,
        [HumanMessage(HISTORY[0][1]), AIMessage(HISTORY[1][1])],
        [{"role": "user", "content": HISTORY[0][1]}, {"role": "assistant", "content": HISTORY[1][1]}],
    ],
)
def test_a_follow_up_question_is_rewritten_by_the_model(
    store: MiniCPMChroma, recorder: Recorder, history: list[Any]
) -> None:
    standalone = "Where does Anna Keller work?"
    chain = create_rag_chain(says(f" {standalone}\n", "In Hamburg [1]."), store, settings=SETTINGS)
    asked_for = "And where does Anna Keller work?"
    output = chain.invoke({"question": asked_for, "chat_history": history}, {"callbacks": [recorder]})
    condense, asked = recorder.prompts
    assert "user: What does the Aurora lamp cost?\nassistant: It costs 35 EUR [1]." in condense[0].content
    assert asked_for in condense[0].content
    assert asked[-1].content.endswith(f"Question: {standalone}")
    assert Path(output["context"][0].metadata["source"]).name == "staff.txt"
    assert output["answer"] == "In Hamburg [1]."


def test_an_empty_rewriting_keeps_the_question(store: MiniCPMChroma, recorder: Recorder) -> None:
    chain = create_rag_chain(says("  ", ANSWER), store, settings=SETTINGS)
    chain.invoke({"question": QUESTION, "chat_history": HISTORY}, {"callbacks": [recorder]})
    assert recorder.prompts[1][-1].content.endswith(f"Question: {QUESTION}")


def test_a_rewriting_that_is_none_is_replaced_by_the_last_words(store: MiniCPMChroma, recorder: Recorder) -> None:
    chain = create_rag_chain(says("It costs 35 EUR [1].", ANSWER), store, settings=SETTINGS)
    output = chain.invoke({"question": "And its warranty?", "chat_history": HISTORY}, {"callbacks": [recorder]})
    query = "And its warranty? (Aurora lamp cost)"
    assert recorder.prompts[1][-1].content.endswith(f"Question: {query}")
    assert [document.id for document in output["context"]] == [p.id for p in store.index.search(query, 3)]


def test_a_real_model_is_asked_for_one_short_line(store: MiniCPMChroma, toy: Path, recorder: Recorder) -> None:
    said: list[str] = []

    class Listener(BaseCallbackHandler):
        def on_llm_end(self, response: Any, **_: Any) -> None:
            said.append(response.generations[0][0].text)

    model = ChatMiniCPM(model=toy, temperature=2.0, max_tokens=8)
    chain = create_rag_chain(model, store, settings=RagSettings(k=1))
    inputs = {"question": "And its warranty?", "chat_history": HISTORY}
    for _ in range(2):
        chain.invoke(inputs, {"callbacks": [recorder, Listener()]})
    first, _, second, _ = said
    assert first == second  # greedy, unlike the answers
    assert len(model.load_engine().tokenize(first)) > 8
    assert "\n" not in first
    asked = [recorder.prompts[n][-1].content.splitlines()[-1] for n in (1, 3)]
    assert asked == ["Question: And its warranty? (Aurora lamp cost)"] * 2  # random weights write no question


def test_a_follow_up_question_can_be_searched_with_the_one_before(store: MiniCPMChroma, recorder: Recorder) -> None:
    settings = RagSettings(k=2, follow_up="history")
    chain = create_rag_chain(says(ANSWER), store, settings=settings)
    question = "And how much does it weigh?"
    output = chain.invoke({"question": question, "chat_history": HISTORY}, {"callbacks": [recorder]})
    (asked,) = recorder.prompts
    assert asked[-1].content.endswith(f"Question: {question}")
    expected = store.index.search(f"{HISTORY[0][1]} {question}", 2)
    assert [document.id for document in output["context"]] == [passage.id for passage in expected]


def test_every_prompt_can_be_replaced(store: MiniCPMChroma, recorder: Recorder) -> None:
    settings = RagSettings(
        k=1,
        system_prompts={"en": f"You are a pirate. {SYSTEM_PROMPTS['en']}", "zh": "海盗"},
        question_labels={"en": "Ahoy: ", "zh": "喂："},
        condense_prompts={"en": "After {history}, what is {question}", "zh": "{history}{question}"},
        refusals={"en": "Nay.", "zh": "不。"},
    )
    chain = create_rag_chain(says("warranty of the lamp?", "Nay."), store, settings=settings)
    output = chain.invoke({"question": "And its warranty?", "chat_history": HISTORY}, {"callbacks": [recorder]})
    condense, (system, human) = recorder.prompts
    assert condense[0].content.startswith("After user: What does the Aurora lamp cost?")
    assert condense[0].content.endswith("what is And its warranty?")
    assert system.content == f"You are a pirate. {SYSTEM_PROMPTS['en']}"
    assert human.content.endswith("\n\nAhoy: warranty of the lamp?")
    assert (output["answer"], output["citations"], output["support"]) == ("Nay.", [], [])


def test_lowest_ranked_passages_give_way_to_a_small_window(
    store: MiniCPMChroma, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    small = says(ANSWER, profile={"max_input_tokens": 170})
    with caplog.at_level(logging.WARNING, "langchain_minicpm"):
        output = create_rag_chain(small, store, settings=SETTINGS).invoke(QUESTION, {"callbacks": [recorder]})
    best = store.index.search(QUESTION, 3)
    assert [document.id for document in output["context"]] == [best[0].id]
    assert "2 of 3 passages left out" in caplog.text
    assert output["dropped"] == [{"id": p.id, "source": p.source, "page": None} for p in best[1:]]
    assert reduce(add, create_rag_chain(small, store, settings=SETTINGS).stream(QUESTION)) == output
    assert best[0].text in recorder.prompts[0][-1].content
    assert best[1].text not in recorder.prompts[0][-1].content


def test_a_real_model_counts_with_its_own_tokenizer(store: MiniCPMChroma, toy: Path, engine: Engine) -> None:
    best = store.index.search(QUESTION, 3)
    lengths = [engine.count_tokens(build_messages(QUESTION, [p.text for p in best[:n]])) for n in (1, 2, 3)]
    window = lengths[1] + 4
    model = ChatMiniCPM(model=toy, temperature=0, max_tokens=4, context_window=window)
    output = create_rag_chain(model, store, settings=SETTINGS).invoke(QUESTION)
    assert lengths[2] + 4 > window
    assert [document.id for document in output["context"]] == [passage.id for passage in best[:2]]


async def test_a_real_model_streams_its_answer(store: MiniCPMChroma, chat: ChatMiniCPM, engine: Engine) -> None:
    messages = build_messages(QUESTION, [p.text for p in store.index.search(QUESTION, 1)])
    expected = engine.generate(
        messages, grammar=cite_grammar(1), sampling=Sampling(temperature=0, max_new_tokens=16)
    ).content
    chain = create_rag_chain(chat, store, settings=RagSettings(k=1))
    pieces = [chunk["answer"] for chunk in chain.stream(QUESTION) if "answer" in chunk]
    assert len(pieces) > 3
    assert "".join(pieces) == expected
    assert [chunk["answer"] async for chunk in chain.astream(QUESTION) if "answer" in chunk] == pieces
    bound = create_rag_chain(chat.bind(max_tokens=3), store, settings=RagSettings(k=1))
    shorter = engine.generate(
        messages, grammar=cite_grammar(1), sampling=Sampling(temperature=0, max_new_tokens=3)
    ).content
    assert bound.invoke(QUESTION)["answer"] == shorter != expected


def test_completion_models_answer_too(store: MiniCPMChroma, llm: MiniCPMLLM, engine: Engine) -> None:
    messages = build_messages(QUESTION, [p.text for p in store.index.search(QUESTION, 1)])
    prompt = "\n\n".join(message["content"] for message in messages)
    output = create_rag_chain(llm, store, settings=RagSettings(k=1)).invoke(QUESTION)
    assert output["answer"] == llm.invoke(prompt, grammar=cite_grammar(1))
    assert create_rag_chain(FakeListLLM(responses=[ANSWER]), store).invoke(QUESTION)["answer"] == ANSWER


async def test_leaving_the_stream_stops_the_model(store: MiniCPMChroma, toy: Path, engine: Engine) -> None:
    chain = create_rag_chain(ChatMiniCPM(model=toy, max_tokens=300), store, settings=RagSettings(k=1))
    passes: list[int] = []
    with engine.model.register_forward_hook(lambda *_: passes.append(1)):
        stream = chain.stream(QUESTION)
        assert any("answer" in chunk for chunk in stream)
        stream.close()
        engine.generate("Hi", sampling=Sampling(max_new_tokens=1))
        assert len(passes) < 200
        asynchronous = chain.astream(QUESTION)
        async for chunk in asynchronous:
            if "answer" in chunk:
                break
        await asynchronous.aclose()
        await engine.agenerate("Hi", sampling=Sampling(max_new_tokens=1))
    assert len(passes) < 400


async def test_searching_does_not_block_the_event_loop(store: MiniCPMChroma, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    search = store.index.search

    def wait_for_loop(*arguments: Any, **options: Any) -> Any:
        assert gate.wait(30), "the event loop was blocked"
        return search(*arguments, **options)

    monkeypatch.setattr(store.index, "search", wait_for_loop)
    task = asyncio.create_task(create_rag_chain(says(ANSWER), store).ainvoke(QUESTION))
    while not gate.is_set():
        await asyncio.sleep(0.05)
        gate.set()
    assert (await task)["answer"] == ANSWER


async def test_events_show_the_model_at_work(store: MiniCPMChroma) -> None:
    chain = create_rag_chain(says(ANSWER), store, settings=SETTINGS)
    events = [event async for event in chain.astream_events(QUESTION, version="v2")]
    tokens = [event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(tokens) == ANSWER
    assert events[-1]["name"] == "minicpm_rag"


def test_another_vector_store_will_do(recorder: Recorder) -> None:
    plain = InMemoryVectorStore(MiniCPMEmbeddings(model="demo"))
    plain.add_documents([Document("The lamp has a warranty.", metadata={"source": "a.txt", "page": 3})])
    output = create_rag_chain(says("Yes [1]."), plain).invoke(QUESTION)
    assert output["citations"] == [{"n": 1, "source": "a.txt", "page": 3, "quote": "The lamp has a warranty."}]
    empty = InMemoryVectorStore(MiniCPMEmbeddings(model="demo"))
    refused = create_rag_chain(says("Yes [1]."), empty).invoke(QUESTION, {"callbacks": [recorder]})
    assert refused == {"answer": REFUSALS["en"], "citations": [], "support": [], "context": [], "dropped": []}
    assert recorder.prompts == []


def test_names_and_folders_are_enough(store: MiniCPMChroma, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = create_rag_chain(str(toy), store.index.directory, settings=RagSettings(k=1)).invoke(QUESTION)
    assert Path(output["context"][0].metadata["source"]).name == "lamp.txt"
    assert len(create_rag_chain(says(ANSWER), store).invoke(QUESTION)["context"]) == 4 == store.index.settings.k


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, 'accepted: "question"'),
        ({"question": " "}, "the question is ' '"),
        ({"question": 3}, "the question is 3"),
        ({"input": QUESTION}, 'accepted: "question"'),
        ({"question": "a", "k": 2}, 'accepted: "question"'),
    ],
)
def test_other_input_is_refused(store: MiniCPMChroma, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        create_rag_chain(says(ANSWER), store).invoke(value)


@pytest.mark.skipif(not (DEMO / "config.json").is_file(), reason="the demo checkpoint is not here")
def test_the_demo_model_answers_from_the_documents_and_cites_them(store: MiniCPMChroma) -> None:
    chain = create_rag_chain(ChatMiniCPM(model="demo", temperature=0), store)
    output = chain.invoke("How long is the warranty of the Aurora desk lamp?")
    assert "two years" in output["answer"]
    assert [Path(citation["source"]).name for citation in output["citations"]] == ["lamp.txt"]
