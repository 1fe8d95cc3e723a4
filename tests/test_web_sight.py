"""Scanned pages and pictures in collections of the page: read by the model that sees, refused where none does."""

from __future__ import annotations

import base64
import io
import shutil
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from langchain_minicpm import ChatMiniCPM
from minicpm_app.cli import UsageError
from minicpm_app.web import check_pages, make_sight
from minicpm_app.web.collection import Collection, Ended, Limits
from minicpm_app.web.conversation import Turn
from minicpm_app.web.drawing import FileState, draw_files, draw_turn
from minicpm_app.web.events import Desk
from minicpm_app.web.library import Library
from minicpm_app.web.sight import PageReading, Sight, explain
from minicpm_app.web.uploads import Uploads
from minicpm_core.index import Progress, page_models
from minicpm_core.index.pages import NO_TEXT_LAYER
from minicpm_core.types import Chunk
from tests.scanned import CLEANING, WARRANTY, write_scan, write_scans
from tests.toy_vision import write_native

VISITOR = "0" * 32
TEXTS = ("The lamp is covered for two years.", "Wipe the shade with a damp cloth.", "The charger needs three hours.")


class Reader:
    """A ChatMiniCPM as far as reading pages goes: it says the next of some texts, piece by piece."""

    def __init__(self, *texts: str | Exception, model: str = "models/Reader-1") -> None:
        self.texts, self.model, self.context_window, self.pieces = list(texts), model, 4096, 0
        self.sizes: list[tuple[int, int]] = []

    def load_engine(self) -> Reader:
        return self

    def stream(self, messages: Any, *, sampling: Any) -> Iterator[Chunk]:
        self.sizes.append(messages[0]["content"][0]["image"].size)
        text = self.texts.pop(0)
        if isinstance(text, Exception):
            raise text
        for word in text.split(" "):
            self.pieces += 1
            yield Chunk(content=f"{word} ")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scans(tmp_path / "scans")


@pytest.fixture
def make_library(tmp_path: Path) -> Iterator[Callable[..., Library]]:
    made: list[Library] = []

    def make(**sight: Any) -> Library:
        for library in made:
            library.close()
        made.append(Library(tmp_path / "data", "demo", Limits(megabytes=1, count=4), Sight(**sight)))
        return made[-1]

    yield make
    for library in made:
        library.close()


def drop(library: Library, collection: Collection, *files: Path) -> dict[str, FileState]:
    uploads = Uploads(library)
    place = library.folder.parent / "dropped"
    place.mkdir(exist_ok=True)
    uploads.put(collection, [Path(shutil.copy(file, place)) for file in files], "en")
    while uploads.is_busy(collection):
        time.sleep(0.01)
    return {state.name: state for state in uploads.files(collection)}


async def ask(desk: Desk, collection: Collection, question: str) -> Turn:
    async for _ in desk.ask(VISITOR, "en", collection.id, question):
        pass
    return desk.conversations.get(VISITOR).turns[-1]


def shown_picture(html: str) -> Image.Image:
    data = html.partition("data:image/jpeg;base64,")[2].partition('"')[0]
    return Image.open(io.BytesIO(base64.b64decode(data)))


async def test_what_the_model_read_is_found_and_its_page_shown(
    make_library: Callable[..., Library], scans: Path
) -> None:
    reader = Reader(*TEXTS, "The total amount payable is 90 euros.")
    library = make_library(page_model=reader)
    collection = library.create("Scans", "en")
    states = drop(library, collection, scans / "manual.pdf", scans / "invoice.png")
    assert {name: (state.state, state.note) for name, state in states.items()} == {
        "manual.pdf": ("ready", ""),
        "invoice.png": ("ready", ""),
    }
    assert len(reader.sizes) == 4
    assert (1000, 1400) in reader.sizes
    desk = Desk(ChatMiniCPM(model="demo", temperature=0), library)
    index = library.index(collection)
    assert index is not None
    expected = {"a damp cloth": ("manual.pdf", 2), "the amount payable": ("invoice.png", None)}
    for number, (question, place) in enumerate(expected.items()):
        turn = await ask(desk, collection, question)
        n = next(n for n, p in enumerate(turn.passages, start=1) if (p.source, p.page) == place)
        turn.quotes = {n: turn.passages[n - 1].text}
        html = await desk.open_source(VISITOR, "en", number, n)
        assert 'data-kind="picture"' in html
        assert (
            f'The passage as it was read:</p><div class="mc-text" dir="auto"><mark class="mc-quote">{turn.quotes[n]}'
            in html
        )
        with shown_picture(html) as shown:
            assert abs(shown.width / shown.height - (210 / 297 if place[1] else 1000 / 1400)) < 0.002
            assert shown.convert("L").getextrema()[0] < 60  # there is print on it
    # The model that read is not there any more: what it read is; a new scan is refused with what to do.
    library = make_library()
    assert library.find(collection.id) is not None
    write_scan(scans / "more.pdf", WARRANTY)
    note = drop(library, collection, scans / "more.pdf")["more.pdf"]
    assert note.state == "failed"
    assert "read by 'Reader-1'; start the page with a model that sees (--model or --page-model)" in note.note
    library.remove(collection, "invoice.png")
    assert collection.file_names() == ["manual.pdf"]
    index = library.index(collection)
    assert index is not None
    assert (index.sources(), index.count()) == (["manual.pdf"], 3)


def test_a_real_model_reads_what_it_reads(
    make_library: Callable[..., Library], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_models, "_MOST_READ", 6)
    chat = ChatMiniCPM(model=str(write_native(tmp_path / "seeing", "minicpmv4_6")), temperature=0)
    library = make_library(page_model=chat)
    collection = library.create("Scans", "en")
    state = drop(library, collection, scans / "invoice.png")["invoice.png"]
    assert (state.state, state.note) == ("ready", "")
    index = library.index(collection)
    assert index is not None
    (passage,) = index.search("anything", 1)
    assert (passage.source, passage.page) == ("invoice.png", None)
    assert passage.text.strip()
    chat.load_engine().close()


def test_without_a_model_that_sees_scans_and_pictures_are_refused(
    make_library: Callable[..., Library], scans: Path
) -> None:
    library = make_library()
    collection = library.create("Refused", "en")
    states = drop(library, collection, scans / "manual.pdf", scans / "invoice.png")
    told = "and the model reads text only; start the page with a model that sees (--model or --page-model)"
    assert (states["manual.pdf"].state, states["manual.pdf"].note) == (
        "failed",
        f"has pages without text (a scan?), {told}",
    )
    assert (states["invoice.png"].state, states["invoice.png"].note) == ("failed", f"is a picture, {told}")
    assert collection.file_names() == []
    assert "--page-model" in explain(NO_TEXT_LAYER, "zh")
    assert "page_model=" not in explain(NO_TEXT_LAYER, "zh")


def test_what_could_not_be_read_of_a_file_is_told(make_library: Callable[..., Library], scans: Path) -> None:
    library = make_library(page_model=Reader(TEXTS[0], ValueError("no memory"), TEXTS[2]))
    collection = library.create("Partly", "en")
    with zipfile.ZipFile(scans / "all.zip", "w") as archive:
        archive.writestr("in/lease.txt", "The rent is 980 pounds.")
        archive.writestr("in/song.mp3", b"x")
    states = drop(library, collection, scans / "manual.pdf", scans / "all.zip")
    assert {name: state.state for name, state in states.items()} == {"manual.pdf": "partly", "all.zip": "partly"}
    assert states["manual.pdf"].note == "page 2 could not be looked at: no memory"
    assert states["all.zip"].note.startswith("in/song.mp3 has the type '.mp3'")
    html = draw_files(list(states.values()), "en")
    assert "added, but not all of it: page 2 could not be looked at: no memory" in html
    assert html.count('class="mc-remove"') == 2
    uploads = Uploads(library)
    uploads._states[collection.id] = states
    uploads.remove(collection, "manual.pdf")
    assert collection.file_names() == ["all.zip"]
    assert [state.name for state in uploads.files(collection)] == ["all.zip"]


def test_the_page_at_hand_is_told_and_reading_ends_within_a_token(
    make_library: Callable[..., Library], scans: Path
) -> None:
    reader = Reader(*(" ".join(["word"] * 50) for _ in range(3)))
    library = make_library(page_model=reader)
    collection = library.create("Ended", "en")
    told: list[tuple[int, int]] = []

    def show(progress: Progress) -> None:
        if progress.pages:
            told.append((progress.page, progress.pages))
        if progress.page == 2:
            library._deleted.add(collection.id)

    with pytest.raises(Ended):
        library.add(collection, scans / "manual.pdf", "en", show)
    assert told == [(1, 3), (2, 3)]
    assert reader.pieces == 51  # one of the second page
    state = FileState("manual.pdf", "reading", share=0.5, page=2, pages=3)
    assert "looking at page 2 of 3" in draw_files([state], "en")
    assert "正在看第 2 页，共 3 页" in draw_files([state], "zh")


async def test_pages_as_pictures_where_the_collection_says_so(
    make_library: Callable[..., Library], scans: Path
) -> None:
    library = make_library(pages="auto")
    collection = library.create("Pictures", "en")
    with zipfile.ZipFile(scans / "all.zip", "w") as archive:
        archive.write(scans / "invoice.png", "in/invoice.png")
    states = drop(library, collection, scans / "manual.pdf", scans / "all.zip")
    assert [state.state for state in states.values()] == ["ready", "ready"]
    index = library.index(collection)
    assert index is not None
    assert (index.count(), index.count_pages()) == (0, 4)
    library = make_library(page_model=Reader())  # the collection keeps its way, whatever the page is started with
    write_scan(scans / "more.pdf", CLEANING)
    assert drop(library, collection, scans / "more.pdf")["more.pdf"].state == "ready"
    index = library.index(collection)
    assert index is not None
    assert index.count_pages() == 5
    desk = Desk(ChatMiniCPM(model="demo", temperature=0), library)
    turn = await ask(desk, collection, "the amount payable")
    assert (turn.state, "reads text only" in turn.note) == ("failed", True)  # not "no files yet"
    turn.passages = index.search("the amount payable", 4)
    sources = [passage.source for passage in turn.passages]
    assert sources[0] == "all.zip/in/invoice.png"
    assert len(set(sources)) > 1
    for n, source in enumerate(sources, start=1):
        html = await desk.open_source(VISITOR, "en", 0, n)
        assert 'data-kind="picture"' in html
        with shown_picture(html) as shown:
            assert max(shown.size) == (1400 if source.startswith("all") else 1287)
    (collection.documents / "all.zip").unlink()
    html = await desk.open_source(VISITOR, "en", 0, 1)
    assert "no longer in the collection" in html
    with shown_picture(html) as shown:
        assert max(shown.size) == 1024  # as the index keeps it


def test_options_that_do_not_go_together() -> None:
    def options(**given: Any) -> Namespace:
        return Namespace(**({"pages": None, "page_model": None, "page_embeddings": None} | given))

    for given, message in (
        ({"pages": "auto", "page_model": "x"}, "--pages auto does not do"),
        ({"page_embeddings": "demo"}, "give --pages image or --pages auto too"),
    ):
        with pytest.raises(UsageError, match=message):
            check_pages(options(**given))
    check_pages(options())
    chat = Reader()
    with pytest.raises(ValueError, match="models/Reader-1 reads text only"):
        make_sight(options(pages="auto"), chat, sees=False)
    assert make_sight(options(), chat, sees=False) == Sight()
    assert make_sight(options(), chat, sees=True).page_model is chat
    assert make_sight(options(page_model="other"), chat, sees=True).page_model == "other"
    assert PageReading(chat, lambda: None).name == "Reader-1"
    assert Sight(page_model=chat).options("image", lambda: None) == {}


def test_passages_without_room_are_named_below_the_answer() -> None:
    turn = Turn("Why?", answer="So.", state="done")
    turn.dropped = [{"source": "a<b.txt", "page": None}, *[{"source": "c.pdf", "page": 2}] * 2]
    html = draw_turn(turn, 0, "en", window=10)
    assert "Left out, since the context window has no room: a&lt;b.txt; c.pdf · page 2 (×2)" in html
    assert "上下文放不下，以下段落未交给模型：a&lt;b.txt; c.pdf · 第 2 页 (×2)" in draw_turn(turn, 0, "zh", window=10)
    turn.dropped = []
    assert "mc-dropped" not in draw_turn(turn, 0, "en", window=10)
