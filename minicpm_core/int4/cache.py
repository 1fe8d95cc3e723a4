"""The cache of quantised weights: one file per checkpoint and way of loading it, found by content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from minicpm_core.files import read_header, read_metadata

logger = logging.getLogger(__name__)

VARIABLE = "MINICPM_CACHE"
_OFF = ("off", "0", "none", "false")
_SETTLED = 2.0
"""Seconds; a file that was changed so recently can change again without a new time stamp."""
_ABANDONED = 24 * 3600.0
_MARGIN = 2**30
"""Bytes of the disk that are left to others."""


@dataclass(frozen=True)
class Entry:
    """One file in the cache."""

    file: Path
    model: str
    size: int


def cache_folder() -> Path | None:
    """Return the folder that $MINICPM_CACHE names, ~/.cache/minicpm by default; None where it is switched off."""
    named = os.environ.get(VARIABLE, "").strip()
    if named.lower() in _OFF:
        return None
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "minicpm"
    except RuntimeError:  # no home
        return None


def entries() -> list[Entry]:
    """Return what is in the cache, the largest first."""
    found = []
    for file in _files("*.safetensors"):
        try:
            found.append(Entry(file, read_metadata(file).get("model", "?"), file.stat().st_size))
        except (OSError, ValueError):
            found.append(Entry(file, "damaged", file.stat().st_size if file.is_file() else 0))
    return sorted(found, key=lambda entry: -entry.size)


def clear() -> int:
    """Empty the cache; return the bytes that were freed. Models that are in use keep working."""
    freed = 0
    for pattern in ("*.safetensors", ".*.tmp", "*.digest"):
        for file in _files(pattern):
            size = file.stat().st_size
            file.unlink(missing_ok=True)
            freed += size
    return freed


def _files(pattern: str) -> Iterator[Path]:
    folder = cache_folder()
    yield from sorted((folder / "int4").glob(pattern)) if folder else ()


class Slot:
    """The place of one checkpoint, loaded in one way, in the cache.

    What is stored is found by the SHA-256 of the weight files. Because that takes seconds per gigabyte, it is computed
    once and remembered beside a file's path, size, inode and times of change (as git does); a copy elsewhere, or a file
    that was touched, is read again and found all the same.

    Args:
        folder: of the cache.
        files: the weight files.
        way: what else the stored tensors depend on, as text.
    """

    def __init__(self, folder: Path, files: tuple[Path, ...], way: Mapping[str, str]) -> None:
        self._folder, self._files = folder / "int4", files
        described = [json.dumps(way, sort_keys=True)]
        for file in files:
            described.append(f"{file.stat().st_size}")
            if file.suffix == ".safetensors":
                described.append(json.dumps(read_header(file), sort_keys=True))
        self._fingerprint = _hash("\n".join(described))
        self._name_later: Future[str] | None = None
        self._abandoned = threading.Event()

    def find(self) -> Path | None:
        """Return the stored file, None where there is none; weights are hashed only where one may be there."""
        try:
            if not any(self._folder.glob(f"{self._fingerprint}-*.safetensors")):
                return None
            file = self._folder / self._name()
            return file if file.is_file() else None
        except OSError:
            return None

    def start(self, size: int) -> Path | None:
        """Return a new temporary file's name for `size` bytes; None, with a warning, where there is no room.

        The weight files' digests are computed in a thread meanwhile. Temporary files that a crash left are removed.
        """
        import shutil

        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for old in self._folder.glob(".*.tmp"):
                if abs(time.time() - old.stat().st_mtime) > _ABANDONED:  # clocks may have been wrong
                    old.unlink(missing_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            logger.warning("the int4 copy is not kept: %s", error)
            return None
        if free < size + _MARGIN:
            logger.warning(
                "the int4 copy (%.1f GB) is not kept: %s has %.1f GB free; point $%s to another disk, or set it to off",
                *(size / 1e9, self._folder, free / 1e9, VARIABLE),
            )
            return None
        pool = ThreadPoolExecutor(1)
        self._name_later = pool.submit(self._name)
        pool.shutdown(wait=False)
        return self._folder / f".{self._fingerprint}.{os.getpid()}.{time.monotonic_ns()}.tmp"

    def abandon(self) -> None:
        """Stop computing digests: there will be no copy, and the program may be about to end."""
        self._abandoned.set()

    def finish(self, temporary: Path) -> None:
        """Put a written temporary file into its place, at once for all who look."""
        name = self._name_later.result() if self._name_later else self._name()
        temporary.replace(self._folder / name)

    def _name(self) -> str:
        digests = [self._digest(file) for file in self._files]
        return f"{self._fingerprint}-{_hash(' '.join(digests))}.safetensors"

    def _digest(self, file: Path) -> str:
        """Return the SHA-256 of a file, from memory where the file has not changed since."""
        real = file.resolve()
        stat = real.stat()
        state = f"{real} {stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        note = self._folder / f"{_hash(state)}.digest"
        if note.is_file() and len(known := note.read_text()) == 64:
            return known
        digest = _read_digest(real, self._abandoned)
        if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED and real.stat() == stat:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = note.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(digest)
            temporary.replace(note)
        return digest


def _read_digest(file: Path, abandoned: threading.Event) -> str:
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(2**18))  # one that stays in the cache
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(chunk):
            digest.update(chunk[:count])
            if abandoned.is_set():
                raise InterruptedError(f"{file} was not read to its end")
    return digest.hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
