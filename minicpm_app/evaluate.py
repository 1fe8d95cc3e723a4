"""`minicpm evaluate`: what 16 bit, int8 and int4 cost and save, side by side."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpm_app.ask import print_line
from minicpm_app.cli import UsageError

if TYPE_CHECKING:
    from minicpm_core.evaluation import Evaluation, Failure, Settings

KINDS = ("none", "int8", "int4")
"""The order of a model's rows; the others are compared with the first."""
PICTURES = (".png", ".svg", ".pdf")
_HEADS = (
    ("weights", "MiB"),
    ("load", "s"),
    ("peak memory", "MiB"),
    ("perplexity", ""),
    ("ratio to none", ""),
    ("prefill", "tokens/s"),
    ("decode", "tokens/s"),
)
_WIDTHS = (8, 7, 11, 11, 16, 9, 9)


def run(options: Namespace) -> int:
    """Measure each row in a process of its own and print it; 1 if one could not be measured."""
    from tqdm import tqdm

    from minicpm_core.evaluation import Failure
    from minicpm_core.evaluation_process import evaluate_apart

    settings, text = _settings(options), read_text(options.text)
    if options.plot:
        check_plot(options.plot)
    for model in options.models:
        check_model(model)
    wanted = [
        (model, kind) for model in dict.fromkeys(options.models) for kind in KINDS if kind in options.quantization
    ]
    rows: list[Evaluation | Failure] = []
    if not options.json:
        for line in write_head(options.models):
            print_line(line)
    with tqdm(wanted, unit="row", disable=None, leave=False) as bar:
        for model, kind in bar:
            bar.set_postfix_str(f"{title(model)}, {kind}")
            rows.append(evaluate_apart(model, kind, text, settings))
            if not options.json:
                with bar.external_write_mode():
                    print_line(write_row(rows[-1], _find_plain(rows, model), options.models))
    if options.json:
        document = {"text": str(options.text or "shipped"), "settings": asdict(settings), "rows": list_rows(rows)}
        print_line(json.dumps(document, ensure_ascii=False))
    else:
        for line in write_notes(rows, settings, options.text):
            print_line(line)
    measured = [row for row in rows if not isinstance(row, Failure)]
    if options.plot and measured:
        from minicpm_app.evaluate_plot import draw

        draw(measured, options.plot)
    return int(len(measured) < len(rows))


def read_text(file: str | None) -> str:
    """Return the text to score, the shipped one by default.

    Raises:
        ValueError: it is empty or not in UTF-8.
        OSError: it cannot be read.
    """
    from minicpm_core.evaluation import TEXT

    path = Path(file) if file else TEXT
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise ValueError(f"{path} is empty; give a file with some pages of plain text")
    return text


def check_model(model: str) -> None:
    """Refuse what cannot be measured before anything is.

    Raises:
        ValueError: a GGUF file, or no checkpoint of a known family.
        OSError: it is not there.
    """
    from minicpm_core.checkpoints import open_checkpoint
    from minicpm_core.gguf import is_gguf

    if is_gguf(model):
        raise ValueError(
            f"{model}: perplexity needs the logits of every token, which are not read from GGUF files; accepted: "
            'a checkpoint folder, a hub id, or "demo" (for GGUF files, llama.cpp brings llama-perplexity)'
        )
    open_checkpoint(model)


def check_plot(file: str) -> None:
    """Refuse a figure that could not be written after all the measuring.

    Raises:
        UsageError: another ending, or its folder is not there.
        ImportError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if Path(file).suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {file}: accepted are files that end in {', '.join(PICTURES)}")
    if not Path(file).resolve().parent.is_dir():
        raise UsageError(f"--plot {file}: there is no folder {Path(file).resolve().parent}; make it first")
    if find_spec("matplotlib") is None:
        raise ImportError('--plot needs matplotlib: pip install "minicpm-integrations[plot]"')


def list_rows(rows: Sequence[Evaluation | Failure]) -> list[dict[str, Any]]:
    """Return the rows for JSON; sizes in bytes, times in seconds, what could not be measured with its "error"."""
    from minicpm_core.evaluation import Failure

    listed = []
    for row in rows:
        if isinstance(row, Failure):
            listed.append(asdict(row))
            continue
        plain = _find_plain(rows, row.model)
        ratio = row.compare(plain) if plain else None
        values = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "log_likelihoods"}
        listed.append(
            values
            | {
                "tokens_scored": len(row.log_likelihoods),
                "cross_entropy": row.cross_entropy,
                "perplexity": row.perplexity if math.isfinite(row.perplexity) else None,
                "perplexity_ratio": ratio[0] if ratio and math.isfinite(ratio[0]) else None,
                "perplexity_ratio_error": ratio[1] if ratio and math.isfinite(ratio[1]) else None,
            }
        )
    return listed


def write_head(models: Sequence[str]) -> list[str]:
    """Return the two lines above the table: names and units."""
    names, units = ([head[line] for head in _HEADS] for line in (0, 1))
    return [_lay_out("model", "weights in", names, models), _lay_out("", "", units, models)]


def write_row(row: Evaluation | Failure, plain: Evaluation | None, models: Sequence[str]) -> str:
    """Return a line of the table; `plain` is the same model's row without quantisation."""
    from minicpm_core.evaluation import Failure

    if isinstance(row, Failure):
        return _lay_out(title(row.model), row.quantization, [f"failed: {row.error}"], models)
    ratio = row.compare(plain) if plain else None
    cells = (
        number(row.weight_bytes / 2**20),
        f"{row.load_seconds:.1f}",
        number(row.peak_bytes / 2**20) if row.peak_bytes else "unknown",
        number(row.perplexity),
        "-" if ratio is None else "1" if row is plain else f"{ratio[0]:.4f} ± {ratio[1]:.4f}",
        number(row.prefill_tokens_per_second),
        number(row.decode_tokens_per_second),
    )
    kind = row.dtype if row.quantization == "none" else row.quantization
    return _lay_out(title(row.model), kind, cells, models)


def write_notes(rows: Sequence[Evaluation | Failure], settings: Settings, file: str | None) -> list[str]:
    """Return what one has to know to read the table."""
    from minicpm_core.evaluation import Evaluation

    measured = [row for row in rows if isinstance(row, Evaluation)]
    if not measured:
        return []
    text, notes = file or "the shipped text", [""]
    for model in dict.fromkeys(row.model for row in measured):
        ways = dict.fromkeys(
            (r.window, r.stride, len(r.log_likelihoods), r.text_tokens) for r in measured if r.model == model
        )
        for window, stride, scored, length in ways:
            part = "" if scored + 1 >= length else f", the first of {length:,}"
            notes.append(
                f"{title(model)}: perplexity of {scored:,} tokens of {text}{part}; windows of {window} tokens, "
                f"{stride} new ones in each"
            )
        if len(ways) > 1:
            notes.append(f"{title(model)}: windows differ, so perplexities do not compare; set --context-window")
    devices = dict.fromkeys(
        f"{r.device}, {r.threads} thread{'s' * (r.threads > 1)}" if r.device == "cpu" else r.device for r in measured
    )
    prompts = " or ".join(dict.fromkeys(f"{row.prompt_tokens}" for row in measured))
    notes.append(
        f"device: {'; '.join(devices)}. Prefill: a prompt of {prompts} tokens. Decode: {settings.decode_tokens} tokens "
        "one by one. Medians of three."
    )
    where = "its memory allocated on the GPU" if measured[0].device != "cpu" else "resident memory, libraries included"
    notes.append(f"peak memory: of the row's own process, after loading and answering; {where}.")
    if any(row.quantization == "int4" for row in measured):
        notes.append("int4 is made from the stored weights here; later loads start from the copy in the cache.")
    return notes


def title(model: str) -> str:
    """Return a folder's own name; hub ids as they are."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def number(value: float) -> str:
    """Return three digits or more."""
    if value >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _settings(options: Namespace) -> Settings:
    from minicpm_core.evaluation import Settings
    from minicpm_core.sizes import parse_bytes

    if options.memory_limit is not None:
        parse_bytes(options.memory_limit)
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    for name, value in given.items():
        if name != "seed" and isinstance(value, int) and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: accepted are numbers from 1 on")
    return Settings(**given)


def _find_plain(rows: Sequence[Evaluation | Failure], model: str) -> Evaluation | None:
    from minicpm_core.evaluation import Evaluation

    return next((r for r in rows if isinstance(r, Evaluation) and (r.model, r.quantization) == (model, "none")), None)


def _lay_out(model: str, kind: str, cells: Sequence[str], models: Sequence[str]) -> str:
    width = max(5, *(len(title(name)) for name in models))
    line = "  ".join(f"{cell:>{size}}" for cell, size in zip(cells, _WIDTHS, strict=False))
    return f"{model:<{width}}  {kind:<10}  {line}".rstrip()
