"""`minicpm web --chroma-url`: an index on a real Chroma server as a collection of the page."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from langchain_minicpm import ChatMiniCPM
from minicpm_app.cli import main
from minicpm_app.web.conversation import Turn
from minicpm_app.web.drawing import draw_files
from minicpm_app.web.events import Desk
from minicpm_app.web.library import Library
from minicpm_app.web.uploads import Uploads
from minicpm_core.index import Index, build_index
from tests.chroma_servers import ChromaProcess, running

pytestmark = pytest.mark.enable_socket
LEASE = Path(__file__).parents[1] / "examples" / "documents" / "lease.txt"
VISITOR = "0" * 32


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    with running(tmp_path_factory.mktemp("chroma")) as server:
        yield server


async def ask(desk: Desk, collection: str, question: str) -> Turn:
    async for _ in desk.ask(VISITOR, "en", collection, question):
        pass
    return desk.conversations.get(VISITOR).turns[-1]


async def test_an_index_of_others_is_asked_and_added_to(chroma: ChromaProcess, tmp_path: Path) -> None:
    url = f"{chroma.url}/contracts"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "gate.txt").write_text("The gate of the yard opens at nine.", encoding="utf-8")
    build_index(theirs, persist_directory=tmp_path / "their-copy", chroma_url=url, embeddings="demo")
    shutil.rmtree(theirs)  # it is on another machine
    with closing(Library(tmp_path / "data", "demo", chroma_url=url)) as library:
        (collection,) = library.collections()
        assert (collection.name, collection.chroma_url) == (f"contracts @ 127.0.0.1:{chroma.port}", url)
        uploads = Uploads(library)
        dropped = tmp_path / "dropped"
        dropped.mkdir()
        uploads.put(collection, [Path(shutil.copy(LEASE, dropped))], "en")
        while uploads.is_busy(collection):
            time.sleep(0.01)
        assert [(file.name, file.state) for file in uploads.files(collection)] == [("lease.txt", "ready")]
        assert library.count_elsewhere(collection) == 1
        html = draw_files(uploads.files(collection), "en", library.count_elsewhere(collection))
        assert "from other places: 1 files" in html
        desk = Desk(ChatMiniCPM(model="demo", temperature=0), library)
        turn = await ask(desk, collection.id, "When does the gate of the yard open?")
        n = [passage.source for passage in turn.passages].index("gate.txt") + 1
        shown = await desk.open_source(VISITOR, "en", 0, n)
        assert "gate.txt is not on this machine; this is its text." in shown
        assert "opens at nine" in shown
        assert "Clara Whitcombe" in (await ask(desk, collection.id, "Who repairs the roof?")).answer
        with Index.open(tmp_path / "third", chroma_url=url) as index:
            assert index.sources() == ["gate.txt", "lease.txt"]
        with pytest.raises(ValueError, match="is on a server"):
            library.delete(collection)
        library.remove(collection, "lease.txt")
        with Index.open(tmp_path / "third", chroma_url=url) as index:
            assert index.sources() == ["gate.txt"]
    with closing(Library(tmp_path / "data", "demo")) as library:
        assert library.collections() == []  # its place is not told
    with closing(Library(tmp_path / "data", "demo", chroma_url=url)) as library:
        assert library.collections() == [collection]


def test_a_server_that_is_away_is_told_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatMiniCPM, "load_engine", None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/contracts"
    given = ["web", "--model", "demo", "--data", str(tmp_path / "data")]
    assert main([*given, "--chroma-url", url]) == 1
    assert "does not answer" in capsys.readouterr().err
    assert main([*given, "--chroma-url", "ftp://x"]) == 1
    assert "accepted: an http(s) URL" in capsys.readouterr().err
    Library(tmp_path / "data").close()  # the folder was left
