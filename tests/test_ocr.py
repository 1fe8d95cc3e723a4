"""Texts with their places: what models write is read, joined and drawn, and under the grammar always well-formed."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tests.toy_minicpmv
from minicpm_app.cli import main
from minicpm_core import (
    Chunk,
    Engine,
    Sampling,
    TextBox,
    TextBoxWarning,
    draw_boxes,
    load,
    merge_lines,
    parse_boxes,
    read_text,
)
from minicpm_core.guidance import GrammarTokenizer
from minicpm_core.ocr import drawing
from minicpm_core.ocr.drawing import find_fonts
from minicpm_core.ocr.grammar import EXAMPLES, LINE_TOKENS, Form, write_grammar
from minicpm_core.sampler import Sampler
from tests.toy_minicpmv import write_minicpmv
from tests.toy_vision import write_native

SIZE = (2000, 500)
LAMP = TextBox("灯 lamp", 200, 50, 402, 125)
"""100 100 201 250 in thousandths of SIZE."""


def picture(width: int = 120, height: int = 80) -> Image.Image:
    return Image.effect_noise((width, height), 50).convert("RGB")


FORMS: dict[str, Callable[[str, tuple[int, int, int, int]], str]] = {
    "tagged": lambda text, b: f"<ref>{text}</ref><box>{b[0]} {b[1]} {b[2]} {b[3]}</box>",
    "nested": lambda text, b: f"<ref>{text}<box>{b[0]}</box><box>{b[1]}</box><box>{b[2]}</box><box>{b[3]}</box></ref>",
    "commas": lambda text, b: f"<ref> {text} </ref>\n<box>{b[0]}, {b[1]}, {b[2]}, {b[3]}</box>",
    "double brackets": lambda text, b: f"<ref>{text}</ref><box>[[{b[0]},{b[1]},{b[2]},{b[3]}]]</box>",
    "points": lambda text, b: f"<ref>{text}</ref><box>({b[0]},{b[1]}),({b[2]},{b[3]})</box>",
    "bare brackets": lambda text, b: f"<ref>{text}</ref>[[{b[0]}, {b[1]}, {b[2]}, {b[3]}]]",
    "bare points": lambda text, b: f"<ref>{text}</ref> ({b[0]}, {b[1]}), ({b[2]}, {b[3]})",
    "line, brackets": lambda text, b: f"{text} [[{b[0]}, {b[1]}, {b[2]}, {b[3]}]]",
    "line, one bracket": lambda text, b: f"{text}: [{b[0]}, {b[1]}, {b[2]}, {b[3]}]",
    "line, points": lambda text, b: f"{text}：({b[0]},{b[1]})，({b[2]},{b[3]})",
    "line, tagged": lambda text, b: f"{text} <box>{b[0]} {b[1]} {b[2]} {b[3]}</box>",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str) -> None:
    written = FORMS[form]("灯 lamp", (100, 100, 201, 250))
    assert parse_boxes(written, SIZE) == ([LAMP], [])
    two = f"{written}\n{FORMS[form]('b', (0, 0, 1000, 1000))}"
    assert parse_boxes(two, SIZE) == ([LAMP, TextBox("b", 0, 0, 2000, 500)], [])


def test_several_boxes_of_a_text_and_words_between() -> None:
    answer = "Here: <ref>a</ref><box>[[0,0,1,2],[3,3,4,4]]</box> 和 <ref>b</ref><box>5 5 6 6</box><box>7 7 8 8</box>."
    boxes, bad = parse_boxes(answer, (1000, 1000))
    assert [(box.text, box.left, box.bottom) for box in boxes] == [("a", 0, 2), ("a", 3, 4), ("b", 5, 6), ("b", 7, 8)]
    assert bad == []


def test_places_hold_the_text_in_pixels() -> None:
    boxes, _ = parse_boxes("<ref>a</ref><box>1 1 2 2</box><box>0.5 0 999.5 1000</box>", (150, 70))
    assert [(b.left, b.top, b.right, b.bottom) for b in boxes] == [(0, 0, 1, 1), (0, 0, 150, 70)]
    assert parse_boxes("<ref>a</ref><box>500 500 500 500</box>", (10, 10))[0] == [TextBox("a", 5, 5, 5, 5)]


MALFORMED = {
    "<ref>a</ref><box>1 2": "a box that does not end",
    "<ref>a</ref><box>1 2 3 4": "a box that does not end",
    "<ref>a</ref><box>1 2 3</box>": "a box of 3 numbers, not 4",
    "<ref>a</ref><box></box>": "a box of 0 numbers, not 4",
    "<ref>a</ref><box>1 2 3 1001</box>": "a box with a number that is not 0 to 1000",
    "<ref>a</ref><box>-1 2 3 4</box>": "a box with a number that is not 0 to 1000",
    "<ref>a</ref><box>5 2 3 4</box>": "a box whose second corner is left of the first, or above it",
    "<ref>a</ref><box>1 5 3 4</box>": "a box whose second corner is left of the first, or above it",
    "<ref>a</ref><box>one two</box>": "a box of something else than numbers",
    "<ref>a</ref>": "a text without a box",
    "<ref>a": "a text that does not end",
    "<ref>a<box>1</box><box>2</box><box>3</box><box>4</box>": "a text that does not end",
    "<ref>a<box>1</box><box>2</box><box>3</box></ref>": "a box of 3 numbers, not 4",
    "<ref> </ref><box>1 2 3 4</box>": "a box without a text",
    "<box>1 2 3 4</box>": "a box without a text",
    "a line <box>1 2": "a box that does not end",
    "no place at all": "no box in the answer",
}


@pytest.mark.parametrize("written", MALFORMED)
def test_what_is_no_box_is_reported_beside_those_that_are(written: str) -> None:
    boxes, bad = parse_boxes(written, SIZE)
    assert boxes == []
    assert [(box.written, box.reason) for box in bad] == [(written.strip(), MALFORMED[written])]
    if written.startswith("<box>"):
        return  # behind another text it is that one's second box
    good = "<ref>b</ref><box>0 0 1 1</box>"
    boxes, bad = parse_boxes(f"{good}\n{written}\n{good}", SIZE)
    assert [box.text for box in boxes] == ["b", "b"]
    assert len(bad) == (0 if written == "no place at all" else 1)


def test_an_empty_answer_has_neither() -> None:
    assert parse_boxes(" \n", SIZE) == ([], [])


NUMBER = st.integers(0, 1000)
TEXT = st.text(
    st.characters(exclude_characters="<>[]()\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8"), min_size=1
)
ITEM = st.tuples(TEXT.map(str.strip).filter(lambda text: text.rstrip(":：").strip() == text != ""), *[NUMBER] * 4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ITEM, st.sampled_from(sorted(FORMS))), max_size=6))
def test_what_is_written_is_read_back(items: list[tuple[Any, str]]) -> None:
    wanted, lines = [], []
    for (text, x1, y1, x2, y2), form in items:
        corners = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        wanted.append(TextBox(text, *corners))
        lines.append(FORMS[form](text, corners))
    assert parse_boxes("\n".join(lines), (1000, 1000)) == (wanted, [])


PIECES = st.sampled_from(
    [
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
        "[[",
        "]]",
        "(",
        ")",
        ",",
        " ",
        "\n",
        "1",
        "23",
        "1000",
        "4 5 6 7",
        "-",
        "字",
        "a",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join), st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
def test_any_answer_is_read_and_no_box_is_dropped(answer: str, size: tuple[int, int]) -> None:
    boxes, bad = parse_boxes(answer, size)
    for box in boxes:
        assert 0 <= box.left <= box.right <= size[0]
        assert 0 <= box.top <= box.bottom <= size[1]
        assert box.text
    assert bool(boxes or bad) is bool(answer.strip())
    if "<ref>" in answer:
        assert len(boxes) + len(bad) >= answer.count("<ref>")


def test_lines_are_joined_in_reading_order() -> None:
    boxes = [
        TextBox("world", 60, 12, 100, 30),
        TextBox("第二", 0, 40, 40, 60),
        TextBox("hello", 0, 10, 50, 31),
        TextBox("行。", 45, 42, 80, 61),
        TextBox("third", 0, 62, 50, 80),
    ]
    assert merge_lines(boxes) == [
        TextBox("hello world", 0, 10, 100, 31),
        TextBox("第二行。", 0, 40, 80, 61),
        TextBox("third", 0, 62, 50, 80),
    ]
    assert merge_lines([]) == []


def test_a_slanted_line_is_one_line_and_close_lines_are_two() -> None:
    slanted = [TextBox(str(n), 100 * n, 6 * n, 100 * n + 90, 20 + 6 * n) for n in range(5)]
    assert [line.text for line in merge_lines(slanted)] == ["0 1 2 3 4"]
    close = [TextBox("a", 0, 0, 90, 20), TextBox("b", 0, 14, 90, 34)]
    assert [line.text for line in merge_lines(close)] == ["a", "b"]


def write_nested(numbers: str) -> str:
    return "".join(f"<box>{number}</box>" for number in numbers.split(" ")) + "</ref>"


def grammar_tokenizer(special: bool) -> GrammarTokenizer:
    import threading

    from transformers import AutoTokenizer

    import minicpm_core

    tokenizer = AutoTokenizer.from_pretrained(Path(minicpm_core.__file__).parent / "demo")
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<ref>", "</ref>", "<box>", "</box>"]})
    return GrammarTokenizer(tokenizer, threading.Lock(), [tokenizer.eos_token_id])


@pytest.mark.parametrize("form", EXAMPLES)
@pytest.mark.parametrize("special", [False, True])
def test_the_grammar_takes_boxes_in_order_and_no_others(special: bool, form: Form) -> None:
    tokenizer = grammar_tokenizer(special)
    start = tokenizer.compile(write_grammar(tokenizer.marker, form))

    def accepts(text: str) -> bool:
        if form == "nested":
            text = re.sub(r"</ref><box>([^<]*)</box>", lambda m: write_nested(m[1]), text)
        ids = tokenizer.encode(text)
        matcher = start.deep_copy()
        return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())

    values = [0, 5, 9, 10, 19, 99, 100, 109, 190, 999, 1000]
    checked = 0
    for one, other in itertools.product(values, values):
        for place in ((one, 500, other, 500), (500, one, 500, other), (one, other, other, one)):
            right = (place[0] <= place[2] and place[1] <= place[3]) or (special and form == "nested")
            assert accepts(f"<ref>灯 a[1]</ref><box>{' '.join(map(str, place))}</box>\n") is right, place
            checked += 1
    assert checked == 3 * 11 * 11
    for wrong in ("01 1 1 1", "1 1 1", "1001 1 1001 1", "1 1 2 2 ", "1,1,2,2", "", "1.5 1 2 2"):
        assert not accepts(f"<ref>a</ref><box>{wrong}</box>\n")
    assert accepts("")
    assert accepts("<ref>a</ref><box>1 2 3 4</box>\n" * 3)
    assert not accepts("words")
    assert not accepts("<ref></ref><box>1 2 3 4</box>\n")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    folder = tmp_path_factory.mktemp("ocr")
    with pytest.MonkeyPatch.context() as patch:
        made = {"2.0": write_minicpmv(folder / "2.0", "2.0"), "4.6": write_native(folder / "4.6", "minicpmv4_6")}
        patch.setattr(
            tests.toy_minicpmv, "MARKERS", [*tests.toy_minicpmv.MARKERS, "<ref>", "</ref>", "<box>", "</box>"]
        )
        made["2.6, tags are tokens"] = write_minicpmv(folder / "2.6", "2.6", max_position_embeddings=4096)
    return {name: load(path, dtype="float32", device="cpu") for name, path in made.items()}


@pytest.mark.parametrize(
    ("name", "form"),
    [("2.0", "tagged"), ("2.6, tags are tokens", "tagged"), ("4.6", "tagged"), ("2.0", "nested"), ("4.6", "nested")],
)
def test_random_weights_write_well_formed_boxes(name: str, form: Form, engines: dict[str, Engine]) -> None:
    engine, found, cut = engines[name], 0, 0
    for seed, most in itertools.product(range(3), (LINE_TOKENS[form], 400)):
        sampling = Sampling(temperature=10.0, top_p=1.0, top_k=0, max_new_tokens=most, seed=seed)
        answers: list[Chunk] = []
        generate = engine.generate
        with pytest.MonkeyPatch.context() as patch:
            if seed:  # weights like these would soon draw the end
                patch.setattr(Sampler, "draw", _goes_on(sorted(engine._vocabulary.stop_ids)))
            patch.setattr(engine, "generate", lambda *a, **k: answers.append(generate(*a, **k)) or answers[-1])  # noqa: B023
            with _no_malformed() as told:
                boxes = read_text(picture(), engine, form=form, sampling=sampling)
        (answer,) = answers
        end = "</box>\n" if form == "tagged" else "</box></ref>\n"
        assert answer.content.count(end) == answer.content.count("\n") == len(boxes)
        assert answer.content == "" or answer.content.endswith(end)
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= most
        assert answer.finish_reason == ("length" if told else "stop")
        assert all(box.left <= box.right and box.top <= box.bottom for box in boxes)
        found += len(boxes)
        cut += bool(told)
    assert found >= 6  # two of the shorter, at least four of the longer
    assert cut >= 4


def test_nested_tags_that_are_tokens_hold_numbers_in_any_order(engines: dict[str, Engine]) -> None:
    engine, most = engines["2.6, tags are tokens"], LINE_TOKENS["nested"]
    sampling = Sampling(temperature=10.0, top_p=1.0, top_k=0, max_new_tokens=2 * most, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "draw", _goes_on(sorted(engine._vocabulary.stop_ids)))
        with pytest.warns(TextBoxWarning) as told:
            boxes = read_text(picture(), engine, form="nested", sampling=sampling)
    reasons = " ".join(str(warning.message) for warning in told)
    swapped = reasons.count("second corner is left of the first")
    assert len(boxes) + swapped >= 2
    assert not re.search("does not end|without|numbers, not 4|not 0 to 1000|something else", reasons)
    with pytest.raises(ValueError, match="form is 'boxed'; accepted: tagged, nested"):
        read_text(picture(), engine, form="boxed")  # type: ignore[arg-type]


def _goes_on(stop_ids: list[int]) -> Any:
    draw = Sampler.draw

    def draw_more(self: Sampler, logits: Any, allowed: Any = None) -> int:
        more = allowed.clone()
        more[stop_ids] = False
        return draw(self, logits, more if more.any() else allowed)

    return draw_more


class _no_malformed:
    """Collects the warnings of answers that were cut, and lets no other through."""

    def __enter__(self) -> list[str]:
        import warnings

        self._catch = warnings.catch_warnings(record=True)
        self._records = self._catch.__enter__()
        warnings.simplefilter("always")
        self.told: list[str] = []
        return self.told

    def __exit__(self, *error: Any) -> None:
        self._catch.__exit__(*error)
        self.told += [str(record.message) for record in self._records]
        assert all("tokens ended" in text for text in self.told), self.told


def test_too_few_tokens_for_a_line_are_refused(engines: dict[str, Engine]) -> None:
    for form, most in LINE_TOKENS.items():
        with pytest.raises(ValueError, match=rf"{most - 1} tokens are left .* one line may take {most}"):
            read_text(picture(), engines["2.0"], form=form, sampling=Sampling(max_new_tokens=most - 1))


def scripted(answer: str, finish: str = "stop") -> Any:
    """Return what stands for an engine whose model writes this."""
    asked: list[Any] = []

    def generate(messages: Any, **options: Any) -> Chunk:
        asked.append((messages, options))
        return Chunk(answer, finish_reason=finish)  # type: ignore[arg-type]

    return SimpleNamespace(generate=generate, family=SimpleNamespace(thinking=True), asked=asked)


def test_places_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    file = tmp_path / "photo.jpg"
    picture(300, 100).save(file, exif=exif)
    engine = scripted("<ref>a</ref><box>0 500 1000 1000</box>")
    assert read_text(str(file), engine) == [TextBox("a", 0, 150, 100, 300)]
    (messages, options) = engine.asked[0]
    assert messages[0]["content"][0]["image"].size == (100, 300)
    assert options["enable_thinking"] is False
    assert options["sampling"] == Sampling(temperature=0.0, repetition_penalty=1.0)
    assert draw_boxes(file, []).size == (100, 300)


def test_missing_boxes_and_cut_answers_warn() -> None:
    engine = scripted("<ref>a</ref><box>1 2 3 4</box><ref>b</ref><box>9 9 1 1</box>")
    with pytest.warns(TextBoxWarning, match=r"1 of 2 boxes cannot be read: .*second corner.*'<ref>b</ref>"):
        assert len(read_text(picture(), engine, constrained=False)) == 1
    assert engine.asked[0][1]["grammar"] is None
    with pytest.warns(TextBoxWarning, match="allow more max_new_tokens"):
        read_text(picture(), scripted("<ref>a</ref><box>1 2 3 4</box>\n", "length"))


def test_lines_are_joined_where_asked() -> None:
    answer = "<ref>b</ref><box>500 0 900 100</box><ref>a</ref><box>0 0 400 100</box>"
    assert [box.text for box in read_text(picture(), scripted(answer), merge=True)] == ["a b"]


def test_frames_and_texts_are_drawn_into_a_copy() -> None:
    page = Image.new("RGB", (400, 300), "white")
    drawn = draw_boxes(page, [TextBox("Total 12", 40, 100, 200, 140), TextBox("x", 0, 0, 400, 300)])
    assert page.getcolors() == [(120_000, (255, 255, 255))]
    red, blue = (0xD6, 0x27, 0x28), (0x1F, 0x77, 0xB4)
    assert [drawn.getpixel(at) for at in ((40, 100), (199, 139), (120, 100), (40, 120))] == [red] * 4
    assert drawn.getpixel((120, 120)) == drawn.getpixel((201, 120)) == (255, 255, 255)
    assert [drawn.getpixel(at) for at in ((399, 0), (399, 299))] == [blue] * 2
    above = drawn.crop((40, 80, 140, 99)).getcolors(10_000)
    assert above is not None
    assert sum(count for count, color in above if color != (255, 255, 255)) > 50


@pytest.mark.parametrize(
    "box", [TextBox("a", 5, 5, 5, 5), TextBox("long " * 40, 395, 295, 400, 300), TextBox("", 1, 1, 9, 9)]
)
def test_boxes_of_any_size_are_drawn(box: TextBox) -> None:
    assert draw_boxes(picture(400, 300), [box]).size == (400, 300)


def test_chinese_needs_a_font_that_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    box = TextBox("灯", 5, 30, 50, 60)
    monkeypatch.setattr(drawing, "find_fonts", lambda: ())
    assert draw_boxes(picture(), [TextBox("lamp", 5, 30, 50, 60)]).size == (120, 80)
    with pytest.raises(ValueError, match=r"lacks the characters 灯; install one .*fonts-noto-cjk"):
        draw_boxes(picture(), [box])
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match="cannot be used"):
        draw_boxes(picture(), [box], font=tmp_path / "font.ttf")


@pytest.mark.skipif(not any("CJK" in path for path in find_fonts()), reason="this computer has no font with Chinese")
def test_chinese_is_drawn_with_a_font_of_the_computer() -> None:
    drawn, other = (
        draw_boxes(Image.new("RGB", (200, 100), "white"), [TextBox(t, 5, 50, 90, 90)]) for t in ("灯", "仓")
    )
    assert drawn.tobytes() != other.tobytes()
    assert draw_boxes(picture(), [TextBox("灯", 5, 50, 90, 80)], font=find_fonts()[0]).size == (120, 80)


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_minicpmv(tmp_path / "model", "2.6")
    picture().save(tmp_path / "page.png")
    arguments = ["read", str(tmp_path / "page.png"), "--model", str(model), "--seed", "1", "--temperature", "1"]
    arguments += ["--max-tokens", "200", "--device", "cpu"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["width"], found["height"]) == (120, 80)
    assert found.keys() == {"picture", "width", "height", "boxes", "missing"}
    assert main(arguments) == 0
    output = capsys.readouterr()
    lines = [f"{b['left']}\t{b['top']}\t{b['right']}\t{b['bottom']}\t{b['text']}" for b in found["boxes"]]
    assert output.out == "".join(f"{line}\n" for line in lines)
    assert output.err == "".join(f"minicpm read: warning: {text}\n" for text in found["missing"])


def test_the_command_draws_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from minicpm_app import read

    monkeypatch.setattr(read, "_load", lambda options: nullcontext(scripted("<ref>12</ref><box>0 0 500 500</box>")))
    Image.new("RGB", (120, 80), "white").save(tmp_path / "page.png")
    assert main(["read", str(tmp_path / "page.png"), "--boxes", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out == "0\t0\t60\t40\t12\n"
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.getpixel((59, 39)) == (0xD6, 0x27, 0x28)
    assert main(["read", str(tmp_path / "none.png")]) == 1
    assert capsys.readouterr().err.startswith("minicpm read: error: no picture file")


def test_the_snippet_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "ocr.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    picture().save(tmp_path / "receipt.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minicpm_core.loading.load", lambda model: scripted("<ref>12</ref><box>0 0 500 500</box>"))
    exec(compile(snippet, "docs/ocr.md", "exec"), {})
    with Image.open("receipt-boxes.png") as drawn:
        assert drawn.size == (120, 80)
    assert f"({LINE_TOKENS['tagged']}: " in text
    assert f"{LINE_TOKENS['nested']} in the nested form)" in text
