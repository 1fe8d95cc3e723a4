"""What README and docs say is true: their Python runs and prints what stands below it, their commands exist."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicpm_app.cli import COMMANDS, main, make_parser
from minicpm_core import close_all
from tests.scanned import CLEANING, WARRANTY, write_scan
from tests.toy_minicpmv import write_minicpmv
from tools.docs_blocks import CONSOLE, PAGES, PYTHON, ROOT, find_commands, find_output, read_blocks, run_page
from tools.family_table import README, replace_table

TEXT = README.read_text(encoding="utf-8")
RUN = {
    "README.md": 3,
    "docs/gguf.md": 0,
    "docs/langchain/chat.md": 8,
    "docs/langchain/embeddings.md": 4,
    "docs/langchain/llm.md": 5,
    "docs/langchain/retriever.md": 5,
    "docs/ocr.md": 1,
    "docs/operations.md": 1,
    "docs/pictures.md": 9,
    "docs/rag.md": 4,
    "docs/retrieval.md": 3,
    "docs/scale.md": 0,
    "docs/servers.md": 1,
    "docs/start.md": 3,
    "docs/visual_rag.md": 1,
}
"""Blocks of Python that are run, by page; a new one must be run too, or say in its page why it is not."""
ELSEWHERE = {
    "docs/ocr.md": "test_ocr",
    "docs/pictures.md": "test_docs_pictures",
    "docs/retrieval.md": "test_docs_retrieval",
}
"""The pages whose blocks another module of the tests runs."""
NOT_RUN = {
    "README.md": ["its model is no demo checkpoint"],
    "docs/gguf.md": [
        "llama-cpp-python is compiled when it is installed; tests/test_gguf_engine.py runs the same where it is",
        "as above; tests/test_gguf_vision.py",
    ],
    "docs/scale.md": [
        "needs a server; tests/test_chroma_server.py runs the same against one",
        "needs a cluster; tests/test_distributed_index.py runs it with two workers and a Chroma server",
        "starts processes; tests/test_distributed_index.py runs the same",
    ],
}
HERE = sorted(page for page, blocks in RUN.items() if blocks and page not in ELSEWHERE)
README_PRINTED = (
    ("[1]", "lease.txt"),
    ("[1]", "仓库手册.txt"),
    ("'name': 'multiply', 'args': {'a': 12, 'b': 7}", "tool 84", "ai The result is 84."),
)
ASKED = {"README.md": 2, "docs/start.md": 1}
"""Commands whose output stands below them and is compared, by page."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the example documents, in which a page is run."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path / "cache"))
    yield tmp_path
    close_all()


def test_the_table_of_families_is_the_codes() -> None:
    assert replace_table(TEXT) == TEXT, "run: python -m tools.family_table"


def test_the_commands_are_all_described_and_exist() -> None:
    assert {command for command in re.findall(r"^\| `minicpm ([a-z-]+)", TEXT, re.MULTILINE)} == set(COMMANDS)


def test_the_two_commands_are_targets_of_make() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= set(re.findall(r"make ([a-z]+)", TEXT)) <= set(targets)


def test_every_block_of_python_is_run_or_says_why_not() -> None:
    run: dict[str, int] = {}
    not_run: dict[str, list[str]] = {}
    for path in PAGES:
        blocks = [b for b in read_blocks(path.read_text(encoding="utf-8")) if b.language in PYTHON]
        if blocks:
            run[name(path)] = sum(not block.reason for block in blocks)
        if reasons := [block.reason for block in blocks if block.reason]:
            not_run[name(path)] = reasons
    assert run == RUN
    assert not_run == NOT_RUN
    assert sum(run.values()) >= 46
    for page, module in ELSEWHERE.items():
        assert Path(page).name in (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")


def test_all_code_is_fenced() -> None:
    """A block that is only indented would not be seen here; those that are left are shell and folders."""
    indented = re.compile(r"^ {4}(import|from|with|for|print|\w+ =)\b", re.MULTILINE)
    assert [name(path) for path in PAGES if indented.search(strip_fences(path.read_text(encoding="utf-8")))] == []


def strip_fences(text: str) -> str:
    return "".join(re.split(r"^```.*?^```$", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", HERE)
def test_the_page_runs_and_prints_what_it_says(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replacements: dict[str, str] = {}
    if page == "docs/rag.md":
        assert main(["index", "examples/documents", "--index", "index", "--embeddings", "demo", "--json"]) == 0
    if page == "docs/visual_rag.md":
        (folder / "scans").mkdir()
        write_scan(folder / "scans" / "manual.pdf", CLEANING, WARRANTY)
        monkeypatch.setenv("MINICPM_VISION_MODEL", str(write_minicpmv(folder / "vision", "2.6")))
        replacements = {
            '"openbmb/VisRAG-Ret"': '"demo", embeddings="demo"',
            "ChatMiniCPMV(": "ChatMiniCPMV(max_tokens=8",
        }
    text, printed = run_page(ROOT / page, replacements)
    assert len(printed) == RUN[page]
    assert text == (ROOT / page).read_text(encoding="utf-8"), f"run: python -m tools.docs_blocks {page}"
    if page == "README.md":
        assert all(word in out for out, words in zip(printed, README_PRINTED, strict=True) for word in words)
    if page == "docs/rag.md":
        assert "1,250 euros" in printed[0]
        assert "1.0 True ()" in printed[0]
        assert printed[1] == "['lease.txt', 'lease.txt']\n"
        assert printed[2] == printed[3] == printed[0].splitlines()[0] + "\n"


def test_pages_show_what_their_blocks_print() -> None:
    shown = 0
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        blocks = read_blocks(page)
        outputs = [find_output(page, blocks, n) for n, b in enumerate(blocks) if b.language in PYTHON]
        shown += sum(output is not None for output in outputs)
        assert len(list(filter(None, outputs))) == sum(block.language == "text" for block in blocks), path
    assert shown >= 22


def test_every_command_of_a_page_is_accepted() -> None:
    parser = make_parser()
    found = 0
    for path in PAGES:
        for block in read_blocks(path.read_text(encoding="utf-8")):
            for command in find_commands(block.text) if block.language in CONSOLE else ():
                parser.parse_args(shlex.split(command, comments=True)[1:])
                found += 1
    assert found >= 17


@pytest.mark.parametrize("page", ASKED)
def test_the_console_shows_what_is_printed(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for block in read_blocks((ROOT / page).read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:] if block.language == "console" else ():
            command, shown = part.split("\n", 1)
            assert main(shlex.split(command)[1:]) == 0
            printed = capsys.readouterr().out
            assert without_seconds(printed.rstrip()) == without_seconds(shown.rstrip())
            ran += 1
    assert ran == ASKED[page]


def without_seconds(text: str) -> str:
    return re.sub(r"\d+\.\d s$", "0.0 s", text, flags=re.MULTILINE)


def test_links_between_files_lead_somewhere() -> None:
    links = 0
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", strip_fences(path.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:", target):
                assert (path.parent / target).exists(), f"{name(path)}: {target}"
                links += 1
    assert links > 60
