"""What LlamaIndex keeps globally is put back after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("llama_index.core", reason="LlamaIndex is not installed")


@pytest.fixture(autouse=True)
def _same_settings() -> Iterator[None]:
    import llama_index.core
    from llama_index.core import Settings

    before = dict(vars(Settings)), llama_index.core.global_tokenizer
    yield
    vars(Settings).clear()
    vars(Settings).update(before[0])
    llama_index.core.global_tokenizer = before[1]
