"""`minicpm ask`: questions in, answers with their sources out."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from minicpm_app.cli import UsageError
from minicpm_app.documents import prepare_index


def run(options: Namespace) -> int:
    """Answer each question; stream the answers, or print one JSON object a line."""
    if not options.question:
        raise UsageError(
            "no question is given; it goes before --docs, which takes all that follows for paths: "
            'minicpm ask "How long is the warranty?" --docs DIR'
        )
    from langchain_minicpm import create_rag_chain

    chat, index = make_chat_model(options), prepare_index(options)
    chain = create_rag_chain(chat, index)
    for number, question in enumerate(options.question):
        if options.json:
            print_line(json.dumps(ask_as_json(chain, {"question": question}), ensure_ascii=False))
            continue
        if len(options.question) > 1:
            print_line(f"{'' if number == 0 else chr(10)}> {question}")
        stream_answer(chain, {"question": question})
    return 0


def make_chat_model(options: Namespace) -> Any:
    """Return the ChatMiniCPM that the options describe."""
    from langchain_minicpm import ChatMiniCPM

    names = ("model", "quantization", "device", "memory_limit", "context_window", "max_tokens", "temperature", "seed")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if given.get("model") == "demo":
        given.setdefault("temperature", 0.0)  # a model this small is at its best when it is greedy
    return ChatMiniCPM(**given)


def ask_as_json(chain: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return {"answer", "citations", "dropped", "usage"}; usage sums up every call of the model."""
    from langchain_core.callbacks import UsageMetadataCallbackHandler

    usage = UsageMetadataCallbackHandler()
    result = chain.invoke(inputs, config={"callbacks": [usage]})
    counts: list[dict[str, Any]] = [dict(count) for count in usage.usage_metadata.values()]
    names = ("input_tokens", "output_tokens", "total_tokens")
    return {
        "answer": result["answer"],
        "citations": [_with_picture(citation, result["context"]) for citation in result["citations"]],
        "dropped": result.get("dropped", []),
        "usage": {name: sum(count[name] for count in counts) for name in names},
    }


def stream_answer(chain: Any, inputs: dict[str, Any]) -> str:
    """Print the answer as it comes, then its sources; return the answer."""
    answer = ""
    citations: list[dict[str, Any]] = []
    context: list[Any] = []
    dropped: list[dict[str, Any]] = []
    for chunk in chain.stream(inputs):
        piece = chunk.get("answer", "")
        answer += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
        citations = chunk.get("citations", citations)
        context = chunk.get("context", context)
        dropped = chunk.get("dropped", dropped)
    sys.stdout.write("\n")
    if citations:
        print_line("\nSources:")
    for citation in citations:
        page = f", page {citation['page']}" if citation["page"] is not None else ""
        shown = _with_picture(citation, context).get("picture")
        found = f'"{citation["quote"]}"' if citation["quote"] else ""
        told = " ".join(part for part in (found, f"(picture: {shown})" if shown else "") if part)
        print_line(f"  [{citation['n']}] {citation['source']}{page}: {told}")
    if dropped:
        print_line(f"\n{describe_dropped(dropped)}")
    return answer


def describe_dropped(dropped: list[dict[str, Any]]) -> str:
    """Return the line that tells which passages were left out of the prompt."""
    places = dict.fromkeys(d["source"] + ("" if d["page"] is None else f", page {d['page']}") for d in dropped)
    some = "1 passage" if len(dropped) == 1 else f"{len(dropped)} passages"
    return f"Left out, since the context window has no room: {some} of {'; '.join(places)}"


def _with_picture(citation: dict[str, Any], context: list[Any]) -> dict[str, Any]:
    """Return a citation with the file of the page's small picture, where the index keeps one."""
    picture = context[citation["n"] - 1].metadata.get("thumbnail") if context else None
    return citation | {"picture": picture} if picture else citation


def print_line(text: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
