"""The main job: nine of ten questions over files that the project has not seen are answered from the right file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minicpm_app.cli import main
from tests.unseen_documents import OFFICE_FILES, OFFICE_QUESTIONS, TOWN_FILES, TOWN_QUESTIONS


def _write(folder: Path, files: dict[str, str | list[list[str]]]) -> None:
    from fpdf import FPDF

    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="gb18030" if name == "图书馆.txt" else "utf-8")
            continue
        pdf = FPDF()
        for lines in content:
            pdf.add_page()
            pdf.set_font("Helvetica", size=12)
            for line in lines:
                pdf.multi_cell(0, 8, line, new_x="LMARGIN", new_y="NEXT")
        pdf.output(str(folder / name))


def test_nine_of_ten_questions_are_answered_from_the_right_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = 0, []
    for name, files, questions in (
        ("office", OFFICE_FILES, OFFICE_QUESTIONS),
        ("town", TOWN_FILES, TOWN_QUESTIONS),
    ):
        _write(tmp_path / name, files)
        index = str(tmp_path / f"{name}-index")
        assert main(["index", str(tmp_path / name), "--index", index, "--embeddings", "demo", "--json"]) == 0
        assert sorted(json.loads(capsys.readouterr().out)["added"]) == sorted(files)
        asked = [question for question, _, _ in questions]
        assert main(["ask", *asked, "--index", index, "--model", "demo", "--json"]) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for (question, source, said), answer in zip(questions, answers, strict=True):
            cited = [citation["source"] for citation in answer["citations"]]
            if cited == ([source] if source else []) and (source is None or said in answer["answer"]):
                right += 1
            else:
                wrong.append((question, answer["answer"]))
    assert right + len(wrong) == 54
    assert right >= 49, wrong
