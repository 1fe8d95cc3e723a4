"""What a model computes with beside its weights: cache, states, activations, logits; from its config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minicpm_core.weight_bytes import Quantized

GUESSES = 16
"""Most tokens that are guessed and read together with the next one (`speculation`)."""
_KEPT = 2.0
"""Bytes that the process takes for one byte of activations: what is freed stays with the allocator, in pieces that do
not always fit what comes next. Measured (`benchmarks.memory`): 1.8 to 2.4 on the CPU."""
_ROWS = 4
"""Rows of logits that sampling makes beside the given one, in float32."""
_DELTA_CHUNK = 64
"""Tokens that the gated delta rule computes together (Yang et al. 2024, section 3)."""
_WORKSPACE = 32 * 2**20
"""Most bytes of weights that `int4.linear` dequantises at a time."""


@dataclass(frozen=True)
class Shape:
    """The sizes that decide it, in elements.

    Args:
        hidden: width of the residual stream.
        intermediate: width of a token's way through the MLP.
        heads: of the queries.
        groups: heads of keys and values.
        head: width of a head.
        layers: those with keys and values.
        vocabulary: tokens.
        window: tokens that layers with sliding attention keep, 0 where there are none.
        sliding: how many of `layers` are such.
        latent: numbers per token and layer that latent attention keeps, 0 where attention is not latent.
        expanded: numbers per token that it expands to in the layer at work.
        linear: layers with linear attention.
        state: numbers of the state that each keeps in float32, however long the text.
        convolution: numbers that its convolution keeps.
        delta: numbers per token, in float32, that the delta rule makes in the layer at work.
    """

    hidden: int
    intermediate: int
    heads: int
    groups: int
    head: int
    layers: int
    vocabulary: int
    window: int = 0
    sliding: int = 0
    latent: int = 0
    expanded: int = 0
    linear: int = 0
    state: int = 0
    convolution: int = 0
    delta: int = 0

    @classmethod
    def read(cls, config: Any) -> Shape:
        """Return the shape of a language model's config in transformers, or of a `PublishedModel`."""
        heads = config.num_attention_heads
        kinds = list(getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers)
        sliding, linear = (kinds.count(f"{kind}_attention") for kind in ("sliding", "linear"))
        values: dict[str, int] = {
            "hidden": config.hidden_size,
            "intermediate": _intermediate(config),
            "heads": heads,
            "groups": config.num_key_value_heads,
            "head": getattr(config, "head_dim", None) or config.hidden_size // heads,
            "layers": len(kinds) - linear,
            "vocabulary": config.vocab_size,
        }
        if sliding:
            values |= {"sliding": sliding, "window": int(config.sliding_window)}
        if rank := getattr(config, "kv_lora_rank", None):
            values["latent"] = rank + config.qk_rope_head_dim
            values["head"] = config.qk_head_dim
            values["expanded"] = heads * (config.qk_nope_head_dim + config.v_head_dim + config.qk_head_dim)
        if linear:
            values |= {"linear": linear} | _linear_sizes(config)
        return cls(**values)

    def kv_cache(self, tokens: int, value: float) -> int:
        """Return the bytes that keys and values of so many tokens take, as the classes of transformers keep them."""
        per_layer = self.latent or 2 * self.groups * self.head
        kept = (self.layers - self.sliding) * tokens + self.sliding * min(tokens, self.window)
        return int(kept * per_layer * value)

    def states(self, value: float) -> int:
        """Return the bytes that linear attention keeps, however long the text."""
        return int(self.linear * (self.state * 4 + self.convolution * value))

    def logits(self, value: float) -> int:
        """Return the bytes of the last tokens' logits, and of what sampling makes of them."""
        return int(self.vocabulary * ((GUESSES + 1) * value + _ROWS * 4))

    def activations(self, tokens: int, window: int, value: float) -> int:
        """Return the most bytes that a layer makes while so many tokens are read at the end of a full window.

        Args:
            tokens: of one forward pass.
            window: tokens that they attend to, themselves included.
            value: bytes of a number.
        """
        tokens = min(tokens, window)
        mlp = 3 * tokens * self.intermediate * value
        delta = (tokens + _DELTA_CHUNK) * self.delta * 4
        layer = 4 * tokens * self.hidden * value + max(mlp, delta, self._attention(tokens, window, value))
        return int(_KEPT * layer) + self._scores(tokens, window)

    def _attention(self, tokens: int, window: int, value: float) -> float:
        queries = 3 * tokens * self.heads * self.head * value
        masked = tokens < window  # the first pass of a prompt needs no mask
        mask = tokens * window * (1 + value) if masked else 0
        if self.latent:  # expanded, and once more in float32
            return queries + mask + window * self.expanded * (value + 4)
        repeated = 2 * self.heads if self.heads != self.groups and masked else self.groups
        return queries + mask + repeated * self.head * window * value

    def _scores(self, tokens: int, window: int) -> int:
        """Return the bytes of the scores where they are made as a whole, in float32, before and after the softmax.

        That is where keys and values differ in width. Blocks of this size go back to the system when they are freed.
        """
        return 2 * 4 * self.heads * tokens * window if self.latent else 0


def workspace(largest: int, quantized: Quantized, device: str) -> int:
    """Return the bytes into which weights are dequantised to multiply many tokens with them.

    Args:
        largest: elements of the largest linear layer.
        quantized: how the linear layers are.
        device: "cpu" or "cuda...".
    """
    if quantized is None:
        return 0
    whole = 2 * largest
    return min(whole, _WORKSPACE) if quantized == "int4" and device == "cpu" else whole


def _intermediate(config: Any) -> int:
    one = getattr(config, "intermediate_size", None) or config.moe_intermediate_size
    together = getattr(config, "num_experts_per_tok", None) or 1
    return int(one * together + (getattr(config, "shared_expert_intermediate_size", None) or 0))


def _linear_sizes(config: Any) -> dict[str, int]:
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    heads, width = config.linear_num_value_heads, config.linear_value_head_dim
    repeated = heads * config.linear_key_head_dim
    return {
        "state": repeated * width,
        "convolution": (2 * keys + heads * width) * config.linear_conv_kernel_dim,
        "delta": 6 * repeated + 4 * heads * width + 3 * heads * _DELTA_CHUNK,
    }
