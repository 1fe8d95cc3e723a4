"""MiniCPMLLM: text in, text out, by the chat template or as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from langchain_minicpm import MiniCPMLLM
from minicpm_core import Chunk, Engine, Sampling, Usage
from tests.langchain.conftest import Recorder, ScriptedEngine

PROMPT = "The lamp has a"
GREEDY = Sampling(temperature=0, max_new_tokens=16)


async def ask_all_ways(llm: MiniCPMLLM, **options: object) -> list[str]:
    return [
        llm.invoke(PROMPT, **options),
        "".join(llm.stream(PROMPT, **options)),
        await llm.ainvoke(PROMPT, **options),
        "".join([piece async for piece in llm.astream(PROMPT, **options)]),
        llm.batch([PROMPT], **options)[0],
        (await llm.abatch([PROMPT], **options))[0],
    ]


async def test_every_way_of_asking_gives_the_engines_answer(llm: MiniCPMLLM, engine: Engine) -> None:
    expected = engine.generate([{"role": "user", "content": PROMPT}], sampling=GREEDY).content
    assert await ask_all_ways(llm) == [expected] * 6
    assert PROMPT not in expected


async def test_raw_completes_the_text_as_it_stands(llm: MiniCPMLLM, engine: Engine, toy: Path) -> None:
    expected = engine.generate(PROMPT, sampling=GREEDY).content
    assert expected != llm.invoke(PROMPT)
    assert await ask_all_ways(llm, raw=True) == [expected] * 6
    assert MiniCPMLLM(model=toy, temperature=0, max_tokens=16, raw=True).invoke(PROMPT) == expected


async def test_stop_text_is_cut_exactly(llm: MiniCPMLLM) -> None:
    text = llm.invoke(PROMPT)
    stop = text[4:7]
    assert await ask_all_ways(llm, stop=[stop]) == [text[: text.find(stop)]] * 6


async def test_results_tell_usage_and_reason(llm: MiniCPMLLM, engine: Engine, toy: Path) -> None:
    prompts = [PROMPT, "Hello world"]
    lengths = [engine.count_tokens([{"role": "user", "content": prompt}]) for prompt in prompts]
    for result in (llm.generate(prompts), await llm.agenerate(prompts)):
        assert result.llm_output == {
            "model_name": str(toy),
            "token_usage": {
                "prompt_tokens": sum(lengths),
                "completion_tokens": 32,
                "total_tokens": sum(lengths) + 32,
            },
        }
        infos = [generations[0].generation_info for generations in result.generations]
        assert [info["finish_reason"] for info in infos] == ["length", "length"]
        assert [info["usage_metadata"]["input_tokens"] for info in infos] == lengths
        assert [generations[0].text for generations in result.generations] == [llm.invoke(p) for p in prompts]


async def test_tokens_are_reported_once(llm: MiniCPMLLM) -> None:
    text = llm.invoke(PROMPT)
    for ask in (lambda c: list(llm.stream(PROMPT, c)), lambda c: llm.invoke(PROMPT, c)):
        recorder = Recorder()
        ask({"callbacks": [recorder]})
        assert "".join(recorder.tokens) == text
        assert len(recorder.ends) == 1
    recorder = Recorder()
    pieces = [piece async for piece in llm.astream(PROMPT, {"callbacks": [recorder]})]
    assert recorder.tokens == pieces


async def test_unknown_arguments_and_errors_reach_the_caller(llm: MiniCPMLLM, recorder: Recorder) -> None:
    with pytest.raises(TypeError, match=r"max_new_tokens.*accepts: stop"):
        llm.invoke(PROMPT, max_new_tokens=3)
    with pytest.raises(ValidationError, match="device_map"):
        MiniCPMLLM(device_map="auto")
    with pytest.raises(ValueError, match="context window"):
        await llm.ainvoke("word " * 2000, {"callbacks": [recorder]})
    assert [type(error) for error in recorder.errors] == [ValueError]


async def test_leaving_a_stream_stops_the_model(llm: MiniCPMLLM, engine: Engine) -> None:
    passes: list[int] = []
    with engine.model.register_forward_hook(lambda *_: passes.append(1)):
        stream = llm.stream(PROMPT, max_tokens=400)
        next(stream)
        stream.close()
        async for _ in llm.astream(PROMPT, max_tokens=400):
            break
        await llm.ainvoke(PROMPT, max_tokens=1)
    assert len(passes) < 600


def test_reasoning_is_not_in_the_text() -> None:
    engine = ScriptedEngine(
        Chunk(reasoning="Hm, "),
        Chunk(reasoning="two."),
        Chunk("Two", finish_reason="stop", usage=Usage(3, 4, reasoning_tokens=3)),
    )
    (generation,) = MiniCPMLLM(engine=engine).generate(["Hi"]).generations[0]
    assert generation.text == "Two"
    assert generation.generation_info["reasoning_content"] == "Hm, two."


def test_tokens_are_counted_by_the_models_own_tokenizer(llm: MiniCPMLLM, engine: Engine) -> None:
    assert llm.get_token_ids(PROMPT) == engine.tokenizer.encode(PROMPT, add_special_tokens=False)
    assert llm.get_num_tokens("保修期") == len(engine.tokenizer.encode("保修期", add_special_tokens=False))


def test_parameters_tell_raw_apart_and_trace_the_model() -> None:
    llm = MiniCPMLLM(model="a/b", temperature=0.5, raw=True)
    assert llm._identifying_params["raw"] is True
    assert llm._get_ls_params(model="c/d") == {
        "ls_model_type": "llm",
        "ls_provider": "minicpm",
        "ls_model_name": "c/d",
        "ls_temperature": 0.5,
    }
