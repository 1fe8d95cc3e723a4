"""Peak memory while a checkpoint of about a billion parameters is loaded: the result plus one tensor.

Run it as `python -m benchmarks.loading_memory`; it writes a random checkpoint in MiniCPM5-1B's shape to a temporary
folder (2.2 GB) and prints one JSON line per way of loading it. Linux only: it reads /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 1536,
    "intermediate_size": 4608,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 130560,
    "max_position_embeddings": 131072,
    "rope_theta": 5e6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
}
WAYS = ({"dtype": "bfloat16"}, {"dtype": "float16"}, {"dtype": "bfloat16", "quantization": "int4"})


def write_checkpoint(folder: Path) -> int:
    """Write a random checkpoint tensor by tensor; return the bytes of its largest tensor."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.toy import write_tokenizer

    write_tokenizer(folder, chat_template="<|im_start|>")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in LlamaForCausalLM(LlamaConfig(**CONFIG)).state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(raw)) + raw)
        for shape in shapes.values():
            tensor = torch.randn(shape, dtype=torch.bfloat16) * 0.02
            stream.write(tensor.view(torch.uint8).numpy().tobytes())
    return max(math.prod(shape) * 2 for shape in shapes.values())


def resident(kind: str) -> int:
    """Return the bytes of this process's memory: "RssAnon" (its own) or "RssFile" (files, which can be dropped)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


def measure(folder: Path, way: dict[str, Any]) -> dict[str, Any]:
    """Load the folder once and return peak and final bytes."""
    import torch  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    import minicpm_core
    import minicpm_core.loading

    if "quantization" in way:
        import bitsandbytes  # noqa: F401
    before, peak, done = resident("RssAnon"), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident("RssAnon"))
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)  # a failed load must not wait for it
    watcher.start()
    started = time.perf_counter()
    with minicpm_core.load(folder, context_window=512, **way) as engine:
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        return {
            **way,
            "seconds": round(seconds, 1),
            "model_bytes": engine.model.get_memory_footprint(),
            "own_memory_after": resident("RssAnon") - before,
            "own_memory_peak": peak - before,
        }


def main() -> None:
    """Write the checkpoint and measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="a folder that was written before; it is kept")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "WAY"), help="used by the benchmark itself")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), json.loads(options.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.checkpoint or Path(temporary)
        largest = CONFIG["vocab_size"] * CONFIG["hidden_size"] * 2 if options.checkpoint else write_checkpoint(folder)
        print(
            json.dumps({"file_bytes": os.path.getsize(folder / "model.safetensors"), "largest_tensor": largest}),
            flush=True,
        )
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.loading_memory", "--measure", str(folder), json.dumps(way)]
            subprocess.run(command, check=True, env=os.environ | {"MINICPM_CACHE": "off"})


if __name__ == "__main__":
    main()
