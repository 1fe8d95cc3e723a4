"""Measure a checkpoint on held-out questions: `python -m tools.demo_model.evaluate minicpm_core/demo`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from minicpm_core.rag import REFUSALS, Language, build_messages
from tools.demo_model.heldout import KINDS, Question, make_set
from tools.demo_model.plain_questions import PLAIN_QUESTIONS
from tools.demo_model.tool_heldout import SETS, Task, make_tasks

Answer = Callable[[Sequence[Question]], list[str]]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint that completes prompts greedily."""

    tokenizer: PreTrainedTokenizerFast
    model: LlamaForCausalLM

    def complete(self, prompts: Sequence[str], *, batch_size: int = 50, most: int = 160) -> list[str]:
        """Return what follows each prompt up to the end of the turn."""
        order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
        found = [""] * len(prompts)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            texts = [prompts[n] for n in rows]
            inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            with torch.inference_mode():
                output = self.model.generate(**inputs, max_new_tokens=most, do_sample=False)
            for n, ids in zip(rows, output[:, inputs["input_ids"].shape[1] :], strict=True):
                found[n] = re.split(r"<\|im_end\|>|</s>", self.tokenizer.decode(ids))[0].strip()
        return found

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Return the answers to questions over passages."""
        return self.complete([self.render(build_messages(q.question, q.passages)) for q in questions])

    def render(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """Return the prompt of `messages`."""
        options = {"tokenize": False, "add_generation_prompt": True} | options
        return str(self.tokenizer.apply_chat_template(messages, **options))

    def call(self, tasks: Sequence[Task]) -> list[str]:
        """Return the calls or answers to tasks with tools."""
        return self.complete([self.render(task.messages, tools=task.tools) for task in tasks])


def load_checkpoint(folder: Path) -> Checkpoint:
    """Return the checkpoint in `folder`, in float32."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return Checkpoint(PreTrainedTokenizerFast.from_pretrained(folder), model)


def cited(text: str) -> int | None:
    """Return the number that an answer starts with, or None for a refusal or anything else."""
    match = re.match(r"\[(\d)\]", text)
    return int(match[1]) if match else None


def score(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Return shares: right passage, exact copy, refused."""
    pairs = list(zip(questions, answers, strict=True))
    share = 100 / len(pairs)
    return {
        "questions": len(pairs),
        "right": round(share * sum(a == q.answer if q.right is None else cited(a) == q.right for q, a in pairs), 1),
        "exact": round(share * sum(a == q.answer for q, a in pairs), 1),
        "refused": round(share * sum(a in REFUSALS.values() for _, a in pairs), 1),
    }


def score_tasks(tasks: Sequence[Task], answers: Sequence[str]) -> dict[str, float]:
    """Return the share of tasks whose text came back exactly, and of those whose first word decides alike."""
    pairs = list(zip(tasks, answers, strict=True))
    share = 100 / len(pairs)
    starts = [(re.split(r"<param|</function>", t.answer)[0], a) for t, a in pairs]
    return {
        "tasks": len(pairs),
        "exact": round(share * sum(t.answer == a for t, a in pairs), 1),
        "right tool": round(share * sum(a.startswith(start) for start, a in starts), 1),
    }


def evaluate(answer: Answer, *, count: int = 200, seed: int = 1) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield per set the shares in percent.

    Yields:
        the set's name, with `right` (passage number, or the exact refusal), `exact` (number and text) and `refused`.
    """
    languages: tuple[Language, ...] = ("en", "zh")
    for language in languages:
        for kind in KINDS:
            questions = make_set(language, kind, count=count, seed=seed)
            yield f"{language} {kind}", score(questions, answer(questions))
    yield "plain questions", score(PLAIN_QUESTIONS, answer(PLAIN_QUESTIONS))


def main() -> None:
    """Print one line per set, and the plain questions with --show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", choices=("all", "passages", "tools"), default="all")
    parser.add_argument("--show", action="store_true", help="print the plain questions' answers and the failed tasks")
    args = parser.parse_args()
    checkpoint = load_checkpoint(args.folder)
    answer = checkpoint.answer
    if args.sets != "tools":
        for name, row in evaluate(answer, count=args.count, seed=args.seed):
            print(f"{name:24}", json.dumps(row), flush=True)
    for name in SETS if args.sets != "passages" else ():
        tasks = make_tasks(name, count=args.count, seed=args.seed)
        texts = checkpoint.call(tasks)
        print(f"{name:24}", json.dumps(score_tasks(tasks, texts)), flush=True)
        for task, text in zip(tasks, texts, strict=True):
            if args.show and text != task.answer:
                print("-", task.messages[-1]["content"], "\n   ->", text, "\n  not", task.answer)
    if args.show and args.sets != "tools":
        for question, text in zip(PLAIN_QUESTIONS, answer(PLAIN_QUESTIONS), strict=True):
            print("+" if text == question.answer else "-", question.question, "->", text)


if __name__ == "__main__":
    main()
