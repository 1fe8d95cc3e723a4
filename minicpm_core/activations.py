"""Activations that transformers lacks, registered under names that hold their parameters."""

from __future__ import annotations

_FATRELU = "fatrelu_"


def register_activation(name: str) -> None:
    """Make `name` known to transformers: "fatrelu_0.01" is FATReLU with that threshold (Song et al. 2024, ProSparse).

    Raises:
        ValueError: transformers has no such activation and it is no FATReLU.
    """
    from transformers.activations import ACT2FN

    if name in ACT2FN:
        return
    try:
        if not name.startswith(_FATRELU):
            raise ValueError
        threshold = float(name.removeprefix(_FATRELU))
    except ValueError:
        raise ValueError(f"hidden_act in config.json is {name!r}, which is unknown") from None
    import torch

    ACT2FN[name] = (torch.nn.Threshold, {"threshold": threshold, "value": 0.0})


def is_registered_here(name: str) -> bool:
    """Tell whether other programs that load with transformers will not know the activation."""
    return name.startswith(_FATRELU)
