"""The page's HTML: turns, files, sources and the line about the model. All text of others is escaped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any, Literal

from minicpm_app.web.conversation import Turn
from minicpm_app.web.highlights import Box, PagePicture, PageText
from minicpm_app.web.texts import say
from minicpm_core.rag import Language, Passage

_CITATION = re.compile(r"\[(\d{1,3})\]")


@dataclass
class FileState:
    """A file of a collection, and how far it is: `share` (0 to 1, None before that is known) and `passages` so far.

    While a model looks at its pages, `page` of `pages` is the one at hand. `note` tells why it failed, or which parts
    of it are not in the collection ("partly").
    """

    name: str
    state: Literal["waiting", "reading", "ready", "partly", "failed"] = "ready"
    note: str = ""
    share: float | None = None
    passages: int = 0
    page: int = 0
    pages: int = 0


@lru_cache(maxsize=1)
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    # No raw HTML, and no links and pictures: an answer must not send a reader anywhere.
    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable(["link", "image"])


def draw_turn(turn: Turn, number: int, language: Language, *, window: int, ahead: int = 0) -> str:
    """Return a turn; `number` is its place in the conversation, `window` the context window in tokens."""
    pictures = "".join(f'<img src="{uri}" alt="">' for uri in turn.pictures)
    parts = [f'<div class="mc-question">{pictures}<p>{escape(turn.question)}</p></div>']
    body = ""
    if turn.reasoning:
        opened = "" if turn.answer else " open"
        summary = escape(say(language, "reasoning"))
        body += f"<details{opened}><summary>{summary}</summary><p>{escape(turn.reasoning)}</p></details>"
    body += _cite(_markdown().render(turn.answer), turn, number)
    if turn.state == "running" and not turn.answer:
        waiting = say(language, "queued", count=ahead) if ahead else say(language, "thinking")
        body += f'<p class="mc-quiet mc-busy">{escape(waiting)}</p>'
    if turn.state == "stopped":
        body += f'<p class="mc-quiet">{escape(say(language, "stopped"))}</p>'
    if turn.state == "failed":
        body += f'<p class="mc-wrong">{escape(say(language, "error", reason=turn.note))}</p>'
    if turn.state == "done" and turn.quotes:
        body += _sources(turn, number, language)
    if turn.dropped and turn.state != "running":
        told = say(language, "dropped", places=_name_dropped(turn.dropped, language))
        body += f'<p class="mc-quiet mc-dropped">{escape(told)}</p>'
    if turn.used:
        body += f'<p class="mc-used">{escape(say(language, "used", used=f"{turn.used:,}", window=f"{window:,}"))}</p>'
    parts.append(f'<div class="mc-answer" data-state="{turn.state}">{body}</div>')
    return "".join(parts)


def _name_dropped(dropped: Sequence[Mapping[str, Any]], language: Language) -> str:
    """Return the places of passages, each with its number where there are several of it."""
    places = Counter(
        d["source"] + ("" if d["page"] is None else f" · {say(language, 'page', page=d['page'])}") for d in dropped
    )
    return "; ".join(place + (f" (×{count})" if count > 1 else "") for place, count in places.items())


def _cite(html: str, turn: Turn, number: int) -> str:
    """Make buttons of the numbers of passages that were given."""

    def button(found: re.Match[str]) -> str:
        n = int(found[1])
        if not 1 <= n <= len(turn.passages):
            return found[0]
        source = escape(turn.passages[n - 1].source, quote=True)
        return f'<button class="mc-cite" data-turn="{number}" data-n="{n}" title="{source}">{n}</button>'

    return _CITATION.sub(button, html)


def _sources(turn: Turn, number: int, language: Language) -> str:
    items = ""
    for n, quote in turn.quotes.items():
        name = escape(name_place(turn.passages[n - 1], language))
        items += (
            f'<li><button class="mc-cite" data-turn="{number}" data-n="{n}">{n}</button> <b>{name}</b> '
            f"{f'<q>{escape(quote)}</q>' if quote else ''}</li>"
        )
    return f'<div class="mc-sources"><h4>{escape(say(language, "sources"))}</h4><ul>{items}</ul></div>'


def name_place(passage: Passage, language: Language) -> str:
    """Return a passage's file, page and heading."""
    parts = [passage.source]
    if passage.page is not None:
        parts.append(say(language, "page", page=passage.page))
    if heading := passage.metadata.get("heading"):
        parts.append(str(heading))
    return " · ".join(parts)


def draw_conversation(turns: Sequence[Turn], language: Language, *, window: int) -> str:
    """Return all turns that are over, or what to do where there are none."""
    if not turns:
        return f'<div class="mc-hello">{escape(say(language, "hello"))}</div>'
    return "".join(draw_turn(turn, n, language, window=window) for n, turn in enumerate(turns))


def draw_files(files: Sequence[FileState], language: Language, elsewhere: int = 0) -> str:
    """Return the list of files, each with its progress and a button that removes it.

    Args:
        files: of the collection that are on this machine, and on their way.
        language: of the page.
        elsewhere: files that other machines have put into the collection's index.
    """
    more = f'<p class="mc-quiet">{escape(say(language, "elsewhere", count=elsewhere))}</p>' if elsewhere else ""
    if not files:
        if more:
            return more
        return f'<p class="mc-quiet">{escape(say(language, "no_files"))}</p>'
    rows = ""
    for file in files:
        name = escape(file.name, quote=True)
        if file.state == "reading" and file.pages:
            note = say(language, "looking", page=file.page, pages=file.pages)
        elif file.state == "reading" and file.passages:
            note = say(language, "embedding", chunks=file.passages)
        elif file.state == "partly":
            note = say(language, "partly", reason=file.note)
        else:
            note = file.note or say(language, "waiting_file" if file.state == "waiting" else file.state)
        value = "" if file.share is None else f' value="{file.share:.3f}"'
        bar = f'<progress max="1"{value}></progress>' if file.state == "reading" else ""
        label = escape(say(language, "remove"), quote=True)
        button = f'<button class="mc-remove" data-file="{name}" aria-label="{label} {name}" title="{label}">×</button>'
        remove = button if file.state in ("ready", "partly", "failed") else ""
        rows += (
            f'<li data-state="{file.state}"><span class="mc-name" title="{name}">{name}</span>'
            f'{remove}<span class="mc-note">{escape(note)}</span>{bar}</li>'
        )
    return f'<ul class="mc-files">{rows}</ul>{more}'


def draw_attached(pictures: Sequence[str], language: Language) -> str:
    """Return the pictures that go with the next question, each with a button that removes it."""
    if not pictures:
        return ""
    label = escape(say(language, "remove"), quote=True)
    items = "".join(
        f'<li><img src="{uri}" alt=""><button class="mc-remove" data-picture="{n}" aria-label="{label} {n + 1}" '
        f'title="{label}">×</button></li>'
        for n, uri in enumerate(pictures)
    )
    return f'<ul class="mc-attached">{items}</ul><p class="mc-quiet">{escape(say(language, "pictures_alone"))}</p>'


def draw_source(passage: Passage, n: int, page: PagePicture | PageText, note: str, language: Language) -> str:
    """Return the panel with the page that passage `n` stands on."""
    head = f'<h4><span class="mc-number">{n}</span> {escape(name_place(passage, language))}</h4>'
    head += f'<p class="mc-quiet">{escape(note)}</p>' if note else ""
    head = f'<button class="mc-back">↑ {escape(say(language, "back"))}</button>{head}'
    if isinstance(page, PageText):
        return f'<div class="mc-source" data-kind="text">{head}{_draw_text(page)}</div>'
    boxes = _draw_boxes(page.passage, "mc-passage") + _draw_boxes(page.quote, "mc-quote")
    alt = escape(name_place(passage, language), quote=True)
    picture = f'<img src="{page.picture}" alt="{alt}">'
    read = f'<p class="mc-quiet">{escape(say(language, "as_read"))}</p>{_draw_text(page.read)}' if page.read else ""
    return f'<div class="mc-source" data-kind="picture">{head}<div class="mc-leaf">{picture}{boxes}</div>{read}</div>'


def _draw_text(page: PageText) -> str:
    tags = {"plain": "span", "passage": 'mark class="mc-passage"', "quote": 'mark class="mc-quote"'}
    pieces = "".join(f"<{tags[k]}>{escape(text)}</{tags[k].split()[0]}>" for k, text in page.pieces)
    return f'<div class="mc-text" dir="auto">{pieces}</div>'


def _draw_boxes(boxes: Sequence[Box], kind: str) -> str:
    return "".join(
        f'<i class="{kind}" style="left:{b.left}%;top:{b.top}%;width:{b.width}%;height:{b.height}%"></i>' for b in boxes
    )


def draw_status(facts: Mapping[str, str], language: Language) -> str:
    """Return the line about the model; `facts` are the names of texts and what is told of them."""
    items = "".join(
        f"<li><span>{escape(say(language, name))}</span> <b>{escape(v)}</b></li>" for name, v in facts.items()
    )
    return f'<h1>{escape(say(language, "title"))}</h1><ul class="mc-facts">{items}</ul>'
