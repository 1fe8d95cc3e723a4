"""What disks, SQLite and Chroma say when an index cannot be read or written, in clear words and typed."""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from minicpm_core.errors import IndexDamagedError, IndexLockedError, IndexStorageError

P = ParamSpec("P")
T = TypeVar("T")

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a file is larger than this process may write",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EIO: "the disk fails",
}
_LEAST_FREE = 16 * 2**20
"""Bytes below which a failed write of Chroma, which does not tell why, is taken for a full disk."""
_CODES = {5: "locked", 6: "locked", 8: "readonly", 10: "io", 11: "damaged", 13: "full", 14: "unopened", 26: "damaged"}
"""SQLite's result codes, as Chroma names them."""
_MOVED = 1032
_WORDS = {
    "is locked": "locked",
    "readonly database": "readonly",
    "disk i/o error": "io",
    "malformed": "damaged",
    "not a database": "damaged",
    "is full": "full",
    "unable to open": "unopened",
}


@contextmanager
def explained(place: str | Path) -> Iterator[None]:
    """Raise faults of the index in `place` in clear words: `IndexStorageError`, `...DamagedError`, `...LockedError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if (told := explain(error, Path(place))) is None:
            raise
        raise told from error
    except Exception as error:
        if not _is_chromas(error) or (told := explain(error, Path(place))) is None:
            raise
        raise told from error


def explaining(call: Callable[P, T]) -> Callable[P, T]:
    """Make a function, whose first argument has a `directory` or that is given a `persist_directory`, do the same."""

    @functools.wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with explained(_place(args, kwargs)):
            return call(*args, **kwargs)

    return run


def _place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
    own = getattr(args[0], "directory", None) if args else None
    second = args[1] if len(args) > 1 else None
    place = own or kwargs.get("persist_directory") or second
    return Path(place).expanduser() if isinstance(place, str | os.PathLike) else Path()


def explain(error: BaseException, directory: Path) -> Exception | None:
    """Return what to raise instead of an error of SQLite, Chroma or the disk; None where it is none of an index."""
    if isinstance(error, IndexStorageError | IndexDamagedError | IndexLockedError):
        return None
    reason = " ".join(str(error).split())[:200]
    if isinstance(error, OSError):
        return _storage(directory, error.errno, reason) if _is_inside(error, directory) else None
    if isinstance(error, sqlite3.ProgrammingError) and "closed database" in reason:
        return RuntimeError(f"the index in {directory} is closed; open it again")
    kind = _find_kind(error, reason)
    if kind == "locked":
        return IndexLockedError(
            f"the index in {directory} is locked by another program ({reason}); end that one, or wait, and try again"
        )
    if kind == "damaged":
        return damaged(directory, reason)
    if kind == "moved":
        return IndexStorageError(
            errno.ESTALE,
            f"files of the index in {directory} were deleted or replaced while this process has them open; "
            "close it and open it again",
        )
    if not directory.is_dir():
        return IndexStorageError(
            errno.ENOENT, f"the folder {directory} of the index is gone; index the documents again"
        )
    changed = "" if isinstance(error, sqlite3.Error) else "; or another program wrote to it: then open it again"
    return _storage(directory, probe(directory), reason) or damaged(directory, reason + changed)


def damaged(directory: Path, reason: str) -> IndexDamagedError:
    """Return the error of an index that is damaged."""
    return IndexDamagedError(
        f"the index in {directory} is damaged ({reason}); `minicpm doctor --index {directory}` tells more, and "
        "mends it with --repair"
    )


def probe(directory: Path) -> int | None:
    """Return the errno of writing to the folder now, ENOSPC also where hardly anything is free; None where it works."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0" * 2**16)
            file.flush()
        return errno.ENOSPC if shutil.disk_usage(directory).free < _LEAST_FREE else None
    except OSError as error:
        return error.errno


def _storage(directory: Path, number: int | None, reason: str) -> IndexStorageError | None:
    if number not in _STORAGE:
        return None
    what = _STORAGE[number]
    help_ = {errno.EROFS: _COPY, errno.EACCES: _COPY, errno.EPERM: _COPY}.get(number, _FREE)
    return IndexStorageError(number, f"the index in {directory} cannot be written: {what} ({reason}); {help_}")


_FREE = "make room, or use another folder, and index again: files that were finished are kept"
_COPY = (
    "Chroma writes to its files even to search; copy the index to a folder that can be written, or change the rights"
)


def _find_kind(error: BaseException, reason: str) -> str | None:
    if found := re.search(r"\(code: (\d+)\)", reason):
        return "moved" if int(found[1]) == _MOVED else _CODES.get(int(found[1]) & 0xFF)
    return next((kind for words, kind in _WORDS.items() if words in reason.lower()), None)


def _is_inside(error: OSError, directory: Path) -> bool:
    """Tell whether a file of the index is meant: those that are indexed are told in the report."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return not names or any(Path(name).is_relative_to(directory) for name in names)


def _is_chromas(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in ("chromadb", "chromadb_rust_bindings")
