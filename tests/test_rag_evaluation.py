"""Figures of retrieval and answers on cases counted by hand; `minicpm evaluate-rag` on the demo checkpoint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from minicpm_app.cli import main
from minicpm_app.evaluate_rag import lay_out, show
from minicpm_app.rag_questions import UNRELATED, read_question, write_questions
from minicpm_core.index import Index, build_index
from minicpm_core.rag import REFUSALS, Passage, RagSettings
from minicpm_core.rag_calibration import calibrate, cross_calibrate
from minicpm_core.rag_evaluation import (
    Answered,
    Question,
    evaluate_answers,
    evaluate_search,
    read_questions,
)
from tests.killed_build import WordEmbedder

SET = Path(__file__).parent.parent / "benchmarks" / "rag_set"
RENT = Passage("1", "The rent is 900 euros. It is due on Monday.", "lease.txt", similarity=0.8, coverage=1.0)
DOGS = Passage("2", "Dogs are forbidden.", "lease.txt", similarity=0.3, coverage=0.0)
OTHER = Passage("3", "The rent is 900 euros.", "copy.txt", similarity=0.7, coverage=0.5)
ASKED = Question("What is the rent?", "lease.txt", "rent is  900", "900")
UNASKED = Question("Who is the mayor?")


def test_the_ranks_of_the_right_passages_are_counted() -> None:
    found: dict[str, Sequence[Passage]] = {
        "first": [RENT, DOGS],
        "third": [DOGS, OTHER, RENT],
        "other file": [OTHER],
        "none": [],
    }
    questions = [Question(name, "lease.txt", "rent is 900") for name in found] + [UNASKED]
    figures = evaluate_search(lambda question, k: found[question][:k], questions)
    assert figures.ranks == (1, 3, None, None)
    assert [figures.hit(k) for k in (1, 2, 3)] == [0.25, 0.25, 0.5]
    assert figures.mrr == pytest.approx((1 + 1 / 3) / 4)
    assert figures.characters == pytest.approx(
        sum(len(passage.text) for passages in found.values() for passage in passages) / 4
    )
    assert math.isnan(evaluate_search(lambda question, k: [], [UNASKED]).hit(1))


def test_answers_are_counted() -> None:
    near = Question("What is the rent of the garage?", near=True)
    answers = [
        Answered(ASKED, "The rent is 900 euros [1].", (RENT, DOGS), 1.0),  # right, cited rightly, verbatim
        Answered(ASKED, "It is 900, see [2] and [7].", (RENT, DOGS), 2.0),  # a wrong one, and one not given
        Answered(ASKED, REFUSALS["en"], (RENT,)),  # refused falsely
        Answered(UNASKED, REFUSALS["zh"], (DOGS,)),  # a refusal in either language
        Answered(UNASKED, 'He said "never again" [1].', (DOGS,)),  # not refused; its quote stands nowhere
        Answered(near, "The documents do not say", (RENT,)),
    ]
    figures = evaluate_answers(answers, RagSettings())
    assert figures.right == (2, 3)
    assert figures.citation_precision == (1, 3)
    assert figures.not_given == 1
    assert figures.quotes_verified == (3, 4)
    assert figures.verbatim == (1, 3)
    assert figures.refused == (2, 3)
    assert figures.refused_near == (1, 1)
    assert figures.false_refusals == (1, 3)
    assert figures.seconds == 3.0


def test_a_threshold_of_the_settings_counts_as_a_refusal() -> None:
    answers = [Answered(UNASKED, "A dog [1].", (DOGS,)), Answered(ASKED, "900 [1]", (RENT,))]
    assert evaluate_answers(answers, RagSettings()).refused == (0, 1)
    figures = evaluate_answers(answers, RagSettings(min_similarity=0.5))
    assert (figures.refused, figures.false_refusals, figures.right) == ((1, 1), (0, 1), (1, 1))


def _found(question: Question, similarity: float, covered: float) -> tuple[Question, list[Passage]]:
    return question, [Passage("x", "text", "lease.txt", similarity=similarity, coverage=covered)]


def test_a_threshold_refuses_most_and_few_falsely() -> None:
    found = [_found(ASKED, 0.5 + n / 100, 0.0) for n in range(19)] + [_found(ASKED, 0.1, 0.0)]
    found += [_found(UNASKED, similarity, 0.0) for similarity in (0.2, 0.3, 0.4999, 0.6)]
    threshold = calibrate(found)
    assert threshold is not None
    assert (threshold.min_similarity, threshold.min_coverage) == (0.5, 0.05)
    assert (threshold.refused, threshold.false_refusals) == ((3, 4), (1, 20))
    stricter = calibrate(found, most_false=0.0)
    assert stricter is None  # 0.1 is the lowest of all, and none may be refused falsely
    settings = threshold.apply(RagSettings())
    assert (settings.min_similarity, settings.min_coverage) == (0.5, 0.05)


def test_words_keep_what_the_vectors_would_refuse() -> None:
    found = [_found(ASKED, 0.1, 1.0), _found(ASKED, 0.9, 0.2), _found(UNASKED, 0.4, 0.25), _found(UNASKED, 0.3, 0.6)]
    threshold = calibrate(found)
    assert threshold is not None
    assert (threshold.refused, threshold.false_refusals) == ((2, 2), (0, 2))
    assert 0.4 < threshold.min_similarity <= 0.9
    assert 0.6 < threshold.min_coverage <= 1.0


@pytest.mark.parametrize("questions", [[ASKED, ASKED], [UNASKED]])
def test_a_threshold_needs_both_kinds(questions: list[Question]) -> None:
    with pytest.raises(ValueError, match="that the documents answer and questions that they do not"):
        calibrate([_found(question, 0.5, 0.5) for question in questions])


def test_each_half_gets_the_threshold_of_the_other() -> None:
    def answered(question: Question, similarity: float) -> Answered:
        return Answered(question, "900 [1]", tuple(_found(question, similarity, 0.0)[1]))

    # The first half alone would refuse below 0.9, which is false for the second half's questions, and so on.
    wanted = [answered(ASKED, similarity) for similarity in (0.9, 0.5, 0.9, 0.5)]
    others = [answered(UNASKED, similarity) for similarity in (0.8, 0.4, 0.8, 0.4)]
    passed = cross_calibrate([*wanted, *others], RagSettings())
    figures = evaluate_answers(passed, RagSettings())
    assert len(passed) == 8
    assert figures.refused == (2, 4)  # 0.8 is above the other half's 0.5; 0.4 is below 0.9
    assert figures.false_refusals == (2, 4)  # so is 0.5


BAD_LINES = {
    "{": "line 2 is not JSON",
    "[1]": r"line 2 has \[1\]; accepted: an object with question",
    '{"question": "Why?", "file": "a"}': r"line 2 has \['file', 'question'\]",
    '{"source": "a.txt"}': r"line 2 has \['source'\]",
    '{"question": 1}': "question is 1; accepted is text",
    '{"question": " "}': "the question is empty",
    '{"question": "Why?", "near": 1}': "near is 1; accepted is true or false",
    '{"question": "Why?", "answer": "so"}': "an answer but no source",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f'{{"question": "Who?"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=BAD_LINES[line]):
        read_questions(file)


def test_files_without_questions_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no questions"):
        read_questions(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_questions(file)


def test_the_set_is_what_it_says() -> None:
    plain, other = (read_questions(SET / f"{name}.jsonl") for name in ("questions", "paraphrases"))
    questions = plain + other
    texts = {file.name: " ".join(file.read_text(encoding="utf-8").split()) for file in (SET / "documents").iterdir()}
    answerable = [question for question in questions if question.source is not None]
    assert len(texts) == 26
    assert (len(other), sum(question.language == "zh" for question in other)) == (106, 42)
    assert (len(answerable), len(questions) - len(answerable)) == (241, 48)
    assert sum(question.near for question in questions) == 32
    assert sum(question.language == "zh" for question in plain) == 75
    assert len({question.source for question in answerable}) == 14
    assert len({question.question for question in questions}) == len(questions)
    for question in answerable:
        assert question.source is not None
        assert texts[question.source].count(question.passage) == 1, question
        assert question.answer in texts[question.source], question


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag")
    (folder / "docs").mkdir()
    (folder / "docs" / "lease.txt").write_text("The rent is 900 euros a month.", encoding="utf-8")
    (folder / "docs" / "合同.txt").write_text("押金为一个月租金的两倍，退房后退还。", encoding="utf-8")
    (folder / "docs" / "short.txt").write_text("Hello.", encoding="utf-8")
    build_index(folder / "docs", persist_directory=folder / "words", embeddings=WordEmbedder())
    build_index(folder / "docs", persist_directory=folder / "index", embeddings="demo")
    return folder


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("What is the rent?", "What is the rent?"),
        ("Sure!\nQuestion 1: “What is the rent?”\nMore?", "What is the rent?"),
        ("问题：押金是多少？", "押金是多少？"),
        ("The rent is 900 euros.", ""),
        ("?", ""),
    ],
)
def test_the_question_is_taken_from_what_the_model_says(said: str, question: str) -> None:
    assert read_question(said) == question


def test_the_model_is_asked_in_the_language_of_the_passage(folder: Path) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "押金是多少？" if "押金" in prompt else "I cannot."

    with Index.open(folder / "words", WordEmbedder()) as index:
        written = write_questions(index, ask, 10)
    assert written.questions == [Question("押金是多少？", "合同.txt", "押金为一个月租金的两倍，退房后退还。")]
    assert written.unusable == 1
    assert len(asked) == 2  # "Hello." is too short
    assert sorted(prompt[:5] for prompt in asked) == ["Write", "根据下面的"]


def test_the_halves_of_the_search_can_be_had_alone(folder: Path) -> None:
    with Index.open(folder / "words", WordEmbedder()) as index:
        assert [p.source for p in index.search("押金", 3, ways="lexical")] == ["合同.txt"]
        assert len(index.search("押金", 3, ways="dense")) == 3
        assert index.search("rent", 1, ways="lexical")[0].source == "lease.txt"
        with pytest.raises(ValueError, match="ways is 'both'; accepted are 'hybrid', 'dense', 'lexical'"):
            index.search("rent", ways="both")  # type: ignore[arg-type]


def test_the_command_prints_json_and_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = folder / "questions.jsonl"
    rows = [
        {"question": "How much is the rent a month?", "source": "lease.txt", "passage": "900", "answer": "900"},
        {"question": "押金是多少？", "source": "合同.txt", "passage": "两倍", "answer": "两倍"},
        {"question": UNRELATED[0], "source": None},
        {"question": "Who is the landlord's dentist?", "near": True},
    ]
    questions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ["evaluate-rag", str(folder / "index"), "--questions", str(questions), "--model", "demo"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answerable"], found["unanswerable"]) == (2, 2)
    assert list(found["search"]) == ["dense", "lexical", "hybrid", "hybrid+rerank"]
    assert found["search"]["hybrid"]["hit@1"] == found["search"]["lexical"]["mrr"] == 1.0
    assert found["answers"]["not_given"] == 0
    assert [found["asked"][name][1] for name in ("right", "refused", "false_refusals")] == [2, 2, 2]
    assert [found["answers"][name][1] for name in ("right", "refused", "refused_near", "false_refusals")] == [
        2,
        2,
        1,
        2,
    ]
    assert found["peak_bytes"] is None or found["peak_bytes"] > 2**20
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 questions that the documents answer, 2 that they do not"
    assert [line.split()[0] for line in lines[2:7]] == ["search", "dense", "lexical", "hybrid", "hybrid+rerank"]
    heads = ["answers", "as", "it", "is", "with", "threshold", "asked", "first"]
    assert [line.split() for line in lines if line.startswith("answers")] == [heads]
    assert any(line.split() == ["citations", "of", "passages", "not", "given", "0", "0", "0"] for line in lines)
    assert main([*arguments, "--json", "--no-rerank"]) == 0
    assert list(json.loads(capsys.readouterr().out)["search"]) == ["dense", "lexical", "hybrid"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "there is no index in"),
        (["index", "--count", "0"], 2, "--count 0: accepted are numbers from 1 on"),
        (["index", "--count", "3", "--questions", "other.jsonl"], 2, "leave it out with --questions"),
        (
            ["index", "--questions", "other.jsonl"],
            1,
            "names gone.txt, which the index does not hold; it holds lease.txt",
        ),
        (["index", "--questions", "missing.jsonl"], 1, "missing.jsonl"),
    ],
)
def test_errors_are_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    Path("other.jsonl").write_text('{"question": "Why?", "source": "gone.txt"}', encoding="utf-8")
    assert main(["evaluate-rag", *arguments, "--model", "demo"]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_shares_and_columns() -> None:
    assert (show((41, 48)), show((0, 0)), show(3)) == ("41 of 48 (85.4 %)", "0 of 0", "3")
    assert lay_out([["a", "b"], ["long", "12"], ["x"]]) == ["a      b", "long  12", "x   "]


def test_the_snippets_of_the_documentation_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lease.txt").write_text("The rent is 900 euros a month.\nDogs are forbidden.", encoding="utf-8")
    build_index(tmp_path / "lease.txt", persist_directory=tmp_path / "index", embeddings="demo")
    monkeypatch.chdir(tmp_path)
    document = (SET.parent.parent / "docs" / "rag.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    assert len(snippets) == 4
    names: dict[str, object] = {}
    printed = []
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"rag.md, snippet {number}", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert "1 lease.txt None The rent is 900 euros a month." in printed[0]
    assert printed[1].strip() == "['lease.txt']"
    assert printed[2].startswith("[1] The rent is 900 euros a month.")
    assert printed[3].strip()
