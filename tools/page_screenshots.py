"""Make the pictures of the page that README and docs show: `python -m tools.page_screenshots [FOLDER]`.

Starts `minicpm web` with the demo checkpoint and a Chromium ($MINICPM_BROWSER, or one on the path), drops the example
documents, asks, and writes desktop-en.png, desktop-zh.png, citation.png and phone.png into FOLDER (docs/screenshots).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted((ROOT / "examples" / "documents").iterdir())
ENGLISH, CHINESE = ("My documents", "How long does the warranty last?"), ("我的文档", "仓库几点关门？")
PATIENCE = 120_000
"""Milliseconds."""


def make(page: Any, name: str, question: str, *, fill: bool) -> None:
    """Ask a question on an open page and open the first source; with `fill` after dropping the documents."""
    page.wait_for_selector("#mc-status h1")
    if fill:
        page.set_input_files("#mc-drop input[type=file]", [str(file) for file in DOCUMENTS])
        for file in DOCUMENTS:
            page.wait_for_selector(f'.mc-files li[data-state="ready"]:has-text("{file.name}")')
    page.wait_for_function("name => document.querySelector('#mc-collection input').value === name", arg=name)
    page.fill("#mc-question textarea", question)
    page.click("#mc-send")
    page.wait_for_selector('#mc-talk .mc-answer[data-state="done"] .mc-cite')
    page.click("#mc-talk .mc-cite")
    page.wait_for_selector(".mc-source mark, .mc-source i")
    page.wait_for_timeout(1500)  # scrolling is smooth


def take_all(browser: Any, url: str, folder: Path) -> None:
    """Write the pictures."""

    def look(language: str, size: tuple[int, int], **options: Any) -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(locale=language, viewport=viewport, **options)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(url)
        return page

    english = look("en-US", (1360, 800))
    make(english, *ENGLISH, fill=True)
    english.screenshot(path=folder / "desktop-en.png")
    english.locator(".mc-source").screenshot(path=folder / "citation.png")
    phone = look("en-US", (390, 844), device_scale_factor=2, has_touch=True, is_mobile=True)
    make(phone, *ENGLISH, fill=False)
    phone.tap(".mc-back")
    phone.wait_for_timeout(1500)
    phone.screenshot(path=folder / "phone.png")
    english.click("#mc-new button")
    english.fill("#mc-name input, #mc-name textarea", CHINESE[0])
    english.click("#mc-create")
    english.wait_for_function("name => document.querySelector('#mc-collection input').value === name", arg=CHINESE[0])
    english.set_input_files("#mc-drop input[type=file]", [str(file) for file in DOCUMENTS])
    english.wait_for_function(
        "count => document.querySelectorAll('.mc-files li[data-state=ready]').length === count", arg=len(DOCUMENTS)
    )
    chinese = look("zh-CN", (1360, 800))
    chinese.wait_for_selector("#mc-status h1")
    chinese.evaluate(
        "id => localStorage.setItem('minicpm-collection', id)",
        english.evaluate("() => localStorage.getItem('minicpm-collection')"),
    )
    chinese.reload()
    make(chinese, *CHINESE, fill=False)
    chinese.screenshot(path=folder / "desktop-zh.png")


def main(folder: Path) -> None:
    """Start the page and the browser, and write the pictures."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-c", "import sys; from minicpm_app.cli import main; sys.exit(main())", "web"]
        command += ["--json", "--model", "demo", "--data", data]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
            assert server.stdout is not None
            try:
                url = json.loads(server.stdout.readline())["url"]
                with sync_playwright() as playwright:
                    path = os.environ.get("MINICPM_BROWSER") or shutil.which("chromium")
                    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
                    take_all(browser, url, folder)
                    browser.close()
            finally:
                server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "screenshots")
