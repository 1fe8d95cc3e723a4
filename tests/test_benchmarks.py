"""The benchmarks' tables, bars and limit: what they show follows from what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batch, gpu, prefix, rag_memory, vision
from benchmarks.__main__ import write_report
from benchmarks.sections import SECTIONS, show_int4, show_loading, show_memory
from benchmarks.tables import Bar, fill_document, format_bars, format_table


def test_tables_are_markdown_with_figures_to_the_right() -> None:
    table = format_table(("name", "s"), [("a", 1.234), ("long name", None), ("b", 12345.6)])
    assert table.splitlines() == [
        "| name      |     s |",
        "| --------- | ----: |",
        "| a         |  1.23 |",
        "| long name |     - |",
        "| b         | 12346 |",
    ]


def test_bars_are_met_from_their_limit_on() -> None:
    bars = [Bar("a", 3.0, 3.0), Bar("b", 2.99, 3.0), Bar("c", 3.0, 3.0, True), Bar("d", 3.01, 3.0, at_most=True)]
    assert [bar.met for bar in bars] == [True, False, True, False]
    assert [line.split("|")[-2].strip() for line in format_bars(bars).splitlines()[2:]] == ["yes", "NO", "yes", "NO"]


def comparison(ratio: float) -> dict[str, Any]:
    return {"without": ratio, "with": 1.0, "ratio": ratio, "ratios": [ratio]}


def test_prefix_has_a_bar_for_each_kind() -> None:
    kinds = {"follow-up question, first token": 8.1, "copied answer": 1.4, "free answer": 0.96}
    rows = [
        {"model": "1B, int4", "what": w, "clock": comparison(r), "processor": comparison(1)} for w, r in kinds.items()
    ]
    bars = prefix.show(rows)[1]
    assert [(bar.measured, bar.limit, bar.met) for bar in bars] == [
        (8.1, 8, True),
        (1.4, 1.5, False),
        (0.96, 0.95, True),
    ]


def test_vision_has_a_bar_for_second_questions_only() -> None:
    row = {"model": "V", "prompt_tokens": 9, "cached": 5, "clock": comparison(4.9), "processor": comparison(9)}
    rows = [row | {"what": what} for what in ("second question", "question with other words before")]
    table, bars = vision.show(rows)
    assert [(bar.name, bar.measured, bar.met) for bar in bars] == [("V: second question", 4.9, False)]
    assert len(table.splitlines()) == 4


def test_batch_shows_ratio_and_equality() -> None:
    times = {"loop": 9.0, "batch": 3.0, "ratio": 3.0, "ratios": [3.0]}
    row = {"weights": "int4", "same": 7, "difference": 0.5, "prompts": 8, "answer_tokens": 30}
    row |= {"clock": times, "processor": times}
    for way in ("loop", "batch"):
        row |= {f"{way}_model_s": 2.0, f"{way}_passes": 4, f"{way}_head_s": 1.0}
    table, bars = batch.show([row])
    assert [bar.met for bar in bars] == [True, False]
    assert "|    80.00 |" in table
    assert "7 of 8" in table


def test_a_pipeline_that_died_is_a_missed_bar_and_the_control_has_to_die() -> None:
    fit, control = "LangChain, int4, first load", "LangChain, 32 bits"
    rows = [{"way": fit, "limit": 2**32, "died": "out of memory"}, {"way": control, "limit": 2**32, "died": "a bug"}]
    assert [bar.met for bar in rag_memory.show(rows)[1]] == [False, False]
    rows = [
        {"way": fit, "limit": 2**32, "peak": 2**31, "seconds": {}, "enforced": "x"},
        rows[1] | {"died": "out of memory"},
    ]
    assert [bar.met for bar in rag_memory.show(rows)[1]] == [True, True]


def test_deaths_by_memory_are_told_from_others() -> None:
    assert rag_memory._tell_death(-9, "") == "out of memory"
    assert rag_memory._tell_death(1, "... DefaultCPUAllocator: can't allocate memory") == "out of memory"
    assert rag_memory._tell_death(1, "Traceback\nKeyError: 'x'\n") == "KeyError: 'x'"


def test_the_limit_is_enforced() -> None:
    code = "from benchmarks.limits import enforce_limit; print(enforce_limit(2**28)); x = bytes({}); print(len(x))"
    runs = [
        subprocess.run([sys.executable, "-c", code.format(size)], capture_output=True, text=True)
        for size in (2**20, 2**29)
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout.splitlines()[-1] == str(2**20)
    assert runs[1].returncode != 0
    assert str(2**29) not in runs[1].stdout


def test_sections_read_what_the_benchmarks_print() -> None:
    mib = 2**20
    loading = [{"largest_tensor": 100 * mib}]
    for peak in (1164, 1165):
        way = {"quantization": "int4", "seconds": 1, "model_bytes": 1000 * mib, "own_memory_after": 0}
        loading.append(way | {"own_memory_peak": peak * mib})
    assert [bar.met for bar in show_loading(loading)[1]] == [True, False]
    pairs = {"load": [(3.0, 1.0)], "first token": [(5.0, 1.0)]}
    assert [bar.met for bar in show_int4([{"threads": t, "seconds": pairs} for t in (1, 2)])[1]] == [
        True,
        False,
        True,
        True,
    ]
    row = {"case": "x", "prompt_tokens": 1, "prefill_chunk": 1, "planned": 89, "peak": 100}
    assert [bar.met for bar in show_memory([row, row | {"planned": 91}])[1]] == [False, True]


def test_a_report_fills_the_document_between_its_marks(tmp_path: Path) -> None:
    assert all(name == (section.module or name) for name, section in SECTIONS.items())
    result = {"seconds": 3, "rows": [{"threads": 1, "seconds": {"load": [[3.0, 1.0]]}}]}
    sections = {"int4": result, "batch": {"seconds": 1, "error": "KeyError: 'y'"}}
    report = {"date": "2000-01-01", "command": "x", "seconds": 4, "load": [0, 0, 0], "machine": {"cores": "2"}}
    text = write_report(json.loads(json.dumps(report | {"sections": sections})))
    assert "Of 1 bars 1 are met." in text
    assert "KeyError: 'y'" in text
    document = tmp_path / "page.md"
    others = "<!-- a.b d -->\nkept\n<!-- /a.b d -->\n"
    document.write_text(f"{others}before\n<!-- a.b -->\nold\n<!-- /a.b -->\nafter\n")
    fill_document(document, text, "a.b")
    fill_document(document, text, "a.b")
    assert document.read_text() == f"{others}before\n<!-- a.b -->\n\n{text}\n\n<!-- /a.b -->\nafter\n"
    document.write_text("no marks")
    with pytest.raises(ValueError, match="between which the report would stand"):
        fill_document(document, text, "a.b")


def test_the_gpu_table_compares_with_plan_and_copy() -> None:
    row = {"model": "m", "way": "ours", "end": "answered", "load_s": 1.0, "peak": 2**30, "on_card": 2**29}
    row |= {"first_token_s": 0.1, "tokens_per_s": 10.0, "read_per_token": 5e8, "copy_bytes_per_s": 1e10}
    cells = [cell.strip() for cell in gpu.show([row]).splitlines()[2].split("|")[1:-1]]
    assert cells == ["m", "ours", "answered", "1.00", "1.00", "0.50", "0.50", "0.10", "10.00", "50.00"]
