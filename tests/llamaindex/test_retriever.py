"""The retriever with filters, neighbours and rerankers, and as a tool for agents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms.mock import MockLLM
from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores.types import (
    ExactMatchFilter,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llamaindex_minicpm import (
    MiniCPM,
    MiniCPMIndexRetriever,
    MiniCPMRerank,
    create_query_engine,
    create_retriever_tool,
    load_index,
)
from llamaindex_minicpm.filters import to_where
from minicpm_core.yes_no import YesNoReranker
from tests.llamaindex.conftest import WordEmbedding

QUESTION = "How long is the warranty of the lamp?"


class ByLength:
    """Likes long texts."""

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        return [float(len(document)) for document in documents]


def sources(nodes: Sequence[Any]) -> set[str]:
    return {node.node.metadata["source"] for node in nodes}


def test_filters_of_llamaindex_are_conditions_of_the_index(index: Any) -> None:
    staff = MetadataFilters(filters=[ExactMatchFilter(key="source", value="staff.txt")])
    assert to_where(staff) == {"source": {"$eq": "staff.txt"}}
    assert sources(MiniCPMIndexRetriever(index, filters=staff).retrieve(QUESTION)) == {"staff.txt"}
    assert sources(MiniCPMIndexRetriever(index, filters={"source": "zh.txt"}).retrieve(QUESTION)) == {"zh.txt"}
    either = MetadataFilters(
        filters=[
            MetadataFilter(key="source", operator=FilterOperator.IN, value=["lamp.txt"]),
            MetadataFilters(
                filters=[
                    MetadataFilter(key="start", operator=FilterOperator.GTE, value=0),
                    MetadataFilter(key="source", operator=FilterOperator.NE, value="zh.txt"),
                    MetadataFilter(key="source", operator=FilterOperator.NIN, value=["staff.txt"]),
                ]
            ),
        ],
        condition=FilterCondition.OR,
    )
    assert sources(MiniCPMIndexRetriever(index, k=20, filters=either).retrieve(QUESTION)) == {"lamp.txt", "returns.txt"}
    assert to_where(MetadataFilters(filters=[])) is None
    with pytest.raises(ValueError, match=r"'source' has the operator 'text_match'; accepted: ==, !=, >, >=, <, <=, in"):
        to_where(MetadataFilters(filters=[MetadataFilter(key="source", operator=FilterOperator.TEXT_MATCH, value="x")]))
    with pytest.raises(ValueError, match="joined by 'not'; accepted are and, or"):
        to_where(MetadataFilters(filters=[], condition=FilterCondition.NOT))


async def test_a_reranker_orders_what_was_found(index: Any, toy: Path) -> None:
    everything = index.documents.search(QUESTION, 20)
    longest = sorted((len(passage.text) for passage in everything), reverse=True)
    retriever = MiniCPMIndexRetriever(index, k=2, reranker=ByLength())
    for nodes in (retriever.retrieve(QUESTION), await retriever.aretrieve(QUESTION)):
        assert [node.score for node in nodes] == longest[:2]
    found = MiniCPMIndexRetriever(index, k=4).retrieve(QUESTION)
    ranked = MiniCPMRerank(scorer=ByLength(), top_n=1).postprocess_nodes(found, query_str=QUESTION)
    assert len(ranked[0].node.get_content()) == max(len(node.node.get_content()) for node in found)
    model = MiniCPM(model=str(toy))
    scores = YesNoReranker(model.load_engine()).score(QUESTION, [passage.text for passage in everything])
    (best,) = MiniCPMIndexRetriever(index, k=1, reranker=model).retrieve(QUESTION)
    assert best.score == pytest.approx(max(scores), abs=1e-4)


def test_neighbours_are_joined_within_the_budget(index: Any) -> None:
    (narrow,) = MiniCPMIndexRetriever(index, k=1).retrieve(QUESTION)
    (wide,) = MiniCPMIndexRetriever(index, k=1, budget=1000).retrieve(QUESTION)
    assert narrow.node.get_content() in wide.node.get_content()
    assert wide.node.get_content() == index.documents.page_text(index.documents.search(QUESTION, 1)[0])


async def test_the_tool_numbers_passages_and_hands_over_nodes(index: Any) -> None:
    tool = create_retriever_tool(index, k=2)
    passages = index.documents.search(QUESTION, 2)
    assert tool.metadata.get_name() == "search_documents"
    assert tool.metadata.get_parameters_dict()["required"] == ["query"]
    for output in (tool.call(query=QUESTION), await tool.acall(query=QUESTION)):
        first, second = output.content.split("\n\n")
        assert first == f"[1] (lamp.txt) {passages[0].text}"
        assert second.startswith("[2] (")
        assert [node.node.node_id for node in output.raw_output] == [passage.id for passage in passages]
        assert output.raw_input == {"query": QUESTION}
    nothing = create_retriever_tool(MiniCPMIndexRetriever(index, filters={"source": "none"}))
    assert nothing.call(query=QUESTION).content == "Nothing was found."
    with pytest.raises(ValueError, match="k is given beside a retriever"):
        create_retriever_tool(MiniCPMIndexRetriever(index), k=2)


async def test_an_agent_searches_with_the_tool(index: Any, toy: Path) -> None:
    tool = create_retriever_tool(index, k=1)
    model = MiniCPM(model=str(toy), max_tokens=60, temperature=0)
    response = model.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    (call,) = model.get_tool_calls_from_response(response)
    assert call.tool_name == "search_documents"
    assert isinstance(call.tool_kwargs["query"], str)
    output = await tool.acall(**call.tool_kwargs) if call.tool_kwargs["query"].strip() else tool.call(query=QUESTION)
    assert output.content.startswith("[1] (")


@pytest.mark.parametrize("k", [0, 2.5, "3"])
def test_a_number_of_passages_that_is_none_is_refused(index: Any, k: Any) -> None:
    with pytest.raises(ValueError, match=f"k is {k!r}; at least one passage must be asked for, with a whole number"):
        MiniCPMIndexRetriever(index, k=k).retrieve(QUESTION)


def test_a_closed_index_says_so_and_is_not_called_damaged(index_folder: Path) -> None:
    closed = load_index(index_folder, embeddings=WordEmbedding())
    closed.close()
    with pytest.raises(RuntimeError, match=f"the index in {index_folder} is closed; open it again"):
        MiniCPMIndexRetriever(closed).retrieve(QUESTION)


def test_texts_that_stand_for_the_question_are_what_is_searched_with(index: Any) -> None:
    imagined = QueryBundle("Who?", custom_embedding_strs=["Anna Keller leads the warehouse in Hamburg."])
    retriever = MiniCPMIndexRetriever(index, k=1)
    assert sources(retriever.retrieve(imagined)) == {"staff.txt"}
    assert sources(retriever.retrieve(QueryBundle(QUESTION))) == {"lamp.txt"}
    response = create_query_engine(retriever, MockLLM()).query(imagined)
    assert sources(response.source_nodes) == {"staff.txt"}
