"""What is known of a model before it is loaded, in LangChain's words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from langchain_minicpm.settings import MiniCPMSettings

if TYPE_CHECKING:
    from langchain_core.language_models import ModelProfile


def read_profile(settings: MiniCPMSettings) -> ModelProfile | None:
    """Return what is known of a model without loading it; None where its config is not here, as behind `base_url`.

    `max_input_tokens` is the window that was asked for or the model's own; a memory limit may make it smaller when the
    model is loaded.
    """
    if settings.base_url is not None:
        return None
    folder = _find_local_folder(settings.model, settings.revision)
    if folder is None:
        return None
    from minicpm_core.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(folder, family=settings.family)
    text_config = checkpoint.config.get("text_config") or checkpoint.config
    window = settings.engine.context_window if settings.engine is not None else settings.context_window
    window = window or text_config.get("max_position_embeddings")
    limits: ModelProfile = {"max_input_tokens": window, "max_output_tokens": window} if window else {}
    vision = checkpoint.family.vision
    sees = vision is not None
    return {
        **limits,
        "name": settings.model,
        "open_weights": True,
        "text_inputs": True,
        "image_inputs": sees,
        "image_url_inputs": sees,
        "audio_inputs": False,
        "video_inputs": vision is not None and vision.sliced and not vision.nested_slices,
        "pdf_inputs": sees,
        "image_tool_message": sees,
        "pdf_tool_message": sees,
        "text_outputs": True,
        "reasoning_output": checkpoint.family.thinking,
        "tool_calling": True,
        "tool_choice": True,
        "tool_call_streaming": True,
        "structured_output": True,
        "temperature": True,
    }


def _find_local_folder(model: str, revision: str | None) -> Path | None:
    if model == "demo" or Path(model).expanduser().is_dir():
        from minicpm_core.checkpoints import find_folder

        return find_folder(model)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None
