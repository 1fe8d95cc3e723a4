"""What looks at pages while an index is made: embedders of pictures, and vision models that read pages into text."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from minicpm_core.files import has_file, read_json
from minicpm_core.index.word_shapes import WordShapes
from minicpm_core.quiet import quiet
from minicpm_core.retrieval_families import PICTURE_EMBEDDERS

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_PAGE_EMBEDDINGS = "openbmb/VisRAG-Ret"
DEMO_PAGE_EMBEDDINGS = "demo"
READING_PROMPT = (
    "Write down the whole text of this page in its reading order and its own language. Write tables as Markdown. "
    "Write nothing else."
)
_MOST_READ = 4096


@runtime_checkable
class PageEmbedder(Protocol):
    """What turns pages and questions into vectors that compare.

    Optional: `name: str` (what the index records), `release()` (frees its memory; it is loaded again when needed) and
    `memory_bytes: int | None` (what it takes when it is loaded).
    """

    def embed_images(self, images: Sequence[Image]) -> list[list[float]]:
        """Return one vector per picture."""
        ...

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        ...


ReadPage: TypeAlias = "Callable[[Image], str]"


class NamedPageEmbedder:
    """A picture embedder by its name, loaded at the first picture or question.

    Args:
        name: folder or hub id of VisRAG-Ret or of a CLIP model for sentence-transformers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory_bytes: int | None = None
        self._lock = threading.RLock()
        self._model: Any = None

    def embed_images(self, images: Sequence[Image]) -> list[list[float]]:
        """Return one vector per picture, [pictures][dimension]."""
        with self._lock:
            return _floats(self._load().embed_images(images))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, [dimension]."""
        with self._lock:
            return _floats([self._load().embed_query(text)])[0]

    def release(self) -> None:
        """Free the model's memory; it is loaded again when needed."""
        with self._lock:
            self._model = None

    def _load(self) -> Any:
        if self._model is None:
            self._model = _load_page_model(self.name)
            self.memory_bytes = self._model.memory_bytes
        return self._model


class _Clip:
    """A CLIP model of sentence-transformers on the CPU."""

    def __init__(self, name: str) -> None:
        try:
            with quiet():
                from sentence_transformers import SentenceTransformer

                self.model = SentenceTransformer(name, device="cpu")
        except ImportError as error:
            raise ImportError(
                f'the page embeddings {name!r} need {error.name}: pip install "minicpm-integrations[rag,vision]"',
                name=error.name,
            ) from error
        except (OSError, ValueError) as error:
            raise OSError(
                f"the page embeddings {name!r} could not be loaded; accepted are the folder or the hub id of "
                "VisRAG-Ret or of a CLIP model for sentence-transformers (a hub id is downloaded once), or 'demo'"
            ) from error
        self.memory_bytes = sum(p.numel() * p.element_size() for p in self.model.parameters())

    def embed_images(self, images: Sequence[Image]) -> Any:
        return self._encode(list(images))

    def embed_query(self, text: str) -> Any:
        return self._encode([text])[0]

    def _encode(self, values: list[Any]) -> Any:
        options = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_numpy": True}
        return self.model.encode(values, **options).tolist()


def _load_page_model(name: str) -> Any:
    folder = Path(name)
    config = read_json(folder, "config.json") if folder.is_dir() and has_file(folder, "config.json") else {}
    if name.startswith("openbmb/") or any(row.base(config) for row in PICTURE_EMBEDDERS):
        from minicpm_core.picture_embedding import PictureEmbeddingModel

        return PictureEmbeddingModel(name)
    return _Clip(name)


def _floats(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[float(value) for value in vector] for vector in vectors]


@functools.cache
def _shared(name: str) -> PageEmbedder:
    return WordShapes() if name == DEMO_PAGE_EMBEDDINGS else NamedPageEmbedder(name)


def resolve_page_embedder(embeddings: str | Path | PageEmbedder | None) -> tuple[str, PageEmbedder]:
    """Return the name that an index records, and the embedder.

    Args:
        embeddings: None for DEFAULT_PAGE_EMBEDDINGS; "demo" for `WordShapes`; a folder or hub id of VisRAG-Ret or of a
            CLIP model for sentence-transformers; or an object with `embed_images` and `embed_query`.

    Raises:
        TypeError: the object has no such methods.
    """
    if embeddings is None or isinstance(embeddings, str | Path):
        name = str(embeddings or DEFAULT_PAGE_EMBEDDINGS)
        name = str(Path(name).resolve()) if name != DEMO_PAGE_EMBEDDINGS and Path(name).is_dir() else name
        return name, _shared(name)
    if not isinstance(embeddings, PageEmbedder):
        raise TypeError(
            f"page_embeddings is a {type(embeddings).__name__}; accepted are the name of a model, 'demo', None, or an "
            "object with embed_images(images) and embed_query(text)"
        )
    return _name_of(embeddings), embeddings


class PageReader:
    """Reads pages into text with a vision model.

    Args:
        model: a folder or hub id (loaded at the first page), an engine, or a function from a picture to its text.

    Raises:
        TypeError: `model` is none of these.
    """

    def __init__(self, model: Any) -> None:
        self.by_name = isinstance(model, str | Path)
        if not (self.by_name or callable(model) or hasattr(model, "generate")):
            raise TypeError(
                f"page_model is a {type(model).__name__}; accepted: the name of a vision model, an engine, or a "
                "function that takes a picture and returns its text"
            )
        self.name = str(model) if self.by_name else _name_of(model)
        self._model = model
        self._engine: Any = None if self.by_name or callable(model) else model

    def read(self, page: Image) -> str:
        """Return the text of a page."""
        if callable(self._model) and not hasattr(self._model, "generate"):
            return str(self._model(page))
        from minicpm_core.types import Sampling

        if self._engine is None:
            from minicpm_core import load

            self._engine = load(self._model)
        parts = [{"type": "image", "image": page}, {"type": "text", "text": READING_PROMPT}]
        window = int(self._engine.context_window)
        sampling = Sampling(temperature=0.0, max_new_tokens=min(_MOST_READ, max(window // 2, 1)))
        return str(self._engine.generate([{"role": "user", "content": parts}], sampling=sampling).content)

    def release(self) -> None:
        """Free the memory of a model that was loaded by its name; others are their owner's."""
        if self.by_name and self._engine is not None:
            self._engine.close()
            self._engine = None
        elif callable(release := getattr(self._model, "release", None)):
            release()


def _name_of(model: Any) -> str:
    own = getattr(model, "name", None) or getattr(getattr(model, "checkpoint", None), "name", None)
    if isinstance(own, str) and own:
        return own
    kind = model if hasattr(model, "__qualname__") else type(model)
    return f"{kind.__module__}.{kind.__qualname__}"
