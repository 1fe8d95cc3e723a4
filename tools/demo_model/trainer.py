"""One optimisation step: answer loss, probe losses, Muon and AdamW in float32, the network in bfloat16."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo_model.meanings import Meanings
from tools.demo_model.network import Network

COPYING_WEIGHT = 1.0
MEANING_WEIGHT = 0.3


class Trainer:
    """Float32 weights with Muon and AdamW; the network computes in bfloat16."""

    def __init__(self, network: Network, *, rate: float, compiled: bool, meanings: Meanings | None = None) -> None:
        self.meanings = meanings
        self.network = network.to(torch.bfloat16)
        self.network.cos, self.network.sin = network.cos.float(), network.sin.float()
        self.forward = torch.compile(self.network, dynamic=True) if compiled else self.network
        self.names = [name for name, _ in self.network.named_parameters()]
        self.low = list(self.network.parameters())
        self.master = [p.detach().float().clone() for p in self.low]
        self.average = [p.clone() for p in self.master]
        matrices = [p for n, p in zip(self.names, self.master, strict=True) if "layers" in n and p.dim() == 2]
        others = [p for n, p in zip(self.names, self.master, strict=True) if "layers" not in n or p.dim() != 2]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]
        self.rates = (rate, rate)
        self.steps = 0
        self.usual_norm = 0.0

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a saved network."""
        for name, master, average, low in zip(self.names, self.master, self.average, self.low, strict=True):
            if name in state:
                master.copy_(state[name])
                average.copy_(state[name])
                low.data.copy_(state[name])

    def step(self, batch: dict[str, np.ndarray], *, probe: float, rate: float) -> dict[str, float]:
        """Take one step at `rate` times the full learning rate; returns losses and accuracies."""
        net = self.network
        t = {key: torch.from_numpy(value) for key, value in batch.items()}
        final, early, late, last = self.forward(t["ids"])
        size = net.shape.hidden_size
        logits = F.linear(final.reshape(-1, size)[t["where"]], net.embed_tokens.weight).float()
        losses = F.cross_entropy(logits, t["target"], reduction="none")
        answer = (losses * t["weight"]).sum() / t["weight"].sum()
        total = answer
        stats: dict[str, float] = {}
        if probe > 0 and len(batch["passage_at"]):
            seen = net.probe_passage(early.reshape(-1, size)[t["passage_at"]]).float()
            looked = net.probe_question(late.reshape(-1, size)[t["found_at"]]).float()
            one, two = F.cross_entropy(seen, t["passage"]), F.cross_entropy(looked, t["found"])
            chosen = net.probe_choice(last.reshape(-1, size)[t["choice_at"]]).float()
            total = total + probe * (one + two + F.cross_entropy(chosen, t["choice"]))
            if t["source"].any():
                copying = net.copying_loss(last, t["query"], t["source"])
                total = total + COPYING_WEIGHT * copying
                stats["copying"] = copying.item()
            stats["probe3"] = (chosen.detach().argmax(-1) == t["choice"]).float().mean().item()
            stats["probe1"] = (seen.detach().argmax(-1) == t["passage"]).float().mean().item()
            stats["probe2"] = (t["found"].gather(1, looked.detach().argmax(-1, keepdim=True)) > 0).float().mean().item()
        if self.meanings is not None:
            meaning = self.meanings.loss(net.embed_tokens.weight, net.probe_meaning)
            total = total + MEANING_WEIGHT * meaning
            stats["meaning"] = meaning.item()
        total.backward()
        grads = [
            torch.zeros_like(m) if p.grad is None else p.grad.float()
            for p, m in zip(self.low, self.master, strict=True)
        ]
        norm = float(torch.nn.utils.get_total_norm(grads))
        self.usual_norm = self.usual_norm * 0.98 + min(norm, 2 * self.usual_norm) * 0.02 if self.steps else norm
        scale = min(1.0, 1.5 * self.usual_norm / (norm + 1e-9))  # Muon scales every step alike: keep outliers small
        for master, grad, low in zip(self.master, grads, self.low, strict=True):
            master.grad = grad.mul_(scale)
            low.grad = None
        for optimizer, full in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * rate
            optimizer.step()
        self.steps += 1
        decay = min(0.995, 1 - 1 / (self.steps + 1))
        torch._foreach_lerp_(self.average, self.master, 1 - decay)
        torch._foreach_copy_([p.data for p in self.low], self.master)
        right = (logits.detach().argmax(-1) == t["target"]).float()
        cites, calls = ~t["tools"], t["tools"]
        first, second, rest = cites & (t["offset"] == 0), cites & (t["offset"] == 1), cites & (t["offset"] > 2)
        stats |= {
            "norm": norm,
            "loss": answer.item(),
        }
        chosen = calls & (t["weight"] > 3)
        shares = {"first": first, "number": second, "copy": rest, "tool": chosen, "call": calls & ~chosen}
        stats |= {name: right[mask].mean().item() for name, mask in shares.items() if mask.any()}
        return stats

    def state(self, *, averaged: bool) -> dict[str, Tensor]:
        """Return the weights by name, in float32."""
        return dict(zip(self.names, self.average if averaged else self.master, strict=True))


def schedule(progress: float, *, decay: float) -> float:
    """Return the share of the full rate: flat, then cosine to 2 % over the last `decay` of the training."""
    if progress < 1 - decay:
        return 1.0
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 1 + decay) / decay))
