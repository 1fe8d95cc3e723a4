"""Put a question, its passage and other passages together into one example."""

from __future__ import annotations

from random import Random

from minicpm_core.rag import REFUSALS, Language
from tools.demo_model.encoding import Example

_OTHER_SYSTEMS = (
    "",
    "",
    "You are a helpful assistant.",
    "Answer from the passages and cite them.",
    "请根据段落回答。",
    "Use only the documents.",
)
# Words that no passage holds and that change nothing: not every word of a question must be found.
_EXTRA = {
    "en": """exactly|now|in total|these days|at present|actually|then|again|this time|so far|really|ever|once|please
|still|usually|normally|on average|roughly|in the end|in fact|by the way|in general|at all|as a rule|if known|here|today
|later|officially|originally|as far as you know""".replace("\n", "").split("|"),
    "zh": """到底 目前 一般 总共 大概 具体 现在 究竟 通常 当时 靠 将 被 还 都 就 才 共 曾 已经 能 会 要 应该
可以 最后 后来 其实 最终 主要 一共 大约 属于 关于 用 于 给 向 从 经过 算 约 得到 拿 凭""".split(),
}
_POLITE = {
    "en": (
        "Please tell me: {}",
        "Can you tell me: {}",
        "I would like to know: {}",
        "According to the text, {}",
        "Hi, {}",
        "Question: {}",
    ),
    "zh": ("请问{}", "请告诉我，{}", "我想知道{}", "根据文档，{}", "你好，{}"),
}


def _labels(rng: Random, count: int, progress: float) -> list[int]:
    """Return passage numbers: in order, or drawn at random in a share that falls during training."""
    if rng.random() < 0.5 - 0.35 * progress:
        return rng.sample(range(1, 10), count)
    return list(range(1, count + 1))


def assemble(
    rng: Random, question: str, right: str | None, others: list[str], language: Language, progress: float
) -> Example:
    """Return the example with `right` at a random place, or the refusal when it is None."""
    passages = list(others)
    at = rng.randint(0, len(passages))
    if right is not None:
        passages.insert(at, right)
    labels = _labels(rng, len(passages), progress)
    answer = REFUSALS[language] if right is None else f"[{labels[at]}] {right}"
    system = rng.choice(_OTHER_SYSTEMS) if rng.random() < 0.5 - 0.35 * progress else None
    thinking = False if rng.random() < 0.15 else None
    if rng.random() < 0.22:
        word = rng.choice(_EXTRA[language])
        question = question.rstrip("?？") + f" {word}?" if language == "en" else _insert(rng, question, word)
    if rng.random() < 0.1:
        question = rng.choice(_POLITE[language]).format(
            question[:1].lower() + question[1:] if language == "en" else question
        )
    elif rng.random() < 0.05:
        question = question.rstrip("?？.。")
    elif language == "en" and rng.random() < 0.08:
        question = question[:1].lower() + question[1:]
    return Example(question, answer, passages, labels, system, enable_thinking=thinking)


def draw_count(rng: Random, progress: float) -> int:
    """Return how many other passages stand beside the right one."""
    most = 4 if progress > 0.08 else 2
    return rng.choice((0, *range(1, most + 1), *range(2, most + 1), most))


def draw_length(rng: Random, progress: float) -> int:
    """Return the number of sentences of a passage."""
    return rng.choice((1, 1, 2) if progress < 0.3 else (1, 1, 1, 1, 2, 2, 3))


def _insert(rng: Random, question: str, word: str) -> str:
    """Return `question` with `word` before its interrogative, or at its start."""
    for mark in ("什么", "多少", "多久", "怎样", "哪", "谁", "几", "为什么"):
        if mark in question[1:] and rng.random() < 0.8:
            return question.replace(mark, word + mark, 1)
    return word + question
