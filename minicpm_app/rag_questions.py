"""Questions to measure an index with: the chat model writes one for each of some passages; others must be refused."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minicpm_core.rag import Language, detect_language
from minicpm_core.rag_evaluation import Question

if TYPE_CHECKING:
    from minicpm_core.index import Index

PROMPTS: Mapping[Language, str] = {
    "en": (
        "Write one question that the following passage answers, and that can be understood without seeing it. "
        "Reply with the question only.\n\nPassage: {passage}"
    ),
    "zh": "根据下面的段落写一个问题，段落里要有答案，而且不看段落也能看懂问题。只回答问题本身。\n\n段落：{passage}",
}
UNRELATED: Sequence[str] = (
    "Which river flows through the city of Baghdad?",
    "Who composed the opera The Magic Flute?",
    "How many bones does an adult human have?",
    "What does a giraffe eat?",
    "In which year did the Berlin Wall fall?",
    "How far is the Moon from the Earth?",
    "How do you tie a bow tie?",
    "Which gas do plants take up from the air?",
    "Who discovered penicillin?",
    "What is the currency of Norway?",
    "《红楼梦》的作者是谁？",
    "地球绕太阳一周要多少天？",
    "大熊猫最爱吃什么？",
    "怎样下围棋？",
    "长江有多长？",
    "奥运会几年举行一次？",
    "谁第一个登上月球？",
    "水的化学式是什么？",
    "怎么学会游泳？",
    "日本的首都是哪里？",
)
_SHORTEST = 30
"""Characters of a passage that a question can be written about; Chinese ones have a third of them."""
_LABEL = re.compile(r"^\s*(?:question|q|问题|问)\s*\d*\s*[:：.]\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Written:
    """The questions that the model wrote, and for how many passages it wrote none."""

    questions: list[Question]
    unusable: int


def write_questions(
    index: Index, ask: Callable[[str], str], count: int, *, seed: int = 0, on_step: Callable[[], Any] = lambda: None
) -> Written:
    """Return questions about passages of the index, at most one for each of `count`.

    Args:
        index: its passages are sampled without repetition.
        ask: returns the model's answer to a prompt.
        count: passages.
        seed: of the sample.
        on_step: is called after each.

    Raises:
        ValueError: no passage is long enough.
    """
    stored = index.collection.get(include=["documents", "metadatas"])
    rows = zip(stored["ids"], stored["documents"] or [], stored["metadatas"] or [], strict=True)
    usable = sorted((i, text, str(place["source"])) for i, text, place in rows if _is_long(text))
    if not usable:
        raise ValueError(f"the index in {index.directory} has no passage that a question could be written about")
    found: dict[str, Question] = {}
    sampled = random.Random(seed).sample(usable, min(count, len(usable)))
    for _, text, source in sampled:
        said = ask(PROMPTS[detect_language(text)].format(passage=" ".join(text.split())))
        if question := read_question(said):
            found.setdefault(question, Question(question, source, text))
        on_step()
    return Written(list(found.values()), len(sampled) - len(found))


def read_question(said: str) -> str:
    """Return the question in a model's answer: its first line that ends in a question mark, or ""."""
    lines = (_LABEL.sub("", line).strip(' \t*"“”') for line in said.splitlines())
    return next((line for line in lines if line.endswith(("?", "？")) and len(line) > 3), "")


def _is_long(text: str) -> bool:
    return len(text) * (3 if detect_language(text) == "zh" else 1) >= _SHORTEST
