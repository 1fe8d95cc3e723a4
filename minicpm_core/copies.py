"""Writes copies of checkpoints: as a stock class of transformers, or in their own layout with changes added."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicpm_core.activations import is_registered_here
from minicpm_core.checkpoints import Checkpoint, load_tokenizer, load_weights, open_checkpoint
from minicpm_core.files import has_file
from minicpm_core.weights import open_tensors

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


def add_to_copy(checkpoint: Checkpoint, changes: Mapping[str, Any], folder: Path) -> Path:
    """Copy a checkpoint file by file in its own layout, adding `changes` to the tensors that they name.

    Raises:
        ValueError: a change names a tensor that the files hold under another name.
    """
    from safetensors.torch import save_file

    left = dict(changes)
    with open_tensors(checkpoint.weight_files) as tensors:
        if unknown := sorted(left.keys() - tensors.keys()):
            raise ValueError(
                f"the files hold {unknown[0]} under another name; load with adapter=... instead of merging"
            )
    index: dict[str, str] = {}
    count = len(checkpoint.weight_files)
    for number, file in enumerate(checkpoint.weight_files, start=1):
        name = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        with open_tensors((file,)) as stored:
            whole = {key: tensor[...] for key, tensor in stored.items()}
            for key in whole.keys() & left.keys():
                whole[key] = (whole[key].float() + left.pop(key)).to(whole[key].dtype)
            save_file({key: tensor.contiguous() for key, tensor in whole.items()}, folder / name, {"format": "pt"})
        index |= dict.fromkeys(whole, name)
    if count > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    for pattern in ("*.json", "*.jinja", "*.model", "*.txt"):
        for file in sorted(checkpoint.folder.glob(pattern)):
            if has_file(checkpoint.folder, file.name) and not file.name.endswith(".index.json"):
                shutil.copyfile(file, folder / file.name)
    return folder


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
