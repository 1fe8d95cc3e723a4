"""From dropped files to files of a collection, with the state of each while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minicpm_app.web.drawing import FileState
from minicpm_app.web.library import Collection, Library
from minicpm_app.web.texts import say
from minicpm_core.rag import Language

if TYPE_CHECKING:
    from minicpm_core.index import Progress

_PATIENCE = 0.25


async def add_files(
    library: Library, collection: Collection, files: Sequence[Path], language: Language
) -> AsyncIterator[list[FileState]]:
    """Add files to a collection one after another; yield the states of all of its files while they change.

    A file that is not accepted or cannot be read says why and does not stop the others.
    """
    states = {name: FileState(name) for name in collection.file_names()}
    states |= {file.name: FileState(file.name, "waiting") for file in files}
    for file in files:
        state = states[file.name]
        state.state = "reading"
        yield list(states.values())
        if reason := library.check(collection, file, language):
            state.state, state.note = "failed", reason
            continue

        def show(progress: Progress, state: FileState = state) -> None:
            if progress.chunks:
                state.note = say(language, "embedding", chunks=progress.chunks)
            state.share = max(state.share, min(1.0, progress.done / max(progress.total, 1)))

        work = asyncio.create_task(asyncio.to_thread(library.add, collection, file, show))
        while not work.done():
            await asyncio.wait({work}, timeout=_PATIENCE)
            yield list(states.values())
        error = work.exception()
        if error is None:
            state.state, state.note = "ready", ""
        else:
            state.state, state.note = "failed", " ".join(str(error).split()) or type(error).__name__
    yield list(states.values())


def list_files(collection: Collection | None) -> list[FileState]:
    """Return the files of a collection, all of them ready."""
    return [FileState(name) for name in collection.file_names()] if collection else []
