"""Boxes and their texts drawn into a picture."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_core.images import read_image
from minicpm_core.ocr.boxes import TextBox

if TYPE_CHECKING:
    from PIL.Image import Image

_FILES = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.ttf",
    "NotoSansSC-Regular.otf",
    "NotoSansSC[wght].ttf",
    "SourceHanSansSC-Regular.otf",
    "SourceHanSansCN-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "STHeiti Medium.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "simhei.ttf",
    "simsun.ttc",
    "Deng.ttf",
    "DejaVuSans.ttf",
    "Arial.ttf",
    "arial.ttf",
)
"""Fonts with Chinese that Linux distributions, macOS and Windows have, the best first; at the end some without."""
_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
_INSTALL = "install one (Debian, Ubuntu: apt install fonts-noto-cjk), or give a file: font=..."


def draw_boxes(image: Any, boxes: Sequence[TextBox], *, font: str | Path | None = None) -> Image:
    """Return a copy of the picture with a frame around each text, and the text above it.

    Args:
        image: in any form that `read_text` accepts; drawn upright.
        boxes: in pixels of the upright picture.
        font: a TrueType or OpenType file; None finds one on this computer that has all the characters.

    Raises:
        ValueError: no font has all the characters of the texts, or `font` is not a font.
    """
    from PIL import ImageDraw

    picture = read_image(image)
    draw = ImageDraw.Draw(picture)
    size = max(12, min(picture.size) // 45)
    letters = load_font(frozenset("".join(box.text for box in boxes)), size, font)
    width = max(1, size // 8)
    for number, box in enumerate(boxes):
        color = _COLORS[number % len(_COLORS)]
        right, bottom = max(box.right - 1, box.left), max(box.bottom - 1, box.top)  # of the last pixels inside
        draw.rectangle((box.left, box.top, right, bottom), outline=color, width=width)
        label = " ".join(box.text.split())
        begin, over, end, under = draw.textbbox((0, 0), label, font=letters)
        above = box.top - under - width
        x = max(0, min(box.left, picture.width - end))
        y = max(0, min(above if above >= 0 else box.bottom, picture.height - under))
        draw.rectangle((x + begin, y + over - 1, x + end, y + under), fill="white")
        draw.text((x, y), label, fill=color, font=letters)
    return picture


def load_font(characters: frozenset[str], size: int, file: str | Path | None = None) -> Any:
    """Return a font of Pillow that has these characters.

    Args:
        characters: what will be written.
        size: in pixels.
        file: the font to use; None takes Pillow's own, or else one of this computer.

    Raises:
        ValueError: see `draw_boxes`.
    """
    from PIL import ImageFont

    wanted = frozenset(character for character in characters if not character.isspace())
    if file is not None:
        try:
            given = ImageFont.truetype(str(file), size)
        except OSError as error:
            raise ValueError(
                f"font {str(file)!r} cannot be used ({error}); give a TrueType or OpenType file"
            ) from error
        if missing := _find_missing(given, wanted):
            raise ValueError(f"font {str(file)!r} lacks {_show(missing)}; give one that has them")
        return given
    own = ImageFont.load_default(size)
    missing = _find_missing(own, wanted)
    if not missing:
        return own
    found = find_fonts()
    for path in found:
        font = ImageFont.truetype(path, size)
        missing = _find_missing(font, wanted)
        if not missing:
            return font
    tried = f"none of {len(found) + 1} fonts has" if found else "the font at hand lacks"
    raise ValueError(f"{tried} {_show(missing)}; {_INSTALL}")


@lru_cache(maxsize=1)
def find_fonts() -> tuple[str, ...]:
    """Return fonts of this computer: those of well-known names, then those with Chinese that fontconfig lists."""
    known: dict[str, str] = {}
    for folder in _font_folders():
        for parent, _, files in os.walk(folder):
            known |= {name: os.path.join(parent, name) for name in files if name in _FILES and name not in known}
    paths = [known[name] for name in _FILES if name in known]
    try:
        command = ["fc-list", ":lang=zh", "--format", "%{file}\\n"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        listed = ""
    paths += sorted({path for path in listed.splitlines() if path.lower().endswith((".ttf", ".ttc", ".otf"))})
    return tuple(dict.fromkeys(paths))


def _font_folders() -> list[str]:
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        windows = os.environ.get("WINDIR", r"C:\Windows")
        return [os.path.join(windows, "Fonts"), os.path.join(home, r"AppData\Local\Microsoft\Windows\Fonts")]
    if sys.platform == "darwin":
        return ["/System/Library/Fonts", "/Library/Fonts", os.path.join(home, "Library/Fonts")]
    return ["/usr/share/fonts", "/usr/local/share/fonts", os.path.join(home, ".local/share/fonts")]


def _find_missing(font: Any, characters: frozenset[str]) -> list[str]:
    """Return the characters for which a font draws what it draws for one that does not exist."""

    def drawn(character: str) -> tuple[Any, bytes]:
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    nothing = drawn("\uffff")
    return sorted(character for character in characters if drawn(character) == nothing)


def _show(characters: Sequence[str]) -> str:
    more = f" and {len(characters) - 10} more" if len(characters) > 10 else ""
    return f"the characters {' '.join(characters[:10])}{more}"
