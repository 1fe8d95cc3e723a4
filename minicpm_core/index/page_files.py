"""Files whose pages are looked at: a picture, a PDF, or an archive that may hold both beside texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from minicpm_core.index.archive import Archive, Member
from minicpm_core.index.outline import Page
from minicpm_core.index.pages import Look, can_be_looked_at, find_looks, render_page
from minicpm_core.index.readers import MAX_FILE_BYTES, is_archive, read_member

if TYPE_CHECKING:
    from PIL.Image import Image


def may_hold_pages(path: str | Path) -> bool:
    """Tell whether the name is that of a picture, a PDF or an archive."""
    return can_be_looked_at(path) or is_archive(path)


class PageFile:
    """The contents of a file that `may_hold_pages`.

    Args:
        data: its bytes.
        suffix: of its name.

    Raises:
        ValueError: it is a damaged archive.
    """

    def __init__(self, data: bytes, suffix: str) -> None:
        self._data, self._suffix = data, suffix
        self._members: dict[str, Member] = {}
        self._opened: tuple[str | None, bytes] = None, data
        if is_archive(f"a{suffix}"):
            self._archive = Archive(data)
            members = sorted(self._archive.members(), key=lambda member: member.name)
            self._members = {member.name: member for member in members}
            if not self._members:
                raise ValueError("is an archive without files")

    def find(self, mode: str) -> tuple[list[Page], list[Look], list[tuple[str, str]]]:
        """Return pages that are read by their text, those to look at, and (name, reason) of members that are neither.

        Args:
            mode: `RagSettings.pages`.

        Raises:
            ValueError: a file that is no archive is damaged.
        """
        if not self._members:
            return *find_looks(self._data, self._suffix, mode), []
        pages: list[Page] = []
        looks: list[Look] = []
        failed: list[tuple[str, str]] = []
        for name, member in self._members.items():
            try:
                if can_be_looked_at(name):
                    texts, found = find_looks(self._open(name), PurePosixPath(name).suffix, mode)
                    looks += [replace(look, part=len(looks) + n, member=name) for n, look in enumerate(found)]
                else:
                    texts = read_member(self._archive, member)
            except (ValueError, ImportError) as error:
                failed.append((name, str(error)))
                continue
            pages += [replace(page, member=name) for page in texts]
        return pages, looks, failed

    def read(self, member: str | None) -> bytes:
        """Return the contents of a member, or of the file itself.

        Raises:
            ValueError: there is no such member, or it is damaged.
        """
        if member is not None and member not in self._members:
            raise ValueError(f"{member} is not in the archive")
        return self._data if member is None else self._open(member)

    def render(self, look: Look) -> Image:
        """Return a page as an upright RGB picture (ValueError: it cannot be rendered, or its member is gone)."""
        suffix = self._suffix if look.member is None else PurePosixPath(look.member).suffix
        return render_page(self.read(look.member), suffix, look)

    def _open(self, name: str) -> bytes:
        """Return the contents of a member; the last one's are kept, which has more pages."""
        if self._opened[0] != name:
            self._opened = name, self._archive.read(self._members[name], MAX_FILE_BYTES)
        return self._opened[1]
