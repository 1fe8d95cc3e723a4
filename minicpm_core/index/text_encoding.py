"""Turns the bytes of a text file into text, in whatever usual encoding it was saved."""

from __future__ import annotations

import codecs
import re
import unicodedata

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FIRST_CANDIDATES = ("gb18030", "big5", "cp932", "cp1252")
_MORE_CANDIDATES = ("cp949", "euc_jp", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256")
ACCEPTED_ENCODINGS = "UTF-8, UTF-16, UTF-32, GB18030 (GBK, GB2312), Big5, Shift-JIS, EUC-KR or Windows-1252 (Latin-1)"
_SAMPLE_BYTES = 64 * 1024
_HANGUL_ONLY = 12


def decode(data: bytes, declared: str | None = None) -> str:
    """Return `data` as text, every line end as a single newline character.

    Tried in this order: a byte order mark, the encoding that the file declares, UTF-16 without a mark, UTF-8, and then
    the legacy encodings, judged by the text that they would give.

    Args:
        data: the bytes of the file.
        declared: the encoding named inside the file (HTML's meta element), if any.

    Raises:
        ValueError: the bytes are not text, or in none of the accepted encodings.
    """
    text = _decode(data, declared).replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if text and _control_share(text) > 0.01:
        raise ValueError("is not text (it holds control characters); convert it to text in UTF-8")
    return text


def _decode(data: bytes, declared: str | None) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strict(data, encoding)
    if declared and (as_declared := _declared(data, declared)) is not None:
        return as_declared
    if b"\x00" in data[:_SAMPLE_BYTES]:
        return _utf16_without_mark(data)
    if (utf8 := _try(data, "utf-8")) is not None:
        return utf8
    legacy = _korean(data) or _legacy(data)
    if legacy is None:
        raise ValueError(f"is not text in an encoding that is read ({ACCEPTED_ENCODINGS}); save it as UTF-8")
    return data.decode(legacy, errors="replace" if legacy == "cp1252" else "strict")


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"starts like {encoding.upper()} but is damaged at byte {error.start}; save it again"
        ) from None


def _declared(data: bytes, declared: str) -> str | None:
    name = declared.strip().lower()
    # Browsers read these labels as the wider encodings (WHATWG Encoding Standard, section 4.2).
    wider = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252", "latin1": "cp1252", "shift_jis": "cp932"}
    return None if name.startswith(("utf-16", "utf16")) else _try(data, wider.get(name, name))


def _utf16_without_mark(data: bytes) -> str:
    texts = [text for encoding in ("utf-16-le", "utf-16-be") if (text := _try(data, encoding)) is not None]
    best = max(texts, key=_plausible_share, default="")
    if _plausible_share(best) < 0.95:
        raise ValueError(f"is not text (it holds zero bytes); accepted are text files in {ACCEPTED_ENCODINGS}")
    return best


def _plausible_share(text: str) -> float:
    """Return the share of characters from the blocks that most text is written in."""
    plausible = re.findall(
        "[\t\n\r\x20-\x7e\u00a0-\u024f\u0370-\u04ff\u2010-\u2030\u20ac\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7af\uff00-\uffef]",
        text,
    )
    return len(plausible) / max(len(text), 1)


def _control_share(text: str) -> float:
    sample = text[:_SAMPLE_BYTES]
    controls = sum(unicodedata.category(c) == "Cc" and c not in "\t\n\f\x1a" for c in sample)
    return controls / len(sample)


def _korean(data: bytes) -> str | None:
    """Recognise EUC-KR: its bytes are common characters in GB2312 too, but Chinese never keeps to those alone."""
    text = _try(data, "cp949")
    if text is None:
        return None
    hangul = len(re.findall("[\uac00-\ud7af]", text))
    return "cp949" if hangul >= _HANGUL_ONLY and not re.search("[\u3400-\u9fff\u3040-\u30ff]", text) else None


def _legacy(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    sample = data if len(data) <= _SAMPLE_BYTES else data[: data.rfind(b"\n", 0, _SAMPLE_BYTES) + 1] or data
    for candidates in (_FIRST_CANDIDATES, _MORE_CANDIDATES):
        best = from_bytes(sample, cp_isolation=list(candidates)).best()
        if best is not None and (best.encoding == "cp1252" or _try(data, best.encoding) is not None):
            return best.encoding
    return None
