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

from minicpm_core import Chunk, Engine, Sampling, load
from minicpm_core.dialects.minicpm5 import MINICPM5
from minicpm_core.rag import REFUSALS, Language, build_messages
from minicpm_core.tools import read_tools
from tools.demo_model import document_tasks
from tools.demo_model.document_heldout import make_document_set
from tools.demo_model.heldout import KINDS, Question, make_set
from tools.demo_model.plain_questions import PLAIN_QUESTIONS
from tools.demo_model.tool_heldout import SETS, Task, make_tasks

Answer = Callable[[Sequence[Question]], list[str]]


@dataclass(frozen=True)
class Outcome:
    """The calls, each a name and arguments (None: they cannot be read), and the text beside them."""

    calls: list[tuple[str, dict[str, Any] | None]]
    text: str


def read_outcome(task: Task, text: str) -> Outcome:
    """Return what the model wrote, in the syntax of MiniCPM5."""
    before, opening, calls = text.partition(MINICPM5.opening)
    reader = MINICPM5.reader(read_tools(task.tools))
    pieces = [*reader.push(opening + calls), *reader.flush()]
    whole = Chunk(tool_calls=())
    for piece in pieces:
        whole += Chunk(tool_calls=(piece,))
    return Outcome([(c.name, c.arguments if c.is_valid else None) for c in whole.tool_calls], before.strip())


def call_through_engine(engine: Engine, tasks: Sequence[Task]) -> list[Outcome]:
    """Return what tasks with tools get from the package, whose grammar keeps calls to the tools' schemas."""
    greedy = Sampling(temperature=0.0, max_new_tokens=400)
    found = []
    for task in tasks:
        answer = engine.generate(task.messages, tools=task.tools, sampling=greedy)
        calls = [(c.name, c.arguments if c.is_valid else None) for c in answer.tool_calls]
        found.append(Outcome(calls, answer.content.strip()))
    return found


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

    def call(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Return what tasks with tools got, without a grammar: whatever the model writes is read as it stands."""
        texts = self.complete([self.render(task.messages, tools=task.tools) for task in tasks])
        return [read_outcome(task, text) for task, text in zip(tasks, texts, strict=True)]


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


def score_tasks(tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the shares in percent of exactly right calls or texts, and of the right tools."""
    wanted = [read_outcome(task, task.answer) for task in tasks]
    share = 100 / len(tasks)
    names = [([n for n, _ in w.calls], [n for n, _ in o.calls]) for w, o in zip(wanted, outcomes, strict=True)]
    return {
        "tasks": len(tasks),
        "exact": round(share * sum(w == o for w, o in zip(wanted, outcomes, strict=True)), 1),
        "right tool": round(share * sum(w == o for w, o in names), 1),
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
        for sort in document_tasks.KINDS:
            questions = make_document_set(language, sort, count=count, seed=seed)
            yield f"{language} documents, {sort}", score(questions, answer(questions))
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
            print(f"{name:32}", json.dumps(row), flush=True)
    for bare in (False, True) if args.sets != "passages" else ():
        engine = None if bare else load(args.folder)
        for name in SETS:
            tasks = make_tasks(name, count=args.count, seed=args.seed)
            outcomes = call_through_engine(engine, tasks) if engine else checkpoint.call(tasks)
            print(f"{name + ' (bare)' * bare:32}", json.dumps(score_tasks(tasks, outcomes)), flush=True)
            for task, outcome in zip(tasks, outcomes, strict=True):
                if args.show and not bare and outcome != read_outcome(task, task.answer):
                    print("-", task.messages[-1]["content"], "\n   ->", outcome, "\n  not", task.answer)
    if args.show and args.sets != "tools":
        for question, text in zip(PLAIN_QUESTIONS, answer(PLAIN_QUESTIONS), strict=True):
            print("+" if text == question.answer else "-", question.question, "->", text)


if __name__ == "__main__":
    main()
