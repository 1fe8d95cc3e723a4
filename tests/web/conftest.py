"""A real `minicpm web` and a real Chromium; what is missing for them is told as the reason of a skip."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_socket import enable_socket

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "examples" / "documents"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell", "chromium-headless-shell")
PATIENCE = 120_000
"""Milliseconds for which a condition is waited for; only a failure takes as long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.enable_socket)  # the page is served on loopback


def find_browser() -> str | None:
    """Return a Chromium: $MINICPM_BROWSER, one of the system's, or the one that Playwright installed."""
    if own := os.environ.get("MINICPM_BROWSER"):
        return own
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="package")  # not longer: Playwright keeps an event loop running, which async tests cannot stand
def browser() -> Iterator[Any]:
    pytest.importorskip("gradio", reason='the page needs Gradio: pip install "minicpm-integrations[web]"')
    api = pytest.importorskip("playwright.sync_api", reason="tests of the page need Playwright: pip install playwright")
    enable_socket()
    with api.sync_playwright() as playwright:
        path = find_browser() or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("tests of the page need a browser: apt-get install chromium, or set MINICPM_BROWSER to one")
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=path, args=options, timeout=PATIENCE)
        yield opened
        opened.close()


@dataclass
class Server:
    """A process that serves pages; `urls` by their names."""

    urls: dict[str, str]
    process: subprocess.Popen[str]
    folder: Path


def start(folder: Path, arguments: list[str], **environment: str) -> Server:
    """Start Python with arguments, and wait until it tells its addresses."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *arguments]
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")  # nobody answers there
    with (folder / "errors.txt").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", **proxies, **environment},
            cwd=ROOT,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise RuntimeError((folder / "errors.txt").read_text(encoding="utf-8"))
    return Server(json.loads(line), process, folder)


def end(server: Server, *, interrupt: bool = True) -> int:
    """End it as Ctrl-C does, else by the end of its input; return its exit code. It wrote nothing but addresses."""
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    server.process.stdin.close()
    if interrupt:
        server.process.send_signal(signal.SIGINT)
    try:
        code = server.process.wait(timeout=PATIENCE / 1000)
        assert server.process.stdout.read() == ""
        return code
    finally:
        server.process.kill()
        server.process.wait()
        server.process.stdout.close()


@pytest.fixture(scope="package")
def pages(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Pages for the demo checkpoint, for a slow model and for one that sees."""
    folder = tmp_path_factory.mktemp("pages")
    # As a user has it, without the switches that keep the tests from the hub.
    online = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    server = start(folder, ["-m", "tests.web.pages", str(folder)], **online)
    yield server
    end(server, interrupt=False)


@dataclass
class Tab:
    """A tab of a browser of its own, with what it asked for."""

    page: Any
    url: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    asked: int = 0

    def wait(self, selector: str, **options: Any) -> Any:
        """Wait until an element is seen; return it."""
        found = self.page.locator(selector, **options).first
        found.wait_for()
        return found

    def wait_until(self, condition: str, value: Any = None) -> None:
        """Wait until a condition, an expression in JavaScript of `value`, holds."""
        self.page.wait_for_function(f"value => {condition}", arg=value)

    def create(self, name: str) -> None:
        self.page.locator("#mc-new button").first.click()
        self.page.fill("#mc-name input, #mc-name textarea", name)
        self.page.click("#mc-create")
        self.wait_until("document.querySelector('#mc-collection input').value === value", name)

    def choose(self, name: str) -> None:
        self.page.click("#mc-collection input")
        self.page.get_by_role("option", name=name).click()
        self.wait_until("document.querySelector('#mc-collection input').value.startsWith(value)", name)

    def drop(self, *files: Path) -> None:
        self.page.set_input_files("#mc-drop input[type=file]", [str(file) for file in files])

    def wait_for_files(self, state: str, *names: str) -> None:
        """Wait until these files have a state."""
        for name in names:
            self.wait(f'.mc-files li[data-state="{state}"]', has_text=name)

    def ask(self, question: str) -> None:
        self.asked = self.page.locator("#mc-talk .mc-answer").count() + 1
        self.page.fill("#mc-question textarea", question)
        self.page.click("#mc-send")

    def written(self, longer_than: int = 0) -> int:
        """Wait until the answer in work is longer, while it is in work; return how long it is."""
        answer = "document.querySelector('#mc-live .mc-answer[data-state=\"running\"] p:not(.mc-quiet)')"
        self.wait_until(f"{answer}?.innerText.length > value", longer_than)
        return int(self.page.evaluate(f"() => {answer}.innerText.length"))

    def answer(self, state: str = "done") -> Any:
        """Wait for the end of the answer to the last question; return its element."""
        self.page.wait_for_function(
            "count => { const all = document.querySelectorAll('#mc-talk .mc-answer');"
            " return all.length >= count && all[all.length - 1].dataset.state !== 'running'"
            " && !document.querySelector('#mc-live .mc-answer'); }",
            arg=self.asked,
        )
        found = self.page.locator("#mc-talk .mc-answer").last
        assert found.get_attribute("data-state") == state, found.inner_text()
        return found

    def reload(self) -> None:
        self.page.reload()
        self.wait("#mc-status h1")

    def is_sideways(self) -> bool:
        """Tell whether something is wider than the window."""
        return bool(self.page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth"))


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Opens a page in a browser of its own, as another person would; no tab may fail or ask any other machine."""
    tabs: list[Tab] = []

    def open_(
        url: str, *, language: str = "en-US", size: tuple[int, int] = (1360, 860), ready: bool = True, **options: Any
    ) -> Tab:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(locale=language, viewport=viewport, service_workers="block", **options)
        context.set_default_timeout(PATIENCE)
        tab = Tab(context.new_page(), url)
        tabs.append(tab)
        context.on("request", lambda request: tab.requests.append(request.url))
        tab.page.on("websocket", lambda socket: tab.requests.append(socket.url))
        tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.page.goto(url)
        if ready:
            tab.wait("#mc-status h1")
        return tab

    yield open_
    for tab in tabs:
        tab.page.context.close()
    for tab in tabs:
        assert tab.errors == []
        hosts = {urlsplit(url).netloc for url in tab.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(tab.url).netloc}
