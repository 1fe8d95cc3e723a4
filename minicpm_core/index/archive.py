"""Zip archives from anywhere: nothing is unpacked to the disk, and sizes are limited before anything is read."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

MAX_MEMBERS = 10_000
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
MAX_DOCUMENT_BYTES = 256 * 1024 * 1024  # inside one office document, which is held in memory whole
MAX_RATIO = 200
_SMALL = 16 * 1024 * 1024  # where the ratio does not matter yet


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name with forward slashes, and how to read it."""

    name: str
    info: zipfile.ZipInfo


class Archive:
    """A zip archive in memory, checked.

    Args:
        data: its bytes.
        most_bytes: of all members together, unpacked.

    Raises:
        ValueError: it is damaged or no zip, or over a limit on the number of its members, their sizes or the ratio of
            the unpacked to the packed size; the message continues a file's name.
    """

    def __init__(self, data: bytes, most_bytes: int = MAX_TOTAL_BYTES) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise ValueError(f"is damaged or not a zip archive ({error}); open it and save it again") from None
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise ValueError(f"has {len(infos):,} members; accepted are up to {MAX_MEMBERS:,}, divide it")
        total = sum(info.file_size for info in infos)
        if total > most_bytes:
            raise ValueError(
                f"unpacks to {total / 2**20:,.0f} MB; accepted are up to {most_bytes / 2**20:,.0f} MB, divide it"
            )
        if total > max(_SMALL, MAX_RATIO * len(data)):
            raise ValueError(
                f"unpacks to {total / max(len(data), 1):,.0f} times its size, as archives do that are made to fill the "
                f"memory; accepted are up to {MAX_RATIO} times"
            )

    def members(self) -> Iterator[Member]:
        """Yield the files, without folders, links and what systems add for themselves."""
        for info in self._zip.infolist():
            name = _name(info)
            parts = PurePosixPath(name).parts
            hidden = any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in parts)
            if not name.endswith("/") and not stat.S_ISLNK(info.external_attr >> 16) and not hidden:
                yield Member(name, info)

    def read(self, member: Member, most_bytes: int) -> bytes:
        """Return a member's contents.

        Raises:
            ValueError: its name leads out of the archive, or it is too large, damaged or encrypted.
        """
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
            raise ValueError("has a name that leads out of the archive; it is not read")
        if member.info.flag_bits & 1:
            raise ValueError("is protected by a password; pack it without one")
        if member.info.file_size > most_bytes:
            size = member.info.file_size / 2**20
            raise ValueError(f"has {size:,.0f} MB; accepted are files up to {most_bytes / 2**20:,.0f} MB, split it")
        try:
            with self._zip.open(member.info) as file:
                return file.read(member.info.file_size)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"is damaged inside the archive ({error}); pack it again") from None

    def read_named(self, name: str) -> bytes:
        """Return the contents of the member of that exact name (ValueError: there is none)."""
        try:
            return self.read(Member(name, self._zip.getinfo(name)), MAX_DOCUMENT_BYTES)
        except KeyError:
            raise ValueError(f"is damaged: it has no part {name}; open it and save it again") from None


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member; older Windows wrote Chinese names in GBK without saying so."""
    name = info.filename
    if not info.flag_bits & 0x800:
        try:
            raw = name.encode("cp437")
        except UnicodeEncodeError:
            raw = b""
        for encoding in ("utf-8", "gb18030"):
            try:
                name = raw.decode(encoding) or name
                break
            except UnicodeDecodeError:
                continue
    return name.replace("\\", "/")
