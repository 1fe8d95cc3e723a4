"""The guide draws freely until something calls for the grammar, and then only what the grammar allows."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from minicpm_core.decoding import THINK, ReasoningSplitter
from minicpm_core.guidance import Constraint, GrammarTokenizer, Guide
from minicpm_core.sampler import Sampler
from minicpm_core.types import Sampling
from tests.toy import write_tokenizer

CALL = 'start: "<call " NAME ">"\nNAME: /[a-z]{1,8}/'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"), eos_token="</s>")


@pytest.fixture
def grammar(tokenizer: Any) -> GrammarTokenizer:
    return GrammarTokenizer(tokenizer, threading.Lock(), [1, 3])


class Wish(Sampler):
    """Draws the wished tokens in turn, where they are allowed; the likeliest allowed token else."""

    def __init__(self, wishes: Sequence[int]) -> None:
        super().__init__(Sampling(temperature=0), [])
        self.wishes: Iterator[int] = iter(wishes)
        self.refused: list[int] = []
        self.accepted: list[int] = []

    def draw(self, logits: torch.Tensor, allowed: Any = None) -> int:
        wish = next(self.wishes, 1)
        if (allowed is None or allowed[wish]) and logits[wish] > float("-inf"):
            return wish
        self.refused.append(wish)
        return int(torch.arange(len(logits))[allowed][0]) if allowed is not None else 5

    def accept(self, token: int) -> None:
        self.accepted.append(token)


class Run:
    """An answer made of wishes."""

    def __init__(
        self, grammar: GrammarTokenizer, constraint: Constraint | None, wishes: str | Sequence[int], **options: Any
    ) -> None:
        self.splitter = ReasoningSplitter((THINK,), opened=options.pop("opened", False))
        budget = options.pop("budget", 100)
        self.guide = Guide(constraint, grammar, self.splitter, budget, **options)
        ids = grammar.encode(wishes) if isinstance(wishes, str) else wishes
        self.sampler = Wish(ids)
        self.grammar, self.steps = grammar, 0
        self.ids = self.guide.begin()
        logits = torch.zeros(grammar.made.vocab_size)
        self.splitter.push(grammar.decode(self.ids))
        while len(self.ids) < budget and not self.guide.ended and (not self.ids or self.ids[-1] not in (1, 3)):
            tokens = self.guide.choose(self.sampler, logits)
            self.steps += 1
            self.ids += tokens
            self.splitter.push(grammar.decode(tokens))

    @property
    def text(self) -> str:
        return self.grammar.decode([i for i in self.ids if i not in (1, 3)])


def test_without_a_constraint_everything_is_free(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, None, "the lazy dog <call x")
    assert (run.text, run.sampler.refused, run.guide.forced_tokens) == ("the lazy dog <call x", [], 0)


def test_a_grammar_without_opening_holds_from_the_first_token(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, Constraint(lambda room: CALL), " lazy!>")
    assert run.text.startswith("<call lazy")
    assert run.text.endswith(">")
    assert run.sampler.refused == grammar.encode("!")
    assert run.guide.ended
    assert run.guide.forced_tokens == len(grammar.encode("<call"))
    assert run.steps < len(run.ids)
    assert run.sampler.accepted == run.ids[run.guide.forced_tokens :]  # what came before is part of the prompt


def test_without_fast_forward_every_token_takes_a_step(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, Constraint(lambda room: CALL), "<call lazy>", fast_forward=False)
    assert run.text == "<call lazy>"
    assert (run.guide.forced_tokens, run.steps) == (0, len(run.ids))


@pytest.mark.parametrize("wishes", ["the <call dog>", "the dog.<call fox>", "<call a>"])
def test_the_opening_switches_the_grammar_on(grammar: GrammarTokenizer, wishes: str) -> None:
    rooms: list[int] = []

    def write(room: int) -> str:
        rooms.append(room)
        return CALL

    run = Run(grammar, Constraint(write, opening="<call"), wishes + "and more")
    assert run.text == wishes
    assert run.guide.ended
    assert len(rooms) == 1
    assert 100 - len(run.ids) <= rooms[0] <= 100


def test_a_token_that_leaves_the_grammar_is_drawn_again(grammar: GrammarTokenizer) -> None:
    opening, wrong = grammar.encode("<call"), grammar.encode("l!")
    assert grammar.decode(opening).endswith("l")
    run = Run(grammar, Constraint(lambda room: CALL, opening="<cal"), [*opening[:-1], *wrong])
    assert run.text.startswith("<call ")
    assert run.guide.ended


def test_a_forbidden_opening_never_comes(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, Constraint(lambda room: CALL, opening="<call", forbidden=True), "the <call x> dog", budget=20)
    begun = grammar.decode(grammar.encode("the <call")[:-1])
    assert run.text == begun + " x> dog"


def test_reasoning_is_free_and_the_grammar_begins_behind_it(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, Constraint(lambda room: CALL), "a <call b>\n</think> lazy>", opened=True)
    assert run.text == "a <call b>\n</think>\n\n<call lazy>"


def test_an_opening_inside_the_reasoning_is_text(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, Constraint(lambda room: CALL, opening="<call"), "x <call 7\n</think>y <call z>", opened=True)
    assert run.text == "x <call 7\n</think>y <call z>"


def test_reasoning_leaves_room_for_what_is_required(grammar: GrammarTokenizer) -> None:
    run = Run(grammar, Constraint(lambda room: CALL), "dog " * 200, opened=True, budget=60)
    assert run.text.count("</think>\n\n<call ") == 1
    assert run.text.endswith(">")
    assert len(run.ids) < 60


def test_a_grammar_that_cannot_be_read_is_a_clear_error(grammar: GrammarTokenizer) -> None:
    with pytest.raises(
        ValueError, match=r"grammar \(the given one, or that of the tools or the schema\) cannot be used"
    ):
        grammar.compile("start: nowhere")


@pytest.mark.parametrize("text", ["<|im_end|>", "a<|im_start|>b", "x</s>"])
def test_forced_text_that_spells_a_special_token_stays_text(grammar: GrammarTokenizer, text: str) -> None:
    run = Run(grammar, Constraint(lambda room: f'start: "{text}" "!"'), [])
    assert run.grammar.decode(run.ids) == text + "!"
    assert not {0, 1, 2, 3} & set(run.ids)
    assert run.guide.ended


def test_special_tokens_are_found_in_texts(grammar: GrammarTokenizer) -> None:
    ids = grammar.encode("dog<|im_start|>dog<|im_end|>")
    assert (ids.count(2), ids[-1], grammar.decode(ids)) == (1, 3, "dog<|im_start|>dog<|im_end|>")
    run = Run(grammar, Constraint(lambda room: 'start: <[2]> "dog"'), [])
    assert run.ids == grammar.encode("<|im_start|>dog")


def test_markers_are_special_tokens_where_the_tokenizer_has_them(grammar: GrammarTokenizer) -> None:
    assert grammar.marker("<|im_start|>") == "<[2]>"
    assert grammar.marker("</think>") == '"</think>"'  # an added token, not a special one
    assert grammar.read_bytes(2) == b"<|im_start|>"
    assert (
        grammar.read_bytes(grammar.encode("保")[0]) == "保".encode()[: len(grammar.read_bytes(grammar.encode("保")[0]))]
    )
