"""Measure a checkpoint on held-out questions: `python -m tools.demo_model.evaluate minicpm_core/demo`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from minicpm_core.rag import REFUSALS, Language, build_messages
from tools.demo_model.heldout import KINDS, Question, make_set
from tools.demo_model.plain_questions import PLAIN_QUESTIONS

Answer = Callable[[Sequence[Question]], list[str]]


def load_answerer(folder: Path, *, batch_size: int = 20) -> Answer:
    """Return a function that answers questions greedily with the checkpoint in `folder`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(questions: Sequence[Question]) -> list[str]:
        order = sorted(range(len(questions)), key=lambda n: sum(map(len, questions[n].passages)))
        found = [""] * len(questions)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            prompts = [
                tokenizer.apply_chat_template(
                    build_messages(questions[n].question, questions[n].passages),
                    tokenize=False,
                    add_generation_prompt=True,
                )
                for n in rows
            ]
            inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            with torch.inference_mode():
                output = model.generate(**inputs, max_new_tokens=160, do_sample=False)
            texts = tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for n, text in zip(rows, texts, strict=True):
                found[n] = text.strip()
        return found

    return answer


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
    parser.add_argument("--show", action="store_true", help="print the answers to the plain questions")
    args = parser.parse_args()
    answer = load_answerer(args.folder)
    for name, row in evaluate(answer, count=args.count, seed=args.seed):
        print(f"{name:16}", json.dumps(row), flush=True)
    if args.show:
        for question, text in zip(PLAIN_QUESTIONS, answer(PLAIN_QUESTIONS), strict=True):
            print("+" if text == question.answer else "-", question.question, "->", text)


if __name__ == "__main__":
    main()
