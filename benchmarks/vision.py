"""What a second question about a picture costs against the first, at real size: `python -m benchmarks.vision`.

Each case writes a random checkpoint with a real tower (SigLIP So400m, 27 layers) to a temporary folder and asks about
one picture of 672 x 672 pixels, four views, in turn: the first question with nothing kept; a second one behind the
same beginning (features and, where the language model can, its cache are kept); and a question with other words in
front of the picture, for which only the features serve. What is timed ends with the answer's first token. Where other
programs run too, set OMP_NUM_THREADS=1 and read the processor's time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import minicpm_core
from benchmarks.memory import CASES, write_checkpoint
from benchmarks.prefix import Times, report, seconds
from benchmarks.tables import Bar, format_bars, format_table
from minicpm_core import Engine, Sampling

VOCABULARY = {"vocab_size": 8192}
"""Smaller than the models' own, which has no part in what is compared."""
_V40, _V46 = CASES["MiniCPM-V 4.0, 4 layers, int4"], CASES["MiniCPM-V 4.6 shape, int4"]
_V25 = {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8, "query_num": 96}
_V26 = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
_V45 = {"hidden_size": 4096, "intermediate_size": 12288, "num_key_value_heads": 8}
SHAPES = {
    "V 2.5 (2 of 32 language layers)": replace(
        _V40, config=_V40.config | VOCABULARY | _V25 | {"num_hidden_layers": 2}, layout="2.5"
    ),
    "V 2.6 (2 of 28 language layers)": replace(
        _V40, config=_V40.config | VOCABULARY | _V26 | {"num_hidden_layers": 2}, layout="2.6"
    ),
    "V 4.0 (4 of 32 language layers)": replace(_V40, config=_V40.config | VOCABULARY),
    "V 4.0 (8 of 32 language layers)": replace(_V40, config=_V40.config | VOCABULARY | {"num_hidden_layers": 8}),
    "V 4.5 (2 of 36 language layers)": replace(
        _V40, config=_V40.config | VOCABULARY | _V45 | {"num_hidden_layers": 2}, layout="4.5"
    ),
    "V 4.6 (all layers)": replace(_V46, config=_V46.config | VOCABULARY),
    "V 4.7 (as V 4.6, places of its own)": replace(_V46, config=_V46.config | VOCABULARY, layout="minicpmv4_7"),
}
"""Towers, resampler and merger as published; all in bfloat16."""
SIDE = 672
BARS = {"second question": 5.0}
"""How many times sooner than the first."""
ONE = Sampling(temperature=0, max_new_tokens=1)


def ask(picture: Any, question: str, *, before: str = "") -> list[dict[str, Any]]:
    """Return a prompt with words before and behind a picture."""
    parts = [{"type": "text", "text": before}] if before else []
    return [
        {"role": "user", "content": [*parts, {"type": "image", "image": picture}, {"type": "text", "text": question}]}
    ]


def compare(engine: Engine, rounds: int) -> Iterator[dict[str, Any]]:
    """Time first, second and moved questions in turn; what is kept is dropped before each first one."""
    from PIL import Image

    picture = Image.effect_noise((SIDE, SIDE), 50).convert("RGB")
    first, second = ask(picture, "What is it?"), ask(picture, "Where does it stand?")
    moved = ask(picture, "What is it?", before="A word before it.")
    cold: list[Times] = []
    kept: list[Times] = []
    elsewhere: list[Times] = []
    usages: list[Any] = []
    for _ in range(rounds):
        engine._prefixes.clear()
        engine._features.clear()
        cold.append(seconds(lambda: engine.generate(first, sampling=ONE)))
        kept.append(seconds(lambda: usages.append(engine.generate(second, sampling=ONE).usage)))
        elsewhere.append(seconds(lambda: usages.append(engine.generate(moved, sampling=ONE).usage)))
    tokens = [(usage.prompt_tokens, usage.cached_tokens) for usage in usages[-2:]]
    yield report("second question", cold, kept, prompt_tokens=tokens[0][0], cached=tokens[0][1])
    yield report("question with other words before", cold, elsewhere, prompt_tokens=tokens[1][0], cached=tokens[1][1])


def show(rows: list[dict[str, Any]]) -> tuple[str, list[Bar]]:
    """Return the table of the rows, and the bars."""
    cells, bars = [], []
    for row in rows:
        name, kinds = f"{row['model']}: {row['what']}", ("clock", "processor")
        times = [row[kind][column] for kind in kinds for column in ("without", "with", "ratio")]
        cells.append([name, row["prompt_tokens"], row["cached"], *times])
        if (bar := BARS.get(row["what"])) is not None:
            bars.append(Bar(name, row["clock"]["ratio"], bar))
    headers = ("", "tokens", "kept", "first s", "this s", "times", "CPU s first", "CPU s this", "times (CPU)")
    return format_table(headers, cells), bars


def main() -> None:
    """Write the checkpoints, compare, and take them away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), SHAPES[name])
            arguments: dict[str, Any] = {"dtype": "bfloat16", "quantization": "none", "context_window": 2048}
            with minicpm_core.load(folder, **arguments) as engine:
                for row in compare(engine, options.rounds):
                    rows.append({"model": name, **row})
                    if options.json:
                        print(json.dumps(rows[-1]), flush=True)
    if not options.json:
        table, bars = show(rows)
        print(f"{table}\n\n{format_bars(bars)}")


if __name__ == "__main__":
    main()
