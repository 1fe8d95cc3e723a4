"""The page as people use it: a real server, a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.toy import write_llama
from tests.toy_vision import write_native
from tests.web.conftest import DOCUMENTS, Server, end, open_tab, start

LAMP, LEASE = DOCUMENTS / "falcon-lamp.pdf", DOCUMENTS / "lease.txt"


def test_upload_ask_stream_cite_reload_and_nothing_from_elsewhere(browser: Any, demo_server: Server) -> None:
    tab = open_tab(browser, demo_server.url)
    assert re.search(r"demo\s+Memory\s+0\.\d\d GiB\s+Context\s+4,096 tokens", tab.page.inner_text("#mc-status"))
    tab.create("Lamps")
    tab.drop(LAMP, LEASE)
    tab.wait_for_files(**{"falcon-lamp_pdf": "ready", "lease_txt": "ready"})
    tab.page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => window.seen.push("
        "document.querySelector('#mc-live .mc-answer')?.innerText || '')).observe("
        "document.querySelector('#mc-live'), {childList: true, subtree: true, characterData: true}); }"
    )
    tab.ask("How long does the warranty last?")
    answer = tab.answer()
    assert "The warranty lasts five years" in answer.inner_text()
    assert "falcon-lamp.pdf · page 2" in answer.inner_text()
    lengths = {len(text) for text in tab.page.evaluate("() => window.seen")}
    assert len(lengths) > 2, "the answer came at once"
    answer.locator(".mc-cite").first.click()
    source = tab.page.locator('.mc-source[data-kind="pdf"]')
    source.wait_for(timeout=20_000)
    quote = source.locator("i.mc-quote").first.bounding_box()
    leaf = source.locator("img").bounding_box()
    assert quote["width"] > leaf["width"] / 2  # a line of the page
    assert leaf["y"] < quote["y"] < leaf["y"] + leaf["height"] / 4  # near its top, where the sentence stands
    tab.page.reload()
    tab.page.wait_for_selector("#mc-talk .mc-answer")
    assert "The warranty lasts five years" in tab.answer().inner_text()
    assert tab.page.input_value("#mc-collection input") == "Lamps"
    tab.answer().locator(".mc-cite").first.click()
    tab.page.locator('.mc-source[data-kind="pdf"] i.mc-quote').first.wait_for(timeout=20_000)
    own = urlsplit(demo_server.url).netloc
    assert {urlsplit(url).netloc for url in tab.requests if not url.startswith(("data:", "blob:"))} == {own}
    assert tab.errors == []
    tab.page.context.close()


def test_texts_of_others_are_shown_and_not_run(browser: Any, demo_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(
        "The password of the <img src=x onerror=window.hit=1> router is {{value}} ${1+1}.", encoding="utf-8"
    )
    tab = open_tab(browser, demo_server.url)
    tab.create("Hostile")
    tab.drop(file)
    tab.wait_for_files(notes_txt="ready")
    tab.ask("What is the password of the router? <b>x</b> {{value}} ${1+1}")
    assert tab.answer().count() == 1
    assert "<b>x</b> {{value}} ${1+1}" in tab.page.inner_text("#mc-talk .mc-question")
    assert tab.page.locator("#mc-talk .mc-answer img, #mc-talk .mc-question b").count() == 0
    tab.answer().locator(".mc-cite").first.click()
    tab.page.locator('.mc-source[data-kind="text"]').wait_for(timeout=20_000)
    assert "<img src=x onerror=window.hit=1> router is {{value}} ${1+1}." in tab.page.inner_text(".mc-text")
    assert tab.page.evaluate("() => window.hit") is None
    tab.page.context.close()


def test_bad_files_are_named_with_the_reason_and_do_not_stop_the_others(
    browser: Any, demo_server: Server, tmp_path: Path
) -> None:
    files = {"broken.pdf": b"%PDF-1.4 no", "song.mp3": b"x", "empty.txt": b" ", "good.txt": b"The gate opens at nine."}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tab = open_tab(browser, demo_server.url)
    tab.page.click("#mc-collection input")
    tab.page.get_by_role("option", name="No documents").click()
    tab.page.wait_for_function("() => document.querySelector('#mc-question textarea').placeholder.startsWith('Say')")
    tab.drop(tmp_path / "good.txt")
    tab.page.get_by_text("Choose or create a collection before you drop files.").wait_for(timeout=20_000)
    tab.create("Mixed")
    tab.drop(*(tmp_path / name for name in files))
    tab.wait_for_files(broken_pdf="failed", song_mp3="failed", empty_txt="failed", good_txt="ready")
    notes = dict(
        zip(tab.page.locator(".mc-name").all_inner_texts(), tab.page.locator(".mc-note").all_inner_texts(), strict=True)
    )
    assert "is damaged or not a PDF" in notes["broken.pdf"]
    assert "is of a kind that is not read" in notes["song.mp3"]
    assert "is empty" in notes["empty.txt"]
    many = [tmp_path / f"{n}.txt" for n in range(5)]
    for file in many:
        file.write_text("Some text.")
    tab.drop(*many)
    tab.page.get_by_text("5 files were given; accepted are 4 at a time").wait_for(timeout=20_000)
    large = tmp_path / "large.txt"
    large.write_bytes(b"many words " * 120_000)
    tab.drop(large)
    tab.page.get_by_text("exceed the maximum allowed size of 1.0 Mb").wait_for(timeout=20_000)
    tab.page.reload()
    tab.page.wait_for_selector(".mc-files li")
    assert tab.page.locator(".mc-name").all_inner_texts() == ["good.txt"]
    tab.page.click(".mc-remove")
    tab.page.get_by_text("No files yet.").wait_for(timeout=20_000)
    tab.page.context.close()


def test_two_people_do_not_see_each_other_and_both_are_answered(browser: Any, demo_server: Server) -> None:
    first = open_tab(browser, demo_server.url)
    first.create("Shared")
    first.drop(LEASE)
    first.wait_for_files(lease_txt="ready")
    second = open_tab(browser, demo_server.url)
    second.page.click("#mc-collection input")
    second.page.get_by_role("option", name="Shared").click()
    second.wait_for_files(lease_txt="ready")
    first.ask("Who repairs the roof?")
    second.ask("How many dogs may the tenant keep?")
    assert "Clara Whitcombe" in first.answer().inner_text()
    assert "dog" in second.answer().inner_text()
    for tab, other in ((first, "dogs"), (second, "roof?")):
        assert tab.page.locator("#mc-talk .mc-question").count() == 1
        assert other not in tab.page.inner_text("#mc-talk .mc-question")
    first.page.context.close()
    second.page.context.close()


def test_chinese_by_the_browser_and_by_the_switch_which_stays(browser: Any, demo_server: Server) -> None:
    tab = open_tab(browser, demo_server.url, language="zh-CN")
    assert tab.page.inner_text("#mc-send") == "提问"
    assert "上下文" in tab.page.inner_text("#mc-status")
    tab.page.get_by_text("English", exact=True).click()
    tab.page.wait_for_function("() => document.querySelector('#mc-send').innerText === 'Ask'")
    tab.page.reload()
    tab.page.wait_for_function("() => document.querySelector('#mc-send')?.innerText === 'Ask'")
    tab.page.context.close()


def test_a_phone_shows_everything_without_scrolling_sideways(browser: Any, demo_server: Server) -> None:
    tab = open_tab(browser, demo_server.url, size=(390, 844))
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    for part in ("#mc-send", "#mc-question textarea", "#mc-talk-box"):
        box = tab.page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844, f"{part} is below the first screen"
    tab.create("Phone")
    tab.drop(LAMP)
    tab.wait_for_files(**{"falcon-lamp_pdf": "ready"})
    tab.ask("How long does the warranty last?")
    tab.answer().locator(".mc-cite").first.click()
    tab.page.locator("i.mc-quote").first.wait_for(timeout=20_000)
    tab.page.wait_for_function(
        "() => { const b = document.querySelector('i.mc-quote').getBoundingClientRect();"
        " return b.top > 0 && b.bottom < window.innerHeight; }"
    )
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    tab.page.context.close()


def test_stop_ends_a_long_answer_and_the_next_one_comes(browser: Any, tmp_path: Path) -> None:
    model = write_llama(
        tmp_path / "toy", max_position_embeddings=8192, hidden_size=512, intermediate_size=2048, num_hidden_layers=8
    )
    server = start(tmp_path / "data", "--model", str(model), "--temperature", "0")
    try:
        tab = open_tab(browser, server.url)
        tab.ask("Hello")
        tab.page.wait_for_function("() => document.querySelector('#mc-live .mc-answer p')?.innerText.length > 40")
        other = open_tab(browser, server.url)
        other.ask("Hello too")
        other.page.get_by_text("Waiting for other answers: 1 ahead of yours").wait_for(timeout=20_000)
        tab.page.click("#mc-stop")
        stopped = tab.answer(state="stopped")
        assert stopped.inner_text().endswith("Stopped.")
        other.page.wait_for_function("() => document.querySelector('#mc-live .mc-answer p')?.innerText.length > 40")
        other.page.reload()  # which ends the answer, too: the next one need not wait for it
        other.page.wait_for_selector('#mc-talk .mc-answer[data-state="stopped"]')
        tab.ask("Again")
        tab.page.wait_for_function("() => document.querySelector('#mc-live .mc-answer p')?.innerText.length > 40")
        tab.page.click("#mc-stop")
        tab.answer(state="stopped")
        assert tab.page.locator("#mc-talk .mc-answer").count() == 2
    finally:
        end(server)


def test_a_model_that_sees_answers_about_pictures(browser: Any, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "red.png"
    Image.new("RGB", (64, 48), "red").save(picture)
    model = write_native(tmp_path / "sees", "minicpmv4_6")
    server = start(tmp_path / "data", "--model", str(model), "--temperature", "0", "--max-tokens", "8")
    try:
        tab = open_tab(browser, server.url)
        assert "sees pictures" in tab.page.inner_text("#mc-status")
        with tab.page.expect_file_chooser() as chooser:
            tab.page.click("#mc-pictures")
        chooser.value.set_files(str(picture))
        tab.page.get_by_text("1 pictures go with your next question").wait_for(timeout=20_000)
        tab.ask("What colour is it?")
        tab.answer()
        assert tab.page.locator("#mc-talk .mc-question img").count() == 1
    finally:
        end(server)


def test_others_need_the_password_and_collections_outlive_the_server(browser: Any, tmp_path: Path) -> None:
    server = start(tmp_path, "--model", "demo")
    try:
        tab = open_tab(browser, server.url)
        tab.create("Kept")
        tab.drop(LEASE)
        tab.wait_for_files(lease_txt="ready")
    finally:
        end(server)
    server = start(tmp_path, "--model", "demo", "--host", "0.0.0.0", password="a long password")
    try:
        page = browser.new_context(locale="en-US").new_page()
        address = server.url.replace("0.0.0.0", "127.0.0.1")
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        for said, let_in in (("wrong password", False), ("a long password", True)):
            page.goto(address)
            fields = page.locator("input")
            fields.nth(0).fill("me")
            fields.nth(1).fill(said)
            page.get_by_role("button").first.click()
            if not let_in:
                page.get_by_text("Incorrect").wait_for(timeout=20_000)
                assert page.locator("#mc-status").count() == 0
                continue
            page.wait_for_selector("#mc-status h1", timeout=60_000)
        page.click("#mc-collection input")
        assert page.get_by_role("option", name="Kept").count() == 1
        own = urlsplit(address).netloc
        assert {urlsplit(url).netloc for url in requests if not url.startswith(("data:", "blob:"))} == {own}
    finally:
        end(server)


@pytest.mark.parametrize("path", ["config", "gradio_api/info", "gradio_api/file=/etc/hostname"])
def test_a_website_cannot_pass_for_the_page(demo_server: Server, path: str) -> None:
    import httpx

    answer = httpx.get(f"{demo_server.url}/{path}", headers={"Host": "evil.example"})
    assert (answer.status_code, "unknown host name" in answer.text) == (400, True)
