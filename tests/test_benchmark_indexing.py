"""The benchmark of indexing: a small run gives all its points, and its bar can be missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import indexing


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_a_small_run_gives_the_curve_and_the_runs_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "PAGES_PER_FILE", 2)
    docs = tmp_path / "docs"
    docs.mkdir()
    indexing.write_documents(docs, 19)
    assert len(list(docs.iterdir())) == 10
    rows = list(indexing.measure(docs, tmp_path / "index", 19, None))
    points = [row for row in rows if "pages" in row]
    assert [point["pages"] for point in points] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]
    assert [point["passages"] for point in points] == sorted(point["passages"] for point in points)
    assert points[-1]["passages"] >= 19
    assert all(point["disk"] > 0 and point["peak"] >= point["rss"] * 0.9 > 0 for point in points)
    runs = {row["run"]: row["changed"] for row in rows if "run" in row}
    assert runs == {"nothing changed": 0, "a file deleted": 0, "search": 0}
    table, (bar,) = indexing.show(rows)
    assert table.count("\n") == len(points) + len(runs) + 4
    assert bar.at_most


def test_the_bar_is_missed_where_memory_grows_with_the_texts() -> None:
    point = {"passages": 1, "cpu": 1.0, "rss": 1.0, "disk": 1.0}
    rows = [point | {"pages": pages, "peak": peak} for pages, peak in ((1000, 100.0), (2000, 130.0))]
    (bar,) = indexing.show(rows)[1]
    assert (bar.measured, bar.met) == (30.0, False)
