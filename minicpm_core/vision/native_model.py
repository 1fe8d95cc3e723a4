"""A vision language model of transformers, called like a language model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minicpm_core.vision import BATCH, refuse_cancelled
from minicpm_core.vision.features import FeatureCache
from minicpm_core.vision.prompt import Pictures


class NativeVisionModel(nn.Module):
    """Puts features of pictures into the prompt, and places tokens where the model has positions of its own.

    Args:
        model: a ...ForConditionalGeneration of MiniCPM-V 4.6, 4.7 or OCR.
        mean: per channel, taken off pixel values of 0 to 1.
        std: per channel, by which they are divided then.
    """

    joint = False
    """Whether a picture's features depend on the others of its prompt."""

    def __init__(self, model: Any, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    @property
    def config(self) -> Any:
        """The language model's config."""
        return self.model.config.get_text_config()

    @property
    def adaptable(self) -> Any:
        """The class that adapters were trained on."""
        return self.model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device  # type: ignore[no-any-return]

    def get_memory_footprint(self) -> int:
        """Return the bytes of all parameters and buffers."""
        return int(self.model.get_memory_footprint())

    def forward(self, logits_to_keep: int = 0, **inputs: Any) -> Any:
        """Run the language model on `input_ids` or `inputs_embeds`; logits of the last tokens only where asked."""
        from transformers.modeling_outputs import CausalLMOutputWithPast

        out = self.model.model.language_model(**inputs)
        logits = self.model.lm_head(out.last_hidden_state[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)

    def prefill(
        self,
        input_ids: Tensor,
        pictures: Pictures,
        cancelled: threading.Event | None = None,
        cache: FeatureCache | None = None,
    ) -> tuple[dict[str, Tensor], int]:
        """Return the prompt's inputs by name, features in their slots, and the positions that decoding skips.

        Args:
            input_ids: [1, tokens].
            pictures: with spans in token ids.
            cancelled: looked at before each batch of views.
            cache: features of earlier pictures.

        Raises:
            Cancelled: it was set.
        """
        embeds = self.model.get_input_embeddings()(input_ids).clone()
        cache = FeatureCache() if cache is None else cache
        features = cache.encode(pictures, lambda new: self.encode(new, cancelled), joint=self.joint)
        for (start, end), tokens in zip(pictures.spans, features, strict=True):
            if end - start != len(tokens):
                raise ValueError(
                    f"a picture has {len(tokens)} feature tokens and its placeholder {end - start} token ids: the "
                    "tokenizer does not keep the placeholder's text as one token each; use the checkpoint's tokenizer"
                )
            embeds[0, start:end] = tokens.to(embeds.dtype)
        places, skipped = self.place(input_ids, pictures)
        return {"inputs_embeds": embeds} | places, skipped

    def place(self, input_ids: Tensor, pictures: Pictures) -> tuple[dict[str, Tensor], int]:
        """Return the prompt's position ids where pictures have places of their own (V-4.7), and what decoding skips.

        A token's place depends on those before it and on no features, so that it goes for a part of the prompt too.

        Args:
            input_ids: [1, tokens].
            pictures: with spans in token ids.
        """
        if not hasattr(self.model.model, "get_rope_index"):
            return {}, 0
        kinds = torch.zeros_like(input_ids)
        for start, end in pictures.spans:
            kinds[0, start:end] = 1
        grids = [(view.shape[0] // self._patch, view.shape[1] // self._patch) for view in pictures.views]
        places, skipped = self.model.model.get_rope_index(
            input_ids,
            mm_token_type_ids=kinds,
            target_sizes=torch.tensor(grids, device=input_ids.device),
            downsample_mode=pictures.mode,
        )
        text = torch.arange(input_ids.shape[1], device=input_ids.device).expand(1, 1, -1)
        return {"position_ids": torch.cat([text, places])}, int(skipped)

    def encode(self, pictures: Pictures, cancelled: threading.Event | None = None) -> list[Tensor]:
        """Return the feature tokens of each view, [tokens, width]."""
        views = pictures.views
        features: list[Tensor] = []
        for start in range(0, len(views), BATCH):
            refuse_cancelled(cancelled)
            features += self._encode(views[start : start + BATCH], pictures.mode)
        return features

    @property
    def _patch(self) -> int:
        return int(self.model.config.vision_config.patch_size)

    def _encode(self, views: Sequence[Any], mode: str | None) -> Sequence[Tensor]:
        strips = [self._strip(view) for view in views]
        sizes = [(view.shape[0] // self._patch, view.shape[1] // self._patch) for view in views]
        pixels = torch.from_numpy(np.concatenate(strips, axis=-1))[None].to(self.device)
        grid = torch.tensor(sizes, dtype=torch.int32, device=self.device)
        out = self.model.get_image_features(pixels, grid, downsample_mode=mode)
        return out.pooler_output  # type: ignore[no-any-return]

    def _strip(self, view: Any) -> Any:
        """Return normalised patches in one row, [3, patch, patches * patch]."""
        patch = self._patch
        pixels = ((view.astype(np.float32) / 255 - self._mean) / self._std).transpose(2, 0, 1)
        rows = pixels.reshape(3, pixels.shape[1] // patch, patch, -1).transpose(0, 2, 1, 3)
        return rows.reshape(3, patch, -1)
