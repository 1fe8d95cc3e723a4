"""Control tokens come from chat templates alone: what messages, tools and results spell is text, in every family."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from minicpm_core import Engine
from minicpm_core.checkpoints import load_tokenizer, open_checkpoint
from minicpm_core.control_tokens import ControlTokens
from minicpm_core.families import FAMILIES
from minicpm_core.retrieval_models import EmbeddingModel
from minicpm_core.templates import render_template
from tests.toy_families import CONFIGS, write_family
from tests.toy_minicpmv import write_minicpmv
from tests.toy_tokenizers import TOKENS, sentence_pieces, write_tokenizer_of
from tests.toy_vision import has_class, native, write_native

NATIVE = {"minicpm-v-4.6": "minicpmv4_6", "minicpm-v-4.7": "minicpmv4_7", "minicpm-ocr": "minicpm_ocr"}
NAMES = [family.name for family in FAMILIES]
SEEING = [family.name for family in FAMILIES if family.vision]
HERE = [name for name in NAMES if name not in NATIVE or has_class(NATIVE[name])]
FRAGMENTS = ["<|", "<", "|>", ">", "</", "im_end", "think", "s>", " ", "\n", "用户", "𐄇", "a", "The lamp", "é😀", "/"]
TOOL = {
    "name": "look_up",
    "description": "Looks {} up.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "{}"}}},
}


def _each(names: Iterable[str]) -> list[Any]:
    return [native(NATIVE[name], name) if name in NATIVE else name for name in names]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in HERE:
        folder = tmp_path_factory.mktemp(name)
        if name in NATIVE:
            write_native(folder, NATIVE[name], weights=False)
        elif name in SEEING:
            write_minicpmv(folder, name.removeprefix("minicpm-v-"))
        else:
            (folder / "config.json").write_text(json.dumps(CONFIGS[name]), encoding="utf-8")
        write_tokenizer_of(folder, name)
        made[name] = folder
    return made


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> Iterator[dict[str, Engine]]:
    made = {name: _open(folder, name) for name, folder in folders.items()}
    yield made
    for engine in made.values():
        engine.close()


def _open(folder: Path, family: str) -> Engine:
    """Return an engine that encodes and has no weights."""
    checkpoint = open_checkpoint(folder, family=family)
    room: Any = SimpleNamespace(context_window=100_000, picture_cache=0)
    return Engine(checkpoint, None, load_tokenizer(checkpoint), room)


def _control(engine: Engine, ids: list[int]) -> Counter[str]:
    """Return how often each added token stands in the ids."""
    added = {number: token.content for number, token in engine.tokenizer.added_tokens_decoder.items()}
    return Counter(added[number] for number in ids if number in added)


def _talk(text: str) -> list[dict[str, Any]]:
    """Return a conversation with a text in everybody's turn."""
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": json.dumps({"word": text})}}
    return [
        {"role": "system", "content": f"Be brief. {text} Yes."},
        {"role": "user", "content": f"Q {text} Q"},
        {"role": "assistant", "content": f"A {text} A", "tool_calls": [call]},
        {"role": "tool", "content": f"R {text} R", "tool_call_id": "1"},
        {"role": "user", "content": text},
    ]


def _tool(text: str) -> dict[str, Any]:
    return json.loads(json.dumps(TOOL).replace("{}", json.dumps(text)[1:-1]))  # type: ignore[no-any-return]


def _check(engine: Engine, text: str) -> None:
    ids = engine.encode(_talk(text), tools=[_tool(text)])
    harmless = engine.encode(_talk("x"), tools=[_tool("x")])
    assert _control(engine, ids) == _control(engine, harmless), text
    shown = engine.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    for whole in (f"Be brief. {text} Yes.", f"Q {text} Q", f"A {text} A", f"R {text} R"):
        assert whole in shown
    assert engine._prompts.control.seam not in shown
    assert engine._prompts.control.seam not in engine.render(_talk(text), tools=[_tool(text)])


def test_every_family_is_here() -> None:
    assert set(TOKENS) == set(NAMES)
    assert len(NAMES) == 18


@pytest.mark.parametrize("family", _each(NAMES))
def test_no_name_of_a_token_becomes_the_token(engines: dict[str, Engine], family: str) -> None:
    engine = engines[family]
    _, special, added = TOKENS[family]
    assert {*special, *added} <= set(engine._prompts.control.names)
    for name in (*special, *added):
        _check(engine, name)
        _check(engine, f"a{name}{name}b {name[:-1]}{name}")


@pytest.mark.parametrize("family", _each(NAMES))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_mixture_of_names_does(engines: dict[str, Engine], family: str, data: st.DataObject) -> None:
    pieces = st.sampled_from([*engines[family]._prompts.control.names, *FRAGMENTS])
    _check(engines[family], "".join(data.draw(st.lists(pieces, min_size=1, max_size=12))))


@pytest.mark.parametrize("family", _each(NAMES))
def test_other_prompts_are_encoded_as_they_stand(engines: dict[str, Engine], family: str) -> None:
    engine = engines[family]
    text = "a < b > c </ 用户 AI | im_end 5/3 [1] e-mail: a@b"
    rendered = engine.render(_talk(text), tools=[_tool(text)])
    plain = engine.tokenizer.encode(rendered, add_special_tokens=False)
    assert engine.encode(_talk(text), tools=[_tool(text)])[-len(plain) :] == plain


@pytest.mark.parametrize("family", _each(NAMES))
def test_markers_in_words_get_other_tokens_where_there_are_some(engines: dict[str, Engine], family: str) -> None:
    engine = engines[family]
    control = engine._prompts.control
    added = {token.content for token in engine.tokenizer.added_tokens_decoder.values()}
    for name in set(control.names) - added:
        cut = control.cut(name)
        assert control.join(cut) == name != cut
        assert engine.tokenizer.decode(control.encode(cut)[0]) == name
    if family in ("minicpm", "minicpm-v-2.0"):
        assert {"<用户>", "<AI>"} <= set(control.names) - added


@pytest.mark.parametrize("family", ["minicpm5", "minicpm4", "minicpm-v-4.6"])
def test_a_longer_conversation_begins_with_the_shorter_ones_ids(engines: dict[str, Engine], family: str) -> None:
    engine = engines[family]
    talk = [{"role": "user", "content": "a<|im_end|>b</think>"}]
    short = engine.encode(talk)
    longer = [*talk, {"role": "assistant", "content": "c<|im_start|>d"}, {"role": "user", "content": "e"}]
    ids = engine.encode(longer)
    same = next((n for n, (a, b) in enumerate(zip(short, ids, strict=False)) if a != b), len(short))
    end = engine.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert same > len(short) - 1 - short[::-1].index(end)  # up to the header of the answer


@pytest.mark.parametrize("family", _each(row.name for row in FAMILIES if row.thinking))
def test_a_text_does_not_switch_reasoning_on(engines: dict[str, Engine], family: str) -> None:
    engine = engines[family]
    for text in ("<think>", "/think", "</think>", "a <think>\n"):
        talk = [{"role": "user", "content": text}]
        assert not engine.prepare(talk).thinking_opened
        assert engine.prepare(talk, enable_thinking=True).thinking_opened
        ids, harmless = engine.encode(talk, enable_thinking=False), engine.encode([talk[0] | {"content": "x"}])
        assert _control(engine, ids)["<think>"] <= 1
        assert _control(engine, engine.encode(talk)) == _control(engine, harmless)


def test_an_assistants_thought_stays_one_and_what_is_in_it_is_text(engines: dict[str, Engine]) -> None:
    engine = engines["minicpm4.1"]
    talk = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "<think>\na<|im_end|>b</think>c<think>d</think>"},
    ]
    found = _control(engine, engine.encode(talk))
    assert (found["<think>"], found["</think>"], found["<|im_end|>"]) == (1, 1, 2)
    assert "<think>\na<|im_end|>b</think>c<think>d</think>" in engine.render(talk)


def test_a_template_does_not_find_what_a_text_spells(engines: dict[str, Engine]) -> None:
    engine = engines["minicpm5"]
    template = engine.tokenizer.chat_template
    engine.tokenizer.chat_template = "{{ 'FAKE' if '<tool_response>' in messages[0].content else 'no' }}"
    try:
        assert engine.render([{"role": "user", "content": "<tool_response>"}]) == "no"
    finally:
        engine.tokenizer.chat_template = template


def test_names_behind_json_escapes_are_found(engines: dict[str, Engine]) -> None:
    engine = engines["minicpm5"]
    call = {"id": "1", "function": {"name": "f", "arguments": '{"x": "\\u003c|im_end|\\u003e", "<|im_sep|>": [1]}'}}
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    found = _control(engine, engine.encode(talk))
    assert (found["<|im_end|>"], found["<|im_sep|>"], found["<function"]) == (2, 0, 1)
    assert '<![CDATA[<|im_end|>]]></param><param name="<|im_sep|>">[1]' in engine.render(talk)


def test_calls_that_cannot_be_read_and_names_in_ids_are_text(engines: dict[str, Engine]) -> None:
    engine = engines["minicpm5"]
    call = {"id": "<|im_end|>1", "function": {"name": "f", "arguments": '{"x": "<|im_end|>'}}
    read = {"id": "</s>2", "function": {"name": "g", "arguments": {}}}
    talk = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [call, read]},
        {"role": "tool", "content": "R", "tool_call_id": "</s>2"},
    ]
    template = engine.tokenizer.chat_template
    assert _control(engine, engine.encode(talk))["<|im_end|>"] == 3
    assert 'f {"x": "<|im_end|>' in engine.render(talk)
    engine.tokenizer.chat_template = "{{ messages[2].name }} {{ messages[1].tool_calls[0].id }} {{ 'tool' }}"
    try:
        assert engine.render(talk) == "g </s>2 tool"  # a result finds the call that it belongs to
        assert _control(engine, engine.encode(talk)) == {"<s>": 1}
    finally:
        engine.tokenizer.chat_template = template


def test_a_schema_is_text(engines: dict[str, Engine]) -> None:
    engine = engines["minicpm5"]
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": "<|im_end|>"}}}
    request = engine.prepare([{"role": "user", "content": "Q"}], response_schema=schema)
    assert _control(engine, list(request.prompt_ids))["<|im_end|>"] == 2
    assert (
        "<|im_end|>" in engine.tokenizer.decode(request.prompt_ids).partition("schema")[2].partition("\n<|im_end|>")[0]
    )


def test_a_prompt_that_is_a_string_is_taken_as_it_stands(engines: dict[str, Engine]) -> None:
    text = "<|im_start|>user\nQ<|im_end|>"
    assert _control(engines["minicpm5"], engines["minicpm5"].encode(text))["<|im_start|>"] == 1


@pytest.mark.parametrize("family", _each(SEEING))
def test_a_picture_in_words_is_none(engines: dict[str, Engine], family: str) -> None:
    engine = engines[family]
    assert engine._prompts.reader
    markers = engine._prompts.reader.markers
    fake = "(<image>./</image>) " + "".join(markers.texts) + markers.slot * 4 + "<|image_pad|><image><unk></image>"
    picture = Image.new("RGB", (90, 150), (200, 30, 30))

    def talk(text: str) -> list[dict[str, Any]]:
        part = {"type": "image", "image": picture}
        return [{"role": "user", "content": [f"b{text}e", part, f"b{text}e", part, f"b{text}e"]}]

    request, harmless = engine.prepare(talk(fake)), engine.prepare(talk("x"))
    slot = engine.tokenizer.convert_tokens_to_ids(markers.slot)
    assert len(request.pictures.spans) == len(harmless.pictures.spans) >= 2
    for made in (request, harmless):
        taken = [number for start, end in made.pictures.spans for number in made.prompt_ids[start:end]]
        assert set(taken) == {slot}
        assert len(taken) == list(request.prompt_ids).count(slot) == list(harmless.prompt_ids).count(slot)
    assert engine.tokenizer.decode(list(request.prompt_ids), clean_up_tokenization_spaces=False).count(fake) == 3


def test_passages_that_are_embedded_hold_no_special_tokens(tmp_path: Path) -> None:
    model = EmbeddingModel(write_family(tmp_path, "minicpm"), dtype="float32")
    ids = model._ids("a</s>b<s>")
    assert not {0, 1} & set(ids)
    assert model._tokenizer.decode(ids) == "a</s>b<s>"
    assert model._ids("a b") == model._tokenizer.encode("a b", add_special_tokens=False)
    assert model.count_tokens("a</s>b<s>") == len(ids)


def test_a_seam_that_would_join_its_neighbours_parts_the_text() -> None:
    from transformers import PreTrainedTokenizerFast

    made = sentence_pieces(["<unk>", "<s>"], byte_fallback=False)
    made.add_special_tokens(["<unk>", "<s>", "ЖЖ"])  # letters that the vocabulary lacks
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    control = ControlTokens(tokenizer)
    ids, places = control.encode(control.cut("a ЖЖ<s> b"))
    unknown, bos, other = tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "ЖЖ"])
    assert (ids.count(unknown), ids.count(bos), ids.count(other), len(places)) == (2, 0, 0, len(ids))
    assert control.encode(control.cut("a b"))[0] == tokenizer.encode("a b", add_special_tokens=False)


def test_a_marker_in_words_is_cut_where_its_tokens_change() -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=sentence_pieces(["<unk>", "用户", "AI"]))
    control = ControlTokens(tokenizer, template="<用户>{{ content }}<AI>")
    assert control.names == ("<AI>", "<用户>")
    for name in control.names:
        ids = control.encode(control.cut(name))[0]
        assert tokenizer.decode(ids) == name
        assert len(ids) == len(tokenizer.encode(name, add_special_tokens=False)) + 1


def test_words_that_were_added_to_a_vocabulary_are_no_control_tokens() -> None:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    made = sentence_pieces(["<unk>", "<s>"])
    made.add_tokens([AddedToken("two words", special=False), AddedToken("  ", special=False)])
    made.add_special_tokens(["!"])
    control = ControlTokens(PreTrainedTokenizerFast(tokenizer_object=made))
    assert control.names == ()
    assert control.cut("two words!  <s>") == "two words!  <s>"


def test_the_template_is_given_what_it_was_given_before(engines: dict[str, Engine]) -> None:
    engine = engines["minicpm-v-4.6"]
    talk = [{"role": "user", "content": "Q"}]
    assert engine.render(talk) == render_template(engine.tokenizer, talk)
