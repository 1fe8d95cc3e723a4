"""From a question to the turn that shows its answer, step by step as the model writes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_app.web.conversation import Conversation, Conversations, Run, Turn

if TYPE_CHECKING:
    from minicpm_core.index import Index

_PATIENCE = 0.5
"""Seconds after which a silent answer is shown again, with the answers that are before it."""


async def answer(
    conversations: Conversations, conversation: Conversation, turn: Turn, stream: AsyncIterator[dict[str, Any]]
) -> AsyncGenerator[int, None]:
    """Fill `turn` from a stream of parts; yield the number of answers before it, after every part.

    Leaving this iterator early, and `conversation.run.stop()`, end the model within a token.
    """
    run = conversation.run = Run(stream)
    conversations.runs.append(run)
    try:
        async for part in run.items(_PATIENCE):
            if part:
                _take(turn, part)
            yield 0 if turn.answer or turn.reasoning else conversations.ahead(run)
        turn.state = "stopped" if run.stopped else "done"
    except Exception as error:
        turn.state, turn.note = "failed", " ".join(str(error).split()) or type(error).__name__
    finally:
        if turn.state == "running":
            turn.state = "stopped"
        conversations.runs.remove(run)
        conversation.run = None
        await run.end()


def _take(turn: Turn, part: dict[str, Any]) -> None:
    turn.answer += part.get("answer", "")
    turn.reasoning += part.get("reasoning", "")
    turn.passages = part.get("passages", turn.passages)
    turn.quotes |= part.get("quotes", {})
    turn.dropped = part.get("dropped", turn.dropped)
    turn.used = part.get("used", turn.used)


async def ask_documents(
    chat: Any, index: Index, question: str, history: Sequence[tuple[str, str]]
) -> AsyncIterator[dict[str, Any]]:
    """Yield the parts of an answer from the passages of an index."""
    from langchain_core.callbacks import UsageMetadataCallbackHandler

    from langchain_minicpm import create_rag_chain
    from langchain_minicpm.retrievers import to_passage

    usage = UsageMetadataCallbackHandler()
    stream: Any = create_rag_chain(chat, index).astream(
        {"question": question, "chat_history": list(history)}, config={"callbacks": [usage]}
    )
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            part: dict[str, Any] = {}
            if "context" in chunk:
                part["passages"] = [to_passage(document) for document in chunk["context"]]
            if "dropped" in chunk:
                part["dropped"] = chunk["dropped"]
            if chunk.get("answer"):
                part["answer"] = chunk["answer"]
            if "citations" in chunk:
                part["quotes"] = {citation["n"]: citation["quote"] for citation in chunk["citations"]}
                part["used"] = sum(int(count["total_tokens"]) for count in usage.usage_metadata.values())
            yield part


async def ask_model(
    engine: Any, question: str, history: Sequence[tuple[str, str]], pictures: Sequence[Path], sampling: Any
) -> AsyncIterator[dict[str, Any]]:
    """Yield the parts of an answer from the model alone, to a question and its pictures."""
    roles = {"human": "user", "ai": "assistant"}
    messages: list[dict[str, Any]] = [{"role": roles[who], "content": text} for who, text in history]
    shown = [{"type": "image", "image": str(picture)} for picture in pictures]
    content: Any = [*shown, {"type": "text", "text": question}] if shown else question
    async with aclosing(engine.astream([*messages, {"role": "user", "content": content}], sampling=sampling)) as chunks:
        async for chunk in chunks:
            part: dict[str, Any] = {"answer": chunk.content, "reasoning": chunk.reasoning}
            if chunk.usage:
                part["used"] = chunk.usage.total_tokens
            yield part
