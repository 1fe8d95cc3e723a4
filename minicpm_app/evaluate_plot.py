"""The figure of `minicpm evaluate`: memory beside perplexity and speed, a bar for each row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from minicpm_app.evaluate import number, title

if TYPE_CHECKING:
    from minicpm_core.evaluation import Evaluation

_COLORS = {"none": "#4c6a92", "int8": "#c98a1b", "int4": "#2f8f6b"}
_GAP = 0.9
"""Between two models, in bars."""


def draw(rows: Sequence[Evaluation], file: str) -> None:
    """Write four panels of bars: peak memory, perplexity, decoding and prefill.

    Args:
        rows: what was measured.
        file: its ending tells the format.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in rows))
    heights = [n + _GAP * models.index(row.model) for n, row in enumerate(rows)]
    memory = "Peak memory, GiB" if rows[0].device == "cpu" else "Peak memory on the GPU, GiB"
    panels = (
        (f"{memory}\nless is better", [(row.peak_bytes or row.weight_bytes) / 2**30 for row in rows]),
        ("Perplexity\nless is better", [row.perplexity for row in rows]),
        ("Decode, tokens/s\nmore is better", [row.decode_tokens_per_second for row in rows]),
        ("Prefill, tokens/s\nmore is better", [row.prefill_tokens_per_second for row in rows]),
    )
    with matplotlib.rc_context({"font.size": 10, "svg.hashsalt": "minicpm"}):
        figure = Figure(figsize=(12, 1.4 + 0.36 * (heights[-1] + 1 + len(models))), layout="constrained")
        drawn = figure.subplots(1, len(panels), sharey=True)
        for axes, (name, values) in zip(drawn, panels, strict=True):
            _draw_bars(axes, heights, values, [_COLORS[row.quantization] for row in rows])
            axes.set_title(name, loc="left", fontsize=10)
        kinds = [row.dtype if row.quantization == "none" else row.quantization for row in rows]
        drawn[0].set_yticks(heights, kinds)
        drawn[0].invert_yaxis()
        for model in models:
            first = next(height for height, row in zip(heights, rows, strict=True) if row.model == model)
            drawn[0].text(0, first - 0.62, title(model), weight="bold", va="bottom")
        figure.savefig(file, dpi=150)


def _draw_bars(axes: Any, heights: Sequence[float], values: Sequence[float], colors: Sequence[str]) -> None:
    shown = [value if isfinite(value) else 0 for value in values]
    axes.barh(heights, shown, height=0.8, color=colors)
    largest = max(shown) or 1
    for height, value in zip(heights, values, strict=True):
        axes.text((value if isfinite(value) else 0) + 0.02 * largest, height, number(value), va="center")
    axes.set_xlim(0, 1.3 * largest)
    axes.set_ylim(heights[0] - 1.2, heights[-1] + 0.6)
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
