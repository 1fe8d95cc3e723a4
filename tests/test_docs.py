"""The README says what is true: its table is the code's, its snippets run, its commands exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from minicpm_app.cli import COMMANDS
from tools.family_table import README, replace_table

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PRINTED = (
    ("[1]", "lease.txt"),
    ("[1]", "仓库手册.txt"),
    ("'name': 'multiply', 'args': {'a': 12, 'b': 7}", "tool 84", "ai The result is 84."),
)


def test_the_table_of_families_is_the_codes() -> None:
    assert replace_table(TEXT) == TEXT, "run: python -m tools.family_table"


def test_the_commands_are_all_described_and_exist() -> None:
    assert {name for name in re.findall(r"^\| `minicpm ([a-z-]+)", TEXT, re.MULTILINE)} == set(COMMANDS)


def test_the_two_commands_are_targets_of_make() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= set(re.findall(r"make ([a-z]+)", TEXT)) <= set(targets)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_the_snippets_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {})
    printed = capsys.readouterr().out
    assert all(text in printed for text in PRINTED[number])


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) == len(PRINTED)
