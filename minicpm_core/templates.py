"""Runs a chat template, which comes with the checkpoint and is not trusted: sandboxed and within a time limit."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

TIME_LIMIT = 10.0
"""Seconds; real templates take milliseconds."""


class _TemplateTimeout(BaseException):
    """Ends the thread in which a template does not end."""


def render_template(tokenizer: Any, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """Return the prompt text that the tokenizer's chat template makes of the messages.

    Args:
        tokenizer: a transformers tokenizer; its templates run in jinja2's immutable sandbox.
        messages: checked chat messages.
        **options: variables for the template, such as `enable_thinking` and `tools`.

    Raises:
        ValueError: the template refuses the messages, is damaged, reaches for internals, or does not end.
    """
    refuse_internals(str(tokenizer.chat_template))
    result: list[str] = []
    failure: list[BaseException] = []

    def render() -> None:
        try:
            result.append(
                tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **options)
            )
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=render, name="minicpm chat template", daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    if thread.is_alive():
        # A thread cannot be stopped from outside; an exception set in it ends a loop of Python code.
        thread_id = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread_id, ctypes.py_object(_TemplateTimeout))
        raise ValueError(f"the chat template did not end within {TIME_LIMIT:g} seconds")
    if failure:
        error = failure[0]
        if not isinstance(error, Exception):
            raise error
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the chat template cannot be used with these messages: {reason}") from error
    return result[0]


@lru_cache(maxsize=16)
def refuse_internals(template: str) -> None:
    """Raise ValueError where a template names attributes of Python's own, which the sandbox shows as empty text."""
    import jinja2
    from jinja2 import nodes

    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except jinja2.TemplateSyntaxError:
        return  # transformers knows more tags, and reports what it does not know
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Keyword)):
        names = [node.attr] if isinstance(node, nodes.Getattr) else []
        names += [c.value for c in node.iter_child_nodes() if isinstance(c, nodes.Const) and isinstance(c.value, str)]
        if internal := [name for name in names if name.startswith("__")]:
            raise ValueError(f"the chat template cannot be used: it reaches for internals of Python ({internal[0]})")
