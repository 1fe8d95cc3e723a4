"""Word, PowerPoint, Excel, CSV, EPUB, code and zip: the text, the headings above it, and where a passage stands."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from minicpm_core.index import Index, archive, build_index
from minicpm_core.index.outline import Heading, Outline, chapter_headings, code_headings, markdown_headings
from minicpm_core.index.readers import read_pages, read_parts
from minicpm_core.rag import RagSettings
from tests.office_files import make_docx, make_epub, make_pdf, make_pptx, make_xlsx, make_zip
from tests.test_index_build import HashEmbedder

CODE = """import os


class Lamp:
    \"\"\"A lamp. It shines.\"\"\"

    def switch(self, on: bool) -> None:
        self.on = on


async def main() -> None:
    Lamp().switch(True)
"""
MARKDOWN = "# House\nIntro.\n## Rent\nThe rent is 980.\n```\n# no heading\n```\n## Keys ##\nTwo keys.\n# Garden\nGrass."


def titles(data: bytes, suffix: str) -> list[tuple[int, str]]:
    pages = read_pages(data, suffix)
    for page in pages:
        for heading in page.headings:
            assert page.text[heading.start :].startswith(heading.text)
    return [(heading.level, heading.text) for page in pages for heading in page.headings]


def test_word_documents() -> None:
    (page,) = read_pages(make_docx(), ".docx")
    assert page.text == (
        "Mietvertrag 租约\n\nRent\n\nThe rent is 980 pounds a month.\n\nDeposit 押金\n\n押金为两个月租金。\n\n"
        "- Keys are returned.\n- Walls are white.\n\n| Room | Size | Floor |\n| Kitchen | 12 m² | 1 |\n"
        "| All rooms have heating. |\n\nEnd\n\nSigned in Leeds."
    )
    assert titles(make_docx(), ".docx") == [(1, "Mietvertrag 租约"), (2, "Rent"), (3, "Deposit 押金"), (2, "End")]


def test_slides_are_pages() -> None:
    pages = read_pages(make_pptx(), ".pptx")
    assert [(page.number, page.text) for page in pages] == [
        (1, "Warranty\n\nTwo years on all parts.\n电池保修一年。\n\nMention the charger."),
        (2, "Prices\n\n| Lamp | 35 EUR |\n| Kettle | 48 EUR |\n\nInside a group."),
    ]
    assert titles(make_pptx(), ".pptx") == [(1, "Warranty"), (1, "Prices")]


def test_rows_of_a_workbook_name_their_columns() -> None:
    (page,) = read_pages(make_xlsx(), ".xlsx")
    assert page.text == (
        "Staff 员工\nName: 王芳; Start: 2024-03-01; Share: 15%; Pay: 4200.5\n"
        "Name: Ben; Start: 2025-01-02 09:30; Share: 1; Pay: =D2*2\n\nNumbers\n1 | 2\nTRUE | 4"
    )
    assert titles(make_xlsx(), ".xlsx") == [(1, "Staff 员工"), (1, "Numbers")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('名称;价格\n灯;35\n\n壶;"48;5"\n'.encode("gb18030"), "名称: 灯; 价格: 35\n名称: 壶; 价格: 48;5"),
        (b'a,b\r\n1,"two\nlines"\r\n', "a: 1; b: two lines"),
        (b"one\ttwo\tthree\nx, y\t2\t3\n", "one: x, y; two: 2; three: 3"),
        (b"1,2\n3,4", "1 | 2\n3 | 4"),
        (b"only, one row", "only | one row"),
    ],
)
def test_separated_values(data: bytes, text: str) -> None:
    assert [page.text for page in read_pages(data, ".csv")] == [text]


def test_books_are_read_in_the_order_of_their_spine() -> None:
    (page,) = read_pages(make_epub(), ".epub")
    assert page.text == ("The sea\n\nThe ship sails at dawn.\n\n第二章 山\n\n山上有一座庙。\n\n庙\n\n庙里有和尚。")
    assert titles(make_epub(), ".epub") == [(1, "The sea"), (1, "第二章 山"), (2, "庙")]


def test_bookmarks_of_a_pdf_are_headings_until_the_next_one() -> None:
    assert titles(make_pdf(), ".pdf") == [(1, "Rules"), (1, "Fees")]
    outline = Outline()
    for page, above in zip(read_pages(make_pdf(), ".pdf"), ("Rules", "Rules", "Fees"), strict=True):
        outline.turn(page.text, page.headings)
        assert outline.at(0) == (above,)


def test_headings_of_text_markdown_and_code() -> None:
    assert [(h.level, h.text) for h in markdown_headings(MARKDOWN)] == [
        (1, "House"), (2, "Rent"), (2, "Keys"), (1, "Garden")
    ]  # fmt: skip
    law = "第一章 总则\n第一条 为了管理。\n第二节 范围\n第三章 附则 …… 12\n"
    law += "Chapter IV. Weather\nChapter 5 was long, and dull."
    assert [(h.level, h.text) for h in chapter_headings(law)] == [
        (2, "第一章 总则"), (3, "第二节 范围"), (2, "Chapter IV. Weather")
    ]  # fmt: skip
    assert [(h.level, h.text) for h in code_headings(CODE)] == [(1, "Lamp"), (3, "switch"), (1, "main")]


def test_outline_names_the_headings_above_a_place() -> None:
    outline = Outline()
    outline.turn(MARKDOWN, markdown_headings(MARKDOWN))
    at = MARKDOWN.index
    assert outline.at(0) == ("House",)
    assert outline.at(at("Intro")) == ("House",)
    assert outline.at(at("## Rent")) == ("House", "Rent")
    assert outline.at(at("# no")) == ("House", "Rent")
    assert outline.at(at("Two keys")) == ("House", "Keys")
    assert outline.at(at("Grass")) == ("Garden",)
    outline.turn("More grass.\n## Pond\nFish.", (Heading(12, 2, "Pond"),))
    assert outline.at(0) == ("Garden",)
    assert outline.at(20) == ("Garden", "Pond")
    outline.turn("# A\n## B\nText", markdown_headings("# A\n## B\nText"))
    assert outline.at(0) == ("A", "B")


def test_every_passage_is_a_slice_of_its_page(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    files = {
        "a.docx": make_docx(), "b.pptx": make_pptx(), "c.xlsx": make_xlsx(), "d.epub": make_epub(), "e.pdf": make_pdf(),
        "f.md": MARKDOWN.encode(), "g.py": CODE.encode(), "h.txt": "第一章 总则\n本法适用于全国。\n".encode("gb18030"),
        "i.csv": b"name,price\nlamp,35\n", "j.html": b"<h1>Pets</h1><p>Dogs bark.</p><h2>Cats</h2><p>Cats sleep.</p>",
        "k.txt": "保修期為兩年，電池除外。".encode("big5"), "l.txt": "Only in UTF-16: 冰箱。".encode("utf-16"),
    }  # fmt: skip
    for name, data in files.items():
        (docs / name).write_bytes(data)
    (docs / "z.zip").write_bytes(make_zip({"in/a.docx": make_docx(), "in/e.pdf": make_pdf(), "note.txt": "A note."}))
    embedder = HashEmbedder()
    settings = RagSettings(chunk_size=12, chunk_overlap=4, k=500)
    report = build_index(docs, persist_directory=tmp_path / "index", embeddings=embedder, settings=settings)
    assert report.failed == ()
    assert report.added == (*sorted(files), "z.zip")
    with Index.open(tmp_path / "index", embedder) as index:
        passages = index.search("anything")
        for passage in passages:
            place = passage.metadata
            assert index.page_text(passage)[place["start"] : place["end"]] == passage.text
        headings = {(p.source, p.page): p.metadata.get("heading") for p in passages}
        by_text = {p.text: p for p in passages}
    assert len(passages) > 30
    assert headings["b.pptx", 2] == "Prices"
    assert {headings.get((source, 2)) for source in ("e.pdf", "z.zip/in/e.pdf")} >= {"Rules"}  # each text comes once
    assert next(p for p in passages if "Cats sleep." in p.text).metadata["heading"].startswith("Pets")
    code = next(p for p in passages if "self.on = on" in p.text)
    assert code.metadata["heading"] == "Lamp > switch"
    note = by_text["A note."]
    assert (note.source, note.metadata["member"], note.page) == ("z.zip/note.txt", "note.txt", None)
    assert Path(note.metadata["path"]).name == "z.zip"


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".epub", ".zip"])
def test_damaged_containers_are_refused(suffix: str) -> None:
    for data in (b"PK rubbish", make_docx()[:2000], b""):
        with pytest.raises(ValueError, match="is damaged or not a zip archive"):
            read_parts(data, suffix)
    if suffix != ".zip":
        with pytest.raises(ValueError, match=r"is damaged|is empty"):
            read_parts(make_zip({"other.txt": "x"}), suffix)


def test_an_entity_in_a_book_is_refused() -> None:
    bomb = "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaa'>]><container>&a;</container>"
    with pytest.raises(ValueError, match="declares XML entities"):
        read_pages(make_zip({"META-INF/container.xml": bomb}), ".epub")


def test_members_of_an_archive_fail_alone(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "good.txt": "Rent is due.", "../../evil.txt": "Evil.", "/root.txt": "Root.", "C:\\win.txt": "Win.",
        "bad.pdf": b"%PDF rubbish", "inner.zip": make_zip({"x.txt": "deep"}), "picture.xyz": b"1", ".hidden.txt": "h",
        "__MACOSX/good.txt": "m", "empty.txt": "", "folder/": "",
    }  # fmt: skip
    path = tmp_path / "docs" / "all.zip"
    path.parent.mkdir()
    path.write_bytes(make_zip(members))
    before = sorted(tmp_path.rglob("*"))
    parts = read_parts(path.read_bytes(), ".zip")
    assert [(page.member, page.text) for page in parts.pages] == [("good.txt", "Rent is due.")]
    reasons = dict(parts.failed)
    assert set(reasons) == {
        "../../evil.txt", "/root.txt", "C:/win.txt", "bad.pdf", "inner.zip", "picture.xyz", "empty.txt"
    }  # fmt: skip
    for name in ("../../evil.txt", "/root.txt", "C:/win.txt"):
        assert "leads out of the archive" in reasons[name]
    assert "archive inside an archive" in reasons["inner.zip"]
    assert sorted(tmp_path.rglob("*")) == before
    report = build_index(path, persist_directory=tmp_path / "index", embeddings=HashEmbedder())
    assert report.added == ("all.zip",)
    assert {failed.source for failed in report.failed} == {f"all.zip/{name}" for name in reasons}


def test_an_archive_in_which_nothing_can_be_read_is_no_document(tmp_path: Path) -> None:
    path = tmp_path / "none.zip"
    path.write_bytes(make_zip({"a.xyz": "1"}))
    with pytest.raises(ValueError, match=r"nothing could be indexed.*none\.zip/a\.xyz has the type '\.xyz'"):
        build_index(path, persist_directory=tmp_path / "index", embeddings=HashEmbedder())
    assert list((tmp_path / "index").iterdir()) == []
    good = tmp_path / "good.txt"
    good.write_text("Rent is due.", encoding="utf-8")
    report = build_index([path, good], persist_directory=tmp_path / "index", embeddings=HashEmbedder())
    assert report.added == ("good.txt",)
    assert [failed.source for failed in report.failed] == ["none.zip/a.xyz"]


def test_bombs_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = make_zip({"zeros.txt": bytes(64 * 2**20)})
    assert len(bomb) < 2**17
    for suffix in (".zip", ".docx", ".epub", ".xlsx", ".pptx"):
        with pytest.raises(ValueError, match="times its size"):
            read_parts(bomb, suffix)
    with pytest.raises(ValueError, match=r"has 10,001 members; accepted are up to 10,000"):
        read_parts(make_zip({f"{n}.txt": "x" for n in range(10_001)}, zipfile.ZIP_STORED), ".zip")
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 10)
    with pytest.raises(ValueError, match="unpacks to"):
        archive.Archive(make_zip({"a.txt": "x" * 11}), 10)


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_says() -> None:
    data = bytearray(make_zip({"a.txt": b"x" * 100_000}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + place
        data[at : at + 4] = struct.pack("<I", 10)
    checked = archive.Archive(bytes(data))
    (member,) = checked.members()
    with pytest.raises(ValueError, match="is damaged inside the archive"):
        checked.read(member, 1000)


def test_names_in_gbk_and_passwords() -> None:
    named = make_stored_zip("合同.txt".encode("gb18030"), "租金。".encode())
    parts = read_parts(named, ".zip")
    assert [(page.member, page.text) for page in parts.pages] == [("合同.txt", "租金。")]
    locked = bytearray(make_zip({"a.txt": "x"}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + place] |= 1
    parts = read_parts(bytes(locked), ".zip")
    assert list(parts.pages) == []
    assert "protected by a password" in parts.failed[0][1]


def make_stored_zip(name: bytes, content: bytes) -> bytes:
    """Return a zip of one stored member whose name is in no declared encoding."""
    sizes = struct.pack("<III", zlib.crc32(content), len(content), len(content))
    local = b"PK\x03\x04" + struct.pack("<5H", 20, 0, 0, 0, 33) + sizes + struct.pack("<HH", len(name), 0)
    central = b"PK\x01\x02" + struct.pack("<6H", 20, 20, 0, 0, 0, 33) + sizes
    central += struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, 0)
    end = struct.pack("<4H2IH", 0, 0, 1, 1, len(central + name), len(local + name + content), 0)
    return local + name + content + central + name + b"PK\x05\x06" + end
