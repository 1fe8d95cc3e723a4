"""The vision transformer of MiniCPM-V 1.0 to 4.5: SigLIP's layers over patches of pictures of any size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class TowerSizes:
    """The shape of a tower; `exact_gelu` tells timm's activation from SigLIP's tanh approximation."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    patch: int
    places: int
    eps: float = 1e-6
    exact_gelu: bool = False

    def __post_init__(self) -> None:
        if self.heads < 1 or self.hidden % self.heads:
            raise ValueError(f"the vision tower's width {self.hidden} is not a multiple of its {self.heads} heads")


class Attention(nn.Module):
    """Attention of every patch to every patch."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.k_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.v_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.out_proj = nn.Linear(sizes.hidden, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended values, [batch, patches, hidden]."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(-2))  # type: ignore[no-any-return]


class Feedforward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.approximate = "none" if sizes.exact_gelu else "tanh"
        self.fc1 = nn.Linear(sizes.hidden, sizes.intermediate)
        self.fc2 = nn.Linear(sizes.intermediate, sizes.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return values of the same shape."""
        return self.fc2(functional.gelu(self.fc1(x), approximate=self.approximate))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(sizes.hidden, sizes.eps)
        self.self_attn = Attention(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.hidden, sizes.eps)
        self.mlp = Feedforward(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return values of the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Embeddings(nn.Module):
    """The projection of a patch's pixels, and the square table of places."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, sizes.hidden, sizes.patch, sizes.patch)
        self.position_embedding = nn.Embedding(sizes.places, sizes.hidden)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the patches projected, [batch, patches, hidden]; the convolution, whose stride is its size."""
        return functional.linear(patches, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return values of the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class Tower(nn.Module):
    """Turns a picture's patches into features; tensors are named as in MiniCPM-V 2.5 to 4.5."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embeddings = Embeddings(sizes)
        self.encoder = Encoder(sizes)
        self.post_layernorm = nn.LayerNorm(sizes.hidden, sizes.eps)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Return features, [batch, patches, hidden].

        Args:
            patches: pixel values, [batch, patches, 3 * patch * patch], channel first within a patch.
            positions: the patches' position embeddings, [patches, hidden].
        """
        return self.post_layernorm(self.encoder(self.embeddings(patches) + positions))  # type: ignore[no-any-return]

    def grid_positions(self, rows: int, columns: int) -> Tensor:
        """Return embeddings of the places of a grid spread over the square table (NaViT), [rows * columns, hidden]."""
        table = self.embeddings.position_embedding.weight
        side = math.isqrt(self.sizes.places)
        ids = bucket(rows, side)[:, None] * side + bucket(columns, side)
        return table[ids.flatten().to(table.device)]

    def resized_positions(self, rows: int, columns: int) -> Tensor:
        """Return the table resized to a grid as timm's `resample_abs_pos_embed` does, [rows * columns, hidden]."""
        table = self.embeddings.position_embedding.weight
        side = math.isqrt(self.sizes.places)
        if (rows, columns) == (side, side):
            return table
        square = table.float().view(1, side, side, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(square, size=(rows, columns), mode="bicubic", antialias=True)
        return resized.permute(0, 2, 3, 1).reshape(rows * columns, -1).to(table.dtype)


def bucket(count: int, side: int) -> Tensor:
    """Return the table's row for each of `count` places, as the official code rounds it.

    The step is a float32 1/count there, which moves some places by one row; i/count would not give the same ids.
    """
    step = (1 / torch.tensor(count, dtype=torch.int32)).item()
    places = torch.arange(0, 1 - 1e-6, step)
    return torch.bucketize(places, torch.arange(1 / side, 1.0, 1 / side), right=True)
