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
from tools.demo_model.network import NOWHERE, PROBE_CLASSES

_ASKING = {
    "en": " What| Who| When| How| is| the| of| does| was|?| in| a| did| are| for| Where| Why| many| much| do",
    "zh": "什么|谁|哪里|的|是|了|？|多少|在|怎样|几|有|多久|时候|为什么|哪",
}
_LABEL = re.compile(r"^\[(\d+)\] ", re.MULTILINE)


@dataclass
class Example:
    """A question over passages and the answer to learn; `system` None means the RAG prompt of the language."""

    question: str
    answer: str
    passages: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    system: str | None = None
    messages: list[dict[str, Any]] | None = None
    enable_thinking: bool | None = None
    tools: list[dict[str, Any]] | None = None


@dataclass
class Encoded:
    """Token ids of prompt and answer.

    Args:
        passage_of: per token the number of its passage, or -1.
        found_in: per question token (position) the numbers of the passages that hold it.
        choice: the number to answer with, `NOWHERE` for a refusal, or -1 where there are no passages.
    """

    ids: list[int]
    answer_start: int
    passage_of: list[int]
    found_in: dict[int, list[int]]
    choice: int = -1
    choice_weight: float = 8.0


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
        self.end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        special = set(self.tokenizer.all_special_ids)
        pieces = [self.tokenizer.decode([i]) for i in range(len(self.tokenizer))]
        self.plain = [i for i, text in enumerate(pieces) if i not in special and "\ufffd" not in text and text.strip()]
        self.header = self.encode("<s><|im_start|>user\n")
        self.footer = self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self.labels = {key: self.encode("\n\n" + label.strip()) for key, label in QUESTION_LABELS.items()}
        self.asking = {key: [self.encode(word) for word in words.split("|")] for key, words in _ASKING.items()}
        self.newline = self.encode("\n")

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


def collate(batch: list[Encoded], *, multiple: int = 16) -> dict[str, np.ndarray]:
    """Pad a batch on the right and list the positions and targets of each loss."""
    longest = max(len(e.ids) for e in batch)
    width = -(-longest // multiple) * multiple
    ids = np.ones((len(batch), width), dtype=np.int64)
    passage = np.full((len(batch), width), -1, dtype=np.int64)
    where, target, weight, offset, found_at, found, choice_at, choice = [], [], [], [], [], [], [], []
    for row, e in enumerate(batch):
        ids[row, : len(e.ids)] = e.ids
        passage[row, : len(e.passage_of)] = e.passage_of
        for position in range(e.answer_start, len(e.ids)):
            where.append(row * width + position - 1)
            target.append(e.ids[position])
            weight.append(e.choice_weight if position < e.answer_start + 2 else 1.0)
            offset.append(position - e.answer_start)
        if e.choice >= 0:  # the tokens between question and answer
            choice_at += [row * width + e.answer_start - n for n in range(1, 6)]
            choice += [e.choice] * 5
        for position, labels in e.found_in.items():
            spread = np.zeros(PROBE_CLASSES, dtype=np.float32)
            spread[labels or [NOWHERE]] = 1.0 / max(1, len(labels))
            found_at.append(row * width + position)
            found.append(spread)
    flat = passage.reshape(-1)
    at = np.flatnonzero(flat >= 0)
    return {
        "ids": ids,
        "where": np.array(where),
        "target": np.array(target),
        "weight": np.array(weight, dtype=np.float32),
        "offset": np.array(offset),
        "passage_at": at,
        "passage": flat[at],
        "choice_at": np.array(choice_at, dtype=np.int64),
        "choice": np.array(choice, dtype=np.int64),
        "found_at": np.array(found_at, dtype=np.int64),
        "found": np.array(found, dtype=np.float32).reshape(-1, PROBE_CLASSES),
    }
