"""Examples as token ids, with the targets of the answer and of the two probes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from minicpm_core.rag import QUESTION_LABELS, REFUSALS, Language, build_messages
from tools.demo_model.network import NOWHERE
from tools.demo_model.pointers import Pointers, point_call, point_result

NO_TOOL = NOWHERE  # `Example.chosen` where none of the tools fits
_ASKING = {
    "en": " What| Who| When| How| is| the| of| does| was|?| in| a| did| are| for| Where| Why| many| much| do",
    "zh": "什么|谁|哪里|的|是|了|？|多少|在|怎样|几|有|多久|时候|为什么|哪",
}
_LABEL = re.compile(r"^\[(\d+)\] ", re.MULTILINE)


@dataclass
class Example:
    """A question and the answer to learn.

    Args:
        system: None means the RAG prompt of the language.
        chosen: number of the tool to call, from 1, `NO_TOOL`, or -1 where the question is no longer open.
        forced: whether the choice of the tool is given, not to be learnt.
    """

    question: str
    answer: str
    passages: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    system: str | None = None
    messages: list[dict[str, Any]] | None = None
    enable_thinking: bool | None = None
    tools: list[dict[str, Any]] | None = None
    chosen: int = -1
    forced: bool = False


@dataclass
class Encoded:
    """Token ids of prompt and answer.

    Args:
        passage_of: per token the number of its passage, or -1.
        found_in: per question token (position) the numbers of the passages that hold it.
        choice: the number to answer with, `NOWHERE` for a refusal, or -1 where there are no passages.
        weights: per token of the answer (offset) its weight in the loss, 1 where it is missing.
        tools: whether the prompt lists tools.
        pointers: per token of the answer (position) the places in the prompt that it may be copied from.
        choice_ahead: tokens of the answer that still know the choice.
    """

    ids: list[int]
    answer_start: int
    passage_of: list[int]
    found_in: dict[int, list[int]]
    choice: int = -1
    weights: dict[int, float] = field(default_factory=lambda: {0: 8.0, 1: 8.0})
    tools: bool = False
    pointers: Pointers = field(default_factory=dict)
    choice_ahead: int = 0


def messages_of(example: Example) -> list[dict[str, Any]]:
    """Return the chat messages of `example`, passages numbered by its labels."""
    if example.messages is not None:
        return example.messages
    messages = build_messages(example.question, example.passages)
    if example.labels:
        labels = iter(example.labels)
        text = messages[1]["content"]
        messages[1]["content"] = _LABEL.sub(lambda m: f"[{next(labels)}] ", text, count=len(example.passages))
    if example.system is not None:
        messages[0]["content"] = example.system
    return messages if messages[0]["content"] else messages[1:]


class Encoder:
    """Render examples with the checkpoint's chat template and align the probes' targets with the tokens."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.backend = self.tokenizer.backend_tokenizer
        self.begin = self.tokenizer.convert_tokens_to_ids("<|im_start|>")
        self.end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.get_added_vocab().values()}
        pieces = [self.tokenizer.decode([i]) for i in range(len(self.tokenizer))]
        self.plain = [i for i, text in enumerate(pieces) if i not in special and "\ufffd" not in text and text.strip()]
        self.header = self.encode("<s><|im_start|>user\n")
        self.footer = self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self.labels = {key: self.encode("\n\n" + label.strip()) for key, label in QUESTION_LABELS.items()}
        self.asking = {key: [self.encode(word) for word in words.split("|")] for key, words in _ASKING.items()}
        self.newline = self.encode("\n")
        texts = ("<function", "<param", "</param>", '"', ">", "[", "]", ",", " ")
        self.marks = {text: self.encode(text)[0] for text in texts}
        self.marks["schema"] = self.backend.get_vocab_size(with_added_tokens=False)
        spelt = [self.tokenizer.convert_ids_to_tokens(i).lstrip("Ġ") for i in range(len(self.tokenizer))]
        first: dict[str, int] = {}
        folded = [text.lower() if text.isascii() else text for text in spelt]
        self.alike = [first.setdefault(text, i) for i, text in enumerate(folded)]  # " Lamp" and "lamp" are one word

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_example(self, example: Example) -> Encoded:
        """Return the token ids and targets of `example`."""
        options: dict[str, Any] = (
            {} if example.enable_thinking is None else {"enable_thinking": example.enable_thinking}
        )
        prompt = self.tokenizer.apply_chat_template(
            messages_of(example), tools=example.tools, tokenize=False, add_generation_prompt=True, **options
        )
        coded = self.backend.encode(prompt, add_special_tokens=False)
        ids = list(coded.ids)
        if example.tools:
            return self._encode_tools(example, prompt, ids, [start for start, _ in coded.offsets])
        passage_of = [-1] * len(ids)
        found_in: dict[int, list[int]] = {}
        if example.passages:
            starts = [start for start, _ in coded.offsets]
            labels = example.labels or list(range(1, len(example.passages) + 1))
            at = prompt.index("<|im_start|>user\n")
            inside: dict[int, set[int]] = {}
            for label, passage in zip(labels, example.passages, strict=True):
                text = " ".join(passage.split())
                at = prompt.index(f"[{label}] {text}", at) + len(f"[{label}]")
                first, last = np.searchsorted(starts, [at, at + len(text) + 1])
                inside[label] = set(ids[first:last])
                passage_of[first:last] = [label] * int(last - first)
                at += len(text)
            at = prompt.index(example.question.strip(), at)
            first, last = np.searchsorted(starts, [at - 1, at + len(example.question.strip())])
            for position in range(int(first), int(last)):
                found_in[position] = [label for label in inside if ids[position] in inside[label]]
        answer = [*self.encode(example.answer), self.end]
        cites = re.match(r"\[(\d)\]", example.answer)
        choice = -1 if not example.passages else int(cites[1]) if cites else NOWHERE
        return Encoded(ids + answer, len(ids), passage_of + [-1] * len(answer), found_in, choice)

    def _encode_tools(self, example: Example, prompt: str, ids: list[int], starts: list[int]) -> Encoded:
        """Return the targets of a prompt with tools; a tool's line counts as the passage of its number."""
        passage_of = [-1] * len(ids)
        inside: dict[int, set[int]] = {}
        lines: list[tuple[int, int]] = []
        at = prompt.index("<tools>\n") + len("<tools>\n")
        for label, line in enumerate(prompt[at : prompt.index("</tools>", at)].rstrip("\n").split("\n"), start=1):
            first, last = (int(n) for n in np.searchsorted(starts, [at, at + len(line)]))
            inside[label] = {self.alike[i] for i in ids[first:last]}
            passage_of[first:last] = [label] * (last - first)
            lines.append((first, last))
            at += len(line) + 1
        answer = [*self.encode(example.answer), self.end]
        full = ids + answer
        alike = [self.alike[i] for i in full]
        found_in: dict[int, list[int]] = {}
        pointers: Pointers = {}
        if example.chosen >= 0:
            at = prompt.rindex(example.question)
            first, last = (int(n) for n in np.searchsorted(starts, [at, at + len(example.question)]))
            for position in range(first, last):
                found_in[position] = [n for n, words in inside.items() if alike[position] in words]
            if example.chosen != NO_TOOL:
                pointers = point_call(full, alike, self.marks, len(ids), lines, (first, last))
        else:
            pointers = point_result(alike, len(ids), (self._results_start(ids), len(ids)))
        choice_from = 5 if 0 < example.chosen < NO_TOOL else 0
        tail = [-1] * len(answer)
        weights = self._weigh(answer)
        chosen = example.chosen
        if example.forced:
            until = answer.index(self.marks[">"])
            weights |= dict.fromkeys(range(until), 0.0)
            pointers = {at: places for at, places in pointers.items() if at > len(ids) + until}
            found_in, chosen = {}, -1
        return Encoded(full, len(ids), passage_of + tail, found_in, chosen, weights, True, pointers, choice_from)

    def _results_start(self, ids: list[int]) -> int:
        """Return where the last run of results starts: behind the last turn that is no result."""
        turns = [n for n, i in enumerate(ids) if i == self.begin]
        return turns[-2]

    def _weigh(self, answer: list[int]) -> dict[int, float]:
        """Return the weights of a call's tokens: more where it decides on a tool, a key, a value or its end."""
        weights = {0: 6.0}
        name = value = inside = False
        for offset, token in enumerate(answer[:-1]):
            inside = value or inside
            weights[offset] = 4.0 if name else 3.0 if value else 2.2 if inside else weights.get(offset, 1.5)
            inside = inside and token != self.marks["</param>"]
            value = token == self.marks[">"] and answer[offset - 1] == self.marks['"']
            if token == self.marks['"']:
                name = not name and answer[offset - 3] == self.marks["<function"]
        return weights

    def encode_lists(self, rng: Random, *, lists: int, length: int, refusals: float = 0.0) -> Encoded:
        """Return a look-up among numbered lists of random tokens: some of one list -> its number and a copy.

        Args:
            rng: source of the draws.
            lists: number of lists, 1 to 9.
            length: tokens per list, at least 3.
            refusals: share of questions whose tokens are not all found in one list; the answer is the refusal.
        """
        language: Language = rng.choice(("en", "zh")) if refusals else "en"
        labels = rng.sample(range(1, 10), lists) if rng.random() < 0.5 else list(range(1, lists + 1))
        rows = [rng.choices(self.plain, k=max(3, length - rng.randrange(3))) for _ in labels]
        if rng.random() < 0.3:  # tokens that several lists share, and repetitions within one
            common = rng.choices(self.plain, k=4)
            rows = [[rng.choice(common) if rng.random() < 0.15 else token for token in row] for row in rows]
        if length > 10 and rng.random() < 0.6:  # a phrase that returns, each time with another continuation
            rows = [_repeat_phrase(rng, row) for row in rows]
        pick = rng.randrange(lists)
        question = [rng.choice(rows[pick]) for _ in range(rng.choice((2, 3) if not refusals else (2, 2, 3, 4)))]
        choice = labels[pick]
        if rng.random() < refusals:
            for n in rng.sample(range(len(question)), rng.randint(1, len(question))):
                question[n] = rng.choice(rng.choice(rows) if rng.random() < 0.5 else self.plain)
            if not any(set(question) <= set(row) for row in rows):
                choice = NOWHERE
        if choice != NOWHERE:  # the replaced tokens may all stand in another list by chance
            choice = next(label for label, row in zip(labels, rows, strict=True) if set(question) <= set(row))
        if refusals:
            for _ in range(rng.randint(0, 4)):
                at = rng.randint(0, len(question))
                question[at:at] = rng.choice(self.asking[language])
        return self._join_lists(labels, rows, question, choice, language)

    def _join_lists(
        self, labels: list[int], rows: list[list[int]], question: list[int], choice: int, language: Language
    ) -> Encoded:
        """Return the prompt and the answer of a look-up among lists."""
        ids, passage_of = list(self.header), [-1] * len(self.header)
        for label, row in zip(labels, rows, strict=True):
            mark = self.encode(f"[{label}]")
            ids += mark + row + self.newline
            passage_of += [-1] * len(mark) + [label] * len(row) + [-1]
        ids += self.labels[language]
        found_in = {
            len(ids) + n: [label for label, row in zip(labels, rows, strict=True) if token in row]
            for n, token in enumerate(question)
        }
        ids += question + self.footer
        if choice == NOWHERE:
            answer = [*self.encode(REFUSALS[language]), self.end]
        else:
            row = rows[labels.index(choice)]
            answer = [*self.encode(f"[{choice}]"), *row, self.end]
        passage_of += [-1] * (len(ids) - len(passage_of) + len(answer))
        return Encoded(ids + answer, len(ids), passage_of, found_in, choice)


def _repeat_phrase(rng: Random, row: list[int]) -> list[int]:
    """Return `row` with a phrase of its own inserted at up to three more places."""
    size = rng.randint(1, 6)
    start = rng.randrange(max(1, len(row) - size))
    phrase = row[start : start + size]
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(row))
        row = row[:at] + phrase + row[at:]
    return row
