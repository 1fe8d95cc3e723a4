"""Writes copies of checkpoints: in the form of a stock class of transformers, which other programs can open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from minicpm_core.activations import is_registered_here
from minicpm_core.checkpoints import Checkpoint, load_tokenizer, load_weights, open_checkpoint
from minicpm_core.files import has_file

SHARD_SIZE = "2GB"


def convert(model: str | Path, out: str | Path, *, family: str | None = None, revision: str | None = None) -> Path:
    """Write `model` as a class that transformers ships, with its tokenizer and chat template; return the folder.

    The numbers are the same; only names and config change (model_type granite, granitemoe, llama or minicpm3).
    transformers, vLLM and llama.cpp's converter open the copy without code from the checkpoint.

    Args:
        model: a folder in the hub's layout, or a hub id.
        out: a folder that does not exist yet, or is empty.
        family: a name of the family table, where the checkpoint is not recognised.
        revision: branch, tag or commit on the hub.

    Raises:
        FileExistsError: there is something in `out`.
        ValueError: no stock class computes what the checkpoint needs.
    """
    checkpoint = open_checkpoint(model, family=family, revision=revision)
    target = empty_folder(out)
    activation = str(checkpoint.family.translate(checkpoint.config).hidden_act)
    if is_registered_here(activation):
        raise ValueError(f"no stock class of transformers has the activation {activation}; load the checkpoint itself")
    if checkpoint.family.vision is not None:
        raise ValueError("checkpoints that read pictures have no stock class of transformers to be written as")
    weights = load_weights(checkpoint, dtype=stored_dtype(checkpoint), device="cpu")
    write_model(checkpoint, weights, target)
    return target


def write_model(checkpoint: Checkpoint, model: Any, folder: Path) -> None:
    """Write a loaded model with the tokenizer, chat template and generation config of its checkpoint."""
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    load_tokenizer(checkpoint).save_pretrained(folder)
    if has_file(checkpoint.folder, "generation_config.json"):
        shutil.copyfile(checkpoint.folder / "generation_config.json", folder / "generation_config.json")


def empty_folder(out: str | Path) -> Path:
    """Return `out` as a folder that is there and empty; FileExistsError where it is not empty."""
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def stored_dtype(checkpoint: Checkpoint) -> Any:
    """Return the torch dtype that config.json names, bfloat16 where it names none."""
    import torch

    named = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "bfloat16")
    dtype = getattr(torch, named.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch_dtype in config.json is {named!r}, which is unknown")
    return dtype
