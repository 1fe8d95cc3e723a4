"""`minicpm index --pages` and what `minicpm ask` shows of a cited page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from minicpm_app.ask import ask_as_json, stream_answer
from minicpm_app.cli import main
from tests.scanned import CLEANING, WARRANTY, write_scan

DEMO = ["--embeddings", "demo", "--pages", "image", "--page-embeddings", "demo"]


def test_index_tells_of_pages_and_remembers_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "manual.pdf", WARRANTY, CLEANING)
    where = [str(tmp_path / "manual.pdf"), "--index", str(tmp_path / "x")]
    assert main(["index", *where, *DEMO]) == 0
    assert "1 added; 0 passages and 2 pages as pictures in all" in capsys.readouterr().out
    assert main(["index", *where, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["unchanged"], report["pages"]) == (["manual.pdf"], 2)
    assert main(["ask", "Where?", "--index", str(tmp_path / "x"), "--pages", "image"]) == 2
    assert "--pages says how documents are indexed; give them with --docs" in capsys.readouterr().err
    assert main(["ask", "How long is the warranty?", "--index", str(tmp_path / "x"), "--model", "demo"]) == 1
    assert "manual.pdf, page 1, is a picture in the index, and demo reads text only" in capsys.readouterr().err


def test_notes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "manual.pdf", WARRANTY)
    (tmp_path / "a.txt").write_text("The rent is 980 pounds.", encoding="utf-8")
    where = [str(tmp_path / "manual.pdf"), str(tmp_path / "a.txt"), "--index", str(tmp_path / "x")]
    assert main(["index", *where, *DEMO]) == 0
    capsys.readouterr()
    assert main(["index", *where, "--pages", "auto"]) == 0
    told = capsys.readouterr()
    assert "note: pages is 'auto', and was 'image': 1 unchanged file was indexed anew" in told.err
    assert told.out.count("\n") == 1  # and not there again


class Chain:
    """Answers with a page."""

    def stream(self, _: Any) -> Any:
        yield {"context": [Document(page_content="", metadata={"thumbnail": "/index/pages/a.jpg"})]}
        yield {"answer": "Two years [1]."}
        yield {"citations": [{"n": 1, "source": "manual.pdf", "page": 2, "quote": ""}]}

    def invoke(self, inputs: Any, config: Any) -> Any:
        return {name: value for piece in self.stream(inputs) for name, value in piece.items()}


def test_ask_shows_the_picture_of_a_cited_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert stream_answer(Chain(), {"question": "?"}) == "Two years [1]."
    assert capsys.readouterr().out == (
        "Two years [1].\n\nSources:\n  [1] manual.pdf, page 2: (picture: /index/pages/a.jpg)\n"
    )
    assert ask_as_json(Chain(), {"question": "?"})["citations"] == [
        {"n": 1, "source": "manual.pdf", "page": 2, "quote": "", "picture": "/index/pages/a.jpg"}
    ]
