"""Tower weights that a checkpoint stores in bitsandbytes' 4 bits, read as 16-bit ones."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from minicpm_core.weights import StoredTensor, Tensors

if TYPE_CHECKING:
    from torch import Tensor

_STATE = ".quant_state.bitsandbytes__"
_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")


def unpacked(tensors: Tensors) -> Tensors:
    """Return the tensors with those in 4 bits in their real shapes; what only serves to unpack them is left out.

    The official 4-bit checkpoints quantise the vision tower too, whose layers here stay in 16 bit.
    """
    states = {name.partition(_STATE)[0]: name for name in tensors if _STATE in name}
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if _STATE not in name and not any(name == weight + part for weight in states for part in _PARTS)
    }
    for name, state_name in states.items():
        try:
            state = json.loads(bytes(tensors[state_name][...].tolist()))
            shape = tuple(int(size) for size in state["shape"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the tensor {state_name} tells no shape ({error}); download it again") from error
        kept[name] = StoredTensor(name, "F16", shape, partial(unpack, name, tensors, state))
    return kept


def unpack(name: str, tensors: Tensors, state: dict[str, Any]) -> Tensor:
    """Return the weights (Dettmers et al. 2023, section 3): code values times the scale of their block.

    Two values share a byte, the first in its upper half; the scales may be stored in 8 bits in the same way.

    Raises:
        ValueError: the parts do not fit together.
    """
    import torch

    def part(suffix: str) -> Tensor:
        if name + suffix not in tensors:
            raise ValueError(f"the files lack {name}{suffix}, without which {name} cannot be unpacked")
        values: Tensor = tensors[name + suffix][...]
        return values.flatten()

    try:
        packed, scales = part(""), part(".absmax")
        if "nested_blocksize" in state:
            coarse = part(".nested_absmax").repeat_interleave(int(state["nested_blocksize"]))[: len(scales)]
            scales = part(".nested_quant_map")[scales.long()] * coarse + float(state["nested_offset"])
        codes = torch.stack([packed >> 4, packed & 15], dim=-1).flatten().long()
        values = part(".quant_map")[codes] * scales.repeat_interleave(int(state["blocksize"]))[: len(codes)]
        return values[: torch.Size(state["shape"]).numel()].view(state["shape"])
    except (RuntimeError, IndexError, KeyError) as error:
        raise ValueError(f"the parts of {name} do not fit together ({error}); download it again") from error
