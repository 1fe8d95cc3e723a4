"""The experts of a mixture: their tensors stacked for transformers, or apart so that they can be quantised."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from minicpm_core.weights import StoredTensor, Tensors

_BLOCK = "block_sparse_moe"
_ROUTER = re.compile(r"(model\.layers\.\d+)\.(?:mlp\.gate|block_sparse_moe\.router\.layer)\.weight")
_EXPERT = re.compile(r"(model\.layers\.\d+)\.mlp\.experts\.(\d+)\.(w[123])\.weight")
_STACKED = re.compile(r"(model\.layers\.\d+)\.block_sparse_moe\.(?:experts\.)?(\w+?)(?:\.weight)?")
_STACKED_NAMES = {
    "gate_up_proj": "gate_up_proj",
    "input_linear": "gate_up_proj",
    "down_proj": "down_proj",
    "output_linear": "down_proj",
}
_LINEAR_NAMES = {"gate_up_proj": "gate_up", "down_proj": "down"}
_PARTS = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}
"""What transformers calls the matrices of all experts, and the official tensors that each is made of."""


def stack(tensors: Tensors) -> Tensors:
    """Return the tensors as transformers stores experts: gate and up (w1, w3) in one, each stacked over the experts."""
    arranged, experts = _split(tensors)
    for layer, rows in experts.items():
        for name, parts in _PARTS.items():
            joined = [_join(row, parts) for row in rows]
            target = f"{layer}.{_BLOCK}.experts.{name}"
            shape = (len(rows), *joined[0].shape)
            arranged[target] = StoredTensor(target, joined[0].dtype, shape, partial(_read_stacked, joined))
    return arranged


def separate(tensors: Tensors) -> Tensors:
    """Return the tensors under the names of `linear_class`: two matrices per expert."""
    arranged, experts = _split(tensors)
    for layer, rows in experts.items():
        for number, row in enumerate(rows):
            for name, parts in _PARTS.items():
                arranged[f"{layer}.{_BLOCK}.experts.{_LINEAR_NAMES[name]}.{number}.weight"] = _join(row, parts)
    for stored, tensor in list(arranged.items()):
        if not (found := _STACKED.fullmatch(stored)) or found[2] not in _STACKED_NAMES or len(tensor.shape) != 3:
            continue
        del arranged[stored]
        linear = _LINEAR_NAMES[_STACKED_NAMES[found[2]]]
        for number in range(tensor.shape[0]):
            name = f"{found[1]}.{_BLOCK}.experts.{linear}.{number}.weight"
            read = partial(_read_one, tensor.read, number)
            arranged[name] = StoredTensor(name, tensor.dtype, tensor.shape[1:], read)
    return arranged


def _split(tensors: Tensors) -> tuple[dict[str, StoredTensor], dict[str, list[dict[str, StoredTensor]]]]:
    """Part the official tensors of experts (layer -> experts in order -> w1, w2, w3) from the others."""
    others: dict[str, StoredTensor] = {}
    experts: dict[str, dict[int, dict[str, StoredTensor]]] = {}
    for name, tensor in tensors.items():
        if found := _EXPERT.fullmatch(name):
            experts.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = tensor
        elif found := _ROUTER.fullmatch(name):
            others[f"{found[1]}.{_BLOCK}.router.weight"] = tensor
        else:
            others[name] = tensor
    for layer, numbered in experts.items():
        for number in range(max(len(numbered), max(numbered) + 1)):
            for part in ("w1", "w2", "w3"):
                if part not in numbered.get(number, {}):
                    raise ValueError(f"the checkpoint lacks tensor {layer}.mlp.experts.{number}.{part}.weight")
    return others, {layer: [numbered[n] for n in sorted(numbered)] for layer, numbered in experts.items()}


def _join(row: dict[str, StoredTensor], parts: Sequence[str]) -> StoredTensor:
    """Return the parts of one expert one below the other."""
    tensors = [row[part] for part in parts]
    shape = (sum(t.shape[0] for t in tensors), *tensors[0].shape[1:])
    return StoredTensor(tensors[0].name, tensors[0].dtype, shape, partial(_read_joined, tensors))


def _read_joined(tensors: Sequence[StoredTensor]) -> Any:
    import torch

    return torch.cat([tensor[...] for tensor in tensors])


def _read_stacked(tensors: Sequence[StoredTensor]) -> Any:
    """Return [experts, rows, columns], filled expert by expert so that only one is in memory beside the result."""
    first = tensors[0].read()
    result = first.new_empty((len(tensors), *first.shape))
    for place, tensor in zip(result, tensors, strict=True):
        place.copy_(tensor.read())
    return result


def _read_one(read: Callable[[], Any], number: int) -> Any:
    return read()[number]


@cache
def linear_class() -> Any:
    """Return GraniteMoeForCausalLM with two linear layers per expert, which bitsandbytes can quantise."""
    import torch
    from transformers import GraniteMoeForCausalLM
    from transformers.activations import ACT2FN

    class LinearExperts(torch.nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            hidden, inner, count = config.hidden_size, config.intermediate_size, config.num_local_experts
            self.gate_up = torch.nn.ModuleList(torch.nn.Linear(hidden, 2 * inner, bias=False) for _ in range(count))
            self.down = torch.nn.ModuleList(torch.nn.Linear(inner, hidden, bias=False) for _ in range(count))
            self.act_fn = ACT2FN[config.hidden_act]

        def forward(self, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
            result = torch.zeros_like(hidden_states)
            for expert in top_k_index.unique().tolist():
                token, rank = torch.where(top_k_index == expert)
                gate, up = self.gate_up[expert](hidden_states[token]).chunk(2, dim=-1)
                output = self.down[expert](self.act_fn(gate) * up) * top_k_weights[token, rank, None]
                result.index_add_(0, token, output.to(result.dtype))
            return result

    class LinearExpertsForCausalLM(GraniteMoeForCausalLM):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for layer in self.model.layers:
                layer.block_sparse_moe.experts = LinearExperts(config)

    return LinearExpertsForCausalLM
