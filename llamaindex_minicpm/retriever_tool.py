"""The index as a tool for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.schema import NodeWithScore
from llama_index.core.tools.types import AsyncBaseTool, ToolMetadata, ToolOutput

from llamaindex_minicpm.index import MiniCPMIndex, MiniCPMIndexRetriever, to_passage
from minicpm_core.index import Index
from minicpm_core.index.listing import (
    NOTHING_FOUND,
    QUERY_DESCRIPTION,
    TOOL_DESCRIPTION,
    TOOL_NAME,
    number_passages,
)


class SearchInput(BaseModel):
    """What the tool is asked."""

    query: str = Field(description=QUERY_DESCRIPTION)


class SearchTool(AsyncBaseTool):
    """Searches documents for an agent; made by `create_retriever_tool`."""

    def __init__(self, retriever: BaseRetriever, metadata: ToolMetadata) -> None:
        self.retriever = retriever
        self._metadata = metadata

    @property
    def metadata(self) -> ToolMetadata:
        """The name, the description and the schema of the arguments."""
        return self._metadata

    def call(self, query: str) -> ToolOutput:
        """Return numbered passages; `raw_output` has the nodes."""
        return self._tell(query, self.retriever.retrieve(query))

    async def acall(self, query: str) -> ToolOutput:
        """Do the same without blocking the event loop."""
        return self._tell(query, await self.retriever.aretrieve(query))

    def _tell(self, query: str, nodes: list[NodeWithScore]) -> ToolOutput:
        return ToolOutput(
            content=number_passages([to_passage(node) for node in nodes]) or NOTHING_FOUND,
            tool_name=self.metadata.get_name(),
            raw_input={"query": query},
            raw_output=nodes,
        )


def create_retriever_tool(
    index: str | Path | Index | MiniCPMIndex | BaseRetriever,
    *,
    name: str = TOOL_NAME,
    description: str = TOOL_DESCRIPTION,
    k: int | None = None,
) -> SearchTool:
    """Return a tool that searches the index: its content is numbered passages, its `raw_output` the nodes.

    Args:
        index: the folder of an index, an opened one, what `load_index` returns, or any LlamaIndex retriever.
        name: what the model calls the tool by.
        description: what the model is told about it.
        k: passages to return; None takes the index's settings. A retriever brings its own.

    Raises:
        ValueError: `k` beside a retriever.
    """
    metadata: Any = ToolMetadata(description, name, SearchInput)
    if isinstance(index, BaseRetriever):
        if k is not None:
            raise ValueError("k is given beside a retriever, which has its own; give it there")
        return SearchTool(index, metadata)
    return SearchTool(MiniCPMIndexRetriever(index, k=k), metadata)
