"""The code blocks of the documentation, and what they print.

A block of text right behind a block of Python holds what that one prints. A block that is not run says why in a comment
above it: `<!-- not run: REASON -->`. `python -m tools.docs_blocks PAGE...` runs pages that need nothing but
`examples/documents`, and writes their blocks of text anew.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PYTHON = ("python", "py")
CONSOLE = ("console", "bash", "sh")
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_REASON = re.compile(r"<!-- not run: (.+?) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and text, where it stands in the page, and why it is not run ("": it is)."""

    language: str
    text: str
    start: int
    end: int
    line: int
    reason: str = ""


def read_blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page's text, in order."""
    blocks = []
    for match in _FENCE.finditer(page):
        reason = _REASON.search(page[: match.start()])
        line = page.count("\n", 0, match.start()) + 2
        blocks.append(Block(match[1], match[2], match.start(), match.end(), line, reason[1] if reason else ""))
    return blocks


def find_output(page: str, blocks: Sequence[Block], number: int) -> Block | None:
    """Return the block of text right behind a block, which holds what it prints."""
    if number + 1 == len(blocks) or blocks[number + 1].language != "text":
        return None
    after = blocks[number + 1]
    return after if not page[blocks[number].end : after.start].strip() else None


def find_commands(text: str) -> list[str]:
    """Return the `minicpm` commands of a block, without prompt signs and variables before them."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    found = (re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )?(minicpm .*)", line) for line in lines)
    return [match[1] for match in found if match]


def run_block(text: str, name: str, names: dict[str, Any]) -> str:
    """Run Python, which may use `await`, and return what it prints."""
    printed = io.StringIO()
    code: CodeType = compile(text, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(code, names))
        else:
            exec(code, names)
    return printed.getvalue()


def run_page(path: Path, replacements: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """Run the Python of a page from top to bottom in the current folder, as one program.

    Args:
        path: the page.
        replacements: texts, such as names of models that are not here, and what is run in their place.

    Returns:
        The page with what was printed in its blocks of text, and what each block that was run printed.
    """
    page = path.read_text(encoding="utf-8")
    blocks = read_blocks(page)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: list[str] = []
    found: list[tuple[Block, str]] = []
    for number, block in enumerate(blocks):
        if block.language not in PYTHON or block.reason:
            continue
        text = block.text
        for old, new in (replacements or {}).items():
            text = text.replace(old, new)
        printed.append(run_block(text, f"{path.name}, line {block.line}", names))
        if output := find_output(page, blocks, number):
            found.append((output, printed[-1]))
    for output, text in reversed(found):
        page = f"{page[: output.start]}```text\n{text.rstrip()}\n```{page[output.end :]}"
    return page, printed


def _main(names: Sequence[str]) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in names:
        path = ROOT / name
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "examples", Path(folder) / "examples")
            os.chdir(folder)
            page, printed = run_page(path)
            os.chdir(ROOT)
        path.write_text(page, encoding="utf-8")
        print(f"{name}: {len(printed)} blocks")


if __name__ == "__main__":
    _main(sys.argv[1:])
