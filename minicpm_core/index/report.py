"""What a run of `build_index` did."""

from __future__ import annotations

from dataclasses import dataclass

from minicpm_core.index.discovery import FailedFile
from minicpm_core.index.readers import ACCEPTED_TYPES
from minicpm_core.rag import RagSettings


@dataclass(frozen=True)
class IndexReport:
    """What a run of `build_index` did, by the names under which files are stored.

    Args:
        skipped: files in the folders of a type that is not read.
        failed: files that could not be read, with the reason; of one indexed before, the earlier passages stay.
        chunks: passages now in the index.
        pages: pages now in the index as pictures.
        notes: sentences about what else was noticed: another way to cut passages, an index that had to be mended.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[FailedFile, ...]
    chunks: int
    seconds: float
    notes: tuple[str, ...] = ()
    pages: int = 0


def describe_nothing(report: IndexReport) -> str:
    """Return why nothing could be indexed."""
    reasons = [f"{failed.source} {failed.reason}" for failed in report.failed]
    reasons += [f"{source} is of a type that is not read" for source in report.skipped]
    told = "; ".join(reasons[:10]) or "the folders hold no files"
    more = f"; and {len(reasons) - 10} more" if len(reasons) > 10 else ""
    return f"nothing could be indexed (accepted are {ACCEPTED_TYPES}): {told}{more}"


def describe_recut(count: int, old: RagSettings | None, new: RagSettings) -> list[str]:
    """Return the sentence about unchanged files that were cut or indexed anew, if there are any.

    Args:
        count: of these files.
        old: the index's settings before the run.
        new: those of the run.
    """
    if not count:
        return []
    if old is not None and old.pages != new.pages:
        were = "files were" if count > 1 else "file was"
        return [f"pages is {new.pages!r}, and was {old.pages!r}: {count} unchanged {were} indexed anew"]
    files = f"{count} unchanged file{'s were' if count > 1 else ' was'} split anew: "
    if old is None or (old.chunk_size, old.chunk_overlap) == (new.chunk_size, new.chunk_overlap):
        return [files + "this version of the package cuts passages in another way than the one that made the index"]
    return [
        f"{files}chunk_size and chunk_overlap are {new.chunk_size} and {new.chunk_overlap} tokens, and were "
        f"{old.chunk_size} and {old.chunk_overlap}"
    ]
