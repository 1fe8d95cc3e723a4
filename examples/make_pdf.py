"""Write examples/documents/falcon-lamp.pdf, the two-page manual that the demo reads. Needs fpdf2."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from fpdf import FPDF

PAGES = [
    (
        "Falcon camping lamp: user manual",
        [
            "The battery of the Falcon lamp lasts forty hours at low light and nine hours at full light.",
            "Charge the lamp for three hours with the cable in the box before you use it for the first time.",
            "Press the button twice to switch on the red light, which is visible from two kilometres.",
        ],
    ),
    (
        "Care and warranty",
        [
            "The lamp is waterproof to a depth of one metre. Dry the charging socket before you close the cover.",
            "The warranty lasts five years and covers everything except the battery.",
            "Send broken lamps to the service centre in Aarhus, together with the receipt.",
        ],
    ),
]


def main() -> None:
    """Write the file beside this script, the same bytes each time."""
    pdf = FPDF(format="A5")
    pdf.set_creation_date(datetime(2026, 1, 1, tzinfo=timezone.utc))
    for title, sentences in PAGES:
        pdf.add_page()
        pdf.set_font("Helvetica", "B", 16)
        pdf.multi_cell(0, 10, title, new_x="LMARGIN", new_y="NEXT")
        pdf.set_font("Helvetica", size=11)
        for sentence in sentences:
            pdf.multi_cell(0, 7, sentence, new_x="LMARGIN", new_y="NEXT")
    pdf.output(str(Path(__file__).parent / "documents" / "falcon-lamp.pdf"))


if __name__ == "__main__":
    main()
