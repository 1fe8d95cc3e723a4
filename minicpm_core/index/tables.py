"""Spreadsheets and CSV: every row is a line that names its columns, so that a passage can be read alone."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from minicpm_core.index.archive import MAX_DOCUMENT_BYTES, Archive
from minicpm_core.index.office import needs, reading
from minicpm_core.index.outline import Page, clear_marks, mark_heading, take_headings
from minicpm_core.index.text_encoding import decode

_DELIMITERS = ",;\t|"
_SNIFFED = 20  # rows


def read_csv(data: bytes) -> list[Page]:
    """Return a table of comma, semicolon, tab or bar separated values as one page."""
    text = clear_marks(decode(data))
    rows = csv.reader(io.StringIO(text), delimiter=_delimiter(text))
    try:
        return [Page(None, "\n".join(write_rows(rows)), by_line=True)]
    except csv.Error as error:
        raise ValueError(f"is not a table of separated values: {error}") from None


def _delimiter(text: str) -> str:
    """Return the mark that cuts the first rows into the same number of cells, and into most."""

    def judge(delimiter: str) -> tuple[bool, int]:
        rows = csv.reader(io.StringIO(text), delimiter=delimiter)
        try:
            widths = [len(row) for row in itertools.islice(rows, _SNIFFED) if row]
        except csv.Error:
            return False, 0
        return len(set(widths)) == 1 and widths[0] > 1, max(widths, default=0)

    return max(_DELIMITERS, key=judge)


def read_xlsx(data: bytes) -> list[Page]:
    """Return the sheets of a workbook (.xlsx, .xlsm) below each other, as one page with a heading for each.

    Formulas show the value that was stored with them, and themselves where there is none.

    Raises:
        ValueError: it is damaged or no such workbook.
        ImportError: openpyxl is not installed.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ImportError(needs(".xlsx files", "openpyxl"), name=error.name) from error
    Archive(data, MAX_DOCUMENT_BYTES)
    blocks = []
    with reading(".xlsx"), warnings.catch_warnings():  # about styles and extensions that are no part of the text
        warnings.simplefilter("ignore")
        values = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        formulas = load_workbook(io.BytesIO(data), read_only=True, data_only=False)
        try:
            for sheet, written in zip(values.worksheets, formulas.worksheets, strict=True):
                lines = list(write_rows(_sheet_rows(sheet, written)))
                if lines:
                    blocks.append("\n".join([mark_heading(1, sheet.title), *lines]))
        finally:
            values.close()
            formulas.close()
    return [Page(None, *take_headings("\n\n".join(blocks)), by_line=True)]


def _sheet_rows(sheet: Any, written: Any) -> Iterator[list[str]]:
    for part in (sheet, written):
        part.reset_dimensions()  # some programs store wrong ones
    for row, raw in zip(sheet.iter_rows(), written.iter_rows(), strict=False):
        yield [
            _show(cell.value if cell.value is not None else formula.value, getattr(cell, "number_format", ""))
            for cell, formula in zip(row, raw, strict=False)
        ]


def _show(value: Any, number_format: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        share = "%" in (number_format or "")
        return f"{value * 100:.12g}%" if share else f"{value:.15g}" if isinstance(value, float) else str(value)
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    return clear_marks(str(value))


def write_rows(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row that is not empty: "name: value; name: value" where the first row holds names."""
    cleaned = ([" ".join(cell.split()) for cell in row] for row in rows)
    filled = (row for row in cleaned if any(row))
    first = next(filled, None)
    if first is None:
        return
    second = next(filled, None)
    rest = itertools.chain([] if second is None else [second], filled)
    if second is None or not _is_header(first):
        for row in itertools.chain([first], rest):
            yield " | ".join(cell for cell in row if cell)
        return
    for row in rest:
        names = itertools.chain(first, itertools.repeat(""))
        yield "; ".join(f"{name}: {cell}" if name else cell for name, cell in zip(names, row, strict=False) if cell)


def _is_header(row: Sequence[str]) -> bool:
    """Tell whether a row names columns: at least two different words, none of them a number."""
    names = [cell for cell in row if cell]
    return len(names) > 1 and len(set(names)) == len(names) and not any(_is_number(name) for name in names)


def _is_number(cell: str) -> bool:
    return not any(character.isalpha() for character in cell)
