"""Finds the files to index in what was given, and names each of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from minicpm_core.index.pages import PICTURE_UNREAD, is_picture_file
from minicpm_core.index.readers import ACCEPTED_TYPES, is_readable_type


@dataclass(frozen=True)
class FailedFile:
    """A file that was asked for and could not be indexed; `reason` continues the sentence that starts with its name."""

    source: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What the given paths hold.

    Args:
        files: readable files by absolute path, with the number of trailing path parts that make the name.
        roots: the folders among the paths.
        skipped: files of other types inside the folders.
        failed: files given by name that are of another type.
        missing: absolute paths that do not exist.
    """

    files: Mapping[Path, int]
    roots: tuple[Path, ...]
    skipped: tuple[str, ...]
    failed: tuple[FailedFile, ...]
    missing: tuple[Path, ...] = ()

    def without_pictures(self) -> Found:
        """Return the same with pictures among the files that are not read."""
        files = {path: parts for path, parts in self.files.items() if not is_picture_file(path)}
        skipped, failed = list(self.skipped), list(self.failed)
        for path in self.files.keys() - files.keys():
            root = next((root for root in self.roots if path.is_relative_to(root)), None)
            if root is not None:
                skipped.append(path.relative_to(root).as_posix())
            else:
                failed.append(FailedFile(str(path), PICTURE_UNREAD))
        return replace(self, files=files, skipped=tuple(sorted(skipped)), failed=tuple(failed))


def find_files(paths: str | Path | Iterable[str | Path], *, ignore: Path) -> Found:
    """Return the files to index: those given and, sorted, those in folders, except hidden ones and the folder `ignore`.

    Raises:
        ValueError: no path is given, or an empty one.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise ValueError("no paths are given; name at least one file or folder to index")
    files: dict[Path, int] = {}
    roots: list[Path] = []
    skipped: list[str] = []
    failed: list[FailedFile] = []
    missing: list[Path] = []
    for item in given:
        if item == "":
            raise ValueError("'' is not a path; for the folder that you are in give '.'")
        path = Path(item).expanduser()
        resolved = path.resolve()
        if path.is_dir():
            roots.append(resolved)
            for file in _walk(resolved, ignore):
                depth = len(file.relative_to(resolved).parts)
                if is_readable_type(file) or is_picture_file(file):
                    files.setdefault(file.resolve(), min(depth, len(file.resolve().parts) - 1))
                else:
                    skipped.append(file.relative_to(resolved).as_posix())
        elif not path.exists():
            missing.append(resolved)
        elif not (is_readable_type(resolved) or is_picture_file(resolved)):
            reason = f"has the type {path.suffix or '(none)'!r}; accepted are {ACCEPTED_TYPES}"
            failed.append(FailedFile(str(item), reason))
        else:
            files.setdefault(resolved, 1)
    return Found(
        files,
        roots=tuple(dict.fromkeys(roots)),
        skipped=tuple(dict.fromkeys(skipped)),
        failed=tuple(failed),
        missing=tuple(dict.fromkeys(missing)),
    )


def _walk(root: Path, ignore: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or Path(real) == ignore:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.isfile(os.path.join(folder, name)):
                yield Path(folder, name)


def name_sources(files: Mapping[Path, int], taken: Mapping[str, str]) -> dict[Path, str]:
    """Return a name for every file: its path below the folder given, with folders above it where two would be alike.

    Args:
        files: trailing path parts of the plain name, by path.
        taken: names of stored files, and their paths; a stored file keeps its name.
    """
    stored = {path: source for source, path in taken.items()}
    names = {path: stored[str(path)] for path in files if str(path) in stored}
    lengths = {path: parts for path, parts in files.items() if path not in names}
    while True:
        plain = {path: "/".join(path.parts[-parts:]) for path, parts in lengths.items()}
        counts = Counter(plain.values())
        alike = {path for path, name in plain.items() if name in taken or counts[name] > 1}
        alike = {path for path in alike if lengths[path] < len(path.parts)}
        if not alike:
            return names | plain
        for path in alike:
            lengths[path] += 1
