"""Planned memory against the measured peak of a whole process, at real widths: `python -m benchmarks.memory`.

Each case writes a random checkpoint to a temporary folder, and a fresh process loads it, reads a prompt that fills the
context window and answers with a few tokens. The peak is the kernel's (VmHWM: all that was resident, files included);
plan / peak should be 0.9 to 1.1. Linux only. `--json` prints a line per case with all parts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANSWER = 16
"""Tokens of the answer; the prompt takes the rest of the context window."""

_MINICPM5 = {
    "model_type": "llama",
    "hidden_size": 1536,
    "intermediate_size": 4608,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 130560,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
_MINICPM1 = {
    "model_type": "minicpm",
    "hidden_size": 1536,
    "intermediate_size": 3840,
    "num_hidden_layers": 52,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 73440,
    "max_position_embeddings": 4096,
    "scale_emb": 12,
    "dim_model_base": 256,
    "scale_depth": 1.4,
}
_MINICPM3 = {
    "model_type": "minicpm3",
    "hidden_size": 2560,
    "intermediate_size": 6400,
    "num_hidden_layers": 8,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "q_lora_rank": 768,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "vocab_size": 73448,
    "max_position_embeddings": 32768,
    "scale_emb": 12,
    "dim_model_base": 256,
    "scale_depth": 1.4,
}
_TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "image_size": 980,
}
_VISION = {
    "vocab_size": 73448,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "query_num": 64,
    "slice_config": {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14},
    "vision_config": _TOWER,
}
_LINEAR = {
    "vocab_size": 248320,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 32768,
    "layer_types": None,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e7,
        "partial_rotary_factor": 0.25,
        "mrope_section": [11, 11, 10],
        "mrope_interleaved": True,
    },
}


@dataclass(frozen=True)
class Case:
    """A model's shape and how it is loaded.

    Args:
        config: of the checkpoint; that of the language model where `kind` is "native".
        quantization: as of `load`.
        context_window: tokens.
        kind: "text"; "minicpmv" and "native" read a picture too.
        more: other arguments of `load`.
        layout: of "minicpmv" the version, of "native" the model_type; that of `LAYOUTS` where it is "".
    """

    config: dict[str, Any]
    quantization: str
    context_window: int = 2048
    kind: str = "text"
    more: dict[str, Any] = field(default_factory=dict)
    layout: str = ""


LAYOUTS = {"minicpmv": "4.0", "native": "minicpmv4_6"}
CASES: dict[str, Case] = {
    "MiniCPM5-1B, bf16": Case(_MINICPM5, "none"),
    "MiniCPM5-1B, int4": Case(_MINICPM5, "int4"),
    "MiniCPM5-1B, int4, 8k": Case(_MINICPM5, "int4", 8192),
    "MiniCPM5-1B, int4, 1.6 GiB": Case(_MINICPM5, "int4", more={"memory_limit": "1.6GiB"}),
    "MiniCPM-1B, int4": Case(_MINICPM1, "int4"),
    "MiniCPM3-4B, 8 layers, bf16": Case(_MINICPM3, "none"),
    "MiniCPM3-4B, 8 layers, int4": Case(_MINICPM3, "int4"),
    "MiniCPM-V 4.0, 4 layers, int4": Case(_VISION, "int4", kind="minicpmv"),
    "MiniCPM-V 4.6 shape, int4": Case(_LINEAR, "int4", kind="native"),
}


def write_checkpoint(folder: Path, case: Case) -> None:
    """Write a random checkpoint in bfloat16, tensor by tensor."""
    import torch

    config = _write_small_files(folder, case)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    header, end = {}, 0
    shapes = _shapes(folder)
    for name, shape in shapes.items():
        size = math.prod(shape) * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 64)  # tensors that are not aligned are computed with more slowly, and in copies
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(raw)) + raw)
        for shape in shapes.values():
            tensor = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02)
            stream.write(tensor.view(torch.uint8).numpy().tobytes())


def _write_small_files(folder: Path, case: Case) -> dict[str, Any]:
    """Write tokenizer and preprocessor as the tests' toys have them; return config.json in real size."""
    from minicpm_core.chat_templates import CHATML_TEMPLATE
    from tests.toy import write_tokenizer
    from tests.toy_minicpmv import write_minicpmv
    from tests.toy_vision import write_native

    if case.kind == "text":
        write_tokenizer(folder, chat_template="<s>" + CHATML_TEMPLATE)
        return case.config | {"bos_token_id": 0, "eos_token_id": 1}
    layout = case.layout or LAYOUTS[case.kind]
    if case.kind == "minicpmv":
        write_minicpmv(folder, layout)
        return json.loads((folder / "config.json").read_text()) | case.config  # type: ignore[no-any-return]
    write_native(folder, layout, scale_resolution=448, max_slice_nums=9)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    text = config["text_config"] | case.config
    return config | {"text_config": text, "vision_config": config["vision_config"] | _TOWER}


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors by their official names."""
    import torch
    import transformers

    from minicpm_core.checkpoints import open_checkpoint
    from minicpm_core.vision.resampler import Resampler, ResamplerSizes
    from minicpm_core.vision.tower import Tower, TowerSizes

    checkpoint = open_checkpoint(folder)
    config = checkpoint.family.translate(checkpoint.config)
    with torch.device("meta"):
        parts = {"": getattr(transformers, checkpoint.family.model_class)(config)}
        if checkpoint.config["model_type"] == "minicpmv":
            hidden, middle, layers = (_TOWER[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers"))
            sizes = TowerSizes(hidden, middle, layers, _TOWER["num_attention_heads"], _TOWER["patch_size"], 70**2)
            resampler = Resampler(ResamplerSizes(checkpoint.config["query_num"], config.hidden_size, hidden))
            parts = {"llm.": parts[""], "vpm.": Tower(sizes), "resampler.": resampler}
    shapes = {prefix + name: tuple(t.shape) for prefix, part in parts.items() for name, t in part.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """Plan, load and answer once; return bytes."""
    from minicpm_core import Sampling, load
    from minicpm_core.memory import plan

    more = {"memory_limit": "16GiB"} | case.more
    options: dict[str, Any] = {"quantization": case.quantization, "context_window": case.context_window} | more
    planned = plan(folder, **options)

    if case.quantization != "none":
        import bitsandbytes  # noqa: F401
    started = resident("VmRSS")
    with load(folder, **options) as engine:
        loaded, peak_of_loading = resident("VmRSS"), resident("VmHWM")
        prompt = _prompt(engine, case)
        answer = engine.generate(prompt, sampling=Sampling(temperature=0.0, max_new_tokens=ANSWER))
        assert answer.usage
        return {
            "planned": planned.total,
            "peak": resident("VmHWM"),
            "ratio": round(planned.total / resident("VmHWM"), 3),
            "prompt_tokens": answer.usage.prompt_tokens,
            "prefill_chunk": planned.prefill_chunk,
            "before_loading": started,
            "after_loading": loaded,
            "peak_of_loading": peak_of_loading,
            "parts": planned.parts,
        }


def _prompt(engine: Any, case: Case) -> Any:
    """Return a prompt of as many tokens as leave room for the answer; with a large picture where the model sees."""
    draw, most = random.Random(0), engine.context_window - ANSWER
    words = [draw.choice(("lamp", "city", "question", "passage", "answer", "fox")) for _ in range(most)]
    picture: list[dict[str, Any]] = []
    if case.kind != "text":
        from PIL import Image

        picture = [{"type": "image", "image": Image.effect_noise((1344, 1344), 50).convert("RGB")}]

    def make(count: int) -> Any:
        text = {"type": "text", "text": " ".join(words[:count])}
        return [{"role": "user", "content": [*picture, text]}]

    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(engine.encode(make(middle))) <= most else (low, middle - 1)
    return make(low)


def resident(kind: str) -> int:
    """Return the bytes that the kernel tells under this name, such as "VmHWM"."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def main() -> None:
    """Measure the cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--checkpoint", metavar="FOLDER", help="take this one for the cases of its shape")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "CASE"), help="used by the benchmark itself")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), CASES[options.measure[1]])))
        return
    given = json.loads((Path(options.checkpoint) / "config.json").read_text()) if options.checkpoint else {}
    if not options.json:
        print(f"{'case':<32} {'tokens':>6} {'chunk':>6} {'planned':>9} {'peak':>9} {'plan/peak':>9}")
    for name in options.cases:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as made:
            folder = made
            if given and case.kind == "text" and given | case.config == given:
                folder = options.checkpoint
            else:
                write_checkpoint(Path(made), case)
            command = [sys.executable, "-m", "benchmarks.memory", "--measure", folder, name]
            env = os.environ | {"MINICPM_CACHE": "off"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        row = json.loads(done.stdout.splitlines()[-1])
        if options.json:
            print(json.dumps({"case": name} | row), flush=True)
            continue
        planned, peak = (f"{row[key] / 2**30:.2f} GiB" for key in ("planned", "peak"))
        counts = f"{row['prompt_tokens']:>6} {row['prefill_chunk']:>6}"
        print(f"{name:<32} {counts} {planned:>9} {peak:>9} {row['ratio']:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
