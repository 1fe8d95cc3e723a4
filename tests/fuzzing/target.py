"""A target, its examples in the corpus, and what counts as a clean refusal."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

CORPUS = Path(__file__).parent.parent / "corpus"
_OURS = ("minicpm_core", "langchain_minicpm", "llamaindex_minicpm", "minicpm_app")
_REFUSALS = (ValueError, TypeError, FileNotFoundError, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Target:
    """Something that reads what strangers wrote.

    Args:
        name: of the target, and of its folder in the corpus.
        examples: what it is given; bytes, or what JSON can hold.
        check: reads an example; returns how it ended, and raises what is a bug.
    """

    name: str
    examples: SearchStrategy[Any]
    check: Callable[[Any], Counter[str]]

    @property
    def folder(self) -> Path:
        """The corpus: `seed-*` are good files and messages, `found-*` are what once failed."""
        return CORPUS / self.name

    def corpus(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and examples of the corpus."""
        for file in sorted(self.folder.iterdir()):
            data = file.read_bytes()
            yield file.name, json.loads(data) if file.suffix == ".json" else data


def write_example(example: Any) -> bytes:
    """Return an example as the corpus keeps it."""
    return example if isinstance(example, bytes) else json.dumps(example, indent=1).encode()


def attempt(read: Callable[[], Any], seen: Counter[str]) -> Any:
    """Return what `read()` gives, or None where it refuses cleanly; anything else that it raises is a bug."""
    try:
        value = read()
    except Exception as error:
        if not is_refusal(error):
            raise
        seen["refused"] += 1
        return None
    seen["read"] += 1
    return value


def is_refusal(error: Exception) -> bool:
    """Tell whether our code refused: one of the documented types, by a `raise` of ours, with a message."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = any(part in _OURS for part in Path(last.filename).parts)
    return isinstance(error, _REFUSALS) and ours and (last.line or "").startswith("raise") and bool(str(error).strip())
