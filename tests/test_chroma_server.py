"""`chroma_url=`: an index on a real Chroma server: the same passages as in a folder, whatever happens to the server."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicpm_core.index import Index, build_index, chroma_server, place, recorded_embeddings
from minicpm_core.index.chroma_server import TOKEN_VARIABLE, ChromaServer
from tests.chroma_servers import ChromaProcess, TokenProxy, running
from tests.killed_build import SETTINGS, WordEmbedder

pytestmark = pytest.mark.enable_socket
ROOT = Path(__file__).parent.parent
FILES, LONG = 5, 3  # the long file has more passages than one batch
TOKEN = "tok-7f3a9c51"


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaProcess]:
    with running(tmp_path_factory.mktemp("chroma")) as server:
        yield server


@pytest.fixture
def url(chroma: ChromaProcess, request: pytest.FixtureRequest) -> str:
    """An index of its own for each test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")
    return f"{chroma.url}/{name}"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(FILES):
        sentences = (f"File {n} has the sentence number {m} about lamp {m * n}." for m in range(80 if n == LONG else 5))
        (folder / f"f{n}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return folder


def build(docs: Path, **place: Any) -> Any:
    return build_index(docs, embeddings=WordEmbedder(), settings=SETTINGS, **place)


def contents(**place: Any) -> dict[str, Any]:
    """Return all that an index holds, in an order of its own, and what a search finds."""
    with Index.open(embeddings=WordEmbedder(), **place) as index:
        catalog = index._catalog
        tables = {
            name: sorted(map(repr, catalog._rows(f"SELECT {columns} FROM {name}")))
            for name, columns in (
                ("files", "*"), ("page_texts", "*"), ("chunks", "id, path, text"), ("roots", "path"),
                ("terms JOIN chunks ON chunks.number = terms.rowid", "id, words, characters"), ("unfinished", "*"),
            )
        }  # fmt: skip
        tables["metadata"] = sorted(
            (c.id, sorted(c.metadata.items())) for c in catalog.chunks([*catalog.ids()]).values()
        )
        found = index.collection.get(include=["documents", "metadatas", "embeddings"])
        vectors = [[round(float(value), 5) for value in row] for row in found["embeddings"]]  # type: ignore[union-attr]
        stored = sorted(zip(found["ids"], found["documents"] or [], map(repr, vectors), strict=True))
        assert {row[0] for row in stored} == set(catalog.ids())
        assert len(stored) == len(found["ids"]) == index.count()
        hits = index.search("sentence number 79 about lamp 237", k=3, where={"source": f"f{LONG}.txt"}, budget=200)
        passages = [(hit.text, round(hit.score, 9), hit.page, index.page_text(hit)[:20]) for hit in hits]
    return {"tables": tables, "stored": stored, "passages": passages}


def test_a_served_index_holds_and_finds_what_one_in_a_folder_does(docs: Path, tmp_path: Path, url: str) -> None:
    served = {"persist_directory": tmp_path / "copy", "chroma_url": url}
    local = build(docs, persist_directory=tmp_path / "local")
    report = build(docs, **served)
    assert (report.added, report.chunks) == (local.added, local.chunks)
    assert len(report.added) == FILES
    assert build(docs, **served).unchanged == report.added
    whole = contents(persist_directory=tmp_path / "local")
    assert contents(**served) == whole
    assert contents(persist_directory=tmp_path / "elsewhere", chroma_url=url) == whole
    assert not (tmp_path / "copy" / "chroma").exists()


def test_another_machine_goes_on_with_the_index(docs: Path, tmp_path: Path, url: str) -> None:
    build(docs, persist_directory=tmp_path / "one", chroma_url=url)
    (docs / "f1.txt").write_text("A kettle boils. It sings.", encoding="utf-8")
    (docs / "f2.txt").unlink()
    report = build(docs, persist_directory=tmp_path / "two", chroma_url=url)
    assert (report.updated, report.removed, len(report.unchanged)) == (("f1.txt",), ("f2.txt",), FILES - 2)
    build(docs, persist_directory=tmp_path / "local")
    whole = contents(persist_directory=tmp_path / "local")
    assert contents(persist_directory=tmp_path / "one", chroma_url=url) == whole
    assert contents(persist_directory=tmp_path / "two", chroma_url=url) == whole


def test_a_server_that_is_killed_and_started_again(docs: Path, tmp_path: Path, chroma: ChromaProcess, url: str) -> None:
    """In the middle of a file: the run waits for the server and ends as if nothing had been."""
    embedder, outages = WordEmbedder(), []

    def interrupt(progress: Any) -> None:
        if (progress.done, len(outages)) in ((2, 0), (LONG, 1)) and progress.chunks > 10:
            outages.append(progress.chunks)
            chroma.kill()
            threading.Timer(0.3, chroma.start).start()

    place = {"persist_directory": tmp_path / "copy", "chroma_url": url}
    report = build_index(docs, embeddings=embedder, settings=SETTINGS, on_progress=interrupt, **place)  # type: ignore[arg-type]
    assert len(outages) == 2
    assert len(report.added) == FILES
    assert len(embedder.embedded) == report.chunks  # nothing was embedded twice
    build(docs, persist_directory=tmp_path / "local")
    assert contents(**place) == contents(persist_directory=tmp_path / "local")


def test_a_server_that_stays_away_ends_the_run_and_loses_nothing(
    docs: Path, tmp_path: Path, chroma: ChromaProcess, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_server, "PATIENCE", 0.3)
    place = {"persist_directory": tmp_path / "copy", "chroma_url": url}

    def interrupt(progress: Any) -> None:
        if progress.done == LONG and progress.chunks > 30:
            chroma.kill()

    with pytest.raises(ConnectionError, match=r"does not answer .* the next run goes on with the rest"):
        build_index(docs, embeddings=WordEmbedder(), settings=SETTINGS, on_progress=interrupt, **place)  # type: ignore[arg-type]
    with pytest.raises(ConnectionError, match="does not answer"):
        Index.open(embeddings=WordEmbedder(), **place)  # type: ignore[arg-type]
    chroma.start()
    with Index.open(embeddings=WordEmbedder(), **place) as index:  # type: ignore[arg-type]
        assert index.sources() == [f"f{n}.txt" for n in range(LONG)]
    report = build(docs, **place)
    assert (len(report.unchanged), len(report.added)) == (LONG, FILES - LONG)
    build(docs, persist_directory=tmp_path / "local")
    assert contents(**place) == contents(persist_directory=tmp_path / "local")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_a_writer_that_is_killed(docs: Path, tmp_path: Path, url: str) -> None:
    """Its machine goes on; another one is refused until then, and told why."""
    command = [
        sys.executable,
        "-m",
        "tests.killed_build",
        str(docs),
        str(tmp_path / "one"),
        "store_chunks",
        "4",
        "after",
    ]
    environment = os.environ | {"MINICPM_TEST_CHROMA_URL": url}
    killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with pytest.raises(RuntimeError, match=rf"is being written by process \d+ on {socket.gethostname()}.*_writer"):
        build(docs, persist_directory=tmp_path / "two", chroma_url=url)
    report = build(docs, persist_directory=tmp_path / "one", chroma_url=url)
    assert 1 <= len(report.unchanged) <= LONG
    assert len(report.unchanged) + len(report.added) == FILES
    assert len(build(docs, persist_directory=tmp_path / "two", chroma_url=url).unchanged) == FILES
    build(docs, persist_directory=tmp_path / "local")
    whole = contents(persist_directory=tmp_path / "local")
    assert contents(persist_directory=tmp_path / "one", chroma_url=url) == whole
    assert contents(persist_directory=tmp_path / "two", chroma_url=url) == whole


def test_one_writer_at_a_time_on_all_machines(docs: Path, tmp_path: Path, url: str) -> None:
    refused: list[str] = []

    def second(progress: Any) -> None:
        if progress.done == 1 and not refused:
            with pytest.raises(RuntimeError, match="is being written by process") as caught:
                build(docs, persist_directory=tmp_path / "two", chroma_url=url)
            refused.append(str(caught.value))

    place = {"persist_directory": tmp_path / "one", "chroma_url": url}
    build_index(docs, embeddings=WordEmbedder(), settings=SETTINGS, on_progress=second, **place)  # type: ignore[arg-type]
    assert len(refused) == 1
    assert str(os.getpid()) in refused[0]
    assert len(build(docs, persist_directory=tmp_path / "two", chroma_url=url).unchanged) == FILES


def test_a_proxy_that_asks_for_a_token(
    docs: Path, tmp_path: Path, chroma: ChromaProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with TokenProxy(chroma.url, TOKEN) as proxy:
        place: dict[str, Any] = {"persist_directory": tmp_path / "copy", "chroma_url": f"{proxy.url}/guarded"}
        for wrong in (None, "another"):
            with pytest.raises(PermissionError, match=f"refused the token.*{TOKEN_VARIABLE}") as caught:
                build(docs, chroma_token=wrong, **place)
            assert wrong is None or wrong not in str(caught.value)
        report = build(docs, chroma_token=TOKEN, **place)
        assert len(report.added) == FILES
        monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
        with Index.open(embeddings=WordEmbedder(), **place) as index:
            proxy.busy = 3  # a proxy whose server is away for a moment
            assert index.search("lamp 4", k=1)[0].source
        assert proxy.busy == 0
        assert set(proxy.seen) == {None, "Bearer another", f"Bearer {TOKEN}"}
        told = [str(report), repr(ChromaServer.parse(place["chroma_url"])), caplog.text]
    assert not any(TOKEN in text for text in told)
    stored = [file.read_bytes() for root in (tmp_path, chroma.data) for file in root.rglob("*") if file.is_file()]
    assert len(stored) > 3
    assert not any(TOKEN.encode() in data for data in stored)


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_server, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ChromaServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ConnectionError, match="does not answer"):
            client.connect()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"chroma_url": "localhost:8000"}, "accepted: an http"),
        ({"chroma_url": "http://user:word@localhost:8000"}, "holds a user name or password"),
        ({"chroma_url": "http://localhost:8000/a"}, "accepted: 3 letters"),
        ({"chroma_token": "x", "persist_directory": "here"}, "give that too"),
        ({}, "give persist_directory"),
    ],
)
def test_what_is_not_accepted(given: dict[str, str], error: str) -> None:
    for call in (lambda: Index.open(**given), lambda: build_index(["x"], **given)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=error) as caught:
            call()
        assert "word@" not in str(caught.value)


def test_a_folder_is_of_one_index(docs: Path, tmp_path: Path, url: str) -> None:
    build(docs, persist_directory=tmp_path / "copy", chroma_url=url)
    build(docs, persist_directory=tmp_path / "local")
    for folder, given, error in (
        ("copy", {}, "give that as chroma_url"),
        ("copy", {"chroma_url": f"{url}-other"}, "holds an index of the one on"),
        ("local", {"chroma_url": url}, "holds an index of its own"),
    ):
        with pytest.raises(ValueError, match=error):
            Index.open(tmp_path / folder, WordEmbedder(), **given)
    with pytest.raises(FileNotFoundError, match=r"there is no index on .*-none; make one with build_index"):
        Index.open(tmp_path / "new", WordEmbedder(), chroma_url=f"{url}-none")
    assert recorded_embeddings(tmp_path / "copy", url) == "words"
    assert recorded_embeddings(tmp_path / "none", f"{url}-none") is None


def test_a_reader_takes_the_copy_while_it_is_written(docs: Path, tmp_path: Path, url: str) -> None:
    from minicpm_core.index.lock import writer_lock

    build(docs, persist_directory=tmp_path / "copy", chroma_url=url)
    with writer_lock(tmp_path / "copy"), Index.open(tmp_path / "copy", WordEmbedder(), chroma_url=url) as index:
        assert len(index.sources()) == FILES
    (tmp_path / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch, writer_lock(tmp_path / "empty"):
        patch.setattr(place, "PATIENCE", 0.1)
        with pytest.raises(RuntimeError, match="is being written by another run"):
            Index.open(tmp_path / "empty", WordEmbedder(), chroma_url=url)


def test_both_frameworks_and_the_command(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import langchain_minicpm
    import llamaindex_minicpm
    from minicpm_app.cli import main

    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "lease.txt").write_text("The landlord, Clara Whitcombe, repairs the roof.", encoding="utf-8")
    assert main(["index", str(folder), "--chroma-url", url, "--embeddings", "demo"]) == 0
    assert f"{url}: 1 added" in capsys.readouterr().out
    question = "Who repairs the roof?"
    store = langchain_minicpm.load_index(chroma_url=url)
    assert [d.metadata["source"] for d in langchain_minicpm.MiniCPMRetriever(index=store).invoke(question)] == [
        "lease.txt"
    ]
    assert "Whitcombe" in store.similarity_search(question, k=1)[0].page_content
    store.index.close()
    assert langchain_minicpm.build_index(folder, chroma_url=url).unchanged == ("lease.txt",)
    assert llamaindex_minicpm.build_index(folder, chroma_url=url).unchanged == ("lease.txt",)
    index = llamaindex_minicpm.load_index(chroma_url=url)
    for retriever in (llamaindex_minicpm.MiniCPMIndexRetriever(index), index.as_retriever()):
        assert "Whitcombe" in retriever.retrieve(question)[0].get_content()
    index.close()
    assert main(["ask", question, "--docs", str(folder), "--chroma-url", url, "--model", "demo", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(c["n"], c["source"]) for c in answer["citations"]] == [(1, "lease.txt")]
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"question": question, "source": "lease.txt", "answer": "Clara"}), encoding="utf-8")
    given = ["--questions", str(questions), "--model", "demo", "--json"]
    assert main(["evaluate-rag", "--chroma-url", url, *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["search"]["hybrid"]["hit@1"], found["answers"]["right"]) == (1.0, [1, 1])
    assert main(["evaluate-rag", *given]) == 2
    assert "its folder, or --chroma-url URL" in capsys.readouterr().err
    assert main(["index", str(folder)]) == 2
    assert "--index DIR or --chroma-url URL" in capsys.readouterr().err
