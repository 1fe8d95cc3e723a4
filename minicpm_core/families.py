"""The table of checkpoint families: how each is recognised, loaded, prompted, parsed and sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minicpm_core import translation
from minicpm_core.types import Sampling

Json = Mapping[str, Any]

ROLES_TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'user' -%}<用户>{{ m.content | trim }}<AI>"
    "{%- else -%}{{ m.content | trim }}{%- endif -%}"
    "{%- endfor -%}"
)
"""The plain-text roles of MiniCPM-1B and 2B (`chat()` of the official modelling code)."""

CHATML_TEMPLATE = (
    r"{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}"
    r"{%- if enable_thinking is defined -%}"
    r"{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}"
    r"{%- endif -%}{%- endif -%}"
)
"""ChatML with the thinking switch."""


@dataclass(frozen=True)
class Family:
    """What the engine knows about a family of checkpoints.

    Args:
        name: the value of `family=`.
        covers: the published checkpoints, for people.
        recognise: tells from config.json and the chat template ("" where there is none) whether it belongs here.
        translate: makes the config of the transformers class out of config.json.
        model_class: the class in transformers that computes what the official code computes.
        sampling: recommended values without thinking; thinking_sampling with it (None: the same).
        chat_template: used where the checkpoint brings none.
        add_bos: the prompt begins with the BOS id, which the template may or may not have written.
        stop_tokens: texts of tokens that end a turn, besides the checkpoint's own eos ids.
        thinking: the template understands `enable_thinking`, and answers may begin with a `<think>` part.
    """

    name: str
    covers: str
    recognise: Callable[[Json, str], bool]
    translate: Callable[[Json], Any]
    model_class: str
    sampling: Sampling
    chat_template: str
    thinking_sampling: Sampling | None = None
    add_bos: bool = True
    stop_tokens: tuple[str, ...] = ("<|im_end|>",)
    thinking: bool = False


def _is(config: Json, *model_types: str) -> bool:
    return config.get("model_type") in model_types


def _is_chatml(template: str) -> bool:
    return "<|im_start|>" in template


_ROLES_SAMPLING = Sampling(temperature=0.5, top_p=0.8, top_k=0, repetition_penalty=1.02, max_new_tokens=1024)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="minicpm5",
        covers="MiniCPM5-1B, MiniCPM5-2B, the demo checkpoint",
        recognise=lambda config, template: _is(config, "llama") and _is_chatml(template),
        translate=translation.to_llama,
        model_class="LlamaForCausalLM",
        sampling=Sampling(temperature=0.7, top_p=0.95, top_k=0, repetition_penalty=1.0, max_new_tokens=2048),
        thinking_sampling=Sampling(temperature=0.9, top_p=0.95, top_k=0, repetition_penalty=1.0, max_new_tokens=8192),
        chat_template="<s>" + CHATML_TEMPLATE,
        thinking=True,
    ),
    Family(
        name="minicpm-llama",
        covers="MiniCPM-2B in llama format (sft, dpo)",
        recognise=lambda config, template: _is(config, "llama") and (not template or "<用户>" in template),
        translate=translation.to_llama,
        model_class="LlamaForCausalLM",
        sampling=Sampling(temperature=0.3, top_p=0.8, top_k=0, repetition_penalty=1.02, max_new_tokens=1024),
        chat_template=ROLES_TEMPLATE,
        stop_tokens=(),
    ),
    Family(
        name="minicpm",
        covers="MiniCPM-1B, MiniCPM-2B (sft, dpo; bf16, fp32)",
        recognise=lambda config, template: (
            _is(config, "minicpm") and not _is_chatml(template) and not translation.is_mixture(config)
        ),
        translate=translation.to_granite,
        model_class="GraniteForCausalLM",
        sampling=_ROLES_SAMPLING,
        chat_template=ROLES_TEMPLATE,
        stop_tokens=(),
    ),
)


def find_family(config: Json, chat_template: str, family: str | None = None) -> Family:
    """Return the row named `family`, or else the first that recognises the checkpoint.

    Raises:
        ValueError: no row has that name, or none recognises the checkpoint; lists the names.
    """
    names = ", ".join(row.name for row in FAMILIES)
    if family is not None:
        for row in FAMILIES:
            if row.name == family:
                return row
        raise ValueError(f"family {family!r} is unknown; accepted: {names}")
    for row in FAMILIES:
        if row.recognise(config, chat_template):
            return row
    raise ValueError(
        f"no MiniCPM family has model_type {config.get('model_type')!r} with such a config and chat template; "
        f"known families: {names}. If the checkpoint is one of these, name it with family=..."
    )
