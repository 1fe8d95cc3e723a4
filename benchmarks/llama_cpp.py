"""int4 on the CPU against llama.cpp in 4 and 8 bits, on the same random weights, in turns in one process.

Run it as `python -m benchmarks.llama_cpp` where llama-cpp-python and gguf are installed. It writes a random checkpoint
in MiniCPM5-1B's shape and its GGUF files to a temporary folder (7 GB) and prints a table for one thread and for all
cores. There is no bar: the figures are told whatever they are. The weights are random: they say how fast, not how well.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.int4 import ANSWER, PROMPT, run_ours, timed
from benchmarks.prefix import provide_checkpoint
from benchmarks.tables import format_table

KINDS = {"Q4_0": 2, "Q4_K_M": 15, "Q8_0": 7}
"""The names of llama.cpp's file types, and their numbers (`enum llama_ftype`)."""
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_BF16 = 32


def write_gguf(folder: Path, file: Path) -> None:
    """Write the checkpoint (Llama's layout) as GGUF in bfloat16; norms in float32, no vocabulary."""
    import gguf
    import torch
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text())
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(_BF16)
    with safe_open(str(folder / "model.safetensors"), framework="pt") as stored:
        for name in stored.keys():
            tensor = stored.get_tensor(name)
            layer, _, rest = name.removeprefix("model.layers.").removesuffix(".weight").partition(".")
            target = f"blk.{layer}.{_NAMES[rest]}" if layer.isdigit() else _ENDS[name.removesuffix(".weight")]
            if rest in ("self_attn.q_proj", "self_attn.k_proj"):  # pairs for rotation lie side by side there
                count = heads if rest == "self_attn.q_proj" else groups
                tensor = tensor.view(count, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
            if tensor.dim() == 1:
                writer.add_tensor(f"{target}.weight", tensor.float().numpy())
            else:
                raw = tensor.contiguous().view(torch.uint8).numpy()
                kind = gguf.GGMLQuantizationType.BF16
                writer.add_tensor(f"{target}.weight", raw, raw_shape=raw.shape, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def quantize(file: Path, kind: str) -> Path:
    """Write the file in 4 or 8 bits beside it, and return that."""
    import llama_cpp

    out = file.with_name(f"{kind}.gguf")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = KINDS[kind]
    if llama_cpp.llama_model_quantize(str(file).encode(), str(out).encode(), parameters):
        raise RuntimeError(f"llama.cpp could not quantise {file.name} to {kind}")
    return out


def run_llama(model: Any, ids: list[int], tokens: int) -> float:
    """Return the seconds on the clock of a prompt and so many tokens, the first of which needs no pass of its own."""
    model.reset()
    began = time.perf_counter()
    model.eval(ids)
    for _ in range(tokens - 1):
        model.eval([ids[0]])
    return time.perf_counter() - began


def measure(folder: Path, files: dict[str, Path], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each way with so many threads."""
    import llama_cpp
    import torch

    import minicpm_core

    torch.set_num_threads(threads)
    minicpm_core.load(folder, quantization="int4", device="cpu").close()  # so that each load is a second one
    torch.set_num_threads(threads)
    spent, engine = timed(lambda: minicpm_core.load(folder, quantization="int4", device="cpu"))
    torch.set_num_threads(threads)
    seconds: dict[str, dict[str, list[float]]] = {"ours, int4": {"load": [spent[0]], "first": [], "token": []}}
    models = {}
    for kind, file in files.items():
        spent, models[kind] = timed(
            lambda file=file: llama_cpp.Llama(  # type: ignore[misc]
                str(file), n_ctx=2048, n_batch=1024, n_threads=threads, n_threads_batch=threads, verbose=False
            )
        )
        seconds[kind] = {"load": [spent[0]], "first": [], "token": []}
        run_llama(models[kind], [7] * 8, 2)
    run_ours(engine, "The rain", 2)
    for turn in range(rounds):
        text = engine.tokenizer.decode(engine.tokenize(f"{turn} " + "The rain stays mainly. " * PROMPT)[:PROMPT])
        ids = engine.tokenize(text)
        for name, row in seconds.items():
            if name in models:
                first, whole = (run_llama(models[name], ids, count) for count in (1, 1 + ANSWER))
            else:
                first = run_ours(engine, text, 1)[0]
                whole = first + _decode(engine, turn)
            row["first"].append(first)
            row["token"].append((whole - first) / ANSWER)
    engine.close()
    del models
    gc.collect()
    return [
        {"threads": threads, "way": name, **{key: statistics.median(found) for key, found in row.items()}}
        for name, row in seconds.items()
    ]


def _decode(engine: Any, turn: int) -> float:
    """Return the seconds of an answer's tokens behind the first, after a short prompt."""
    short, long = (run_ours(engine, f"{turn} {count} The rain", count)[0] for count in (1, 1 + ANSWER))
    return float(long - short)


def main() -> None:
    """Write the checkpoint, quantise and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--checkpoint", type=Path, help="a folder that was written before; it is kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MINICPM_CACHE"] = str(Path(temporary) / "cache")
        folder = provide_checkpoint(options.checkpoint, Path(temporary) / "model")
        whole = Path(temporary) / "whole.gguf"
        write_gguf(folder, whole)
        files = {kind: quantize(whole, kind) for kind in options.kinds}
        rows = [row for count in options.threads for row in measure(folder, files, count, options.rounds)]
        sizes = {kind: file.stat().st_size / 2**20 for kind, file in files.items()}
    headers = ("threads", "", "MiB", "load s", f"first token of {PROMPT} s", "ms a token")
    cells = [
        [row["threads"], row["way"], sizes.get(row["way"], ""), row["load"], row["first"], row["token"] * 1000]
        for row in rows
    ]
    print(format_table(headers, cells))


if __name__ == "__main__":
    main()
