"""Where in the prompt each token of a call or of a told result comes from: targets for the copying heads' attention."""

from __future__ import annotations

from collections.abc import Sequence

Pointers = dict[int, list[int]]


def _matches(run: Sequence[int], source: Sequence[int], start: int, end: int) -> list[int]:
    """Return the places of `run` in `source[start:end]`."""
    size = len(run)
    return [at for at in range(start, end - size + 1) if list(source[at : at + size]) == list(run)]


def _point(found: Pointers, first: int, run: Sequence[int], source: Sequence[int], start: int, end: int) -> None:
    """Let the tokens `run`, of which the first stands at `first`, point to their places in `source[start:end]`.

    The token behind them points to what follows there, so that a copying head always moves on by one.
    """
    for at in _matches(run, source, start, end) if run else ():
        for n in range(len(run) + 1):
            found.setdefault(first + n, []).append(at + n)


def point_call(
    ids: Sequence[int],
    alike: Sequence[int],
    marks: dict[str, int],
    begin: int,
    lines: Sequence[tuple[int, int]],
    question: tuple[int, int],
) -> Pointers:
    """Return the sources of the calls that start at `begin`.

    Args:
        ids: tokens of prompt and answer.
        alike: per token of `ids` its word without space and case.
        marks: token ids of the function tag, the parameter tag, the quotation mark, ">", "[", "]" and ",".
        begin: where the answer starts.
        lines: first and last token (exclusive) of each tool.
        question: first and last token (exclusive) of the request.
    """
    found: Pointers = {}
    line = (0, 0)
    at, valued = begin, False
    while at < len(ids):
        if ids[at] in (marks["<function"], marks["<param"]) and at + 4 < len(ids):
            end = next(n for n in range(at + 4, len(ids)) if ids[n] == marks['"'])
            run = ids[at + 4 : end]
            if ids[at] == marks["<function"]:
                line = next((one for one in lines if list(ids[one[0] + 1 : one[0] + 1 + len(run)]) == list(run)), line)
                _point(found, at + 4, run, ids, line[0] + 1, line[0] + 1 + len(run))
            else:  # a key stands twice in its line, in the properties and as required: the first is meant
                places = [n for n in _matches(run, ids, line[0], line[1]) if ids[n - 1] >= marks["schema"]]
                if places:
                    _point(found, at + 4, run, ids, places[0], places[0] + len(run))
            at, valued = end, ids[at] == marks["<param"]
        elif valued and ids[at] == marks[">"] and ids[at - 1] == marks['"']:
            end = next((n for n in range(at + 1, len(ids)) if ids[n] == marks["</param>"]), at + 1)
            _point_value(found, ids, alike, marks, (at + 1, end), question, line)
            at, valued = end, False
        else:
            at += 1
    return found


def _point_value(
    found: Pointers,
    ids: Sequence[int],
    alike: Sequence[int],
    marks: dict[str, int],
    value: tuple[int, int],
    question: tuple[int, int],
    line: tuple[int, int],
) -> None:
    """Add the sources of one value: in the request, else in the tool's line, or those of a list's items."""
    first, last = value
    whole = _matches(alike[first:last], alike, *question)
    if whole or first == last or ids[first] != marks["["]:
        _point(found, first, alike[first:last], alike, *(question if whole else line))
        return
    run = first
    for at in range(first, last):
        if ids[at] in (marks["["], marks["]"], marks['"'], marks[","]) or at == last - 1:
            if list(alike[run:at]) != [marks[" "]]:
                _point(found, run, alike[run:at], alike, *question)
            run = at + 1


def point_result(alike: Sequence[int], begin: int, results: tuple[int, int]) -> Pointers:
    """Return the sources of an answer that repeats parts of `results` (first and last token, exclusive)."""
    found: Pointers = {}
    at = begin
    while at < len(alike) - 1:
        size = 0
        while at + size < len(alike) - 1 and _matches(alike[at : at + size + 1], alike, *results):
            size += 1
        if size > 1 or (size == 1 and at > begin + 1):
            _point(found, at, alike[at : at + size], alike, *results)
        at += max(1, size)
    return found
