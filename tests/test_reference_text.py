"""Every text checkpoint in an official layout gives the numbers of the official code (see its README)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import minicpm_core
from minicpm_core import Engine, Sampling
from tests.recording import generate_ids

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

ROOT = Path(os.environ.get("MINICPM_REFERENCE_DIR") or Path(__file__).parents[2] / "shared" / "reference")
FOLDERS = sorted(
    folder
    for folder in (ROOT.iterdir() if ROOT.is_dir() else ())
    if (folder / "config.json").is_file() and not (folder / "cases.json").is_file()  # those with pictures have cases
)
TOLERANCE = 1e-4

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no reference checkpoints: {ROOT} is no folder")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Any, dict[str, Any]]]:
    """Yield the engine, the official outputs and the official tokens of one folder."""
    folder: Path = request.param
    with minicpm_core.load(folder, dtype="float32") as engine:
        yield engine, np.load(folder / "reference.npz"), json.loads((folder / "chat.json").read_text(encoding="utf-8"))


def largest_difference(logits: Any, expected: Any) -> float:
    return float((logits - torch.from_numpy(expected)).abs().max())


def test_reference_there_are_folders_to_check() -> None:
    assert len(FOLDERS) > 0, f"{ROOT} holds no text checkpoint"


def test_reference_short_batch(case: tuple[Engine, Any, dict[str, Any]]) -> None:
    engine, official, _ = case
    mask = torch.from_numpy(official["attention_mask"])
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    with torch.inference_mode():
        logits = engine.model(
            input_ids=torch.from_numpy(official["input_ids"]), attention_mask=mask, position_ids=positions
        ).logits
    present = mask.bool().numpy()
    assert (~present).any(), "the batch should be left-padded"
    assert largest_difference(logits[present], official["logits"][present]) <= TOLERANCE


def test_reference_long_sequence(case: tuple[Engine, Any, dict[str, Any]]) -> None:
    engine, official, _ = case
    with torch.inference_mode():
        logits = engine.model(input_ids=torch.from_numpy(official["long_input_ids"])).logits
    assert largest_difference(logits, official["long_logits"]) <= TOLERANCE


def test_reference_greedy_tokens(case: tuple[Engine, Any, dict[str, Any]]) -> None:
    engine, official, _ = case
    prompt, expected = official["gen_prompt_ids"].reshape(-1).tolist(), official["gen_ids"].reshape(-1).tolist()
    sampling = Sampling(temperature=0, repetition_penalty=1.0, max_new_tokens=len(expected))
    assert generate_ids(engine.model, prompt, sampling) == expected


def test_reference_greedy_tokens_of_the_model_itself(case: tuple[Engine, Any, dict[str, Any]]) -> None:
    engine, official, _ = case
    ids, expected = official["gen_prompt_ids"].reshape(1, -1), official["gen_ids"].reshape(-1).tolist()
    tokens, cache, step = [], None, torch.from_numpy(ids)
    with torch.inference_mode():
        for official_logits in official["gen_step_logits"]:
            output = engine.model(input_ids=step, past_key_values=cache, use_cache=True)
            cache, logits = output.past_key_values, output.logits[0, -1]
            assert largest_difference(logits, official_logits) <= TOLERANCE
            tokens.append(int(logits.argmax()))
            step = torch.tensor([[tokens[-1]]])
    assert tokens == expected


def test_reference_tokenizer(case: tuple[Engine, Any, dict[str, Any]]) -> None:
    engine, _, official = case
    assert engine.render(official["messages"]) == official["text"]
    assert engine.encode(official["messages"]) == official["ids_from_text"]
    assert engine.tokenizer.encode(official["text"], add_special_tokens=False) == official["ids_no_special"]
    for raw in official["raw_text_tests"]:
        assert engine.encode(raw["text"]) == raw["ids"], raw["text"]
