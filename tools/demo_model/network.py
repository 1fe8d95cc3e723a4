"""The Llama network in a form that trains fast on a CPU, and its export to the official layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROBE_CLASSES = 11  # passage numbers 0..9, and "found in no passage"
NOWHERE = 10
MEANING = 96  # channels in which the embeddings of words are compared with what the words mean
COPYING_HEADS = 2  # of the last layer, led to the tokens that a call copies


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; they become the fields of config.json."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 576
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 4096

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_attention_heads


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to `x` (batch, heads, length, head_dim), halves as in Llama."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h = shape.hidden_size
        self.heads = shape.num_attention_heads
        self.q_proj = nn.Linear(h, h, bias=False)
        self.k_proj = nn.Linear(h, h, bias=False)
        self.v_proj = nn.Linear(h, h, bias=False)
        self.o_proj = nn.Linear(h, h, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the attention output for `x` (batch, length, hidden)."""
        batch, length, hidden = x.shape
        q, k, v = (
            p(x).view(batch, length, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = rotate(q, cos, sin).float(), rotate(k, cos, sin).float(), v.float()  # the faster backward on a CPU
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).to(x.dtype)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, hidden))


class FeedForward(nn.Module):
    """SwiGLU feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feed-forward output for `x` (batch, length, hidden)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Norm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.hidden_size))
        self.eps = shape.rms_norm_eps

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled to unit mean square, times the weight."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return the hidden states after this layer."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Network(nn.Module):
    """Llama with tied embeddings and four linear probes that exist only in training."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape)
        self.probe_passage = nn.Linear(shape.hidden_size, PROBE_CLASSES, bias=False)
        self.probe_question = nn.Linear(shape.hidden_size, PROBE_CLASSES, bias=False)
        self.probe_choice = nn.Linear(shape.hidden_size, PROBE_CLASSES, bias=False)
        self.probe_meaning = nn.Linear(shape.hidden_size, MEANING, bias=False)
        frequency = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angle = torch.arange(shape.max_position_embeddings).float()[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.7 if "embed" in name else 0.02 if "probe" in name else 0.5 / math.sqrt(weight.shape[1])
                nn.init.normal_(weight, std=scale)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.data.mul_(0.3)
        nn.init.constant_(self.norm.weight, 0.1)  # large embeddings keep a token's identity visible; logits stay small
        # Equal queries and keys in the slowly turning channels attend to equal tokens, near or far, from the start.
        slow = torch.arange(shape.hidden_size) % (shape.head_dim // 2) >= shape.head_dim // 4
        for layer in self.layers[2:4]:
            attention = layer.self_attn
            attention.q_proj.weight.data.mul_(3.0 * slow[:, None])
            attention.k_proj.weight.data.copy_(attention.q_proj.weight)

    def copying_loss(self, last: Tensor, query: Tensor, source: Tensor) -> Tensor:
        """Return how little the copying heads of the last layer attend to where a token is to be copied from.

        Args:
            last: hidden states before the last layer (batch, length, hidden).
            query: positions (batch, pointers) of the tokens before those to copy.
            source: (batch, pointers, length) the places to copy from; none for padding.
        """
        layer = self.layers[-1]
        x = layer.input_layernorm(last)
        batch, length, _ = x.shape
        rows = slice(0, COPYING_HEADS * self.shape.head_dim)
        attention = layer.self_attn
        cos, sin = self.cos[:length].to(x.dtype), self.sin[:length].to(x.dtype)
        k = F.linear(x, attention.k_proj.weight[rows]).view(batch, length, COPYING_HEADS, -1).transpose(1, 2)
        chosen = x[torch.arange(batch)[:, None], query]
        q = F.linear(chosen, attention.q_proj.weight[rows]).view(batch, -1, COPYING_HEADS, self.shape.head_dim)
        q = rotate(q, cos[query][:, :, None], sin[query][:, :, None]).transpose(1, 2)
        scores = (q @ rotate(k, cos, sin).transpose(-1, -2)).float() / math.sqrt(self.shape.head_dim)
        seen = torch.arange(length) <= query[:, None, :, None]
        every = scores.masked_fill(~seen, -1e9).logsumexp(-1)
        right = scores.masked_fill(~source[:, None], -1e9).logsumexp(-1)
        used = source.any(-1)[:, None].expand_as(every)
        return (every - right)[used].mean()

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the final hidden states and those that the passage, question and choice probes read."""
        x = self.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]].to(x.dtype), self.sin[: ids.shape[1]].to(x.dtype)
        seen: dict[int, Tensor] = {}
        for n, layer in enumerate(self.layers, start=1):
            x = layer(x, cos, sin)
            seen[n] = x
        return self.norm(x), seen[2], seen[4], seen[5]
