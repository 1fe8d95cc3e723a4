"""English sentences that every Python installation has: language topics and docstrings of the standard library."""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

_BREAK = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PLAIN = re.compile(r"[A-Z][A-Za-z0-9 ,;:'()\-\"%/._=*+@]{25,220}[.!?]")


def _docstrings() -> list[str]:
    """Return the docstrings of the standard library's modules."""
    found: list[str] = []
    root = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names):
        for path in (root / f"{name}.py", *sorted((root / name).glob("*.py"))):
            if not path.is_file() or "idlelib" in path.parts:
                continue
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            found += [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]
    return found


@cache
def load_sentences() -> tuple[str, ...]:
    """Return the plain sentences, without repetitions, in a stable order."""
    kept: dict[str, None] = {}
    for text in [*(topics[key] for key in sorted(topics)), *_docstrings()]:
        for block in re.split(r"\n\s*\n", text):
            for sentence in _BREAK.split(" ".join(block.replace("*", "").replace('"', "").split())):
                if _PLAIN.fullmatch(sentence) and len(sentence.split()) >= 6:
                    kept[sentence] = None
    return tuple(kept)


@cache
def load_words() -> tuple[str, ...]:
    """Return the lower-case words of three letters or more that the sentences hold."""
    found = {word: None for text in load_sentences() for word in re.findall(r"(?<![\w.])[a-z]{3,}(?![\w.])", text)}
    return tuple(found)
