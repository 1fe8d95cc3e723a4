"""From --docs, --index and --embeddings to an index that is up to date."""

from __future__ import annotations

import hashlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_app.cli import UsageError

if TYPE_CHECKING:
    from minicpm_core.index import IndexReport, Progress


def cache_folder() -> Path:
    """Return the folder for indexes made on the fly: $MINICPM_CACHE, or minicpm in the user's cache folder."""
    own = os.environ.get("MINICPM_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minicpm"


def prepare_index(options: Namespace) -> Any:
    """Return the LangChain index that the options name, indexing --docs first; UsageError without either."""
    from langchain_minicpm import load_index
    from minicpm_core.index import recorded_embeddings

    if not options.docs and not options.index and not options.chroma_url:
        raise UsageError("give the documents with --docs PATH..., or an index with --index DIR or --chroma-url URL")
    wanted = options.embeddings or ("demo" if options.model == "demo" else None)
    place = locate_index(options, lambda: _folder_for(options.docs, wanted))
    if options.docs:
        new = recorded_embeddings(**place) is None
        looks = page_options(options)
        warn_of_failures(update_index(options.docs, wanted if new else options.embeddings, **place, **looks))
    elif given := page_options(options):
        raise UsageError(f"{name_options(given)} says how documents are indexed; give them with --docs")
    return load_index(**place, embeddings=options.embeddings)


def locate_index(options: Namespace, default: Callable[[], Path] | None = None) -> dict[str, Any]:
    """Return the arguments of `build_index` and `load_index` that say where the index is.

    Raises:
        UsageError: nothing says where, and there is no default.
    """
    if options.chroma_url:
        return {"persist_directory": options.index, "chroma_url": options.chroma_url}
    if not options.index and default is None:
        raise UsageError("say where the index is to be kept, with --index DIR or --chroma-url URL")
    return {"persist_directory": options.index or (default() if default else None)}


def page_options(options: Namespace) -> dict[str, Any]:
    """Return those of --pages, --page-embeddings and --page-model that are given."""
    names = ("pages", "page_embeddings", "page_model")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def name_options(names: Iterable[str]) -> str:
    """Return options as they are written on the command line."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def update_index(paths: Sequence[str], embeddings: str | None, **options: Any) -> IndexReport:
    """Index `paths`, with a progress bar on a terminal; `options` are further arguments of `build_index`."""
    from minicpm_core.index import build_index

    with progress_bar() as on_progress:
        return build_index(paths, embeddings=embeddings, on_progress=on_progress, **options)


def warn_of_failures(report: IndexReport) -> None:
    """Name the files that could not be read, one line each."""
    for failed in report.failed:
        sys.stderr.write(f"not indexed: {failed.source}: {failed.reason}\n")
    for source in report.skipped:
        sys.stderr.write(f"skipped: {source}: not a kind of file that can be indexed\n")
    for note in report.notes:
        sys.stderr.write(f"note: {note}\n")


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that draws a bar on a terminal, with the rate and the remaining time; nothing elsewhere."""
    from tqdm import tqdm

    layout = "{desc}: {n_fmt}/{total_fmt} files {bar} {elapsed}{postfix}"
    with tqdm(desc="indexing", disable=not sys.stderr.isatty(), leave=False, bar_format=layout) as bar:

        def show(progress: Progress) -> None:
            bar.total = progress.total
            bar.set_postfix_str(describe_progress(progress), refresh=False)
            bar.update(progress.done - bar.n)
            bar.refresh()

        yield show


def describe_progress(progress: Progress) -> str:
    """Return such as "12.5 passages/s, 3:20 left, lease.pdf", or "page 3 of 12, scan.pdf" while pages are looked at."""
    parts = [f"{progress.rate:.1f} passages/s"] if progress.chunks else []
    if progress.pages:
        parts.append(f"page {progress.page} of {progress.pages}")
    if progress.remaining is not None:
        minutes, seconds = divmod(round(progress.remaining), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left")
    return ", ".join([*parts, progress.source] if progress.source else parts)


def _folder_for(docs: Sequence[str], embeddings: str | None) -> Path:
    key = "\n".join([*sorted(str(Path(path).resolve()) for path in docs), embeddings or ""])
    return cache_folder() / "indexes" / hashlib.sha256(key.encode()).hexdigest()[:16]
