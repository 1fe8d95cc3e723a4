"""Real files of the kinds that an index reads, made by the libraries that people's programs stand for."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Mapping

from docx import Document
from fpdf import FPDF
from openpyxl import Workbook
from pptx import Presentation
from pptx.util import Inches


def make_docx() -> bytes:
    document = Document()
    document.add_heading("Mietvertrag 租约", level=0)
    document.add_heading("Rent", level=1)
    document.add_paragraph("The rent is 980 pounds a month.")
    document.add_heading("Deposit 押金", level=2)
    document.add_paragraph("押金为两个月租金。")
    document.add_paragraph("Keys are returned.", style="List Bullet")
    document.add_paragraph("Walls are white.", style="List Bullet")
    table = document.add_table(rows=2, cols=3)
    for cell, text in zip(table.rows[0].cells, ("Room", "Size", "Floor"), strict=True):
        cell.text = text
    for cell, text in zip(table.rows[1].cells, ("Kitchen", "12 m²", "1"), strict=True):
        cell.text = text
    merged = table.add_row().cells
    merged[0].merge(merged[2]).text = "All rooms have heating."
    document.add_heading("End", level=1)
    document.add_paragraph("Signed in Leeds.")
    return _saved(document)


def make_pptx() -> bytes:
    slides = Presentation()
    first = slides.slides.add_slide(slides.slide_layouts[1])
    first.shapes.title.text = "Warranty"
    first.placeholders[1].text = "Two years on all parts.\n电池保修一年。"
    first.notes_slide.notes_text_frame.text = "Mention the charger."
    second = slides.slides.add_slide(slides.slide_layouts[5])
    second.shapes.title.text = "Prices"
    table = second.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for row, texts in enumerate((("Lamp", "35 EUR"), ("Kettle", "48 EUR"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    box = second.shapes.add_textbox(Inches(1), Inches(4), Inches(4), Inches(1))
    group = second.shapes.add_group_shape([box])
    group.shapes[0].text_frame.text = "Inside a group."
    return _saved(slides)


def make_xlsx() -> bytes:
    book = Workbook()
    sheet = book.active
    sheet.title = "Staff 员工"
    sheet.append(["Name", "Start", "Share", "Pay"])
    sheet.append(["王芳", datetime.date(2024, 3, 1), 0.15, 4200.5])
    sheet.append([])
    sheet.append(["Ben", datetime.datetime(2025, 1, 2, 9, 30), 1, "=D2*2"])
    sheet["C2"].number_format = "0%"
    other = book.create_sheet("Numbers")
    other.append([1, 2.0])
    other.append([True, None, 4])
    book.create_sheet("Empty")
    return _saved(book)


def make_epub() -> bytes:
    chapter = "<html xmlns='http://www.w3.org/1999/xhtml'><head><title>x</title></head><body>{}</body></html>"
    return make_zip(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": "<?xml version='1.0'?><container xmlns='urn:oasis:names:tc:opendocument:xmlns:"
            "container' version='1.0'><rootfiles><rootfile full-path='OEBPS/book.opf' "
            "media-type='application/oebps-package+xml'/></rootfiles></container>",
            "OEBPS/book.opf": "<?xml version='1.0'?><package xmlns='http://www.idpf.org/2007/opf' version='3.0'>"
            "<manifest><item id='b' href='text/two%20b.xhtml' media-type='application/xhtml+xml'/>"
            "<item id='a' href='text/one.xhtml' media-type='application/xhtml+xml'/>"
            "<item id='n' href='nav.xhtml' media-type='application/xhtml+xml' properties='nav'/>"
            "<item id='p' href='cover.png' media-type='image/png'/></manifest>"
            "<spine><itemref idref='n'/><itemref idref='p'/><itemref idref='a'/><itemref idref='b'/></spine></package>",
            "OEBPS/nav.xhtml": chapter.format("<p>Contents</p>"),
            "OEBPS/text/one.xhtml": chapter.format("<h1>The sea</h1><p>The ship sails at dawn.</p>"),
            "OEBPS/text/two b.xhtml": chapter.format(
                "<h1>第二章 山</h1><p>山上有一座庙。</p><h2>庙</h2><p>庙里有和尚。</p>"
            ),
            "OEBPS/cover.png": b"\x89PNG",
        }
    )


def make_pdf() -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    for section, text in (("Rules", "Dogs are welcome."), ("", "Cats too."), ("Fees", "The fee is 5 euros.")):
        document.add_page()
        if section:
            document.start_section(section)
            document.multi_cell(0, 6, section)
            document.ln()
        document.multi_cell(0, 6, text)
    return bytes(document.output())


def make_zip(members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()
