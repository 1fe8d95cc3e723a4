"""Log probabilities are the model's own, in OpenAI's form, whole and streamed."""

from __future__ import annotations

import math

import pytest
from langchain_core.messages import AIMessage

from langchain_minicpm import ChatMiniCPM, MiniCPMLLM
from minicpm_core import Engine
from tests.langchain.conftest import add

QUESTION = "What is the warranty?"


async def test_they_are_those_of_a_forward_pass(chat: ChatMiniCPM, engine: Engine) -> None:
    import torch

    prompt = engine.encode([{"role": "user", "content": QUESTION}])
    wanted = {"logprobs": True, "top_logprobs": 3}
    answers: list[AIMessage] = [chat.invoke(QUESTION, **wanted), add(list(chat.stream(QUESTION, **wanted)))]
    answers.append(await chat.ainvoke(QUESTION, **wanted))
    tokens = answers[0].response_metadata["logprobs"]["content"]
    assert len(tokens) == 16
    ids = []
    for token in tokens:
        with torch.inference_mode():
            logits = engine.model(input_ids=torch.tensor([prompt + ids])).logits[0, -1]
        expected = torch.log_softmax(logits.float(), -1)
        best = expected.topk(3)
        assert token["logprob"] == pytest.approx(best.values[0].item(), abs=1e-4)
        assert [top["logprob"] for top in token["top_logprobs"]] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert token["top_logprobs"][0]["token"] == token["token"]
        ids.append(int(best.indices[0]))
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="replace") == answers[0].text
    for answer in answers:
        assert answer.text == answers[0].text
        assert [t["token"] for t in answer.response_metadata["logprobs"]["content"]] == [t["token"] for t in tokens]
        assert set(answer.response_metadata) == {"model_name", "model_provider", "finish_reason", "logprobs"}


def test_they_are_the_models_own_whatever_is_drawn(chat: ChatMiniCPM) -> None:
    greedy = chat.invoke(QUESTION, top_logprobs=2).response_metadata["logprobs"]["content"][0]
    for seed in range(3):
        hot = chat.invoke(QUESTION, temperature=5.0, seed=seed, top_logprobs=2).response_metadata["logprobs"][
            "content"
        ][0]
        assert hot["top_logprobs"] == greedy["top_logprobs"]
        assert math.exp(hot["logprob"]) <= math.exp(greedy["logprob"])


def test_they_come_on_request_only(chat: ChatMiniCPM, llm: MiniCPMLLM, engine: Engine) -> None:
    assert "logprobs" not in chat.invoke(QUESTION).response_metadata
    by_constructor = ChatMiniCPM(engine=engine, temperature=0, max_tokens=4, logprobs=True)
    (first, *_) = by_constructor.invoke(QUESTION).response_metadata["logprobs"]["content"]
    assert first["top_logprobs"] == []
    assert "logprobs" not in by_constructor.invoke(QUESTION, logprobs=False).response_metadata
    info = llm.generate([QUESTION], logprobs=True).generations[0][0].generation_info
    assert len(info["logprobs"]["content"]) == 16
    for number in (-1, 21):
        with pytest.raises(ValueError, match=f"top_logprobs is {number}; accepted: 0 to 20"):
            chat.invoke(QUESTION, top_logprobs=number)
    with pytest.raises(ValueError, match="logprobs is 5; accepted: True or False; top_logprobs tells how many"):
        chat.invoke(QUESTION, logprobs=5)
    assert by_constructor._identifying_params["logprobs"] is True
