"""RAG rules that both frameworks share: settings, prompts, citations and refusals."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

logger = logging.getLogger(__name__)

Language = Literal["en", "zh"]

SYSTEM_PROMPTS: Mapping[Language, str] = {
    "en": (
        "Answer the question only from the numbered passages. Cite the passage you used by its number, like [1]. "
        "If the passages do not contain the answer, reply exactly: The documents do not say."
    ),
    "zh": "只根据编号的段落回答问题。用编号注明所用的段落，例如 [1]。如果段落里没有答案，只回答：文档中没有提到。",
}
ANSWER_PROMPTS: Mapping[Language, str] = {
    "en": (
        "Answer the question in a sentence, only from the numbered passages. "
        "End it with the number of the passage that you used, like [1]."
    ),
    "zh": "只根据编号的段落，用完整的一句话回答问题，并在句末注明所用段落的编号，例如 [1]。",
}
"""The rule without a refusal; it asks for a sentence, since small models else answer with the number alone."""
REFUSALS: Mapping[Language, str] = {"en": "The documents do not say.", "zh": "文档中没有提到。"}
CHARS_PER_TOKEN: Mapping[Language, float] = {"en": 3.0, "zh": 1.0}
"""A cautious estimate for models whose tokenizer is not known."""
QUESTION_LABELS: Mapping[Language, str] = {"en": "Question: ", "zh": "问题："}

ANSWERABLE_PROMPTS: Mapping[Language, str] = {
    "en": "Do the passages contain the answer to this question? Reply with yes or no only.",
    "zh": "段落里有没有这个问题的答案？只回答“是”或“否”。",
}
CONDENSE_PROMPTS: Mapping[Language, str] = {
    "en": (
        "Rewrite the last question so that it can be understood without the conversation. "
        "Reply with the question only.\n\n{history}\n\nLast question: {question}"
    ),
    "zh": "把最后一个问题改写成不看对话也能理解的问题，只回答改写后的问题。\n\n{history}\n\n最后一个问题：{question}",
}

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_NUMBER = re.compile(r"(?<=\[)\d{1,3}(?=\])|(?<=【)\d{1,3}(?=】)")


@dataclass(frozen=True)
class RagSettings:
    """What the pipeline does between a file and an answer; stored with an index and used by both frameworks.

    Args:
        chunk_size: longest passage, in tokens of the embedding model's tokenizer.
        chunk_overlap: tokens repeated from the end of a passage at the start of the next one, whole sentences only.
        k: passages shown to the model.
        min_similarity: cosine similarity of the best passage below which the question is refused without asking the
            model, unless a passage contains at least `min_coverage` of the question's words. None asks always.
        min_coverage: share of the question's words, 0 to 1; see `min_similarity`.
        min_answerability: per language, log(p(yes) / p(no)) of the model, asked whether the passages contain the
            answer, below which the question is refused; above it the model is not told to refuse. `minicpm
            evaluate-rag` calibrates it for a model. A language that is not in it is not asked for. For models that are
            loaded here.
        follow_up: how a question that follows others is made searchable: "model" rewrites it with the model,
            "history" searches with the earlier question in front of it.
        pages: how scanned pages and pictures come into the index. "text": by their text; pages without a text layer are
            read by the vision model given as `page_model`. "image": pages of PDFs and pictures are embedded as
            pictures. "auto": by the text layer where there is one, else as pictures.
        quote_only: the answer consists of whole sentences of the passages, by a grammar, or is the refusal.
        system_prompts: the rule that the model answers by, per language of the question ("en", "zh").
        answer_prompts: the same where `min_answerability` decides what is refused.
        answerable_prompts: what `min_answerability` asks, below the prompt.
        condense_prompts: the prompt of `follow_up="model"`, with `{history}` and `{question}`.
        question_labels: what stands before the question in the prompt, per language.
        refusals: the sentence that says that the documents do not tell, per language.
    """

    chunk_size: int = 256
    chunk_overlap: int = 32
    k: int = 4
    min_similarity: float | None = None
    min_coverage: float = 0.5
    min_answerability: Mapping[Language, float] = field(default_factory=dict)
    follow_up: Literal["model", "history"] = "model"
    quote_only: bool = False
    pages: Literal["text", "image", "auto"] = "text"
    system_prompts: Mapping[Language, str] = field(default_factory=lambda: dict(SYSTEM_PROMPTS))
    answer_prompts: Mapping[Language, str] = field(default_factory=lambda: dict(ANSWER_PROMPTS))
    answerable_prompts: Mapping[Language, str] = field(default_factory=lambda: dict(ANSWERABLE_PROMPTS))
    condense_prompts: Mapping[Language, str] = field(default_factory=lambda: dict(CONDENSE_PROMPTS))
    question_labels: Mapping[Language, str] = field(default_factory=lambda: dict(QUESTION_LABELS))
    refusals: Mapping[Language, str] = field(default_factory=lambda: dict(REFUSALS))

    def __post_init__(self) -> None:
        if not 8 <= self.chunk_size <= 8192:
            raise ValueError(f"chunk_size is {self.chunk_size}; accepted are 8 to 8192 tokens")
        if not 0 <= self.chunk_overlap < self.chunk_size:
            raise ValueError(f"chunk_overlap is {self.chunk_overlap}; accepted are 0 to chunk_size - 1 tokens")
        if self.k < 1:
            raise ValueError(f"k is {self.k}; at least one passage is needed")
        if self.pages not in ("text", "image", "auto"):
            raise ValueError(f"pages is {self.pages!r}; accepted are 'text', 'image' and 'auto'")
        for language, least in self.min_answerability.items():
            if language not in ("en", "zh") or not isinstance(least, (int, float)) or math.isnan(least):
                raise ValueError(
                    f"min_answerability has {language!r}: {least!r}; accepted are numbers for 'en' and 'zh', such as "
                    "those that minicpm evaluate-rag prints"
                )
        if self.follow_up not in ("model", "history"):
            raise ValueError(f"follow_up is {self.follow_up!r}; accepted are 'model' and 'history'")

    @classmethod
    def demo(cls) -> RagSettings:
        """Return the settings for the demo checkpoint: short passages, and questions searched as they stand."""
        return cls(chunk_size=48, chunk_overlap=0, k=5, follow_up="history")

    @property
    def prompts(self) -> dict[str, Mapping[Language, str]]:
        """What `build_messages` takes of the settings."""
        asked = {language: self.answer_prompts[language] for language in self.min_answerability}
        return {"system_prompts": {**self.system_prompts, **asked}, "question_labels": self.question_labels}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RagSettings:
        """Return the settings that `to_dict` wrote; unknown names are a TypeError."""
        return cls(**values)


@dataclass(frozen=True)
class Passage:
    """A retrieved chunk: its text, the file it stands in, and how it was found.

    Args:
        score: fused rank score, higher is better; comparable within one result list only.
        similarity: cosine similarity of question and passage, or None when only the lexical search found it.
        coverage: share of the question's words that occur in the passage, 0 to 1.
    """

    id: str
    text: str
    source: str
    page: int | None = None
    score: float = 0.0
    similarity: float | None = None
    coverage: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def thumbnail(self) -> str | None:
        """The file of the small picture that the index keeps of a page that it stores as a picture; else None."""
        return self.metadata.get("thumbnail")


def detect_language(text: str) -> Language:
    """Return "zh" when the text holds Chinese characters, else "en"."""
    return "zh" if _CJK.search(text) else "en"


def write_line(text: str) -> str:
    """Return a text in one line and without marks of citations: a passage that holds [2] cannot pass for the second.

    What it holds becomes [ 2 ], which no rule takes for a citation, also where an answer repeats it.
    """
    return _NUMBER.sub(r" \g<0> ", " ".join(text.split()))


def build_messages(
    question: str,
    passages: Sequence[str],
    *,
    system_prompts: Mapping[Language, str] = SYSTEM_PROMPTS,
    question_labels: Mapping[Language, str] = QUESTION_LABELS,
    pictures: Mapping[int, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return the chat messages that ask `question` over the numbered `passages`, in the question's language.

    Args:
        question: stands last.
        passages: in the order of their numbers.
        system_prompts: the rule, per language.
        question_labels: what stands before the question, per language.
        pictures: parts of messages that are shown instead of the passages of these numbers.
    """
    language = detect_language(question)
    asked = f"{question_labels[language]}{question.strip()}"
    if pictures:
        parts: list[Mapping[str, Any]] = []
        for n, text in enumerate(passages, start=1):
            shown = n in pictures
            parts.append({"type": "text", "text": f"[{n}]" if shown else f"[{n}] {write_line(text)}"})
            parts += [pictures[n]] if shown else []
        system = {"role": "system", "content": system_prompts[language]}
        return [system, {"role": "user", "content": [*parts, {"type": "text", "text": asked}]}]
    numbered = "\n".join(f"[{n}] {write_line(text)}" for n, text in enumerate(passages, start=1))
    return [
        {"role": "system", "content": system_prompts[language]},
        {"role": "user", "content": f"{numbered}\n\n{asked}"},
    ]


def refuse_local_settings(settings: RagSettings, model: str, instead: str) -> None:
    """Refuse settings that need a model which is loaded here.

    Args:
        settings: of a pipeline whose model is not.
        model: which that is, for the message.
        instead: what is accepted.

    Raises:
        ValueError: one of them is set; the message names it.
    """
    if settings.quote_only:
        raise ValueError(f"quote_only decodes under a grammar, which {model} cannot; use {instead}")
    if settings.min_answerability:
        raise ValueError(f"min_answerability asks for odds of yes and no, which {model} does not tell; use {instead}")


def is_refusal(answer: str, settings: RagSettings) -> bool:
    """Tell whether `answer` says, in either language, that the documents do not tell."""
    text = answer.strip().rstrip(".。!！").casefold()
    return any(text == refusal.strip().rstrip(".。").casefold() for refusal in settings.refusals.values())


class RefusalLanguage:
    """Puts a refusal into the question's language: small models take that of the passages.

    Text that may become a refusal in another language is held back until that is known.
    """

    def __init__(self, question: str, settings: RagSettings) -> None:
        language = detect_language(question)
        self._settings = settings
        self._wanted = settings.refusals[language]
        self._others = [text.strip() for other, text in settings.refusals.items() if other != language]
        self._held: str | None = ""

    def push(self, text: str) -> str:
        """Return what can be shown."""
        if self._held is None:
            return text
        self._held += text
        start = self._held.strip()
        if any(other.startswith(start) for other in self._others):
            return ""
        shown, self._held = self._held, None
        return shown

    def flush(self) -> str:
        """Return what was held back, in the right language."""
        held, self._held = self._held or "", None
        return self._wanted if held.strip() and is_refusal(held, self._settings) else held


def is_out_of_scope(passages: Sequence[Passage], settings: RagSettings) -> bool:
    """Tell whether retrieval found nothing near the question, so that the model need not be asked.

    Pages that are pictures are always shown: their similarities are of another scale.
    """
    if not passages:
        return True
    if settings.min_similarity is None or any(passage.thumbnail for passage in passages):
        return False
    best = max((p.similarity for p in passages if p.similarity is not None), default=0.0)
    return best < settings.min_similarity and max(p.coverage for p in passages) < settings.min_coverage


def prompt_room(context_window: int, max_tokens: int | None) -> int:
    """Return the tokens that a prompt may have: all but the answer's, which are at most a quarter of the window."""
    longest = max_tokens or context_window
    return context_window - min(longest, context_window // 4)


def fit_passages(
    question: str,
    passages: Sequence[Passage],
    settings: RagSettings,
    *,
    room: int,
    count_tokens: Callable[[list[dict[str, Any]]], int],
    show: Callable[[Sequence[Passage]], Mapping[int, Mapping[str, Any]]] | None = None,
) -> list[Passage]:
    """Return the passages without the lowest-ranked ones that a prompt of `room` tokens cannot hold; one always stays.

    Args:
        question: as the model is asked it.
        passages: best first.
        settings: of the index.
        room: longest prompt, in tokens; see `prompt_room`.
        count_tokens: tells the length of a prompt's messages in tokens.
        show: returns the pictures of passages for `build_messages`; None where there are none.
    """
    kept = list(passages)

    def too_long() -> bool:
        texts = [passage.text for passage in kept]
        pictures = show(kept) if show else None
        messages = build_messages(question, texts, **settings.prompts, pictures=pictures)
        return count_tokens(messages) > room

    while len(kept) > 1 and too_long():
        kept.pop()
    if dropped := len(passages) - len(kept):
        logger.warning("%d of %d passages left out: a prompt has room for %d tokens", dropped, len(passages), room)
    return kept


def describe_dropped(passages: Sequence[Passage], kept: int) -> list[dict[str, Any]]:
    """Return the passages that `fit_passages` left out, best first: dicts of id, source and page, as answers report."""
    return [{"id": passage.id, "source": passage.source, "page": passage.page} for passage in passages[kept:]]
