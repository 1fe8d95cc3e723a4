"""Text pieces: whole characters, exact stops, reasoning apart, however the text is cut into tokens."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpm_core.decoding import ReasoningSplitter, StopTexts, TokenDecoder


def _cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({p % (len(text) + 1) for p in places}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("text", ["保修期为两年 hello", "😀👩‍👩‍👧 𠮷 é", "a\n\n b  c\t", "[1] 35 EUR."])
def test_characters_are_never_cut_and_nothing_is_lost(toy: Path, text: str) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy)
    decoder = TokenDecoder(tokenizer, hidden=())
    pieces = [decoder.push(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + decoder.flush() == text


def test_bytes_that_never_become_a_character_are_shown_at_last(toy: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy)
    decoder = TokenDecoder(tokenizer, hidden=())
    half = tokenizer.convert_tokens_to_ids("è")  # the first byte of many Chinese characters
    assert [decoder.push(half) for _ in range(2)] == ["", ""]
    assert decoder.flush() == "\ufffd\ufffd"


def test_hidden_tokens_leave_no_text(toy: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(toy)
    decoder = TokenDecoder(tokenizer, hidden={2})
    assert decoder.push(2) + decoder.push(tokenizer.encode("a", add_special_tokens=False)[0]) == "a"


@given(st.text("ab<>/ \n", max_size=40), st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_texts_cut_at_the_first_place_however_the_text_arrives(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    filter_ = StopTexts(stops)
    shown = ""
    for piece in _cut(text, data.draw(st.lists(st.integers(0, 50)))):
        shown += filter_.push(piece)
    places = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert shown + filter_.flush() == text[: min(places)[1] if places else len(text)]
    assert filter_.found is bool(places)


def test_only_the_possible_start_of_a_stop_text_is_held_back() -> None:
    filter_ = StopTexts(["Observation:"])
    assert filter_.push("an Obs") == "an "
    assert filter_.push("tacle") == "Obstacle"
    assert filter_.push("\nObservation: x") == "\n"
    assert filter_.found


@given(st.text("ab \n", max_size=20), st.text("ab< \n", max_size=20), st.booleans(), st.data())
def test_reasoning_and_answer_are_parted_however_the_text_arrives(
    reasoning: str, answer: str, opened: bool, data: st.DataObject
) -> None:
    text = ("" if opened else "<think>") + reasoning + "</think>" + answer
    splitter = ReasoningSplitter(opened=opened)
    parts = [splitter.push(piece) for piece in _cut(text, data.draw(st.lists(st.integers(0, 60))))]
    parts.append(splitter.flush())
    assert "".join(r for r, _ in parts) == reasoning.strip()
    assert "".join(a for _, a in parts) == answer.lstrip()


@given(st.text("<think>/ ab", max_size=30).filter(lambda t: not t.lstrip().startswith("<think>")), st.data())
def test_a_text_without_an_opening_tag_is_all_answer(text: str, data: st.DataObject) -> None:
    splitter = ReasoningSplitter()
    parts = [splitter.push(piece) for piece in _cut(text, data.draw(st.lists(st.integers(0, 60))))]
    parts.append(splitter.flush())
    assert "".join(r for r, _ in parts) == ""
    assert "".join(a for _, a in parts) == text


def test_an_unclosed_thought_is_reasoning() -> None:
    splitter = ReasoningSplitter(opened=True)
    pieces = [splitter.push("so "), splitter.push("it goes </th"), splitter.flush()]
    assert "".join(r for r, _ in pieces) == "so it goes </th"
    assert "".join(a for _, a in pieces) == ""
