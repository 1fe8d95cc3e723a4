"""docs/retrieval.md: its snippets run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.office_files import make_pdf

DOCUMENT = Path(__file__).parent.parent / "docs" / "retrieval.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "contracts"
    folder.mkdir()
    (folder / "lease.pdf").write_bytes(make_pdf())
    (folder / "notice.md").write_text("# Repairs\n\nThe notice period is three months.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert len(SNIPPETS) == 3
    for number, snippet in enumerate(SNIPPETS):
        exec(compile(snippet, f"retrieval.md, snippet {number}", "exec"), {})
    printed = capsys.readouterr().out
    assert "('lease.pdf', 'notice.md') ()" in printed
    assert "notice.md None # Repairs\n\nThe notice period is three months." in printed
    assert printed.splitlines()[-1].count("Document(") == 2
