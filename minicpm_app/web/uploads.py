"""From dropped files to files of a collection, with the state of each while it goes on."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_app.web.collection import Collection, Ended
from minicpm_app.web.drawing import FileState
from minicpm_app.web.library import Library
from minicpm_core.rag import Language

if TYPE_CHECKING:
    from minicpm_core.index import Progress


@dataclass(frozen=True)
class _Job:
    file: Path
    language: Language


class Uploads:
    """Files on their way into collections; safe to use from several threads.

    They go on when the tab that dropped them is closed, and after a restart. Those of a collection are added one after
    another; one that is not accepted or cannot be read says why and does not stop the others.

    Args:
        library: whose collections they go into. Files that it was closed over are taken up at once.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._jobs: dict[str, deque[_Job]] = {}
        self._states: dict[str, dict[str, FileState]] = {}
        for collection in library.collections():
            if left := sorted(collection.incoming.glob("*/*")):
                self._begin(collection, left, "en")

    def put(self, collection: Collection, files: Sequence[Path], language: Language) -> None:
        """Take files over, which moves them, and begin to add them; `language` is that of the reasons."""
        place = collection.incoming / secrets.token_hex(4)
        place.mkdir(parents=True)
        moved = {Path(shutil.move(file, place / file.name)): None for file in files}
        self._begin(collection, list(moved), language)

    def refuse(self, collection: Collection, names: Sequence[str], reason: str) -> None:
        """Tell of files that were not even sent why they were not added."""
        with self._lock:
            states = self._states.setdefault(collection.id, {})
            for name in names:
                if name not in states or states[name].state == "failed":
                    states[name] = FileState(name, "failed", reason)

    def is_busy(self, collection: Collection | None) -> bool:
        """Tell whether files are on their way into a collection."""
        with self._lock:
            return collection is not None and collection.id in self._jobs

    def files(self, collection: Collection | None) -> list[FileState]:
        """Return the files of a collection, with those on their way and those that were not added."""
        if collection is None:
            return []
        states = {name: FileState(name) for name in collection.file_names()}
        with self._lock:
            states |= {name: replace(state) for name, state in self._states.get(collection.id, {}).items()}
        return list(states.values())

    def remove(self, collection: Collection, name: str) -> None:
        """Forget that a file was not added; where it was, delete it."""
        with self._lock:
            state = self._states.get(collection.id, {}).get(name)
            if state is not None:
                if state.state not in ("partly", "failed"):
                    return
                del self._states[collection.id][name]
                if state.state == "failed":
                    return
        self._library.remove(collection, name)

    def _begin(self, collection: Collection, files: Sequence[Path], language: Language) -> None:
        with self._lock:
            states = self._states.setdefault(collection.id, {})
            states.update({file.name: FileState(file.name, "waiting") for file in files})
            idle = collection.id not in self._jobs
            self._jobs.setdefault(collection.id, deque()).extend(_Job(file, language) for file in files)
        if idle:
            threading.Thread(target=self._work, args=(collection,), name=f"upload {collection.id}").start()

    def _work(self, collection: Collection) -> None:
        while True:
            with self._lock:
                jobs = self._jobs[collection.id]
                if not jobs:
                    del self._jobs[collection.id]
                    return
                job = jobs.popleft()
                state = self._states[collection.id].setdefault(job.file.name, FileState(job.file.name))
                state.state = "reading"
            try:
                added, note = self._add(collection, job, state)
            except Ended:
                with self._lock:
                    del self._jobs[collection.id], self._states[collection.id]
                return
            job.file.unlink(missing_ok=True)
            with suppress(OSError):
                job.file.parent.rmdir()  # the last of those that were dropped together
            with self._lock:
                if added and not note:
                    del self._states[collection.id][job.file.name]
                else:
                    state.state, state.note = "partly" if added else "failed", note

    def _add(self, collection: Collection, job: _Job, state: FileState) -> tuple[bool, str]:
        """Return whether a file was added, and why it was not, or which parts of it were not."""

        def show(progress: Progress) -> None:
            state.passages, state.page, state.pages = progress.chunks, progress.page, progress.pages
            if progress.pages:
                state.share = (progress.page - 1) / progress.pages
                return
            if progress.chunks == 0:
                state.share = None  # behind the pages come the passages
            if progress.remaining is not None:
                share = progress.seconds / (progress.seconds + progress.remaining or 1.0)
                state.share = max(state.share or 0.0, share)

        try:
            if reason := self._library.check(collection, job.file, job.language):
                return False, reason
            return True, self._library.add(collection, job.file, job.language, show)
        except Ended:
            raise
        except Exception as error:
            return False, " ".join(str(error).split()) or type(error).__name__
