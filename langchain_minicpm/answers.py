"""The engine's chunks -> LangChain's messages, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, GenerationChunk

from minicpm_core.types import Chunk, TokenLogprob, ToolCall, Usage

PROVIDER = "minicpm"


def to_chat_result(answer: Chunk, model: str) -> ChatResult:
    """Return a whole answer; calls that must not be executed are its invalid_tool_calls, each with its error."""
    message = AIMessage(
        answer.content,
        additional_kwargs={"reasoning_content": answer.reasoning} if answer.reasoning else {},
        tool_calls=[
            tool_call(name=call.name, args=call.arguments, id=call.id)
            for call in answer.tool_calls
            if call.is_valid and call.arguments is not None
        ],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.text, id=call.id, error=_error(call))
            for call in answer.tool_calls
            if not call.is_valid
        ],
        usage_metadata=to_usage(answer.usage) if answer.usage else None,
        response_metadata=_metadata(answer, model),
    )
    info = {"finish_reason": answer.finish_reason} | _logprobs_info(answer.logprobs)
    return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])


class ChatChunkWriter:
    """Turns the chunks of one answer into LangChain's; usage and metadata come with the last one only.

    Reasoning, text and calls are chunks of their own: LangChain drops the calls of a chunk that has text too.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._arguments: dict[str, str] = {}

    def push(self, chunk: Chunk) -> list[ChatGenerationChunk]:
        """Return what a chunk says as messages that add up."""
        messages = []
        if chunk.reasoning:
            messages.append(AIMessageChunk(content="", additional_kwargs={"reasoning_content": chunk.reasoning}))
        if chunk.content:
            messages.append(AIMessageChunk(content=chunk.content))
        messages += [self._write_call(call) for call in chunk.tool_calls]
        if chunk.finish_reason is not None:
            last = AIMessageChunk(content="", chunk_position="last", response_metadata=_metadata(chunk, self.model))
            last.usage_metadata = to_usage(chunk.usage) if chunk.usage else None
            messages.append(last)
        elif chunk.logprobs and not messages:
            messages.append(AIMessageChunk(content=""))
        for message in messages:
            message.response_metadata["model_provider"] = PROVIDER  # names the translator of its content blocks
        pieces = [ChatGenerationChunk(message=message) for message in messages]
        if pieces and chunk.logprobs:
            pieces[0].generation_info = _logprobs_info(chunk.logprobs)
        if chunk.finish_reason is not None:
            pieces[-1].generation_info = {**(pieces[-1].generation_info or {}), "finish_reason": chunk.finish_reason}
        return pieces

    def _write_call(self, call: ToolCall) -> AIMessageChunk:
        is_first = call.id not in self._arguments
        text = self._arguments[call.id] = self._arguments.get(call.id, "") + call.text
        end = f"{spoil(text)} {call.error}" if call.error else ""
        name, id_ = (call.name, call.id) if is_first else (None, None)
        piece = tool_call_chunk(name=name, args=call.text + end, id=id_, index=call.index)
        return AIMessageChunk(content="", tool_call_chunks=[piece])


def spoil(text: str) -> str:
    """Return an ending with which LangChain takes the arguments `text` for no whole call.

    LangChain repairs half JSON to a call that agents would execute; it gives up only at a bracket that closes nothing.
    """
    brackets: list[str] = []
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = char != '"' or escaped
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{[":
            brackets.append(char)
        elif char in "}]" and brackets:
            brackets.pop()
    quote = ("\\" if escaped else "") + '"' if in_string else ""
    return quote + ("}" if brackets and brackets[-1] == "[" else "]")


def to_usage(usage: Usage) -> UsageMetadata:
    """Return LangChain's names for the token counts."""
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
        output_token_details={"reasoning": usage.reasoning_tokens},
    )


def to_text_chunk(chunk: Chunk, model: str) -> GenerationChunk:
    """Return the completion class's form of a chunk; reasoning and the last one's facts are in generation_info."""
    info: dict[str, Any] = {"reasoning_content": chunk.reasoning} if chunk.reasoning else {}
    info |= _logprobs_info(chunk.logprobs)
    if chunk.finish_reason is not None:
        info |= {"finish_reason": chunk.finish_reason, "model_name": model}
        info |= {"usage_metadata": to_usage(chunk.usage)} if chunk.usage else {}
    return GenerationChunk(text=chunk.content, generation_info=info or None)


def to_logprobs(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Return OpenAI's form: token, bytes, logprob, and top_logprobs of the same form."""
    return [{**_logprob(token), "top_logprobs": [_logprob(other) for other in token.top]} for token in logprobs]


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "bytes": list(token.bytes), "logprob": token.logprob}


def _logprobs_info(logprobs: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    return {"logprobs": {"content": to_logprobs(logprobs)}} if logprobs else {}


def _metadata(chunk: Chunk, model: str) -> dict[str, Any]:
    return {"model_name": model, "model_provider": PROVIDER, "finish_reason": chunk.finish_reason}


def _error(call: ToolCall) -> str:
    return call.error or "the call was cut off before its arguments were whole"


def _to_blocks(message: AIMessage) -> list[Any]:
    """Return a message's content blocks: reasoning, text, calls.

    Pieces of calls have indexes of their own, as LangChain numbers the other blocks of a stream from 0.
    """
    if not isinstance(message.content, str):
        raise NotImplementedError  # blocks already; LangChain reads them itself
    blocks: list[dict[str, Any]] = []
    if reasoning := message.additional_kwargs.get("reasoning_content"):
        blocks.append({"type": "reasoning", "reasoning": reasoning})
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    if isinstance(message, AIMessageChunk) and message.chunk_position != "last":
        pieces = message.tool_call_chunks
        return blocks + [{**p, "type": "tool_call_chunk", "index": f"lc_tc_{p['index']}"} for p in pieces]
    return blocks + [
        {"type": "tool_call", "name": c["name"], "args": c["args"], "id": c["id"]} for c in message.tool_calls
    ]


register_translator(PROVIDER, _to_blocks, _to_blocks)
