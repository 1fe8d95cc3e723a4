"""VisRAG-Ret's picture side against the formula in plain torch, and CLIP models of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minicpm_core import load
from minicpm_core.index.page_models import NamedPageEmbedder
from minicpm_core.picture_embedding import PictureEmbeddingModel
from minicpm_core.vision.minicpmv import load_pictures
from tests.scanned import WARRANTY, print_page
from tests.test_retrieval_models import weighted_mean
from tests.toy_families import write_family
from tests.toy_minicpmv import QUERIES, write_minicpmv


def test_a_picture_is_the_weighted_mean_of_its_prompts_hidden_states(tmp_path: Path) -> None:
    import torch

    folder = write_minicpmv(tmp_path / "visrag", "2.0")
    model = PictureEmbeddingModel(folder, dtype="float32")
    page = print_page(WARRANTY).resize((100, 140))
    (vector,) = model.embed_images([page])
    # The same with the whole model: features of the views put by hand into the embeddings of the placeholder.
    engine = load(str(folder), dtype="float32", quantization="none")
    whole, picture = engine.model, load_pictures(engine.checkpoint).read(page, 0)
    assert len(picture.views) == 1 + 6
    tokenizer = engine.tokenizer
    slot = tokenizer.convert_tokens_to_ids("<unk>")
    ids = [tokenizer.bos_token_id, *tokenizer.encode(picture.text + "\n", add_special_tokens=False)]
    assert ids.count(slot) == 7 * QUERIES
    from minicpm_core.vision.prompt import Pictures

    with torch.no_grad():
        features = whole.encode(Pictures((picture,), ())).flatten(0, 1)
        inputs = whole.llm.get_input_embeddings()(torch.tensor(ids))
        inputs[torch.tensor(ids) == slot] = features / whole.config.embedding_multiplier
        states = whole.llm.model(inputs_embeds=inputs[None]).last_hidden_state[0]
    expected = weighted_mean(states)
    assert (torch.tensor(vector) - expected).abs().max() < 1e-5
    assert whole.config.embedding_multiplier == 12
    engine.close()


def test_pictures_are_told_apart_and_released_models_load_again(tmp_path: Path) -> None:
    model = PictureEmbeddingModel(write_minicpmv(tmp_path, "2.0"), dtype="float32")
    red, blue = (Image.new("RGB", (120, 90), color) for color in ("red", "blue"))
    vectors = model.embed_images([red, blue, red])
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-5)
    question = model.embed_query("Where?")
    assert len(question) == len(vectors[0])
    model.release()
    assert model.model is None
    assert model.embed_images([red]) == [vectors[0]]
    assert model.embed_query("Where?") == question
    assert model.memory_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_checkpoints_without_sight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_type 'minicpm' is none of: VisRAG-Ret"):
        PictureEmbeddingModel(write_family(tmp_path, "minicpm"))
    with pytest.raises(MemoryError, match="needs"):
        PictureEmbeddingModel(write_minicpmv(tmp_path / "v", "2.0"), memory_limit="1MiB")


def test_a_name_loads_what_it_names(tmp_path: Path) -> None:
    embedder = NamedPageEmbedder(str(write_minicpmv(tmp_path / "visrag", "2.0")))
    assert embedder.memory_bytes is None
    (vector,) = embedder.embed_images([Image.new("RGB", (60, 60), "green")])
    assert len(vector) == 128
    assert embedder.memory_bytes
    embedder.release()
    assert embedder._model is None


def write_clip(folder: Path) -> Path:
    """Write a random CLIP model in the layout of sentence-transformers/clip-ViT-B-32, which all its versions read."""
    import transformers

    from tests.toy_minicpmv import _write_tokenizer

    part = folder / "0_CLIPModel"
    part.mkdir()
    module = {"idx": 0, "name": "0", "path": part.name, "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    size = _write_tokenizer(part)
    text = {"vocab_size": size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 32, "eos_token_id": 2, "bos_token_id": 1}  # fmt: skip
    sight = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=sight, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(part)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(part / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>",
        model_max_length=32,
    )  # fmt: skip
    side = {"shortest_edge": 28}
    images = transformers.CLIPImageProcessorPil(size=side, crop_size={"height": 28, "width": 28})
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(part)
    return folder


def test_a_clip_model_of_sentence_transformers_embeds_both(tmp_path: Path) -> None:
    embedder: Any = NamedPageEmbedder(str(write_clip(tmp_path)))
    red, blue = (Image.new("RGB", (60, 40), color) for color in ("red", "blue"))
    vectors = embedder.embed_images([red, blue, red])
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-6)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)
    assert len(embedder.embed_query("a red page")) == 8
    assert embedder.memory_bytes > 0
