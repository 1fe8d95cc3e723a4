"""Small pictures of pages, as records of a Chroma server and as files of the machines that copy them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minicpm_core.index.catalog import StoredChunk
from minicpm_core.index.pages import THUMBNAILS

_ID = re.compile(r"[0-9a-f]{64}")


def write_thumbnails(directory: Path, pages: Sequence[StoredChunk]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and the metadata of a record for each page; Chroma makes its list of words of no metadata.

    Args:
        directory: the folder of the index, or of this machine's copy.
        pages: whose small pictures are there.
    """
    for page in pages:
        data = (directory / page.metadata["thumbnail"]).read_bytes()
        record = {"kind": "thumbnail", "path": page.metadata["path"], "id": page.id}
        yield f"thumbnail-{page.id}", record | {"jpeg": base64.b64encode(data).decode()}


def read_thumbnails(directory: Path, pages: Sequence[StoredChunk], records: Iterable[Mapping[str, Any]]) -> None:
    """Write the small pictures of pages to the folder.

    Args:
        directory: see `write_thumbnails`.
        pages: as the server has them.
        records: of their small pictures.

    Raises:
        ValueError: what the server has was not made by `write_thumbnails`, such as the name of another file.
    """
    for page in pages:
        if directory / str(page.metadata.get("thumbnail")) != (place := _file(directory, page.id)):
            raise ValueError(
                f"a page of {page.metadata.get('source')} has its small picture in {page.metadata.get('thumbnail')!r}, "
                f"not in {THUMBNAILS}/{place.name}: the server's records were changed by another program; index again"
            )
    (directory / THUMBNAILS).mkdir(exist_ok=True)
    for record in records:
        _file(directory, str(record["id"])).write_bytes(base64.b64decode(record["jpeg"], validate=True))


def forget_thumbnails(directory: Path, ids: Iterable[str]) -> None:
    """Delete the small pictures of pages; those that are gone already are gone."""
    for key in ids:
        _file(directory, key).unlink(missing_ok=True)


def _file(directory: Path, key: str) -> Path:
    if not _ID.fullmatch(key):
        raise ValueError(f"a page of the index is named {key!r}; SHA-256 in hexadecimal digits is needed")
    return directory / THUMBNAILS / f"{key}.jpg"
