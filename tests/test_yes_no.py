"""The loaded chat model as a reranker: the logits are the model's own, and answers are as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import minicpm_core
from minicpm_core import Engine, Sampling
from minicpm_core.index.reranking import resolve_reranker
from minicpm_core.yes_no import YES_NO_PROMPTS, YesNoReranker, _begin_tokens, first_logits

DOCUMENTS = ["The lamp has a warranty of two years.", "Cats sleep all day.", "保修期为两年。"]


@pytest.fixture(scope="module", params=["demo", "toy"])
def engine(request: pytest.FixtureRequest, toy: Path) -> Iterator[Engine]:
    model = "demo" if request.param == "demo" else str(toy)
    with minicpm_core.load(model, dtype="float32", quantization="none") as loaded:
        yield loaded


def direct(engine: Engine, messages: list[dict[str, str]]) -> torch.Tensor:
    thinking = {"enable_thinking": False} if engine.family.thinking else {}
    with torch.inference_mode():
        return engine.model(torch.tensor([engine.encode(messages, **thinking)])).logits[0, -1].float()


@pytest.mark.parametrize(("query", "language"), [("How long is the warranty?", "en"), ("保修期多久？", "zh")])
def test_scores_are_the_models_own_log_odds(engine: Engine, query: str, language: str) -> None:
    reranker = YesNoReranker(engine)
    scores = reranker.score(query, DOCUMENTS)
    shares = reranker.score(query, DOCUMENTS, normalize=True)
    words = {"en": (["yes", "Yes"], ["no", "No"]), "zh": (["是", "有"], ["否", "不"])}[language]
    yes, no = _begin_tokens(engine, language)  # type: ignore[arg-type]
    for ids, some in ((yes, words[0]), (no, words[1])):
        assert {engine.tokenize(word)[0] for word in some} <= set(ids) or len(engine.tokenize(some[0])) > 1
    assert not set(yes) & set(no)
    for document, score, share in zip(DOCUMENTS, scores, shares, strict=True):
        content = YES_NO_PROMPTS[language].format(query=query, document=document)  # type: ignore[index]
        logits = direct(engine, [{"role": "user", "content": content}])
        expected = torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0)
        assert score == pytest.approx(float(expected), abs=1e-3)
        assert share == pytest.approx(float(expected.sigmoid()), abs=1e-3)
    assert len(set(scores)) == 3


def test_the_question_is_read_once_and_answers_stay_the_same(engine: Engine) -> None:
    messages = [{"role": "user", "content": "What is a lamp?"}]
    greedy = Sampling(temperature=0.0, max_new_tokens=8)
    before = engine.generate(messages, sampling=greedy)
    YesNoReranker(engine).score("How long is the warranty?", DOCUMENTS)
    assert engine.generate(messages, sampling=greedy).content == before.content
    first = first_logits(engine, messages)
    assert torch.equal(first, first_logits(engine, messages))  # the second time from what is kept


def test_long_documents_are_cut_to_the_window(engine: Engine) -> None:
    reranker = YesNoReranker(engine)
    text = "word " * engine.context_window
    (score,) = reranker.score("Is it long?", [text[:2000] * 3])
    assert isinstance(score, float)
    assert reranker.score("Is it long?", []) == []


def test_an_engine_is_accepted_as_a_reranker(engine: Engine) -> None:
    assert isinstance(resolve_reranker(engine), YesNoReranker)


def test_words_that_begin_alike_are_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "tokenize", lambda text: [7, 8] if text.strip() else [])
    with pytest.raises(ValueError, match="begins yes and no with the same token"):
        YesNoReranker(engine)
