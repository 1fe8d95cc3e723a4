"""Passages as text for a model that asked a tool for them."""

from __future__ import annotations

from collections.abc import Sequence

from minicpm_core.rag import Passage, write_line

TOOL_NAME = "search_documents"
TOOL_DESCRIPTION = "Search the user's documents. Returns numbered passages with the files they come from."
QUERY_DESCRIPTION = "A question or words to look for in the documents."
NOTHING_FOUND = "Nothing was found."
EMPTY_QUERY = "The query is empty. Give a question or words to look for."


def number_passages(passages: Sequence[Passage]) -> str:
    """Return the passages as "[1] (file, page 2) passage", one paragraph each."""
    return "\n\n".join(
        f"[{n}] ({_place(passage)}) {write_line(passage.text)}" for n, passage in enumerate(passages, start=1)
    )


def _place(passage: Passage) -> str:
    source = write_line(passage.source or "unknown")
    return source if passage.page is None else f"{source}, page {passage.page}"
