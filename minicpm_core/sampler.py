"""Draws the next token."""

from __future__ import annotations

from typing import Any

from minicpm_core.types import Sampling

_NUCLEUS_HEAD = 512


class Sampler:
    """Draws token ids by temperature, top_k, top_p and repetition penalty, reproducibly when there is a seed."""

    def __init__(self, sampling: Sampling, prompt_ids: list[int]) -> None:
        import torch

        self._temperature = 1.0 if sampling.temperature is None else sampling.temperature
        self._top_p = 1.0 if sampling.top_p is None else sampling.top_p
        self._top_k = sampling.top_k or 0
        self._penalty = sampling.repetition_penalty or 1.0
        self._used = prompt_ids  # before the first draw
        self._seen: Any = None  # [vocabulary], which tokens occurred, the prompt's among them
        self._random = torch.Generator()  # on the CPU, so that a seed gives the same draws on every device
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def draw(self, logits: Any, allowed: Any = None) -> int:
        """Return a token id drawn from `logits`; `accept` tells whether it is used.

        Args:
            logits: one row, [vocabulary].
            allowed: which tokens may be drawn, booleans of the same shape; None allows all.
        """
        import torch

        logits = logits.float()
        if self._penalty != 1.0:
            if self._seen is None:
                self._seen = torch.zeros(logits.numel(), dtype=torch.bool, device=logits.device)
                self._seen[self._used] = True
            penalised = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
            logits = torch.where(self._seen, penalised, logits)
        if allowed is not None:
            logits = logits.masked_fill(~allowed, float("-inf"))
        return self._choose(logits)

    def accept(self, token: int) -> None:
        """Count the token as one that occurred."""
        if self._seen is None:
            self._used.append(token)
        else:
            self._seen[token] = True

    def _choose(self, logits: Any) -> int:
        import torch

        if self._temperature == 0:
            return int(logits.argmax())
        logits, ids = logits / self._temperature, None
        if 0 < self._top_k < logits.numel():
            logits, ids = logits.topk(self._top_k)
        if self._top_p < 1:
            logits, nucleus = self._nucleus(logits)
            ids = nucleus if ids is None else ids[nucleus]
        place = torch.multinomial(torch.softmax(logits, dim=-1).cpu(), 1, generator=self._random)
        return int(place if ids is None else ids[place])

    def _nucleus(self, logits: Any) -> tuple[Any, Any]:
        """Return the fewest largest logits that hold `top_p` of the probability, and their places.

        Holtzman et al. 2020, section 3.1. The whole vocabulary is sorted only where its head does not hold enough.
        """
        import torch

        mass = torch.logsumexp(logits, dim=-1)
        for size in (min(_NUCLEUS_HEAD, logits.numel()), logits.numel()):
            values, ids = logits.topk(size)
            probabilities = (values - mass).exp()
            before = probabilities.cumsum(-1) - probabilities
            if float(before[-1] + probabilities[-1]) >= self._top_p:
                break
        kept = before < self._top_p
        return values[kept], ids[kept]
