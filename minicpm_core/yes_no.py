"""A loaded chat model as a reranker: how much likelier "yes" is than "no" as its first word. No further memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minicpm_core.generation import generate_chunks
from minicpm_core.rag import Language, detect_language
from minicpm_core.types import Chunk, Prompt

if TYPE_CHECKING:
    from minicpm_core.engine import Engine

YES_NO_PROMPTS: Mapping[Language, str] = {
    "en": (
        "Does the passage contain the answer to the question? Reply with yes or no only.\n\n"
        "Question: {query}\n\nPassage: {document}"
    ),
    "zh": "段落里有没有问题的答案？只回答“是”或“否”。\n\n问题：{query}\n\n段落：{document}",
}
_WORDS: Mapping[Language, tuple[Sequence[str], Sequence[str]]] = {
    "en": (("yes", "Yes", "YES"), ("no", "No", "NO")),
    "zh": (("是", "有"), ("否", "不", "没", "无")),
}


def first_logits(engine: Engine, messages: Prompt, **options: Any) -> Any:
    """Return the logits of an answer's first token, [vocabulary], float32 on the CPU.

    Args:
        engine: a loaded model; what it has read of the prompt is reused and kept, as for answers.
        messages: chat messages, or a string that is completed as it stands.
        **options: see `Engine.prepare`, which also tells the errors.
    """
    request = engine.prepare(messages, **options)
    row = _FirstRow()

    def run(cancelled: threading.Event) -> Iterator[Chunk]:
        return generate_chunks(
            engine.model,
            list(request.prompt_ids),
            request.pictures,
            row,  # type: ignore[arg-type]
            cancelled,
            engine._prefixes,
            prefill_chunk=engine._memory.prefill_chunk,
        )

    for _ in engine._worker.stream(run):
        pass
    return row.logits


def yes_no_odds(engine: Engine, messages: Prompt, language: Language) -> float:
    """Return log(p(yes) / p(no)) of the first token of an answer in a language.

    Raises:
        ValueError: the tokenizer begins yes and no with the same token, or the prompt is too long.
    """
    import torch

    yes, no = _begin_tokens(engine, language)
    options = {"enable_thinking": False} if engine.family.thinking else {}
    logits = first_logits(engine, messages, **options)
    return float(torch.logsumexp(logits[yes], 0) - torch.logsumexp(logits[no], 0))


def _begin_tokens(engine: Engine, language: Language) -> tuple[list[int], list[int]]:
    """Return the tokens that begin "yes" and those that begin "no", without what both begin with."""
    bare = engine.tokenize(" ")

    def begin(text: str) -> int:
        ids = engine.tokenize(text)
        return ids[len(bare)] if ids[: len(bare)] == bare and len(ids) > len(bare) else ids[0]

    yes, no = ({begin(text) for word in words for text in (word, f" {word}")} for words in _WORDS[language])
    if not yes - no or not no - yes:
        raise ValueError(
            f"the tokenizer of {engine.checkpoint.name} begins yes and no with the same token, so that they "
            "cannot be told apart; take another model"
        )
    return sorted(yes - no), sorted(no - yes)


class _FirstRow:
    """Stands in for `answers.Answer`: takes the first row of logits and ends."""

    def __init__(self) -> None:
        self.logits: Any = None
        self.cached_tokens = self.left = 0

    @property
    def ended(self) -> bool:
        return self.logits is not None

    def begin(self) -> list[int]:
        return []

    def choose(self, logits: Any) -> tuple[list[int], tuple[()]]:
        self.logits = logits.float().cpu().clone()
        return [], ()

    def read(self, tokens: Sequence[int], logprobs: Any = ()) -> Iterator[Chunk]:
        return iter(())

    def last(self) -> Chunk:
        return Chunk()


class YesNoReranker:
    """Scores passages with a chat model that is loaded already.

    Args:
        engine: the model.
        prompts: what it is asked per language of the question ("en", "zh"), with {query} and {document}. The question
            comes first, so that what the model has read of it serves for all passages.
    """

    def __init__(self, engine: Engine, prompts: Mapping[Language, str] = YES_NO_PROMPTS) -> None:
        self.engine = engine
        self._prompts = prompts
        for language in _WORDS:
            _begin_tokens(engine, language)

    def score(self, query: str, documents: Sequence[str], *, normalize: bool = False) -> list[float]:
        """Return one score per document, in order: log(p(yes) / p(no)), higher is better.

        Args:
            query: the question.
            documents: texts; long ones are cut to the context window.
            normalize: squash the scores to 0 to 1: the share of yes in yes and no.
        """
        language = detect_language(query)
        odds = [yes_no_odds(self.engine, self._fit(language, query, text), language) for text in documents]
        return [1 / (1 + math.exp(-min(max(one, -700.0), 700.0))) for one in odds] if normalize else odds

    def _fit(self, language: Language, query: str, document: str) -> list[dict[str, str]]:
        """Return the messages, with as much of the document as the context window holds."""
        while True:
            content = self._prompts[language].format(query=query.strip(), document=" ".join(document.split()))
            messages = [{"role": "user", "content": content}]
            over = self.engine.count_tokens(messages) + 8 - self.engine.context_window
            if over <= 0 or len(document) < 2:
                return messages
            document = document[: max(1, min(len(document) - over, int(len(document) * 0.9)))]
