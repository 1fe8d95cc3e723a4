"""Retrieval and answers on a fixed set in English and Chinese, against the tutorial's pipeline on the same documents.

Run it as `python -m benchmarks.rag`; `--document docs/rag.md` writes the tables between the marks of that file. The set
(`benchmarks/rag_set`) was written by hand before anything was measured with it: 26 documents, of which 12 answer
nothing and only lie near; questions that one of the others answers, in its words (`questions.jsonl`) and in other words
(`paraphrases.jsonl`); and questions that none does, most of them near misses. A passage is right where it stands in the
right file and contains the words that answer. The tutorial's pipeline is `similarity_search(k=5)` over pieces of 256
characters in Chroma, and a prompt with the pieces and the question. Same embeddings and same model everywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import rag_causes
from benchmarks.tables import Bar, describe_machine, fill_document, format_bars, format_table
from minicpm_app.evaluate_rag import Measured, answer_rows, describe_thresholds, measure, show
from minicpm_core.index import Index, build_index
from minicpm_core.rag import Passage, RagSettings, is_refusal
from minicpm_core.rag_calibration import calibrate
from minicpm_core.rag_evaluation import (
    Answered,
    AnswerFigures,
    Question,
    Retrieval,
    evaluate_answers,
    evaluate_search,
    read_questions,
)

SET = Path(__file__).resolve().parent / "rag_set"
TUTORIAL_CHARACTERS, TUTORIAL_K = 256, 5
LONGEST = 96
"""Tokens of an answer."""
TUTORIAL_PROMPT = "Answer the question from the context.\n\nContext:\n{context}\n\nQuestion: {question}"
TUTORIAL = "tutorial: 256 characters"
KINDS = ("hit@3 en", "hit@3 zh", "hit@3 en, other words", "hit@3 zh, other words")


class Tutorial:
    """The tutorial's pipeline: pieces of 256 characters in Chroma, searched by meaning."""

    def __init__(self, documents: Path, embedder: Any, folder: Path) -> None:
        from langchain_chroma import Chroma
        from langchain_core.documents import Document
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        splitter = RecursiveCharacterTextSplitter(chunk_size=TUTORIAL_CHARACTERS, chunk_overlap=0)
        read = [
            Document(file.read_text(encoding="utf-8"), metadata={"source": file.name})
            for file in sorted(documents.iterdir())
        ]
        self.store = Chroma.from_documents(splitter.split_documents(read), embedder, persist_directory=str(folder))

    def search(self, question: str, k: int) -> list[Passage]:
        """Return the nearest pieces."""
        found = self.store.similarity_search(question, k=k)
        return [Passage(str(d.id), d.page_content, str(d.metadata["source"])) for d in found]

    def ask(self, chat: Any, questions: Sequence[Question]) -> list[Answered]:
        """Return the model's answers over the nearest five."""
        answers = []
        for question in questions:
            began = time.perf_counter()
            passages = self.search(question.question, TUTORIAL_K)
            context = "\n\n".join(passage.text for passage in passages)
            said = str(chat.invoke(TUTORIAL_PROMPT.format(context=context, question=question.question)).text)
            answers.append(Answered(question, said, tuple(passages), time.perf_counter() - began))
        return answers


def run(
    model: str,
    embeddings: str,
    quantization: str = "auto",
    *,
    every: int = 1,
    reranked: bool = True,
    compared: bool = True,
) -> tuple[str, dict[str, Any]]:
    """Measure everything; return the report and the figures.

    Args:
        model: folder, hub id or "demo".
        quantization: see `load`.
        embeddings: of the index.
        every: 2 takes every second question of each kind, and so on.
        reranked: search with the model as a reranker too.
        compared: ask the tutorial's pipeline all questions too, and look for the causes of false refusals.
    """
    from langchain_minicpm import ChatMiniCPM
    from minicpm_core.devices import peak_memory

    plain = read_questions(SET / "questions.jsonl")
    questions = plain + read_questions(SET / "paraphrases.jsonl")
    kinds: dict[str, list[Question]] = {}
    for question in questions:
        kinds.setdefault(kind_of(question, plain), []).append(question)
    questions = [question for some in kinds.values() for question in some[::every]] if every > 1 else questions
    began = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        build_index(SET / "documents", persist_directory=Path(folder) / "index", embeddings=embeddings)
        with Index.open(Path(folder) / "index") as index:
            chat = ChatMiniCPM(model=model, quantization=quantization, temperature=0.0, max_tokens=LONGEST)
            device = chat.load_engine().model.device
            found = measure(index, chat, questions, reranked=reranked, on_step=_step())
            tutorial = Tutorial(SET / "documents", index.embedder, Path(folder) / "tutorial")
            searches = found.searches | {TUTORIAL: evaluate_search(tutorial.search, questions)}
            theirs = evaluate_answers(tutorial.ask(chat, questions), RagSettings()) if compared else None
            reach = [(q, index.search(q.question)) for q in questions]
            causes = rag_causes.explain(chat, index, questions, plain) if compared else ""
            name, passages = index.embeddings_name, index.count()
    total = {"wall": time.perf_counter() - began[0], "cpu": time.process_time() - began[1]}
    answerable = [question for question in questions if question.source is not None]
    peak = peak_memory(device) or 0
    machine = "; ".join(f"{name} {value}" for name, value in describe_machine().items())
    texts = [
        f"`python -m benchmarks.rag`: {len(answerable)} questions that one of 26 documents answers, "
        f"{sum(q not in plain for q in answerable)} of them in other words than the document's, "
        f"{len(questions) - len(answerable)} that none does; {passages} passages; model {model}, embeddings {name}.",
        format_table(
            ("search", "hit@1", "hit@3", "hit@10", "MRR", *KINDS, "characters in 3", "ms each"),
            [_search_row(way, figures, answerable, plain) for way, figures in searches.items()],
        ),
        format_table(*_answer_table(found, theirs)),
        format_table(*refusals_by_kind(found, plain)),
        " ".join(describe_thresholds(found)),
        explain(searches, answerable, plain, reach) if every == 1 else "",
        causes,
        format_bars(list_bars(found)),
        f"{total['wall']:.0f} s, of which {total['cpu']:.0f} s of CPU time; peak memory of the process "
        f"{peak / 2**20:,.0f} MiB. {machine}.",
    ]
    figures = {way: asdict(one) for way, one in searches.items()}
    answers = found.columns | ({"tutorial": theirs} if theirs else {})
    return "\n\n".join(text for text in texts if text), {
        "search": figures,
        "answers": {way: asdict(one) for way, one in answers.items()},
        "threshold": asdict(found.threshold) if found.threshold else None,
        "asking": asdict(found.asking) if found.asking else None,
        "seconds": total,
    }


def list_bars(found: Measured) -> list[Bar]:
    """Return what the figures have to be."""
    halves = max(found.searches[way].hit(3) for way in ("dense", "lexical"))
    figures = found.columns
    shares = {
        head: (one.refused[0] / max(one.refused[1], 1), one.false_refusals[0] / max(one.false_refusals[1], 1))
        for head, one in figures.items()
        if head != "with threshold"
    }
    return [
        Bar("hit@3 of hybrid above the better half, questions", round(
            (found.searches["hybrid"].hit(3) - halves) * len(found.searches["hybrid"].ranks)), 1),
        *(Bar(f"refusals right, {head}", right, 0.85) for head, (right, _) in shares.items()),
        *(Bar(f"false refusals, {head}", false, 0.05, at_most=True) for head, (_, false) in shares.items()),
        Bar("citations of passages that were not given", figures["as it is"].not_given, 0, at_most=True),
    ]  # fmt: skip


def refusals_by_kind(found: Measured, plain: Sequence[Question]) -> tuple[list[str], list[list[Any]]]:
    """Return the table of what is refused: a row for each way of refusing, a column for each kind of question."""
    ways = {"as it is": found.answers, "with threshold": found.calibrated, "asked first": found.asked}
    counts: dict[str, dict[str, int]] = {}
    sizes = Counter(kind_of(question, plain) for question in found.questions)
    for way, answers in ways.items():
        if answers:
            refused = [given.question for given in answers if is_refusal(given.answer, found.settings)]
            counts[way] = Counter(kind_of(question, plain) for question in refused)
    kinds = sorted(sizes)
    return (
        ["refused", *(f"of {sizes[kind]} {kind}" for kind in kinds)],
        [[way, *(count[kind] for kind in kinds)] for way, count in counts.items()],
    )


def kind_of(question: Question, plain: Sequence[Question]) -> str:
    """Return the kind of a question: whether it must be refused, its language, and whose words it uses."""
    if question.source is None:
        return f"that must be, {question.language}{', near misses' if question.near else ''}"
    return f"answered, {question.language}{'' if question in plain else ', other words'}"


def explain(
    searches: dict[str, Retrieval],
    answerable: Sequence[Question],
    plain: Sequence[Question],
    reach: Sequence[tuple[Question, Sequence[Passage]]],
) -> str:
    """Return the measurements that tell where figures come from: what either half finds, and the threshold's reach."""
    dense, lexical = (searches[way].ranks for way in ("dense", "lexical"))
    either = sum(min(d or 99, w or 99) <= 3 for d, w in zip(dense, lexical, strict=True))
    other = {
        way: Retrieval(other_half(figures.ranks, answerable, plain), 0.0, 0.0) for way, figures in searches.items()
    }
    lines = [
        "On every second question of each kind, which the weights of the fusion were not chosen on, hit@3 (MRR) is "
        + ", ".join(f"{way} {other[way].hit(3):.3f} ({other[way].mrr:.3f})" for way in ("dense", "lexical", "hybrid"))
        + ".",
        "One of the two halves has the right passage among its first three for "
        f"{show((either, len(answerable)))} of the questions; no fusion finds much more.",
    ]
    for language in ("en", "zh"):
        some = [(q, passages) for q, passages in reach if q.language == language]
        for near in (True, False):
            kind = "near misses" if near else "unrelated questions"
            threshold = calibrate([(q, p) for q, p in some if q.source is not None or q.near is near])
            told = show(threshold.refused) if threshold else "none"
            lines.append(f"Score alone, calibrated on {kind} in {language}: refuses {told}.")
    return "\n".join(f"* {line}" for line in lines)


def other_half(
    ranks: Sequence[int | None], answerable: Sequence[Question], plain: Sequence[Question]
) -> tuple[int | None, ...]:
    """Return the ranks of every second question of each kind: language, and in the document's words or in others."""
    kinds: dict[tuple[str, bool], list[int | None]] = {}
    for rank, question in zip(ranks, answerable, strict=True):
        kinds.setdefault((question.language, question in plain), []).append(rank)
    return tuple(rank for found in kinds.values() for rank in found[1::2])


def _search_row(way: str, figures: Retrieval, answerable: Sequence[Question], plain: Sequence[Question]) -> list[Any]:
    def hit(language: str, own: bool) -> float:
        pairs = zip(figures.ranks, answerable, strict=True)
        ranks = [rank for rank, q in pairs if q.language == language and (q in plain) is own]
        return Retrieval(tuple(ranks), 0.0, 0.0).hit(3)

    hits = [f"{figures.hit(k):.3f}" for k in (1, 3, 10)]
    each = 1000 * figures.seconds / len(figures.ranks)
    share = [f"{hit(language, own):.3f}" for own in (True, False) for language in ("en", "zh")]
    return [way, *hits, f"{figures.mrr:.3f}", *share, round(figures.characters), round(each)]


def _answer_table(found: Measured, theirs: AnswerFigures | None) -> tuple[list[str], list[list[Any]]]:
    head, *rows = answer_rows(found)
    rows = [[*row, *["-"] * (len(head) - len(row))] for row in rows]
    if theirs is None:
        return head, rows
    shown = {
        "right answers": show(theirs.right),
        "refusals right": show(theirs.refused),
        "of these, near misses": show(theirs.refused_near),
        "false refusals": show(theirs.false_refusals),
        "seconds each": f"{theirs.seconds / max(len(found.questions), 1):.2f}",
    }
    return [*head, "tutorial"], [[*row, shown.get(row[0], "-")] for row in rows]


def _step() -> Any:
    from tqdm import tqdm

    return tqdm(disable=not sys.stderr.isatty(), leave=False).update


def main() -> None:
    """Measure, print the report, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help='folder, hub id or "demo"')
    parser.add_argument("--embeddings", default="demo", help='sentence-transformers folder or hub id, or "demo"')
    parser.add_argument("--quantization", default="auto", choices=("int4", "int8", "none", "auto"))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth question of each kind only")
    parser.add_argument("--no-rerank", action="store_true", help="leave out the reranker, which takes longest")
    parser.add_argument(
        "--no-comparison", action="store_true", help="leave out the tutorial's answers and the causes of refusals"
    )
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the report there, between its marks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    parts = {"reranked": not options.no_rerank, "compared": not options.no_comparison}
    report, figures = run(options.model, options.embeddings, options.quantization, every=options.every, **parts)
    print(report)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.document:
        fill_document(options.document, report, f"benchmarks.rag {Path(options.model).name}")


if __name__ == "__main__":
    main()
