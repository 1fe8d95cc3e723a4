"""The benchmark of pages beside passages: which page answers, and what its table shows."""

from __future__ import annotations

from pathlib import Path

from benchmarks import visual_rag
from minicpm_core.rag import Passage
from minicpm_core.rag_evaluation import Question

SHOWN = {"lease.pdf": ["The rent is 980 pounds. The landlord", "is Clara. She repairs the roof."]}


def page(number: int, source: str = "lease.pdf") -> Passage:
    return Passage(f"{source} {number}", "", source, page=number)


def test_the_page_on_which_the_answer_begins_is_the_right_one() -> None:
    found = [page(1, "other.pdf"), page(2), page(1)]
    for words, rank in (("rent is 980", 3), ("the landlord is Clara", 3), ("is clara", 2), ("the roof.", 2)):
        assert visual_rag.find_rank(Question("?", "lease.txt", words), found, SHOWN) == rank
    assert visual_rag.find_rank(Question("?", "lease.txt", "rent"), found[:2], SHOWN) is None
    texts = [Passage("1", "The rent is 980 pounds.", "house.txt"), Passage("2", "The roof leaks.", "house.txt")]
    assert visual_rag.find_rank(Question("?", "house.txt", "roof"), texts, SHOWN) == 2


def test_the_table_tells_scans_texts_and_all() -> None:
    assert visual_rag.figures([1, 2, None, 5]) == {"hit@1": 0.25, "hit@4": 0.5, "MRR": (1 + 0.5 + 0.2) / 4}
    table = visual_rag.show([(1.5, {"scan": [1], "text": [2]})]).splitlines()
    assert [cell.strip() for cell in table[2].strip("|").split("|")] == [
        "1.5", "1.00", "1.00", "1.00", "0.00", "1.00", "0.50", "0.50", "1.00", "0.75",
    ]  # fmt: skip


def test_every_question_is_asked_on_a_scan_and_on_a_text(tmp_path: Path) -> None:
    halves = [visual_rag.write_half(tmp_path / str(half), half) for half in (0, 1)]
    names = [{file.stem for file in (tmp_path / str(half)).iterdir() if file.suffix != ".pdf"} for half in (0, 1)]
    assert names[0].isdisjoint(names[1])
    assert [{name.removesuffix(".pdf") for name in half} for half in halves] == names[::-1]
    assert all(len(half) >= 3 for half in halves)
