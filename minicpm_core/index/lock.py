"""One writer at a time: a file lock of the operating system, which ends with the process that holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LOCK_NAME = "index.lock"
_LOCKED_BYTE = 4096  # where the system locks bytes and not files, one behind the text that others read


@contextmanager
def writer_lock(directory: Path) -> Iterator[None]:
    """Hold the right to write to the index in `directory`; readers are not asked.

    Raises:
        RuntimeError: another process, or another thread of this one, is writing to it.
    """

    def refuse(holder: str) -> str:
        return (
            f"the index in {directory} is being written by another run{holder}; wait until it has ended "
            "(searching is possible meanwhile), or use another folder"
        )

    with exclusive(directory / LOCK_NAME, refuse):
        yield


@contextmanager
def exclusive(path: Path, refuse: Callable[[str], str]) -> Iterator[None]:
    """Hold a lock file; it is made where it is missing, and stays.

    Args:
        path: of the file; its folder is there.
        refuse: returns the message of the error, from what tells the holder: " (process 123)", or "" if not known.

    Raises:
        RuntimeError: another process, or another thread of this one, holds it.
    """
    with open(path, "a+b", buffering=0) as file:
        if not _lock(file):
            raise RuntimeError(refuse(_holder(file)))
        try:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            yield
        finally:
            file.truncate(0)
            _unlock(file)


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    text = file.read(20)
    return f" (process {text.decode()})" if text.isdigit() else ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> bool:
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
