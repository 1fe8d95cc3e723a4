"""`minicpm chat`: a conversation, from the model's own knowledge or from documents."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minicpm_app.ask import ask_as_json, make_chat_model, print_line, stream_answer
from minicpm_app.cli import UsageError
from minicpm_app.documents import name_options, page_options, prepare_index

HELP = (
    "Type a message. /clear forgets the conversation, /exit or Ctrl-D ends it.\n"
    "What the context window has no room for is left out, the oldest messages first."
)


def run(options: Namespace) -> int:
    """Answer each line of standard input, remembering the conversation."""
    chain = _document_chain(options) if options.docs or options.index or options.chroma_url else _plain_chain(options)
    history: list[tuple[str, str]] = []
    if sys.stdin.isatty():
        print_line(HELP)
    for line in _lines():
        if line == "/clear":
            history.clear()
            continue
        inputs = {"question": line, "chat_history": list(history)}
        try:
            answer = _answer(chain, inputs, as_json=options.json)
        except ValueError as error:
            if not sys.stdin.isatty():
                raise
            sys.stderr.write(f"minicpm chat: error: {' '.join(str(error).split())}\n")  # such as a message too long
            continue
        history += [("human", line), ("ai", answer)]
    return 0


def _answer(chain: Any, inputs: dict[str, Any], *, as_json: bool) -> str:
    if not as_json:
        answer = stream_answer(chain, inputs)
        print_line("")
        return answer
    result = ask_as_json(chain, inputs)
    print_line(json.dumps(result, ensure_ascii=False))
    return str(result["answer"])


def _lines() -> Iterator[str]:
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  gives input() its line editing
    while True:
        try:
            line = (input("> ") if interactive else input()).strip()
        except EOFError:
            return
        if line == "/exit":
            return
        if line:
            yield line


def _document_chain(options: Namespace) -> Any:
    """Return the chain over the index; --system says in front of its rule who speaks."""
    from langchain_minicpm import create_rag_chain

    chat, index = make_chat_model(options), prepare_index(options)
    settings = index.index.settings
    if options.system:
        rules = {name: getattr(settings, name) for name in ("system_prompts", "answer_prompts")}
        settings = replace(
            settings,
            **{name: {lang: f"{options.system}\n{rule}" for lang, rule in by.items()} for name, by in rules.items()},
        )
    return create_rag_chain(chat, index, settings=settings)


def _plain_chain(options: Namespace) -> Any:
    """Return a chain with the inputs and outputs of the document chain; UsageError with options about documents."""
    if given := [*page_options(options), *(["embeddings"] if options.embeddings else [])]:
        raise UsageError(
            f"{name_options(given)}: there are no documents; give them with --docs or --index, or leave this out"
        )
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnableParallel

    start = [("system", "{system}")] if options.system else []
    prompt = ChatPromptTemplate([*start, ("placeholder", "{chat_history}"), ("human", "{question}")])
    if options.system:
        prompt = prompt.partial(system=options.system)
    chat = make_chat_model(options)
    answer = prompt | RunnableLambda(lambda value: fit_turns(value.to_messages(), chat)) | chat | StrOutputParser()
    return RunnableParallel(answer=answer, citations=RunnableLambda(lambda _: []))


def fit_turns(messages: list[Any], chat: Any) -> list[Any]:
    """Return the messages without the oldest turns that the context window has no room for.

    Args:
        messages: LangChain's, perhaps a system message, then turns of two; the last one and the system message stay.
        chat: the ChatMiniCPM that is to answer.
    """
    from minicpm_core.rag import prompt_room

    room = prompt_room(chat.load_engine().context_window, chat.max_tokens)
    start = int(messages[0].type == "system")
    kept = messages[start:]
    while len(kept) > 1 and chat.get_num_tokens_from_messages([*messages[:start], *kept]) > room:
        kept = kept[2:]
    return [*messages[:start], *kept]
