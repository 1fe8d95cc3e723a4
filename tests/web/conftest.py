"""A real `minicpm web` and a real Chromium; both are told apart from what is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pytest_socket import enable_socket

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "examples" / "documents"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell", "chromium-headless-shell")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.enable_socket)  # the page is served on loopback


def find_browser() -> str | None:
    """Return a Chromium: $MINICPM_BROWSER, one of the system's, or the one that Playwright installed."""
    if own := os.environ.get("MINICPM_BROWSER"):
        return own
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    pytest.importorskip("gradio", reason='the page needs Gradio: pip install "minicpm-integrations[web]"')
    api = pytest.importorskip("playwright.sync_api", reason="tests of the page need Playwright: pip install playwright")
    enable_socket()
    with api.sync_playwright() as playwright:
        path = find_browser() or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("tests of the page need a browser: apt-get install chromium, or set MINICPM_BROWSER to one")
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@dataclass
class Server:
    """A running `minicpm web`."""

    url: str
    process: subprocess.Popen[str]
    data: Path


def start(data: Path, *arguments: str, password: str | None = None) -> Server:
    """Start `minicpm web` on a free port, and wait until it tells its address."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_WAIT_POLICY": "PASSIVE",
        **({"MINICPM_WEB_PASSWORD": password} if password else {}),
    }
    code = "import sys; from minicpm_app.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "web", "--json", "--data", str(data), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(process.communicate()[1])
    return Server(json.loads(line)["url"], process, data)


def end(server: Server) -> None:
    """End it as Ctrl-C does."""
    server.process.send_signal(2)
    try:
        server.process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="session")
def demo_server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(
        tmp_path_factory.mktemp("collections"), "--model", "demo", "--max-file-size", "1", "--max-files", "4"
    )
    yield server
    end(server)


@dataclass
class Tab:
    """A tab of a browser of its own, with what it asked for."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def create(self, name: str) -> None:
        self.page.locator("#mc-new button").first.click()
        self.page.fill("#mc-name input, #mc-name textarea", name)
        self.page.click("#mc-create")
        self.page.wait_for_function(
            "name => document.querySelector('#mc-collection input').value === name", arg=name, timeout=20_000
        )

    def drop(self, *files: Path) -> None:
        self.page.set_input_files("#mc-drop input[type=file]", [str(file) for file in files])

    def wait_for_files(self, **states: str) -> None:
        """Wait until the files have these states, by their names with _ for the dot."""
        for name, state in states.items():
            locator = self.page.locator(f'.mc-files li[data-state="{state}"]', has_text=name.replace("_", "."))
            locator.wait_for(timeout=30_000)

    def ask(self, question: str) -> None:
        self.page.fill("#mc-question textarea", question)
        self.page.click("#mc-send")

    def answer(self, number: int = -1, state: str = "done") -> Any:
        """Wait for the end of an answer; return its element."""
        over = "() => { const last = [...document.querySelectorAll('#mc-live .mc-answer, #mc-talk .mc-answer')].pop();"
        self.page.wait_for_function(f"{over} return last && last.dataset.state !== 'running'; }}", timeout=30_000)
        found = self.page.locator("#mc-talk .mc-answer")
        assert found.last.get_attribute("data-state") == state, found.last.inner_text()
        return found.nth(number)


def open_tab(browser: Any, url: str, *, language: str = "en-US", size: tuple[int, int] = (1360, 860)) -> Tab:
    """Open the page in a browser context of its own, as another person would."""
    context = browser.new_context(locale=language, viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    tab = Tab(page)
    page.on("request", lambda request: tab.requests.append(request.url))
    page.on("pageerror", lambda error: tab.errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#mc-status h1", timeout=90_000)
    return tab
