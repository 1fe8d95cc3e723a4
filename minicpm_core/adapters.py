"""LoRA adapters: put over a loaded model, switched by name, or merged into a copy of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from minicpm_core.checkpoints import find_folder, load_weights, open_checkpoint
from minicpm_core.copies import add_to_copy, empty_folder, stored_dtype, write_model
from minicpm_core.files import has_file, read_header, read_json
from minicpm_core.quantization import stored_kind

Adapter = str | Path | Mapping[str, str | Path]
"""A PEFT folder, or several under names of one's own; the first is active after loading."""

DEFAULT_NAME = "default"
BESIDE = "vpm_resampler_embedtokens.pt"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def find_adapters(adapter: Adapter) -> dict[str, Path]:
    """Return the folder of each adapter, checked to hold one; nothing of it is loaded.

    Raises:
        FileNotFoundError: no such folder, or it holds no adapter.
        ValueError: its config is no JSON object, or a file is damaged or a link to elsewhere.
        ImportError: peft is not installed.
    """
    named = {DEFAULT_NAME: adapter} if isinstance(adapter, (str, Path)) else dict(adapter)
    if not named:
        raise ValueError("adapter is an empty dict; give a folder, or names with their folders")
    folders = {}
    for name, place in named.items():
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"adapter name {name!r} is not accepted; names are text without dots")
        try:
            folder = find_folder(place)
        except FileNotFoundError:
            raise FileNotFoundError(f"no folder {place}; adapter is a PEFT folder, or its hub id") from None
        weights = next((file for file in _WEIGHTS if has_file(folder, file)), None)
        if not has_file(folder, "adapter_config.json") or weights is None:
            raise FileNotFoundError(
                f"{folder} holds no adapter; a PEFT folder has adapter_config.json and adapter_model.safetensors"
            )
        kind = read_json(folder, "adapter_config.json").get("peft_type")
        if kind != "LORA":
            raise ValueError(f"{folder} holds an adapter of type {kind!r}; only LORA is supported")
        if weights.endswith(".safetensors"):
            read_header(folder / weights)
        folders[name] = folder
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ImportError('adapters need peft: pip install "minicpm-integrations[lora]"') from error
    return folders


def find_beside(folders: Mapping[str, Path]) -> tuple[Path, ...]:
    """Return the file of whole modules that MiniCPM-V's tutorials save beside an adapter: they replace the base's.

    Raises:
        ValueError: one of several adapters has such a file; whole modules cannot be switched.
    """
    found = tuple(folder / BESIDE for folder in folders.values() if has_file(folder, BESIDE))
    if found and len(folders) > 1:
        raise ValueError(f"{found[0]} replaces modules of the model; load that adapter alone")
    return found


def attach(model: Any, folders: Mapping[str, Path]) -> Any:
    """Put the adapters into the model, the first of them active; return PEFT's handle on them.

    Raises:
        ValueError: an adapter was made for another model.
    """
    from peft import PeftModel

    model = getattr(model, "adaptable", model)
    adapted: Any = None
    for name, folder in folders.items():
        try:
            with warnings.catch_warnings():  # PEFT warns of what it does itself, and of keys, which are checked below
                warnings.simplefilter("ignore")
                if adapted is None:
                    adapted = PeftModel.from_pretrained(model, str(folder), adapter_name=name, local_files_only=True)
                else:
                    adapted.load_adapter(str(folder), adapter_name=name, local_files_only=True)
        except Exception as error:  # PEFT and the unpickler raise many kinds
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the adapter in {folder} does not fit this model: {reason}") from error
        _refuse_unused(adapted, name, folder)
    adapted.set_adapter(next(iter(folders)))
    return adapted.eval()


def switch(model: Any, name: str | None) -> None:
    """Make the adapter `name` the active one; None leaves the base model alone.

    Raises:
        ValueError: the model has no adapter of that name.
    """
    names = list(getattr(model, "peft_config", ()))
    if name is not None and name not in names:
        raise ValueError(f"there is no adapter {name!r}; loaded: {', '.join(names) or 'none'}")
    if not names:
        return
    if name is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(name)


def merge_adapter(
    model: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    family: str | None = None,
    revision: str | None = None,
) -> Path:
    """Write a copy of `model` with the adapter's changes added to its weights; return the folder.

    Args:
        model: the checkpoint that the adapter was trained on: a folder in the hub's layout, or a hub id.
        adapter: a PEFT folder.
        out: a folder that does not exist yet, or is empty.
        family: a name of the family table, where the checkpoint is not recognised.
        revision: branch, tag or commit on the hub.

    Raises:
        FileExistsError: there is something in `out`.
        FileNotFoundError: the checkpoint or the adapter is not there.
        ValueError: the adapter does not fit, or the weights are quantised.
    """
    checkpoint = open_checkpoint(model, family=family, revision=revision)
    if kind := stored_kind(checkpoint.config):
        raise ValueError(f"the weights of {model} are stored in {kind}; merge into the unquantised checkpoint")
    folders = find_adapters(adapter)
    checkpoint = replace(checkpoint, beside=find_beside(folders))
    if vision := checkpoint.family.vision:
        if checkpoint.beside:
            raise ValueError(f"{checkpoint.beside[0]} replaces whole modules; load with adapter=... instead of merging")
        seeing = import_module(vision.module).load_model(checkpoint, dtype=stored_dtype(checkpoint), device="cpu")
        return add_to_copy(checkpoint, layer_changes(attach(seeing, folders)), empty_folder(out))
    target = empty_folder(out)
    adapted = attach(load_weights(checkpoint, dtype=stored_dtype(checkpoint), device="cpu"), folders)
    write_model(checkpoint, adapted.merge_and_unload(safe_merge=True), target)
    return target


def layer_changes(adapted: Any) -> dict[str, Any]:
    """Return what the active adapter adds to the weights, by tensor name, in float32.

    Raises:
        ValueError: the adapter changes the model by more than a sum (DoRA), or what is changed is no plain layer.
    """
    from peft.tuners.lora import Linear, LoraLayer

    changes: dict[str, Any] = {}
    for name, layer in adapted.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if not isinstance(layer, Linear) or any(layer.use_dora.values()):
            raise ValueError(
                f"the adapter changes {name} in a way that cannot be merged; load with adapter=... instead"
            )
        changes[f"{name}.weight"] = sum(layer.get_delta_weight(active).float() for active in layer.active_adapters)
    return changes


def _refuse_unused(model: Any, name: str, folder: Path) -> None:
    """Raise ValueError where the file holds tensors that the model has no place for, or lacks some."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    used = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    stored = set(load_peft_weights(str(folder), device="cpu", local_files_only=True))
    other = stored ^ used
    if other and (other := other - (stored & set(model.state_dict()))):  # PEFT saves embeddings below LoRA layers too
        raise ValueError(f"the adapter in {folder} does not fit this model: tensor {min(other)}")
