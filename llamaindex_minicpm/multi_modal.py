"""The multimodal class: `MiniCPM` under the name and with the calls of LlamaIndex's older multimodal models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.bridge.pydantic import Field

from llamaindex_minicpm.llms import MiniCPM

DEFAULT_VISION_MODEL = "openbmb/MiniCPM-V-4.6"


class MiniCPMMultiModal(MiniCPM):
    """A MiniCPM-V model on this machine: `MiniCPM` with a default model that sees.

    The environment variable MINICPM_VISION_MODEL is the default of `model`; all other arguments are those of `MiniCPM`.
    `complete` and its three relatives take `image_documents`, as LlamaIndex's MultiModalLLM does; `chat` takes
    messages with ImageBlocks.

    Example:
        >>> llm = MiniCPMMultiModal(memory_limit="6GiB", max_slice_nums=4)  # doctest: +SKIP
        >>> llm.complete("What is it?", image_documents=[ImageDocument(image_path="cat.jpg")])  # doctest: +SKIP
    """

    model: str = Field(
        default_factory=lambda: os.environ.get("MINICPM_VISION_MODEL") or DEFAULT_VISION_MODEL,
        description="Folder in the hub's layout or hub id, of a model that sees.",
    )

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises the class."""
        return "MiniCPMMultiModal"

    # The callbacks are those of the inherited methods; here only the second argument has another meaning.

    def complete(  # type: ignore[override]
        self, prompt: str, image_documents: Sequence[Any] | None = None, **kwargs: Any
    ) -> CompletionResponse:
        """Answer the prompt about pictures.

        Args:
            prompt: what to ask.
            image_documents: pictures: ImageDocument, ImageNode, ImageBlock, paths, URLs, PIL images.
            **kwargs: as of `MiniCPM.complete`.
        """
        response: CompletionResponse = super().complete(prompt, image_documents=image_documents, **kwargs)
        return response

    def stream_complete(  # type: ignore[override]
        self, prompt: str, image_documents: Sequence[Any] | None = None, **kwargs: Any
    ) -> CompletionResponseGen:
        """Yield the answer so far, with `delta` as its last piece."""
        responses: CompletionResponseGen = super().stream_complete(prompt, image_documents=image_documents, **kwargs)
        return responses

    async def acomplete(  # type: ignore[override]
        self, prompt: str, image_documents: Sequence[Any] | None = None, **kwargs: Any
    ) -> CompletionResponse:
        """Do what `complete` does without blocking the event loop."""
        response: CompletionResponse = await super().acomplete(prompt, image_documents=image_documents, **kwargs)
        return response

    async def astream_complete(  # type: ignore[override]
        self, prompt: str, image_documents: Sequence[Any] | None = None, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Do what `stream_complete` does without blocking the event loop."""
        responses: CompletionResponseAsyncGen = await super().astream_complete(
            prompt, image_documents=image_documents, **kwargs
        )
        return responses
