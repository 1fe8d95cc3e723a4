"""The model inside what LangChain put around it."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from langchain_minicpm.settings import MiniCPMSettings


def unwrap(llm: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model inside `llm.bind(...)` or `llm.with_retry()`, and the bound options."""
    options: dict[str, Any] = {}
    while isinstance(llm, RunnableBindingBase):
        options = {**llm.kwargs, **options}
        llm = llm.bound
    return llm, options


def refuse_other(llm: Any) -> None:
    """Raise TypeError where `llm` is no model that answers with text."""
    if not isinstance(llm, Runnable):
        raise TypeError(f"llm is a {type(llm).__name__}; accepted: a LangChain model, or the name of one")
    _, options = unwrap(llm)
    if bound := [name for name in ("tools", "response_format") if options.get(name)]:
        raise TypeError(f"llm has {' and '.join(bound)} bound; give the model without, it answers with text here")


def takes_grammar(llm: Any) -> bool:
    """Whether the answers of a model, bound or not, can be made to follow a Lark grammar."""
    model, _ = unwrap(llm)
    return isinstance(model, MiniCPMSettings) and model.takes_grammar
