"""A folder, a hub id or "demo" -> config, tokenizer and weights, without running code from the checkpoint."""

from __future__ import annotations

import json
import logging
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from minicpm_core.families import Family, find_family

logger = logging.getLogger(__name__)

DEMO = Path(__file__).parent / "demo"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder with its parsed config.json and its row of the family table."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    family: Family

    @property
    def chat_template(self) -> str:
        """The checkpoint's own chat template, or the family's where it has none."""
        return read_chat_template(self.folder) or self.family.chat_template

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """The content of generation_config.json, {} where there is none."""
        path = self.folder / "generation_config.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights, each checked to be there and whole."""
        return find_weight_files(self.folder)


def open_checkpoint(model: str | Path, *, family: str | None = None, revision: str | None = None) -> Checkpoint:
    """Find `model` (a folder, a hub id or "demo"), read its config and recognise its family; no weight is read.

    Raises:
        FileNotFoundError: no such folder, or config.json is missing in it.
        ConnectionError: a hub id that is neither cached nor could be downloaded.
        ValueError: config.json is no JSON object, the family is unknown, or a form of `model` that is not supported.
    """
    folder = find_folder(model, revision=revision)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(
            f"{folder} has no config.json; give the folder of a MiniCPM checkpoint in the hub's layout"
        )
    config = read_json(config_file)
    return Checkpoint(str(model), folder, config, find_family(config, read_chat_template(folder), family))


def find_folder(model: str | Path, *, revision: str | None = None) -> Path:
    """Return the local folder of `model`, downloading a hub id where it is not cached."""
    if model == "demo":
        return DEMO
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{model} is a file; give the checkpoint's folder (GGUF files are not supported yet)")
    if isinstance(model, str) and _HUB_ID.fullmatch(model) and not model.startswith("."):
        return _download(model, revision)
    raise FileNotFoundError(
        f'no folder {model}; give an existing folder, a hub id such as "openbmb/MiniCPM5-1B", or "demo"'
    )


def _download(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConnectionError(
            f"{model!r} is no folder here, is not in the hub's cache, and could not be downloaded ({reason}); "
            'check the name and the connection, or give a folder, or "demo"'
        ) from error


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in `path`, or raise ValueError that names the file and the place."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object; download it again")
    return value


def read_chat_template(folder: Path) -> str:
    """Return the chat template that the folder brings, "" where there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(template, list):  # several named templates
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return template or ""


def find_weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files, checked against the index and their own headers.

    Raises:
        FileNotFoundError: there are none, or shards named by the index are missing.
        ValueError: a safetensors file is truncated or damaged.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        elif (folder / name).is_file():
            shards = [name]
        else:
            continue
        missing = [s for s in shards if not (folder / s).is_file()]
        if missing or not shards:
            raise FileNotFoundError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files that {index.name} names: "
                f"{', '.join(missing) or 'none named'}; download them again"
            )
        files = tuple(folder / s for s in shards)
        for file in files:
            if file.suffix == ".safetensors":
                read_header(file)
        return files
    raise FileNotFoundError(f"{folder} has no model.safetensors and no pytorch_model.bin, whole or in shards")


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """Return a safetensors file's tensors: name -> {"dtype", "shape", "data_offsets"}; ValueError if it is damaged."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise ValueError("the header is cut off")
            header = json.loads(stream.read(length))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        end = 8 + length + max((t["data_offsets"][1] for t in tensors.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error or 'no header'}; download it again") from error
    if end != size:
        raise ValueError(f"{file} has {size:,} bytes where its header says {end:,}: truncated; download it again")
    return tensors


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the fast tokenizer, from tokenizer.json verbatim, with the chat template set."""
    from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast

    folder = checkpoint.folder
    if not any((folder / f).is_file() for f in ("tokenizer.json", "tokenizer.model")):
        raise FileNotFoundError(f"{folder} has neither tokenizer.json nor tokenizer.model; download one of them")
    verbatim = (folder / "tokenizer.json").is_file()
    with _quiet():
        tokenizer = (PreTrainedTokenizerFast if verbatim else LlamaTokenizerFast).from_pretrained(folder)
    tokenizer.chat_template = checkpoint.chat_template
    return tokenizer


def load_weights(checkpoint: Checkpoint, *, dtype: Any, device: str, quantization_config: Any = None) -> Any:
    """Return the model in eval mode, every tensor taken from the checkpoint.

    Raises:
        ValueError: tensors are missing or have the wrong shape.
    """
    import transformers

    safe = all(file.suffix == ".safetensors" for file in checkpoint.weight_files)
    extra = {"quantization_config": quantization_config, "device_map": {"": device}} if quantization_config else {}
    model_class = getattr(transformers, checkpoint.family.model_class)
    try:
        with _quiet():
            model, info = model_class.from_pretrained(
                checkpoint.folder,
                config=checkpoint.family.translate(checkpoint.config),
                dtype=dtype,
                use_safetensors=safe,
                weights_only=True,
                local_files_only=True,
                output_loading_info=True,
                **extra,
            )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights in {checkpoint.folder} do not fit its config.json: {reason}") from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise ValueError(
            f"{checkpoint.folder} lacks {len(names)} tensors that its config.json asks for, e.g. {names[0]}"
        )
    if info["unexpected_keys"]:
        logger.warning("%s: ignored tensors: %s", checkpoint.name, ", ".join(sorted(info["unexpected_keys"])[:10]))
    if not quantization_config:
        model = model.to(device)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice about tokenizer classes off the terminal."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
