"""Files in any usual encoding, PDF pages, HTML without its furniture."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from fpdf import FPDF

from minicpm_core.index import readers
from minicpm_core.index.pdf import mend_lines
from minicpm_core.index.readers import read_bytes, read_pages
from minicpm_core.index.text_encoding import decode

GERMAN = "Müller zahlt für die Wohnung 900 €. Größe: 40 m²."
SIMPLIFIED = "押金为两个月租金。租期一年。"
TRADITIONAL = "押金為兩個月租金。租期一年。"


def read(data: bytes, suffix: str = ".txt") -> str:
    return "\n".join(page.text for page in read_pages(data, suffix))


def pdf(*pages: str, password: str | None = None) -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    for text in pages:
        document.add_page()
        document.multi_cell(80, 6, text)
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    return bytes(document.output())


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (SIMPLIFIED, SIMPLIFIED.encode("gb18030")),
        ("你好，世界", "你好，世界".encode("gbk")),
        (TRADITIONAL, TRADITIONAL.encode("big5")),
        ("保証期間は二年です。", "保証期間は二年です。".encode("shift_jis")),
        ("보증 기간은 구입일로부터 이년입니다.", "보증 기간은 구입일로부터 이년입니다.".encode("euc_kr")),
        (GERMAN, GERMAN.encode("cp1252")),
        ("Café crème à l'hôtel", "Café crème à l'hôtel".encode("latin-1")),
        (SIMPLIFIED, codecs.BOM_UTF8 + SIMPLIFIED.encode()),
        (SIMPLIFIED, SIMPLIFIED.encode("utf-16")),
        (SIMPLIFIED, codecs.BOM_UTF16_BE + SIMPLIFIED.encode("utf-16-be")),
        (f"Line\n{SIMPLIFIED}\n", f"Line\r\n{SIMPLIFIED}\r\n".encode("utf-16-le")),
        (f"Line\n{SIMPLIFIED}\n", f"Line\n{SIMPLIFIED}\n".encode("utf-16-be")),
        (SIMPLIFIED, SIMPLIFIED.encode("utf-32")),
    ],
)
def test_encodings(text: str, data: bytes) -> None:
    assert decode(data) == text


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 20, b"\x7fELF\x02\x01\x01" + bytes(200), b"\x01\x02\x03\x04" * 50]
)
def test_a_binary_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"is not text"):
        read(data)


def test_pdf_pages_are_numbered_and_lines_mended() -> None:
    long = "The battery of this device is covered for two years and informa-\ntion on the charger is printed on it."
    pages = read_pages(pdf(long, "Second page."), ".pdf")
    assert [page.number for page in pages] == [1, 2]
    assert "covered for two years" in pages[0].text
    assert "information on the charger" in pages[0].text
    assert "\n" not in pages[0].text
    assert pages[1].text == "Second page."


def test_mend_lines() -> None:
    assert (
        mend_lines("这是一个很长的句子需要在这里\r\n换行继续写下去直到句号为止。\r\n下一段")
        == "这是一个很长的句子需要在这里换行继续写下去直到句号为止。\n下一段"
    )
    assert mend_lines("Warranty\nIt lasts for two years and more than\nthat.\n1. Unplug\n2. Wait") == (
        "Warranty\nIt lasts for two years and more than that.\n1. Unplug\n2. Wait"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.4 rubbish", "damaged or not a PDF"),
        (pdf("secret", password="user"), "protected by a password"),
        (pdf(""), "has no text layer"),
    ],
)
def test_unreadable_pdf(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pages(data, ".pdf")


def test_html_keeps_the_text_only() -> None:
    html = """<html><head><title>Rules</title><style>p {color: red}</style><script>var x = "<p>no</p>";</script></head>
    <body><nav><a href="/">Home</a></nav><h1>Rules</h1><p>Dogs &amp; cats<br>are  <b>not</b>
    allowed.</p><ul><li>One</li><li>Two</li></ul><table><tr><td>Rent</td><td>980</td></tr></table></body></html>"""
    assert read(html.encode(), ".html") == "Rules\n\nDogs & cats\nare not allowed.\n\nOne\nTwo\n\nRent 980"


def test_html_charset_is_taken_from_meta() -> None:
    html = f'<meta charset="gb2312"><p>{SIMPLIFIED}</p>'
    assert read(html.encode("gb18030"), ".htm") == SIMPLIFIED


def test_html_that_is_all_navigation_is_kept() -> None:
    assert read(b"<nav><p>Only this</p>", ".html") == "Only this"


def test_markdown_front_matter_is_dropped_and_nothing_else() -> None:
    assert read(b"---\ntitle: A\ntags:\n  - b\n---\n# Head\nText", ".md") == "# Head\nText"
    rule = "---\nA line between rules\n---\nText"
    assert read(rule.encode(), ".md") == rule


def test_empty_and_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is empty"):
        read(b"  \n")
    path = tmp_path / "large.txt"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(readers, "MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match="accepted are files up to"):
        read_bytes(path)
