"""Memory that runs out in the middle of an answer: what is freed, and what would help."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from minicpm_core.errors import OutOfMemoryError, is_exhaustion
from minicpm_core.memory_plan import MemoryPlan
from minicpm_core.sizes import gib

if TYPE_CHECKING:
    from minicpm_core.answers import Request

T = TypeVar("T")


def explain_exhaustion(
    items: Iterator[T], memory: MemoryPlan, requests: Sequence[Request], forget: Callable[[], None]
) -> Iterator[T]:
    """Yield the items; where the memory runs out, free all that the requests took and say what would help.

    Args:
        items: made by the model.
        memory: the engine's plan.
        requests: that run together.
        forget: frees what is kept of earlier requests.

    Raises:
        OutOfMemoryError: instead of what was raised, whose traceback would keep the tensors.
    """
    reason = ""
    try:
        yield from items
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        error.__traceback__ = error.__context__ = error.__cause__ = None
    if reason:
        del items
        forget()
        _collect(memory.device)
        raise OutOfMemoryError(_describe(memory, requests, reason))


def _collect(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _describe(memory: MemoryPlan, requests: Sequence[Request], reason: str) -> str:
    prompt = sum(len(request.prompt_ids) for request in requests)
    most = sum(request.sampling.max_new_tokens or 0 for request in requests)
    several = f"{len(requests)} prompts together" if len(requests) > 1 else "the prompt"
    advice = ["a lower max_tokens", f"a smaller context_window (it is {memory.context_window})"]
    if len(requests) > 1:
        advice.insert(0, "a smaller batch_size")
    limit = "" if memory.limit is None else f" (it is {gib(memory.limit)})"
    advice.append(f"a memory_limit{limit} that leaves more to other programs, and that the window is fitted to")
    if memory.quantization != "int4":
        advice.append('quantization="int4"')
    return (
        f"the memory of {memory.device} did not suffice in the middle of an answer ({several} of {prompt} tokens, up "
        f"to {most} more): {reason}; what it took is freed and the engine goes on. What helps: a shorter prompt, "
        f"{', '.join(advice)}"
    )
