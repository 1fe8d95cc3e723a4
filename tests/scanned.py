"""Scanned documents: pages printed with Pillow's own font, as pictures in a PDF without a text layer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFont

WARRANTY = ("Warranty", "The lamp is covered for two years.", "Keep the receipt to prove the purchase.")
CLEANING = ("Cleaning", "Wipe the shade with a damp cloth.", "Never immerse the lamp in water.")
BATTERY = ("Battery", "The charger needs three hours.", "Replace the battery after long storage.")


def print_page(lines: Sequence[str]) -> Image.Image:
    """Return a page with the lines on it."""
    image = Image.new("RGB", (1000, 1400), "white")
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        draw.text((90, 120 + row * 90), line, fill="black", font=ImageFont.load_default(36))
    return image


def write_scan(path: Path, *pages: Sequence[str]) -> Path:
    """Write a PDF of pictures of the pages."""
    pdf = FPDF()
    for lines in pages:
        pdf.add_page()
        stream = io.BytesIO()
        print_page(lines).save(stream, "JPEG", quality=80)
        pdf.image(stream, 0, 0, 210, 297)
    path.write_bytes(bytes(pdf.output()))
    return path


def write_scans(folder: Path) -> Path:
    """Make `folder` with a manual of three scanned pages and the picture of an invoice."""
    folder.mkdir()
    write_scan(folder / "manual.pdf", WARRANTY, CLEANING, BATTERY)
    print_page(("Invoice", "Total amount payable")).save(folder / "invoice.png")
    return folder
