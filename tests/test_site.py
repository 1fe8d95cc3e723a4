"""The documentation is built as a site: strictly, offline, and a browser fetches nothing of it from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import langchain_minicpm
import llamaindex_minicpm
import minicpm_core
from tools.notebook_pages import TEXTS, lead_links

ROOT = Path(__file__).parents[1]
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*\bhref=\"?(?:https?:)?//|@import"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.version_info < (3, 11):
        pytest.skip("the documentation's tools need Python 3.11")
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"  # nothing answers there, so that a build that fetches fails
    environment = os.environ | {"http_proxy": nowhere, "https_proxy": nowhere, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_and_notebook_is_there(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages |= {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.ipynb")}
    pages |= {path.relative_to(ROOT).with_suffix(".html") for path in (ROOT / "notebooks").glob("*.ipynb")}
    pages |= {Path(name).with_suffix(".html") for name in TEXTS.values()}
    assert {path.relative_to(site) for path in site.rglob("*.html")} == pages | {Path("404.html")}
    menu = (site / "index.html").read_text(encoding="utf-8")
    assert [str(page) for page in pages - {Path("index.html")} if f'href="{page.as_posix()}"' not in menu] == []


def test_a_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not FETCHED.search(path.read_text(encoding="utf-8")), path
    assert FETCHED.search('<script src="https://a.example/b.js">')


def test_the_reference_holds_all_that_is_exported(site: Path) -> None:
    for page, package in (("core", minicpm_core), ("langchain", langchain_minicpm), ("llamaindex", llamaindex_minicpm)):
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        assert [n for n in package.__all__ if f'id="{package.__name__}.{n}"' not in text] == []
    assert "the context window is fitted" not in text
    settings = (site / "reference" / "langchain.html").read_text(encoding="utf-8")
    assert "default: environment variable MINICPM_MODEL" in settings


def test_a_notebook_is_a_page_with_what_it_prints(site: Path) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", (site / "notebooks" / "documents_agent.html").read_text(encoding="utf-8")))
    assert "Download this notebook" in text
    assert (
        '[1] falcon-lamp.pdf, page 2: "The warranty lasts five years and covers everything except the battery."' in text
    )
    assert (site / "notebooks" / "documents_agent.ipynb").is_file()


def test_links_become_those_of_the_site() -> None:
    links = "[a](../../notebooks/x.ipynb) [b](../servers.md#c) [d](../../README.md#e) [f](https://a.example/b.md)"
    led = "[a](../notebooks/x.md) [b](../servers.md#c) [d](../overview.md#e) [f](https://a.example/b.md)"
    assert lead_links(links, "docs/langchain", "langchain") == led
    assert lead_links(led, "docs/langchain", "langchain") == led
    assert lead_links("[a](docs/b.md) ![c](docs/d.png) [e](CONTRIBUTING.md)", "", "") == (
        "[a](b.md) ![c](d.png) [e](contributing.md)"
    )
