"""`minicpm chat`: a conversation, from the model's own knowledge or from documents."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from minicpm_app.ask import ask_as_json, make_chat_model, print_line, stream_answer
from minicpm_app.documents import prepare_index

HELP = "Type a message. /clear forgets the conversation, /exit or Ctrl-D ends it."


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
        if options.json:
            result = ask_as_json(chain, inputs)
            print_line(json.dumps(result, ensure_ascii=False))
            answer = str(result["answer"])
        else:
            answer = stream_answer(chain, inputs)
            print_line("")
        history += [("human", line), ("ai", answer)]
    return 0


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
    from langchain_minicpm import create_rag_chain

    return create_rag_chain(make_chat_model(options), prepare_index(options))


def _plain_chain(options: Namespace) -> Any:
    """Return a chain with the inputs and outputs of the document chain."""
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda, RunnableParallel

    start = [("system", "{system}")] if options.system else []
    prompt = ChatPromptTemplate([*start, ("placeholder", "{chat_history}"), ("human", "{question}")])
    if options.system:
        prompt = prompt.partial(system=options.system)
    answer = prompt | make_chat_model(options) | StrOutputParser()
    return RunnableParallel(answer=answer, citations=RunnableLambda(lambda _: []))
