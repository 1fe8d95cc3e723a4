"""`minicpm evaluate-rag`: how well an index is searched, and how well questions over it are answered."""

from __future__ import annotations

import json
import math
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from minicpm_app.ask import make_chat_model, print_line
from minicpm_app.cli import UsageError

if TYPE_CHECKING:
    from minicpm_core.index import Index
    from minicpm_core.index.reranking import Reranker
    from minicpm_core.rag import Passage, RagSettings
    from minicpm_core.rag_calibration import AskedFirst, Threshold
    from minicpm_core.rag_evaluation import Answered, AnswerFigures, Question, Retrieval

COUNT = 20
"""Questions that are written where none are given."""
Step = Callable[[], Any]
Judge = Callable[[str, "Sequence[Passage]"], float]
"""Returns the odds that passages answer a question."""


@dataclass(frozen=True)
class Measured:
    """All figures, by column, and the thresholds that go with them.

    Args:
        answers: as the pipeline gives them.
        calibrated: the same with `threshold`, as calibrated on questions other than the measured.
        asked: the same with `asking`.
    """

    questions: Sequence[Question]
    searches: dict[str, Retrieval]
    answers: Sequence[Answered]
    settings: RagSettings
    calibrated: Sequence[Answered] | None = None
    threshold: Threshold | None = None
    asked: Sequence[Answered] | None = None
    asking: AskedFirst | None = None

    @property
    def columns(self) -> dict[str, AnswerFigures]:
        """The figures of the answers, by the head of their column."""
        from minicpm_core.rag_evaluation import evaluate_answers

        given = {"as it is": self.answers, "with threshold": self.calibrated, "asked first": self.asked}
        return {head: evaluate_answers(answers, self.settings) for head, answers in given.items() if answers}


def run(options: Namespace) -> int:
    """Measure and print."""
    from tqdm import tqdm

    from minicpm_app.rag_questions import UNRELATED, write_questions
    from minicpm_core.devices import peak_memory
    from minicpm_core.index import Index
    from minicpm_core.rag_evaluation import Question, read_questions

    if options.count is not None and options.count < 1:
        raise UsageError(f"--count {options.count}: accepted are numbers from 1 on")
    if options.count is not None and options.questions:
        raise UsageError("--count says how many questions the model writes; leave it out with --questions")
    if not options.index and not options.chroma_url:
        raise UsageError("say which index is measured: its folder, or --chroma-url URL")
    questions = read_questions(options.questions) if options.questions else []
    began = time.perf_counter()
    unusable = 0
    place = {"persist_directory": options.index, "chroma_url": options.chroma_url}
    with Index.open(embeddings=options.embeddings, **place) as index, tqdm(disable=None, leave=False) as bar:
        check_sources(questions, index.sources(), options.questions)
        chat = make_chat_model(options)
        engine = chat.load_engine()
        if not questions:
            bar.set_description("questions")
            written = write_questions(
                index, lambda prompt: str(chat.invoke(prompt).text), options.count or COUNT, on_step=bar.update
            )
            if not written.questions:
                raise ValueError(
                    f"{chat.model} wrote no question about {written.unusable} passages; give some with --questions "
                    "FILE, or take a larger model"
                )
            questions, unusable = [*written.questions, *map(Question, UNRELATED)], written.unusable
        found = measure(index, chat, questions, reranked=not options.no_rerank, on_step=bar.update)
        peak = peak_memory(engine.model.device) if hasattr(engine.model, "device") else None
    seconds = time.perf_counter() - began
    if options.json:
        document = write_json(found) | {"unusable": unusable, "peak_bytes": peak, "seconds": round(seconds, 1)}
        print_line(json.dumps(document, ensure_ascii=False))
        return 0
    for line in write_report(found, unusable):
        print_line(line)
    memory = f"{peak / 2**20:,.0f} MiB" if peak else "unknown"
    print_line(f"\n{seconds:.0f} s in all; peak memory of this process: {memory}")
    return 0


def check_sources(questions: Sequence[Question], sources: Sequence[str], file: str | None) -> None:
    """Refuse questions about files that the index does not hold.

    Raises:
        ValueError: one is not there; the message names it.
    """
    missing = sorted({q.source for q in questions if q.source is not None} - set(sources))
    if missing:
        some = ", ".join(sources[:5]) + (f" and {len(sources) - 5} more" if len(sources) > 5 else "")
        raise ValueError(f"{file} names {', '.join(missing)}, which the index does not hold; it holds {some}")


def measure(
    index: Index, chat: Any, questions: Sequence[Question], *, reranked: bool = True, on_step: Step = lambda: None
) -> Measured:
    """Search in all ways and answer.

    Args:
        index: of the documents.
        chat: a `ChatMiniCPM`; reranks too.
        questions: of both kinds; without unanswerable ones there is no threshold.
        reranked: search with the reranker too, which takes the model 20 passages a question.
        on_step: is called after each search and answer; a model that is loaded here answers twice, the second time
            without being told to refuse.
    """
    from langchain_minicpm import create_rag_chain
    from minicpm_core.index.reranking import resolve_reranker
    from minicpm_core.rag_calibration import calibrate, calibrate_asking, cross_calibrate

    searches = compare_searches(index, resolve_reranker(chat) if reranked else None, questions, on_step)
    settings: RagSettings = index.settings
    answers = ask_all(create_rag_chain(chat, index), questions, on_step)
    found = Measured(questions, searches, answers, settings)
    kinds = [given.question.source is None for given in answers]
    if min(sum(kinds), len(kinds) - sum(kinds)) < 2:
        return found
    found = replace(
        found,
        threshold=calibrate([(given.question, given.passages) for given in answers]),
        calibrated=cross_calibrate(answers, settings),
    )
    if not chat.takes_grammar:
        return found
    never = replace(settings, min_answerability={"en": -math.inf, "zh": -math.inf})
    chain, judge = create_rag_chain(chat, index, settings=never), make_judge(chat, never)
    asked = ask_all(chain, questions, on_step, judge)
    return replace(found, asking=calibrate_asking(asked), asked=cross_calibrate(asked, settings, asking=True))


def make_judge(chat: Any, settings: RagSettings) -> Judge:
    """Return what tells the odds of a model that is loaded here that passages answer a question."""
    from minicpm_core.answerability import answerability
    from minicpm_core.page_prompt import show_pages
    from minicpm_core.rag import build_messages

    engine = chat.load_engine()

    def judge(question: str, passages: Sequence[Passage]) -> float:
        pictures = show_pages(passages, sees=engine.family.vision is not None, name=chat.model)
        texts = [passage.text for passage in passages]
        messages = build_messages(question, texts, **settings.prompts, pictures=pictures)
        return answerability(engine, question, messages, settings)

    return judge


def compare_searches(
    index: Index, reranker: Reranker | None, questions: Sequence[Question], on_step: Step = lambda: None
) -> dict[str, Retrieval]:
    """Return the figures of each way of searching, by its name; without a reranker those of the first three."""
    from minicpm_core.rag_evaluation import evaluate_search

    ways: dict[str, Any] = {way: partial(index.search, ways=way) for way in ("dense", "lexical", "hybrid")}
    if reranker is not None:
        ways["hybrid+rerank"] = partial(index.search, reranker=reranker)

    def stepping(search: Any, question: str, k: int) -> Any:
        found = search(question, k)
        on_step()
        return found

    return {way: evaluate_search(partial(stepping, search), questions) for way, search in ways.items()}


def ask_all(
    chain: Any, questions: Sequence[Question], on_step: Step = lambda: None, judge: Judge | None = None
) -> list[Answered]:
    """Return the chain's answers, and what `judge` says of the passages."""
    from langchain_minicpm.retrievers import to_passage
    from minicpm_core.rag_evaluation import Answered

    answers = []
    for question in questions:
        began = time.perf_counter()
        result = chain.invoke({"question": question.question})
        passages = tuple(to_passage(document) for document in result["context"])
        seconds = time.perf_counter() - began
        odds = None if judge is None else judge(question.question, passages) if passages else -math.inf
        answers.append(Answered(question, result["answer"], passages, seconds, odds))
        on_step()
    return answers


def write_json(found: Measured) -> dict[str, Any]:
    """Return the figures for JSON: shares from 0 to 1, pairs as [so many, of so many], times in seconds."""
    answerable = sum(question.source is not None for question in found.questions)
    columns = found.columns
    return {
        "answerable": answerable,
        "unanswerable": len(found.questions) - answerable,
        "search": {
            way: {f"hit@{k}": _number(figures.hit(k)) for k in (1, 3, 10)}
            | {"mrr": _number(figures.mrr), "seconds": round(figures.seconds, 3)}
            for way, figures in found.searches.items()
        },
        "answers": asdict(columns["as it is"]),
        "calibrated": _as_dict(columns.get("with threshold")),
        "threshold": _as_dict(found.threshold),
        "asked": _as_dict(columns.get("asked first")),
        "asking": _as_dict(found.asking),
    }


def write_report(found: Measured, unusable: int = 0) -> list[str]:
    """Return the lines of the tables and what one has to know to read them."""
    answerable = sum(question.source is not None for question in found.questions)
    said = f"{answerable} questions that the documents answer, {len(found.questions) - answerable} that they do not"
    if unusable:
        said += f"; the model wrote no usable question for {unusable} more"
    table = [["search", "hit@1", "hit@3", "hit@10", "MRR", "ms each"]]
    for way, r in found.searches.items():
        each = 1000 * r.seconds / max(len(r.ranks), 1)
        table.append([way, *(f"{r.hit(k):.3f}" for k in (1, 3, 10)), f"{r.mrr:.3f}", f"{each:.0f}"])
    lines = [said, "", *lay_out(table), "", *lay_out(answer_rows(found)), ""]
    return lines + describe_thresholds(found)


def answer_rows(found: Measured) -> list[list[str]]:
    """Return the table of the answers, one column for each way of refusing."""
    columns = found.columns
    names = {
        "right": "right answers",
        "citation_precision": "citations that name a right passage",
        "not_given": "citations of passages not given",
        "quotes_verified": "quotes that stand in their passage",
        "verbatim": "sentences that stand in their passage",
        "refused": "refusals right",
        "refused_near": "of these, near misses",
        "false_refusals": "false refusals",
    }
    rows = [["answers", *columns]]
    rows += [[name, *(show(getattr(one, field)) for one in columns.values())] for field, name in names.items()]
    return [*rows, ["seconds each", f"{columns['as it is'].seconds / max(len(found.questions), 1):.2f}"]]


def describe_thresholds(found: Measured) -> list[str]:
    """Return what the calibrated thresholds are and do."""
    threshold, asking = found.threshold, found.asking
    if threshold is None:
        lines = ["threshold: none refuses a question without refusing more than 5 % of those that can be answered"]
    else:
        lines = [
            f"threshold on all questions: min_similarity={threshold.min_similarity:g}, "
            f"min_coverage={threshold.min_coverage:g} refuses {show(threshold.refused)} before the model is asked, "
            f"{show(threshold.false_refusals)} falsely;"
        ]
    if asking is not None:
        lines.append(
            f"asked first on all questions: min_answerability={dict(asking.min_answerability)} refuses "
            f"{show(asking.refused)}, {show(asking.false_refusals)} falsely;"
        )
    return [*lines, "the columns above calibrate on one half of the questions and measure the other."]


def show(value: tuple[int, int] | int) -> str:
    """Return such as "41 of 48 (85 %)"."""
    if isinstance(value, int):
        return str(value)
    return f"{value[0]} of {value[1]}" + (f" ({100 * value[0] / value[1]:.1f} %)" if value[1] else "")


def lay_out(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows if n < len(row)) for n in range(max(map(len, rows)))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=False))])
        for row in rows
    ]


def _as_dict(value: Any) -> dict[str, Any] | None:
    return asdict(value) if value else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
