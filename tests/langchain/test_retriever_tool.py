"""The index as Chroma, as a retriever and as a tool; LangChain's suites for the latter two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from pydantic import ValidationError

from langchain_minicpm import (
    ChatMiniCPM,
    MiniCPMEmbeddings,
    MiniCPMReranker,
    MiniCPMRetriever,
    build_index,
    create_retriever_tool,
    load_index,
)
from langchain_minicpm.vectorstores import MiniCPMChroma
from minicpm_core.yes_no import YesNoReranker

QUESTION = "How long is the warranty of the lamp?"


class TestMiniCPMRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, store: MiniCPMChroma) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return MiniCPMRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.store}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION


class TestRetrieverToolUnit(ToolsUnitTests):
    @pytest.fixture(autouse=True)
    def _index(self, store: MiniCPMChroma) -> None:
        self.store = store

    @property
    def tool_constructor(self) -> BaseTool:
        return create_retriever_tool(self.store)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": QUESTION}


class TestRetrieverToolIntegration(ToolsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, store: MiniCPMChroma) -> None:
        self.store = store

    @property
    def tool_constructor(self) -> BaseTool:
        return create_retriever_tool(self.store)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": QUESTION}


def test_the_index_is_a_chroma_that_langchain_can_ask(store: MiniCPMChroma) -> None:
    assert isinstance(store, Chroma)
    (best,) = store.similarity_search(QUESTION, k=1)
    assert "warranty of two years" in best.page_content
    assert Path(best.metadata["source"]).name == "lamp.txt"
    ((same, score),) = store.similarity_search_with_relevance_scores(QUESTION, k=1)
    assert same.id == best.id
    assert score == pytest.approx(store.index.search(QUESTION, k=1)[0].similarity, abs=1e-4)
    assert store.as_retriever(search_kwargs={"k": 2}).invoke(QUESTION)[0].id == best.id


def test_the_chroma_refuses_changes_past_the_files(store: MiniCPMChroma) -> None:
    before = store.index.count()
    for change in (
        lambda: store.add_texts(["new"]),
        lambda: store.add_documents([Document("new")]),
        lambda: store.delete(ids=["x"]),
        lambda: store.update_document("x", Document("new")),
    ):
        with pytest.raises(ValueError, match="build_index"):
            change()
    assert store.index.count() == before


def test_opening_an_index(store: MiniCPMChroma, tmp_path: Path) -> None:
    folder = store.index.directory
    assert load_index(folder, embeddings=MiniCPMEmbeddings(model="demo")).index.count() == store.index.count()
    with pytest.raises(FileNotFoundError, match="no index in"):
        load_index(tmp_path)
    with pytest.raises(ValueError, match="accepted: an http"):
        load_index(chroma_url="localhost:8000")
    with pytest.raises(ValueError, match="give persist_directory"):
        load_index()


def test_any_langchain_embeddings_can_make_an_index(documents: Path, tmp_path: Path) -> None:
    embeddings = DeterministicFakeEmbedding(size=16)
    report = build_index(documents, persist_directory=tmp_path, embeddings=embeddings)
    assert len(report.added) == 4
    with pytest.raises(ValueError, match="pass it again"):
        load_index(tmp_path)
    store = load_index(tmp_path, embeddings=embeddings)
    assert store.index.count() == report.chunks
    store.index.close()


def test_documents_tell_where_they_stand_and_how_they_were_found(store: MiniCPMChroma) -> None:
    passage = store.index.search(QUESTION, k=1)[0]
    (document,) = MiniCPMRetriever(index=store.index.directory, k=1).invoke(QUESTION)
    assert (document.id, document.page_content) == (passage.id, passage.text)
    found = {name: getattr(passage, name) for name in ("source", "page", "score", "similarity", "coverage")}
    assert found.items() <= document.metadata.items()
    assert found["similarity"] > 0.5


async def test_k_is_exact_and_changes_per_call(store: MiniCPMChroma) -> None:
    retriever = MiniCPMRetriever(index=store, k=2)
    assert len(retriever.invoke(QUESTION)) == 2
    assert len(retriever.invoke(QUESTION, k=3)) == 3
    assert len(await retriever.ainvoke(QUESTION, k=1)) == 1
    assert len(MiniCPMRetriever(index=store).invoke(QUESTION)) == 4 == store.index.settings.k


async def test_a_condition_is_given_to_the_retriever_or_to_a_call(store: MiniCPMChroma) -> None:
    retriever = MiniCPMRetriever(index=store, k=2, where={"source": "returns.txt"})
    assert {document.metadata["source"] for document in retriever.invoke(QUESTION)} == {"returns.txt"}
    for found in (
        retriever.invoke(QUESTION, where={"source": "lamp.txt"}),
        await retriever.ainvoke(QUESTION, where={"source": {"$in": ["lamp.txt"]}}),
    ):
        assert {document.metadata["source"] for document in found} == {"lamp.txt"}
    with pytest.raises(ValueError, match=r"the operator '\$like'"):
        retriever.invoke(QUESTION, where={"source": {"$like": "x"}})


def test_neighbours_are_joined_within_the_budget(store: MiniCPMChroma) -> None:
    (narrow,) = MiniCPMRetriever(index=store, k=1).invoke(QUESTION)
    (wide,) = MiniCPMRetriever(index=store, k=1, budget=1000).invoke(QUESTION)
    assert narrow.page_content in wide.page_content
    assert wide.page_content == store.index.page_text(store.index.search(QUESTION, k=1)[0]).strip()
    assert MiniCPMRetriever(index=store, k=1, budget=1000).invoke(QUESTION, budget=0) == [narrow]


class ByLength:
    """Likes long texts."""

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        return [float(len(document)) for document in documents]


def test_a_reranker_orders_what_the_retriever_found(store: MiniCPMChroma) -> None:
    everything = store.index.search(QUESTION, k=20)
    longest = sorted((len(passage.text) for passage in everything), reverse=True)
    found = MiniCPMRetriever(index=store, k=3, reranker=ByLength()).invoke(QUESTION)
    assert [len(document.page_content) for document in found] == longest[:3]
    compressor = MiniCPMReranker(scorer=ByLength(), top_n=2)
    documents = MiniCPMRetriever(index=store, k=9).invoke(QUESTION)
    kept = compressor.compress_documents(documents, QUESTION)
    assert [document.metadata["relevance_score"] for document in kept] == sorted(
        (float(len(document.page_content)) for document in documents), reverse=True
    )[:2]
    other = InMemoryVectorStore(MiniCPMEmbeddings(model="demo"))
    other.add_documents([Document("A lamp."), Document("Cats sleep a lot."), Document("Dogs bark.")])
    (best,) = MiniCPMRetriever(index=other, k=1, reranker=ByLength()).invoke("lamp")
    assert best.page_content == "Cats sleep a lot."
    with pytest.raises(ValueError, match="budget joins neighbours of our own index only"):
        MiniCPMRetriever(index=other, budget=9).invoke("lamp")


def test_the_loaded_chat_model_reranks(store: MiniCPMChroma, toy: Path) -> None:
    model = ChatMiniCPM(model=str(toy))
    retriever = MiniCPMRetriever(index=store, k=2, reranker=model)
    scores = YesNoReranker(model.load_engine()).score(QUESTION, [p.text for p in store.index.search(QUESTION, k=20)])
    found = retriever.invoke(QUESTION)
    assert [document.metadata["score"] for document in found] == pytest.approx(sorted(scores)[::-1][:2], abs=1e-4)
    assert isinstance(MiniCPMReranker(scorer=model).load_model(), YesNoReranker)


def test_another_vector_store_is_searched_by_meaning() -> None:
    store = InMemoryVectorStore(MiniCPMEmbeddings(model="demo"))
    store.add_documents([Document("The lamp has a warranty."), Document("Cats sleep a lot.")])
    (found,) = MiniCPMRetriever(index=store, k=1).invoke("warranty of the lamp")
    assert found.page_content == "The lamp has a warranty."


def test_what_cannot_be_searched_is_refused(store: MiniCPMChroma) -> None:
    with pytest.raises(ValidationError, match="index is a int"):
        MiniCPMRetriever(index=3)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        MiniCPMRetriever(index=store, k=0)
    with pytest.raises(TypeError, match="top"):
        MiniCPMRetriever(index=store).invoke(QUESTION, top=3)


async def test_the_tool_numbers_passages_and_hands_over_documents(store: MiniCPMChroma) -> None:
    tool = create_retriever_tool(store, name="look_up", k=2)
    call = {"type": "tool_call", "name": "look_up", "id": "1", "args": {"query": QUESTION}}
    for message in (tool.invoke(call), await tool.ainvoke(call)):
        assert isinstance(message, ToolMessage)
        first, second = message.content.split("\n\n")
        assert first.startswith("[1] (")
        assert "lamp.txt" in first
        assert "warranty of two years" in first
        assert second.startswith("[2] (")
        assert [document.id for document in message.artifact] == [p.id for p in store.index.search(QUESTION, k=2)]
    assert tool.args["query"]["type"] == "string"
    narrowed = create_retriever_tool(MiniCPMRetriever(index=store, where={"source": "staff.txt"}), k=1)
    assert narrowed.invoke({"query": QUESTION}).startswith("[1] (staff.txt)")
    nothing = create_retriever_tool(MiniCPMRetriever(index=store, where={"source": "none"}))
    assert nothing.invoke({"query": QUESTION}) == "Nothing was found."


def test_a_call_may_lift_the_condition_and_must_ask_for_a_passage(store: MiniCPMChroma) -> None:
    source = store.index.search(QUESTION, 1)[0].source
    retriever = MiniCPMRetriever(index=store, k=4, where={"source": source})
    assert {document.metadata["source"] for document in retriever.invoke(QUESTION)} == {source}
    assert len({document.metadata["source"] for document in retriever.invoke(QUESTION, where={})}) > 1
    texts = InMemoryVectorStore.from_texts(["lamp"], DeterministicFakeEmbedding(size=8))
    for index in (store, texts):
        with pytest.raises(ValueError, match="k is 0; at least one passage must be asked for"):
            MiniCPMRetriever(index=index).invoke(QUESTION, k=0)


def test_a_retriever_is_no_index(store: MiniCPMChroma) -> None:
    with pytest.raises(ValidationError, match="index is a MiniCPMRetriever; accepted: the folder of an index"):
        MiniCPMRetriever(index=MiniCPMRetriever(index=store, where={"page": 1}))


def test_an_empty_query_of_a_model_does_not_end_its_agent(store: MiniCPMChroma) -> None:
    tool = create_retriever_tool(store)
    message = tool.invoke({"name": tool.name, "args": {"query": " "}, "id": "1", "type": "tool_call"})
    assert message.content == "The query is empty. Give a question or words to look for."
    assert message.artifact == []
