"""The parts of the page that need no browser: stopping, highlights, escaping, collections, the door."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from langchain_minicpm import ChatMiniCPM
from minicpm_app.cli import main
from minicpm_app.web.collection import Collection, Limits
from minicpm_app.web.conversation import MOST_CONVERSATIONS, Conversations, Turn
from minicpm_app.web.drawing import FileState, draw_files, draw_turn
from minicpm_app.web.events import Desk, Refused
from minicpm_app.web.guard import Policy, check_login, choose_password, is_local
from minicpm_app.web.highlights import PageText, draw_page, find, is_unchanged, mark_text
from minicpm_app.web.library import Library
from minicpm_app.web.texts import TEXTS, choose_language, say
from minicpm_app.web.uploads import Uploads
from minicpm_core import load
from minicpm_core.rag import Language, Passage
from tests.toy import write_llama

DOCUMENTS = Path(__file__).parents[1] / "examples" / "documents"
LAMP = DOCUMENTS / "falcon-lamp.pdf"
VISITOR, OTHER = "0" * 32, "1" * 32


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library(tmp_path / "collections", "demo", Limits(megabytes=1, count=4))
    yield made
    made.close()


def _add(library: Library, collection: Collection, *files: Path) -> dict[str, FileState]:
    """Drop copies of files into a collection; return what became of them."""
    place = library.folder.parent / "dropped"
    place.mkdir(exist_ok=True)
    uploads = Uploads(library)
    uploads.put(collection, [Path(shutil.copy(file, place)) for file in files], "en")
    _wait(uploads, collection)
    assert list(place.iterdir()) == list(collection.incoming.iterdir()) == []
    return {state.name: state for state in uploads.files(collection)}


def _wait(uploads: Uploads, collection: Collection) -> None:
    while uploads.is_busy(collection):
        time.sleep(0.01)


@pytest.mark.parametrize("stopping", ["stop", "leave"])
async def test_stopping_ends_the_model_within_a_token(tmp_path: Path, library: Library, stopping: str) -> None:
    engine = load(write_llama(tmp_path / "toy", max_position_embeddings=4096), quantization=None)
    steps = 0
    forward = engine.model.forward

    def count(*arguments: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(*arguments, **options)

    engine.model.forward = count
    desk = Desk(ChatMiniCPM(engine=engine, temperature=0), library)
    answering = desk.ask(VISITOR, "en", None, "Hello")
    async for _ in answering:
        if steps > 3:
            break
    at_stop = steps
    if stopping == "leave":
        await answering.aclose()  # type: ignore[attr-defined]
    else:
        desk.stop(VISITOR)
        async for _ in answering:
            pass
    await asyncio.sleep(0.2)  # the step at hand ends
    settled = steps
    await asyncio.sleep(0.3)
    assert at_stop <= steps == settled < 2000  # of 4,000 that the window has room for
    turn = desk.conversations.get(VISITOR).turns[0]
    assert turn.state == "stopped"
    assert desk.conversations.runs == []
    assert desk.conversations.get(VISITOR).run is None
    engine.close()


async def test_an_answer_its_source_and_what_is_refused(library: Library) -> None:
    collection = library.create("Lamps", "en")
    desk = Desk(ChatMiniCPM(model="demo", temperature=0), library)
    for question, reason in (("  ", "Type a question"), ("Who?", "has no files yet")):
        with pytest.raises(Refused, match=reason):
            await anext(desk.ask(VISITOR, "en", collection.id, question))
    states = _add(library, collection, *DOCUMENTS.iterdir())
    assert {name: state.state for name, state in states.items()} == dict.fromkeys(collection.file_names(), "ready")
    pieces = [live async for _, live in desk.ask(VISITOR, "en", collection.id, "Who repairs the roof?")]
    assert pieces[-1] == ""
    turn = desk.conversations.get(VISITOR).turns[0]
    assert (turn.state, turn.quotes[1]) == (
        "done",
        "The landlord, Clara Whitcombe, repairs the roof, the windows and the heating.",
    )
    assert 0 < turn.used < desk.engine.context_window
    assert '<mark class="mc-quote">' + turn.quotes[1] in await desk.open_source(VISITOR, "en", 0, 1)
    with pytest.raises(Refused):
        await desk.open_source(OTHER, "en", 0, 1)  # another tab has no such turn
    for n in (0, len(turn.passages) + 1):
        with pytest.raises(Refused):
            await desk.open_source(VISITOR, "en", 0, n)
    lease = collection.documents / "lease.txt"
    lease.write_text("changed", encoding="utf-8")
    assert "has changed since the answer" in await desk.open_source(VISITOR, "en", 0, 1)
    library.remove(collection, "lease.txt")
    assert "no longer in the collection" in await desk.open_source(VISITOR, "en", 0, 1)
    assert collection.file_names() == ["falcon-lamp.pdf", "仓库手册.txt"]


def test_files_that_are_refused_leave_no_trace(library: Library, tmp_path: Path) -> None:
    collection = library.create("Mixed", "en")
    contents = {"a.pdf": b"no", "b.mp3": b"x", "c.txt": b"  ", "d.txt": b"x " * 600_000, "e.txt": b"The gate is green."}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    states = _add(library, collection, *(tmp_path / name for name in contents))
    reasons = {"a.pdf": "is damaged", "b.mp3": "is of a kind", "c.txt": "is empty", "d.txt": "is larger than 1 MB"}
    for name, reason in reasons.items():
        assert states[name].state == "failed"
        assert states[name].note.startswith(reason), states[name].note
    assert collection.file_names() == ["e.txt"]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "e.txt").write_bytes(b"")
    assert (_add(library, collection, tmp_path / "again" / "e.txt"))["e.txt"].state == "failed"
    assert (collection.documents / "e.txt").read_bytes() == contents["e.txt"]  # the earlier one is kept


def test_uploads_go_on_after_a_restart_and_end_with_their_collection(library: Library, tmp_path: Path) -> None:
    collection, other = library.create("Kept", "en"), library.create("Deleted", "en")
    uploads = Uploads(library)
    begun, go_on = threading.Event(), threading.Event()
    add = library.add

    def add_slowly(collection: Collection, file: Path, language: Language, on_progress: Any) -> str:
        begun.set()
        assert go_on.wait(60)
        return add(collection, file, language, on_progress)

    library.add = add_slowly  # type: ignore[method-assign]
    for n, place in enumerate((collection, other)):
        files = [tmp_path / f"{n}-{k}.txt" for k in range(2)]
        for file in files:
            file.write_text(f"The gate {file.stem} is green.", encoding="utf-8")
        uploads.put(place, files, "en")
    assert begun.wait(60)
    assert [(file.name, file.state) for file in uploads.files(collection)][1] == ("0-1.txt", "waiting")
    deleting = threading.Thread(target=library.delete, args=(other,))
    deleting.start()
    library._closed = True
    go_on.set()
    deleting.join()
    library.close()
    _wait(uploads, collection)
    _wait(uploads, other)
    assert not other.folder.exists()
    assert collection.file_names() == []
    again = Library(library.folder, "demo")
    uploads = Uploads(again)
    assert {file.name for file in uploads.files(collection)} == {"0-0.txt", "0-1.txt"}
    _wait(uploads, collection)
    assert [(file.name, file.state) for file in uploads.files(collection)] == [
        ("0-0.txt", "ready"),
        ("0-1.txt", "ready"),
    ]
    index = again.index(collection)
    assert index is not None
    assert index.count() == 2
    again.close()


def test_collections_outlive_the_library(library: Library) -> None:
    made = library.create("  合同  2026 ", "en")
    library.close()
    again = Library(library.folder)
    assert [(c.id, c.name) for c in again.collections()] == [(made.id, "合同 2026")]
    for name, reason in (("合同 2026", "already"), (" ", "1 to 80"), ("x" * 81, "1 to 80")):
        with pytest.raises(ValueError, match=reason):
            again.create(name, "en")
    again.delete(made)
    assert again.collections() == []
    assert again.find(made.id) is None
    again.close()


def test_a_second_page_on_the_same_folder_is_refused(
    library: Library, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = f"in use by another page \\(process {os.getpid()}\\)"
    with pytest.raises(RuntimeError, match=message):
        Library(library.folder)
    monkeypatch.setattr("langchain_minicpm.ChatMiniCPM.load_engine", None)  # it is told before a model is loaded
    assert main(["web", "--model", "demo", "--data", str(library.folder)]) == 1
    assert "end it, or give another folder with --data" in capsys.readouterr().err
    library.close()
    Library(library.folder).close()


def test_the_quote_is_boxed_where_it_stands_on_the_pdf_page() -> None:
    quote = "The warranty lasts five years and covers everything except the battery."
    passage = Passage("1", f"Care and warranty {quote}", "falcon-lamp.pdf", 2, metadata={"path": str(LAMP)})
    whole = Passage("1", quote, "falcon-lamp.pdf", 2, metadata={"path": str(LAMP), "file_hash": "other"})
    page = draw_page(whole, quote)
    assert page.picture.startswith("data:image/jpeg;base64,")
    assert len(page.quote) == 1
    box = page.quote[0]
    assert 5 < box.left < 15
    assert 70 < box.left + box.width < 95
    assert 10 < box.top < 30
    assert 0 < box.height < 4
    assert draw_page(passage, quote).quote == ()  # nothing is marked that is not there
    assert is_unchanged(whole) is False
    assert is_unchanged(replace(whole, metadata={"path": "gone.pdf"})) is None
    with pytest.raises(ValueError, match="no page 9"):
        draw_page(replace(whole, page=9), quote)


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("One. Two words\nhere. Three", "Two words here.", "Two words\nhere."),
        ("价格是\n三元。好", "价格是三元。", "价格是\n三元。"),
        ("Ärger ÜBER", "ärger über", "Ärger ÜBER"),
        ("abc", "abd", None),
        ("abc", "...", None),
    ],
)
def test_find_compares_letters_only(text: str, wanted: str, found: str | None) -> None:
    place = find(text, wanted)
    assert (place and text[place[0] : place[1] + 1]) == found


def test_mark_text_shows_all_of_the_text_once() -> None:
    text = "Before. The first. The second. After."
    marked = mark_text(text, 8, 30, "The second.")
    assert marked == PageText(
        (("plain", "Before. "), ("passage", "The first. "), ("quote", "The second."), ("plain", " After."))
    )
    long = mark_text("a" * 20_000 + "b" + "c" * 20_000, 20_000, 20_001, "")
    assert [len(piece) for _, piece in long.pieces] == [6002, 1, 6002]


def test_what_others_wrote_is_escaped() -> None:
    bad = "<script>alert(1)</script>"
    turn = Turn(
        bad, None, answer=f"{bad} [1] [2] ![x](http://evil/x.png) [y](http://evil)", reasoning=bad, state="failed"
    )
    turn.passages, turn.note = [Passage("1", "text", f'{bad}" onclick="x')], bad
    html = draw_turn(turn, 0, "en", window=10) + draw_files([FileState(f'{bad}" x="', "failed", bad)], "en")
    assert "<script" not in html
    assert '" onclick="' not in html
    assert "<img" not in html
    assert "<a " not in html
    assert html.count('class="mc-cite"') == 1  # [2] was not given


def test_every_text_has_both_languages_and_the_same_values() -> None:
    import string

    assert len(TEXTS) > 50
    for name, (english, chinese) in TEXTS.items():
        fields = [{part[1] for part in string.Formatter().parse(text) if part[1]} for text in (english, chinese)]
        assert fields[0] == fields[1], name
        assert english != chinese
    assert [choose_language(code) for code in ("zh-CN", "zh", "en-GB", "de")] == ["zh", "zh", "en", "en"]
    assert say("zh", "page", page=3) == "第 3 页"


def test_conversations_have_ids_that_cannot_be_guessed_and_the_oldest_go() -> None:
    known = Conversations()
    first = known.get(VISITOR)
    assert known.get(VISITOR) is first
    assert known.get(OTHER) is not first
    for bad in ("", "0" * 31, "g" * 32, "../x"):
        with pytest.raises(ValueError, match="reload"):
            known.get(bad)
    for n in range(MOST_CONVERSATIONS):
        known.get(f"{n + 16:032x}")
    assert known.get(VISITOR) is not first


def test_nobody_else_gets_in_without_a_password(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("MINICPM_WEB_PASSWORD", raising=False)
    assert choose_password("127.0.0.1", None) is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(ValueError, match="password"):
            choose_password(host, None)
    with pytest.raises(ValueError, match="5 characters"):
        choose_password("127.0.0.1", "short")
    monkeypatch.setenv("MINICPM_WEB_PASSWORD", "long enough")
    assert choose_password("0.0.0.0", None) == "long enough"
    assert [is_local(host) for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8", "0.0.0.0")] == [True] * 4 + [
        False
    ]
    monkeypatch.setattr("minicpm_app.web.guard.time.sleep", lambda _: None)
    check = check_login("pässword")
    assert [check("any", said) for said in ("pässword", "pässwor", "")] == [True, False, False]
    monkeypatch.delenv("MINICPM_WEB_PASSWORD")
    assert main(["web", "--model", "demo", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 opens the page to others" in capsys.readouterr().err
    assert main(["web", "--model", "demo", "--max-files", "0"]) == 2
    assert "--max-files 0" in capsys.readouterr().err


async def test_the_policy_refuses_other_names_and_tells_the_browser_to_stay_here() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def answer(host: str) -> Namespace:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "headers": [(b"host", host.encode())]}
        await Policy(app, hosts=("127.0.0.1", "[::1]"))(scope, None, send)
        return Namespace(status=sent[0]["status"], headers=dict(sent[0]["headers"]))

    hosts = ("127.0.0.1:7860", "[::1]:7860", "[::1]", "evil.example:7860", "")
    assert [(await answer(host)).status for host in hosts] == [
        200, 200, 200, 400, 400,
    ]  # fmt: skip
    policy = (await answer("127.0.0.1")).headers[b"content-security-policy"].decode()
    assert "connect-src 'self'" in policy
    assert "http" not in policy
