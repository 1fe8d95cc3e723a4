"""The question of yes and no below a prompt: its odds, what it refuses in both frameworks, and its calibration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import minicpm_core
from langchain_minicpm import ChatMiniCPM, create_rag_chain
from llamaindex_minicpm import MiniCPM, create_chat_engine, create_query_engine
from minicpm_core import Engine
from minicpm_core.answerability import answerability
from minicpm_core.index import Index, build_index
from minicpm_core.rag import (
    ANSWER_PROMPTS,
    ANSWERABLE_PROMPTS,
    REFUSALS,
    SYSTEM_PROMPTS,
    Passage,
    RagSettings,
    build_messages,
)
from minicpm_core.rag_calibration import calibrate_asking, cross_calibrate
from minicpm_core.rag_evaluation import Answered, Question, evaluate_answers
from minicpm_core.yes_no import _begin_tokens

DOCUMENTS = Path(__file__).parents[1] / "examples" / "documents"
QUESTION = "Who repairs the roof?"
ENGLISH, CHINESE = Question(QUESTION, "lease.txt"), Question("谁负责北京仓库？", "a.txt")
UNKNOWN, UNKNOWN_ZH = Question("Who is the mayor?"), Question("市长是谁？")


ASKED = RagSettings(min_answerability={"en": 0.0})


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with minicpm_core.load("demo", dtype="float32", quantization="none") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("answerability")
    build_index(DOCUMENTS, persist_directory=folder, embeddings="demo")
    with Index.open(folder) as opened:
        yield opened


def odds_of(engine: Engine, index: Index, question: str) -> float:
    texts = [passage.text for passage in index.search(question)]
    return answerability(engine, question, build_messages(question, texts, **ASKED.prompts), index.settings)


@pytest.mark.parametrize("question", [ENGLISH.question, CHINESE.question])
def test_the_odds_are_those_of_the_prompt_with_the_question_below(engine: Engine, question: str) -> None:
    language = Question(question).language
    messages = build_messages(question, ["The landlord repairs the roof.", "王芳负责北京仓库。"])
    asked = [messages[0], {"role": "user", "content": f"{messages[1]['content']}\n\n{ANSWERABLE_PROMPTS[language]}"}]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([engine.encode(asked, enable_thinking=False)])).logits[0, -1].float()
    yes, no = _begin_tokens(engine, language)
    expected = float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))
    assert answerability(engine, question, messages, RagSettings()) == pytest.approx(expected, abs=1e-3)
    other = RagSettings(answerable_prompts=dict.fromkeys(ANSWERABLE_PROMPTS, "Yes?"))
    assert answerability(engine, question, messages, other) != pytest.approx(expected, abs=1e-3)


def test_it_stands_behind_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("minicpm_core.answerability.yes_no_odds", lambda *given: seen.append(given) or 1.5)
    picture = {"type": "image", "image": b"..."}
    messages = build_messages(QUESTION, ["a", "b"], pictures={2: picture})
    assert answerability(None, QUESTION, messages, RagSettings()) == 1.5  # type: ignore[arg-type]
    [(_, asked, language)] = seen
    assert language == "en"
    assert [part.get("text") for part in asked[-1]["content"]] == [
        "[1] a", "[2]", None, f"Question: {QUESTION}", ANSWERABLE_PROMPTS["en"]
    ]  # fmt: skip
    assert len(messages[-1]["content"]) == 4  # the answer's prompt stays as it is


@pytest.mark.parametrize(("shift", "refused"), [(0.01, True), (-0.01, False)])
async def test_both_frameworks_refuse_below_the_threshold(
    engine: Engine, index: Index, shift: float, refused: bool
) -> None:
    least = odds_of(engine, index, QUESTION) + shift
    settings = RagSettings(**{**index.settings.to_dict(), "min_answerability": {"en": least}})
    chain = create_rag_chain(ChatMiniCPM(engine=engine, temperature=0), index, settings=settings)
    plain = create_rag_chain(ChatMiniCPM(engine=engine, temperature=0), index).invoke(QUESTION)
    expected = REFUSALS["en"] if refused else plain["answer"]
    assert "Clara Whitcombe" in plain["answer"]
    whole, later = chain.invoke(QUESTION), await chain.ainvoke(QUESTION)
    for output in (whole, later):
        assert output["answer"] == expected
        assert output["context"] == plain["context"]
        assert bool(output["citations"]) is not refused
    assert "".join(chunk.get("answer", "") for chunk in chain.stream(QUESTION)) == expected
    assert "王芳" in chain.invoke(CHINESE.question)["answer"]  # nothing is said of Chinese

    llm = MiniCPM(engine=engine, temperature=0)
    query = create_query_engine(index, llm, settings=settings)
    for response in (query.query(QUESTION), await query.aquery(QUESTION)):
        assert str(response) == expected
        assert [node.node_id for node in response.source_nodes] == [document.id for document in plain["context"]]
        assert bool(response.metadata["citations"]) is not refused
    assert str(create_chat_engine(index, llm, settings=settings).chat(QUESTION)) == expected


def test_who_was_asked_first_is_not_told_to_refuse() -> None:
    assert ASKED.prompts["system_prompts"] == {"en": ANSWER_PROMPTS["en"], "zh": SYSTEM_PROMPTS["zh"]}
    for language, refusal in REFUSALS.items():
        assert refusal in SYSTEM_PROMPTS[language]
        assert refusal not in ANSWER_PROMPTS[language]
    own = RagSettings(min_answerability={"en": 0.0}, answer_prompts={"en": "Answer.", "zh": "回答。"})
    assert own.prompts["system_prompts"]["en"] == "Answer."


def test_models_that_are_not_loaded_here_are_refused(index: Index) -> None:
    for make, llm in (
        (create_rag_chain, ChatMiniCPM(model="any", base_url="http://127.0.0.1:9/v1")),
        (
            lambda llm, index, **given: create_query_engine(index, llm, **given),
            MiniCPM(base_url="http://127.0.0.1:9/v1"),
        ),
    ):
        with pytest.raises(
            ValueError, match=r"min_answerability asks for odds of yes and no, which this .*MiniCPM does"
        ):
            make(llm, index, settings=ASKED)  # type: ignore[operator]


@pytest.mark.parametrize("given", [{"fr": 1.0}, {"en": "1"}, {"en": float("nan")}])
def test_thresholds_that_mean_nothing_are_refused(given: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"min_answerability has .* accepted are numbers for 'en' and 'zh'"):
        RagSettings(min_answerability=given)


def test_settings_from_before_are_read() -> None:
    settings = RagSettings(min_answerability={"en": 0.5, "zh": -1})
    stored = json.loads(json.dumps(settings.to_dict()))
    assert RagSettings.from_dict(stored) == settings
    for name in ("min_answerability", "answer_prompts", "answerable_prompts"):
        del stored[name]
    assert RagSettings.from_dict(stored) == RagSettings()


def answered(question: Question, *odds: float) -> list[Answered]:
    return [Answered(question, "Yes [1].", (Passage("1", "Yes.", "a.txt"),), answerability=one) for one in odds]


def test_the_threshold_lies_in_the_middle_of_its_gap() -> None:
    some = answered(ENGLISH, *range(1, 20), -3.0) + answered(UNKNOWN, -4.0, -1.0, 0.0, 5.5)
    found = calibrate_asking(some)
    assert found is not None
    assert found.min_answerability == {"en": 0.5}  # between 0 and 1; -3 is one of twenty, and refused falsely
    assert (found.refused, found.false_refusals) == ((3, 4), (1, 20))
    strict = calibrate_asking(some, most_false=0.0)
    assert strict is not None
    assert (strict.min_answerability, strict.refused) == ({"en": -3.5}, (1, 4))
    assert calibrate_asking(answered(ENGLISH, 0.0, 1.0) + answered(UNKNOWN, 2.0, 3.0)) is None
    assert (
        calibrate_asking(answered(ENGLISH, 0.0, 1.0) + answered(UNKNOWN_ZH, -2.0)) is None
    )  # never both of a language


def test_each_language_and_each_half_has_its_own() -> None:
    english = answered(ENGLISH, 1.0, 2.0, 1.0, 2.0) + answered(UNKNOWN, 0.0, 1.2, 0.0, 1.2)
    chinese = answered(CHINESE, 6.0, 6.0, 6.0, 6.0) + answered(UNKNOWN_ZH, 5.0, 5.0, 5.0, 5.0)
    found = calibrate_asking([*english, *chinese])
    assert found is not None
    assert found.min_answerability == {"en": 0.5, "zh": 5.5}
    passed = cross_calibrate([*english, *chinese], RagSettings(), asking=True)
    assert len(passed) == 16
    figures = evaluate_answers(passed, RagSettings())
    # English: the half of 1 and 0 has 1.6 from the other, the half of 2 and 1.2 has 0.5. Nothing is false in Chinese.
    assert figures.false_refusals == (2, 8)
    assert figures.refused == (2 + 4, 8)
    assert {given.answer for given in passed if given.question is UNKNOWN_ZH} == {REFUSALS["zh"]}
