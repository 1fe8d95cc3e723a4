"""A folder, a hub id or "demo" -> config, tokenizer and weights, without running code from the checkpoint."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from minicpm_core.activations import register_activation
from minicpm_core.errors import is_exhaustion
from minicpm_core.families import Family, find_family
from minicpm_core.files import check_tokenizer, find_weight_files, has_file, read_json, read_text
from minicpm_core.quantization import computes_here, stored_quantization, unsuitable_modules
from minicpm_core.quiet import quiet
from minicpm_core.weights import StoredTensor, Tensors, open_tensors

logger = logging.getLogger(__name__)

DEMO = Path(__file__).parent / "demo"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LAYER = re.compile(r"model\.(?:language_model\.)?layers\.(\d+)\.")
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_HUB_FILES = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder with its parsed config.json and its row of the family table.

    Args:
        name: what the caller asked for.
        folder: where the files are.
        config: the content of config.json.
        family: the row.
        beside: files whose tensors take the place of those in the folder.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    family: Family
    beside: tuple[Path, ...] = ()

    @property
    def chat_template(self) -> str:
        """The checkpoint's own chat template, or the family's where it has none."""
        return read_chat_template(self.folder) or self.family.chat_template

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """The content of generation_config.json, {} where there is none."""
        name = "generation_config.json"
        return read_json(self.folder, name) if has_file(self.folder, name) else {}

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights, each checked to be there and whole."""
        return find_weight_files(self.folder) + self.beside


def open_checkpoint(model: str | Path, *, family: str | None = None, revision: str | None = None) -> Checkpoint:
    """Find `model` (a folder, a hub id or "demo"), read its config and recognise its family; no weight is read.

    Raises:
        FileNotFoundError: no such folder, or config.json is missing in it.
        ConnectionError: a hub id that is neither cached nor could be downloaded.
        ValueError: config.json is no JSON object, the family is unknown, or a form of `model` that is not supported.
    """
    folder = find_folder(model, revision=revision)
    if not has_file(folder, "config.json"):
        raise FileNotFoundError(
            f"{folder} has no config.json; give the folder of a MiniCPM checkpoint in the hub's layout"
        )
    config = read_json(folder, "config.json")
    return Checkpoint(str(model), folder, config, find_family(config, read_chat_template(folder), family))


def find_folder(model: str | Path, *, revision: str | None = None) -> Path:
    """Return the local folder of `model`, downloading a hub id where it is not cached."""
    if not str(model).strip():
        raise ValueError('model is empty; give a folder, a hub id such as "openbmb/MiniCPM5-1B", or "demo"')
    path = DEMO if model == "demo" else Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} belongs to a hub id; {model} is a folder on this machine")
        return path
    if path.is_file():
        raise ValueError(f"{model} is a file; give the checkpoint's folder (of files, load() takes *.gguf only)")
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


def read_chat_template(folder: Path) -> str:
    """Return the chat template that the folder brings, "" where there is none."""
    if has_file(folder, "chat_template.jinja"):
        return read_text(folder, "chat_template.jinja")
    name = "tokenizer_config.json"
    template = read_json(folder, name).get("chat_template") if has_file(folder, name) else None
    if isinstance(template, list):  # several named templates
        named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[-1].get("template") if named else None
    if template is not None and not isinstance(template, str):
        raise ValueError(f"chat_template in {folder / name} is a {type(template).__name__}; a text is needed")
    return template or ""


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the fast tokenizer, from tokenizer.json verbatim, with the chat template set.

    Raises:
        FileNotFoundError: there is neither tokenizer.json nor tokenizer.model.
        ValueError: it is damaged.
    """
    from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast

    folder = checkpoint.folder
    verbatim = has_file(folder, "tokenizer.json")
    if verbatim:
        check_tokenizer(folder)
    elif not has_file(folder, "tokenizer.model"):
        raise FileNotFoundError(f"{folder} has neither tokenizer.json nor tokenizer.model; download one of them")
    for name in _TOKENIZER_FILES:
        if has_file(folder, name):
            read_json(folder, name)
    try:
        with quiet():
            if verbatim:
                tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
            else:
                prefix = has_dummy_prefix(folder / "tokenizer.model")
                tokenizer = LlamaTokenizerFast.from_pretrained(folder, local_files_only=True, add_prefix_space=prefix)
    except ImportError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the tokenizer in {folder} cannot be read ({reason}); download it again") from error
    tokenizer.chat_template = checkpoint.chat_template
    return tokenizer


def has_dummy_prefix(tokenizer_model: Path) -> bool:
    """Tell whether a SentencePiece model puts a space before a text; transformers does not look and assumes it."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise ImportError("this checkpoint has tokenizer.model only, which needs: pip install sentencepiece") from error
    pieces = SentencePieceProcessor(model_file=str(tokenizer_model)).encode("a", out_type=str)
    return bool(pieces) and pieces[0].startswith("\u2581")


def load_weights(checkpoint: Checkpoint, *, dtype: Any, device: str, quantization_config: Any = None) -> Any:
    """Return the model in eval mode, every tensor taken from the checkpoint, one after the other.

    Raises:
        ValueError: tensors are missing, have the wrong shape or hold NaN, or a file is damaged.
    """
    import transformers

    family, folder = checkpoint.family, checkpoint.folder
    config = family.translate(checkpoint.config)
    register_activation(config.get_text_config().hidden_act)
    stored = stored_quantization(checkpoint.config)
    quantized = stored or quantization_config
    if notice := family.notice(checkpoint.config):
        logger.warning("%s: %s", checkpoint.name, notice)
    model_class, arrange = getattr(transformers, family.model_class), family.arrange
    if quantized and family.quantized_class and family.quantized_arrange:
        model_class, arrange = family.quantized_class(), family.quantized_arrange
    reopen = partial(open_arranged, checkpoint, config, arrange)
    with reopen() as arranged:
        if quantization_config and not stored:
            quantization_config.llm_int8_skip_modules += unsuitable_modules(arranged, quantization_config)
        try:
            with quiet():
                if device == "cpu" and quantized and computes_here(quantized, arranged):
                    model, info = _load_four_bit(checkpoint, model_class, config, arranged, reopen, dtype, quantized)
                else:
                    extra: dict[str, Any] = {"device_map": {"": device}} if quantized else {}
                    if stored:
                        config.quantization_config = stored.to_dict()
                    elif quantized:
                        extra["quantization_config"] = quantized
                    # No folder is given: transformers would look for adapters and for generation code in it.
                    model, info = model_class.from_pretrained(
                        None, config=config, state_dict=arranged, dtype=dtype, output_loading_info=True, **extra
                    )
        except RuntimeError as error:
            if (told := _explain(error, folder)) is None:
                raise
            raise told from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise ValueError(f"{folder} lacks {len(names)} tensors that its config.json asks for, e.g. {names[0]}")
    if info["unexpected_keys"]:
        logger.warning("%s: ignored tensors: %s", checkpoint.name, ", ".join(sorted(info["unexpected_keys"])[:10]))
    if not quantized:
        model = model.to(device)
    model.config.name_or_path = str(folder)
    model._weight_conversions = None  # so that it is saved under the names that every version of transformers reads
    return model.eval()


def _explain(error: RuntimeError, folder: Path) -> Exception | None:
    """Return what to raise for an error of torch or transformers while weights are loaded, None for it itself."""
    text = " ".join(str(error).split())
    reason = text[:300]
    if is_exhaustion(error):
        return MemoryError(
            f"the memory did not suffice to load {folder}: {reason}; free some, choose a smaller quantization, or see "
            "what would fit with `minicpm doctor`"
        )
    if any(word in text.lower() for word in ("mismatch", "conversion", "has the shape")):
        return ValueError(f"the weights in {folder} do not fit its config.json: {reason}")
    return None


@contextmanager
def open_arranged(checkpoint: Checkpoint, config: Any, arrange: Any, *, mapped: bool = True) -> Iterator[Tensors]:
    """Give access to the tensors by the names of the class in transformers."""
    with open_tensors(checkpoint.weight_files, mapped=mapped) as tensors:
        arranged = dict(arrange(tensors))
        if config.tie_word_embeddings:
            arranged.pop("lm_head.weight", None)  # some store the copy
        refuse_other_sizes(arranged, config.get_text_config())
        yield arranged


def _load_four_bit(
    checkpoint: Checkpoint, model_class: Any, config: Any, tensors: Tensors, reopen: Any, dtype: Any, quantized: Any
) -> tuple[Any, dict[str, Any]]:
    from minicpm_core.int4.model import Source, load_four_bit

    way = {"family": checkpoint.family.name, "config": json.dumps(dict(checkpoint.config), sort_keys=True)}
    source = Source(checkpoint.name, checkpoint.weight_files, tensors, partial(reopen, mapped=False), way)
    return load_four_bit(model_class, config, source, dtype=dtype, quantized=quantized)


def refuse_other_sizes(tensors: Mapping[str, StoredTensor], config: Any) -> None:
    """Raise ValueError where the files and the config disagree about the number of layers or the vocabulary."""
    layers = 1 + max((int(m[1]) for name in tensors if (m := _LAYER.match(name))), default=-1)
    if layers != config.num_hidden_layers:
        raise ValueError(f"num_hidden_layers in config.json is {config.num_hidden_layers}, and the files hold {layers}")
    embedding = tensors.get("model.embed_tokens.weight") or tensors.get("model.language_model.embed_tokens.weight")
    expected = (config.vocab_size, config.hidden_size)
    if embedding and embedding.shape != expected:
        raise ValueError(f"the embedding in the files has the shape {embedding.shape}; config.json says {expected}")
