"""The page as people use it: a real server, a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from minicpm_app.web.library import Library
from tests.scanned import CLEANING, WARRANTY, print_page, write_scan
from tests.web.conftest import DOCUMENTS, Server, Tab, end, start

LAMP, LEASE = DOCUMENTS / "falcon-lamp.pdf", DOCUMENTS / "lease.txt"
OpenTab = Callable[..., Tab]


def test_drop_ask_cite_and_reload(open_tab: OpenTab, pages: Server) -> None:
    tab = open_tab(pages.urls["demo"])
    assert re.search(r"demo\s+Memory\s+0\.\d\d GiB\s+Context\s+4,096 tokens", tab.page.inner_text("#mc-status"))
    tab.create("Lamps")
    tab.drop(LAMP, LEASE)
    tab.wait_for_files("ready", LAMP.name, LEASE.name)
    tab.ask("How long does the warranty last?")
    answer = tab.answer()
    assert "The warranty lasts five years" in answer.inner_text()
    assert "falcon-lamp.pdf · page 2" in answer.inner_text()
    assert re.search(r"\d+ of 4,096 tokens", answer.inner_text())
    answer.locator(".mc-cite").first.click()
    source = tab.wait('.mc-source[data-kind="picture"]')
    quote = source.locator("i.mc-quote").first.bounding_box()
    leaf = source.locator("img").bounding_box()
    assert quote["width"] > leaf["width"] / 2  # a line of the page
    assert leaf["y"] < quote["y"] < leaf["y"] + leaf["height"] / 4  # near its top, where the sentence stands
    tab.reload()
    assert "The warranty lasts five years" in tab.answer().inner_text()
    assert tab.page.input_value("#mc-collection input") == "Lamps"
    tab.answer().locator(".mc-cite").first.click()
    tab.wait('.mc-source[data-kind="picture"] i.mc-quote')
    tab.page.click("#mc-clear")
    tab.wait(".mc-hello")
    assert tab.page.locator(".mc-answer, .mc-source").count() == 0
    # The server, too, asks no other machine: no version check, no analytics, no hub.
    assert (pages.folder / "outside.txt").read_text(encoding="utf-8") == ""


def test_texts_of_others_are_shown_and_not_run(open_tab: OpenTab, pages: Server, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text(
        "The password of the <img src=x onerror=window.hit=1> router is {{value}} ${1+1}.", encoding="utf-8"
    )
    tab = open_tab(pages.urls["demo"])
    tab.create("Hostile")
    tab.drop(file)
    tab.wait_for_files("ready", "notes.txt")
    tab.ask("What is the password of the router? <b>x</b> {{value}} ${1+1}")
    answer = tab.answer()
    assert "<b>x</b> {{value}} ${1+1}" in tab.page.inner_text("#mc-talk .mc-question")
    assert tab.page.locator("#mc-talk .mc-answer img, #mc-talk .mc-question b").count() == 0
    answer.locator(".mc-cite").first.click()
    tab.wait('.mc-source[data-kind="text"]')
    assert "<img src=x onerror=window.hit=1> router is {{value}} ${1+1}." in tab.page.inner_text(".mc-text")
    assert tab.page.evaluate("() => window.hit") is None


def test_bad_files_are_named_with_the_reason_and_do_not_stop_the_others(
    open_tab: OpenTab, pages: Server, tmp_path: Path
) -> None:
    files = {"broken.pdf": b"%PDF-1.4 no", "song.mp3": b"x", "empty.txt": b" ", "good.txt": b"The gate opens at nine."}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tab = open_tab(pages.urls["demo"])
    tab.create("Mixed")
    tab.drop(*(tmp_path / name for name in files))
    tab.wait(".mc-files li")
    tab.reload()  # they go on by themselves
    tab.wait_for_files("failed", "broken.pdf", "song.mp3", "empty.txt")
    tab.wait_for_files("ready", "good.txt")
    shown = (tab.page.locator(part).all_inner_texts() for part in (".mc-name", ".mc-note"))
    notes = dict(zip(*shown, strict=True))
    assert "is damaged or not a PDF" in notes["broken.pdf"]
    assert "is of a kind that is not read" in notes["song.mp3"]
    assert "is empty" in notes["empty.txt"]
    tab.reload()
    tab.wait_for_files("failed", "song.mp3")  # it is still told
    for left in (3, 2, 1, 0):
        tab.page.locator(".mc-remove").first.click()
        tab.wait_until("document.querySelectorAll('.mc-files li').length === value", left)
    tab.page.get_by_text("No files yet.").wait_for()


def test_the_limits_of_an_upload(open_tab: OpenTab, pages: Server, tmp_path: Path) -> None:
    tab = open_tab(pages.urls["demo"])
    tab.create("Limits")
    many = [tmp_path / f"{n}.txt" for n in range(5)]
    for file in many:
        file.write_text("Some text.")
    tab.drop(*many)
    tab.page.get_by_text("5 files were given; accepted are 4 at a time").wait_for()
    large = tmp_path / "large.txt"
    large.write_bytes(b"many words " * 120_000)
    tab.drop(large, many[0])
    tab.wait_for_files("ready", "0.txt")
    tab.wait_for_files("failed", "large.txt")
    assert (
        tab.page.locator('.mc-files li[data-state="failed"] .mc-note').inner_text() == "is larger than 1 MB; split it"
    )
    # By dragging, too; and where nothing was chosen, a collection is made for the files.
    tab.choose("No documents")
    tab.wait_until("document.querySelector('#mc-question textarea').placeholder.startsWith('Say')")
    drag = """() => { const data = new DataTransfer();
      data.items.add(new File(['x '.repeat(1e6)], 'dragged-large.txt'));
      data.items.add(new File(['The gate is red.'], 'dragged.txt'));
      const zone = document.querySelector('#mc-drop button');
      for (const type of ['dragenter', 'dragover', 'drop'])
        zone.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true})); }"""
    tab.page.evaluate(drag)
    tab.wait_for_files("failed", "dragged-large.txt")
    tab.wait_for_files("ready", "dragged.txt")
    assert tab.page.input_value("#mc-collection input") == "My documents"

    def confirm(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.accept()

    asked: list[str] = []
    tab.page.on("dialog", confirm)
    tab.page.locator("#mc-new button").first.click()
    tab.page.click("#mc-delete")
    tab.wait_until("document.querySelector('#mc-collection input').value !== 'My documents'")
    assert asked == ["Delete this collection, its copies of the files and its index?"]


def test_two_people_do_not_see_each_other_and_both_are_answered(open_tab: OpenTab, pages: Server) -> None:
    first, second = open_tab(pages.urls["demo"]), open_tab(pages.urls["demo"])
    first.create("Shared")
    first.drop(LEASE)
    first.wait_for_files("ready", LEASE.name)
    second.reload()
    second.choose("Shared")
    second.wait_for_files("ready", LEASE.name)
    first.ask("Who repairs the roof?")
    second.ask("How many dogs may the tenant keep?")
    assert "Clara Whitcombe" in first.answer().inner_text()
    assert "dog" in second.answer().inner_text()
    for tab, other in ((first, "dogs"), (second, "roof?")):
        assert tab.page.locator("#mc-talk .mc-question").count() == 1
        assert other not in tab.page.inner_text("#mc-talk .mc-question")


def test_chinese_by_the_browser_and_by_the_switch_which_stays(open_tab: OpenTab, pages: Server) -> None:
    tab = open_tab(pages.urls["demo"], language="zh-CN")
    assert tab.page.inner_text("#mc-send") == "提问"
    assert "上下文" in tab.page.inner_text("#mc-status")
    tab.wait_until("document.documentElement.lang === 'zh-CN' && document.title.includes('文档')")
    tab.page.get_by_text("English", exact=True).click()
    tab.wait_until("document.querySelector('#mc-send').innerText === 'Ask'")
    tab.reload()
    assert tab.page.inner_text("#mc-send") == "Ask"


def test_a_phone_shows_everything_without_scrolling_sideways(open_tab: OpenTab, pages: Server) -> None:
    phone = {"size": (375, 812), "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    tab = open_tab(pages.urls["demo"], **phone)
    assert not tab.is_sideways()
    small = """() => [...document.querySelectorAll('button, label, textarea, [role=combobox]')]
      .filter((part) => part.offsetParent && !part.matches('.mc-cite'))
      .filter((part) => part.offsetHeight < 44 || part.offsetWidth < 44).map((part) => part.outerHTML)"""
    for part in ("#mc-send", "#mc-question textarea", "#mc-talk-box"):
        box = tab.page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 375
        assert box["y"] + box["height"] <= 812, f"{part} is below the first screen"
    tab.create("Phone")
    tab.drop(LAMP)
    tab.wait_for_files("ready", LAMP.name)
    tab.ask("How long does the warranty last?")
    tab.answer().locator(".mc-cite").first.tap()
    tab.wait("i.mc-quote")
    assert tab.page.evaluate(small) == []  # what is smaller is hard to hit with a finger
    quote = "document.querySelector('i.mc-quote').getBoundingClientRect()"
    tab.wait_until(f"{quote}.top > 0 && {quote}.bottom < window.innerHeight")
    assert not tab.is_sideways()
    tab.page.tap(".mc-back")
    talk = "document.querySelector('#mc-talk-box').getBoundingClientRect()"
    tab.wait_until(f"{talk}.top >= 0 && {talk}.bottom < window.innerHeight")


def test_an_answer_streams_and_stop_ends_it_in_the_model(open_tab: OpenTab, pages: Server) -> None:
    tab = open_tab(pages.urls["slow"], size=(960, 560))
    tab.ask("Hello")
    length = tab.written()
    for _ in range(3):  # it grows while one looks
        length = tab.written(longer_than=length)
    other = open_tab(pages.urls["slow"])
    other.ask("Hello too")
    other.page.get_by_text("Waiting for other answers: 1 ahead of yours").wait_for()
    # Who scrolls up stays there while it grows.
    box = "document.querySelector('#mc-talk-box')"
    tab.wait_until(f"{box}.scrollHeight > {box}.clientHeight + 100")
    tab.page.evaluate(f"() => {{ {box}.scrollTop = 0; }}")
    tab.written(longer_than=tab.written())
    assert tab.page.evaluate(f"() => {box}.scrollTop") == 0
    tab.page.click("#mc-stop")
    assert tab.answer("stopped").inner_text().endswith("Stopped.")
    other.written()  # one model answers all: the first answer has ended there, too
    other.reload()
    assert other.answer("stopped").inner_text().endswith("Stopped.")
    tab.ask("Again")
    tab.written()
    other.ask("And again")
    other.page.get_by_text("Waiting for other answers: 1 ahead of yours").wait_for()
    tab.page.close()
    other.written()  # closing a tab ends its answer
    other.page.click("#mc-stop")
    other.answer("stopped")
    assert other.page.locator("#mc-talk .mc-answer").count() == 2


def test_a_model_that_sees_answers_about_pictures(open_tab: OpenTab, pages: Server, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("red", "blue"):
        Image.new("RGB", (64, 48), name).save(tmp_path / f"{name}.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    tab = open_tab(pages.urls["sees"])
    assert "sees pictures" in tab.page.inner_text("#mc-status")
    with tab.page.expect_file_chooser() as chooser:
        tab.page.click("#mc-pictures")
    chooser.value.set_files([tmp_path / "red.png", tmp_path / "no.png", tmp_path / "blue.png"])
    tab.page.get_by_text("no.png is no picture that can be read.").wait_for()
    tab.wait_until("document.querySelectorAll('#mc-attached img').length === 2")
    tab.page.locator("#mc-attached .mc-remove").first.click()
    tab.wait_until("document.querySelectorAll('#mc-attached img').length === 1")
    tab.ask("What colour is it?")
    tab.answer()
    assert tab.page.locator("#mc-talk .mc-question img").count() == 1
    assert tab.page.locator("#mc-attached img").count() == 0


def test_scans_and_pictures_are_read_by_a_model_that_sees_and_refused_by_others(
    open_tab: OpenTab, pages: Server, tmp_path: Path
) -> None:
    write_scan(tmp_path / "scan.pdf", WARRANTY, CLEANING)
    print_page(WARRANTY).save(tmp_path / "photo.png")
    tab = open_tab(pages.urls["sees"])
    assert "PDF (scanned ones too), pictures" in tab.page.inner_text("#mc-limits")
    tab.create("Scans")
    tab.drop(tmp_path / "scan.pdf", tmp_path / "photo.png")
    tab.wait_for_files("ready", "scan.pdf", "photo.png")
    tab.ask("How long is the warranty?")
    tab.answer()
    # Random weights cite nothing; a button that does is put where the answer stands.
    put = """document.querySelector('#mc-talk .mc-answer').innerHTML +=
      '<button class="mc-cite" data-turn="0" data-n="1">1</button>'"""
    tab.page.evaluate(f"() => {{ {put}; }}")
    tab.page.locator(".mc-cite").click()
    source = tab.wait('.mc-source[data-kind="picture"]')
    assert source.locator("img").bounding_box()["height"] > 300
    assert source.locator(".mc-text mark").count() == 1
    blind = open_tab(pages.urls["demo"])
    blind.create("Unread")
    blind.drop(tmp_path / "scan.pdf", tmp_path / "photo.png")
    blind.wait_for_files("failed", "scan.pdf", "photo.png")
    for note in blind.page.locator(".mc-note").all_inner_texts():
        assert note.endswith("start the page with a model that sees (--model or --page-model)")


def test_others_need_the_password_and_collections_outlive_the_page(open_tab: OpenTab, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with closing(Library(data, "demo")) as library:
        library.add(library.create("Kept", "en"), LEASE, "en", lambda progress: None)
    code = "import sys; from minicpm_app.cli import main; sys.exit(main())"
    options = ["--json", "--data", str(data), "--model", "demo", "--host", "0.0.0.0"]
    server = start(tmp_path, ["-c", code, "web", *options], MINICPM_WEB_PASSWORD="a long password")
    try:
        stranger = open_tab(server.urls["url"].replace("0.0.0.0", "127.0.0.1"), ready=False)
        fields = stranger.page.locator("input")
        for said in ("wrong password", "a long password"):
            fields.nth(0).fill("me")
            fields.nth(1).fill(said)
            stranger.page.get_by_role("button").first.click()
            if said.startswith("wrong"):
                stranger.page.get_by_text("Incorrect").wait_for()
                assert stranger.page.locator("#mc-status").count() == 0
        stranger.wait("#mc-status h1")
        stranger.choose("Kept")
        stranger.wait_for_files("ready", LEASE.name)
        stranger.ask("Who repairs the roof?")
        assert "Clara Whitcombe" in stranger.answer().inner_text()
    finally:
        code_at_end = end(server)
    assert code_at_end == 0


@pytest.mark.parametrize("path", ["config", "gradio_api/info", "gradio_api/file=/etc/hostname"])
def test_a_website_cannot_pass_for_the_page(pages: Server, path: str) -> None:
    import httpx

    answer = httpx.get(f"{pages.urls['demo']}/{path}", headers={"Host": "evil.example"}, trust_env=False)
    assert (answer.status_code, "unknown host name" in answer.text) == (400, True)
