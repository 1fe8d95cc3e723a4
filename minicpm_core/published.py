"""Shapes of published checkpoints, to tell what fits into a memory before anything is downloaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedModel:
    """A checkpoint's shape under the names of its config; sizes in elements, lengths in tokens."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of a layer's matrices: queries, keys, values, output; gate, up and down."""
        hidden, queries, keys = (
            self.hidden_size,
            *(heads * self.head_dim for heads in (self.num_attention_heads, self.num_key_value_heads)),
        )
        middle = self.intermediate_size
        attention = (queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)
        return *attention, (middle, hidden), (middle, hidden), (hidden, middle)

    @property
    def norm_weights(self) -> int:
        """Elements of the norms."""
        return (2 * self.num_hidden_layers + 1) * self.hidden_size

    @property
    def parameters(self) -> int:
        """Elements of all weights."""
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        linears = sum(rows * columns for rows, columns in self.matrices)
        return tables + self.norm_weights + self.num_hidden_layers * linears


PUBLISHED: tuple[PublishedModel, ...] = (
    PublishedModel("openbmb/MiniCPM4-0.5B", 1024, 4096, 24, 16, 2, 64, 73448, 32768, True),
    PublishedModel("openbmb/MiniCPM5-1B", 1536, 4608, 24, 16, 2, 128, 130560, 131072, False),
    PublishedModel("openbmb/MiniCPM-1B-sft-bf16", 1536, 3840, 52, 24, 8, 64, 73440, 4096, True),
    PublishedModel("openbmb/MiniCPM-2B-sft-bf16", 2304, 5760, 40, 36, 36, 64, 122753, 4096, True),
    PublishedModel("openbmb/MiniCPM4.1-8B", 4096, 16384, 32, 32, 2, 128, 73448, 65536, False),
)
