"""Written documents with the questions that their sentences answer: `documents/*.txt`.

A document begins with `@ title`. `S` is a sentence, with slots such as {price} that are filled with drawn values; the
`Q` lines below it are questions in its own words, the `R` lines questions in other words; `N` is a question that no
sentence of the document answers. Those in `documents/held_out` are not trained on.
`python -m tools.demo_model.documents` checks all files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from minicpm_core.rag import Language

FOLDER = Path(__file__).with_name("documents")
SLOTS = ("n", "price", "person", "place", "date", "year", "clock", "name", "phone", "email", "code")
_SLOT = re.compile(r"\{([a-z]+)\d?\}")


@dataclass(eq=False)
class Line:
    """A sentence with the questions that it answers, in its own words and in others."""

    sentence: str
    own: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Document:
    """The lines of a document in order, and questions that it does not answer."""

    title: str
    lines: list[Line] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


def parse(text: str, name: str) -> list[Document]:
    """Return the documents of a file.

    Raises:
        ValueError: for a line of no known kind, an unknown slot, or a sentence without questions; tells file and line.
    """
    documents: list[Document] = []
    for number, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        kind, _, rest = row.strip().partition(" ")
        rest = rest.strip()
        where = f"{name}:{number}: {row!r}"
        if kind not in ("@", "S", "Q", "R", "N") or not rest:
            raise ValueError(f"{where}: a line is '@ title', 'S sentence', 'Q question', 'R question' or 'N question'")
        if wrong := [slot for slot in _SLOT.findall(rest) if slot not in SLOTS]:
            raise ValueError(f"{where}: unknown slots {wrong}; there are {', '.join(SLOTS)}")
        if _SLOT.sub("", rest).count("{") or _SLOT.sub("", rest).count("}"):
            raise ValueError(f"{where}: a slot is written {{name}} or {{name2}}")
        if kind == "@":
            documents.append(Document(rest))
        elif not documents or (kind in "QR" and not documents[-1].lines):
            raise ValueError(f"{where}: nothing stands above it that it belongs to")
        elif kind == "S":
            documents[-1].lines.append(Line(rest))
        elif kind == "N":
            documents[-1].unanswered.append(rest)
        else:
            (documents[-1].lines[-1].own if kind == "Q" else documents[-1].lines[-1].other).append(rest)
    for document in documents:
        for line in document.lines:
            if not line.own or not line.other:
                raise ValueError(f"{name}: {document.title}: {line.sentence!r} needs a Q and an R line")
            known = set(_all_slots(" ".join(other.sentence for other in document.lines)))
            for question in (*line.own, *line.other):
                if missing := [slot for slot in _all_slots(question) if slot not in known and slot[0] != "n"]:
                    raise ValueError(f"{name}: {document.title}: {question!r} has slots of no sentence: {missing}")
    return documents


def _all_slots(text: str) -> list[str]:
    return re.findall(r"\{([a-z]+\d?)\}", text)


@cache
def load_documents(language: Language, *, held_out: bool = False) -> tuple[Document, ...]:
    """Return the documents of a language: files `en_*.txt` or `zh_*.txt`."""
    folder = FOLDER / "held_out" if held_out else FOLDER
    files = sorted(folder.glob(f"{language}_*.txt"))
    return tuple(d for file in files for d in parse(file.read_text(encoding="utf-8"), file.name))


def main() -> None:
    """Check every file and print counts."""
    for file in sorted(FOLDER.rglob("*.txt")):
        found = parse(file.read_text(encoding="utf-8"), file.name)
        lines = [line for document in found for line in document.lines]
        own, other = sum(len(line.own) for line in lines), sum(len(line.other) for line in lines)
        print(
            f"{file.relative_to(FOLDER)}: {len(found)} documents, {len(lines)} sentences, {own} questions in their "
            f"words, {other} in others, {sum(len(d.unanswered) for d in found)} unanswered"
        )


if __name__ == "__main__":
    main()
