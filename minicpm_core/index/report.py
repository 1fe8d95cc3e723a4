"""What a run of `build_index` did."""

from __future__ import annotations

from dataclasses import dataclass

from minicpm_core.index.discovery import FailedFile
from minicpm_core.index.readers import ACCEPTED_TYPES


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
