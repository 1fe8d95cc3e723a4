"""The table of checkpoint families: how each is recognised, loaded, prompted, parsed and sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from minicpm_core import experts, translation, weights
from minicpm_core.chat_templates import (
    CHATML_TEMPLATE,
    LLAMA3_TEMPLATE,
    PLAIN_CHATML_TEMPLATE,
    QWEN2_TEMPLATE,
    ROLES_TEMPLATE,
)
from minicpm_core.decoding import THINK, Tags
from minicpm_core.dialects import HERMES, JSON, MINICPM5, PYTHON, QWEN3_CODER, Dialect
from minicpm_core.types import Sampling
from minicpm_core.vision import Vision, configs
from minicpm_core.vision.minicpmv import language_part

Json = Mapping[str, Any]


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
        arrange: gives the stored tensors the names and shapes of the class in transformers.
        quantized_class: makes the class to use instead for int4 and int8; its tensors are `quantized_arrange`'s.
        notice: a sentence about what the config asks for and does not get, "" where there is nothing to say.
        vision: how it sees pictures, None where it reads text only.
        dialect: the syntax of its tool calls.
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
    arrange: Callable[[weights.Tensors], weights.Tensors] = weights.unchanged
    quantized_class: Callable[[], Any] | None = None
    quantized_arrange: Callable[[weights.Tensors], weights.Tensors] | None = None
    notice: Callable[[Json], str] = lambda config: ""
    vision: Vision | None = None
    dialect: Dialect = JSON

    @property
    def tags(self) -> tuple[Tags, ...]:
        """The tags around reasoning, as the chat template and the dialect write it."""
        return ((THINK,) if self.thinking else ()) + ((self.dialect.thought,) if self.dialect.thought else ())


@dataclass(frozen=True)
class Unsupported:
    """A kind of checkpoint that is known and not loaded, and why."""

    covers: str
    recognise: Callable[[Json], bool]
    reason: str


def _is(config: Json, *model_types: str) -> bool:
    return translation.model_type(config) in model_types


def _is_chatml(template: str) -> bool:
    return "<|im_start|>" in template


def _is_roles(template: str) -> bool:
    return "<用户>" in template


def _is_thinking(template: str) -> bool:
    return "enable_thinking" in template


def _is_text(config: Json, template: str) -> bool:
    """Tell a dense MiniCPM with muP: as published, or as saved by a class of transformers with MiniCPM's template."""
    saved = _is(config, "granite") and (_is_chatml(template) or _is_roles(template))
    other = translation.is_mixture(config) or "mixer_types" in config
    return (_is(config, "minicpm") or saved) and not other


def _is_long(config: Json, template: str) -> bool:
    """Tell MiniCPM4 and later from those before; by LongRoPE, or by ChatML where the config does not show it."""
    return translation.is_longrope(config) or "mup_denominator" in config


_QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")
_ROLES_SAMPLING = Sampling(temperature=0.5, top_p=0.8, top_k=0, repetition_penalty=1.02, max_new_tokens=1024)
_CHAT_SAMPLING = Sampling(temperature=0.7, top_p=0.7, top_k=0, repetition_penalty=1.0, max_new_tokens=1024)


def _seeing(version: str, covers: str, translate: Callable[[Json], Any], model_class: str, **more: Any) -> Family:
    """Return the row of a MiniCPM-V or o version whose language model is a class of its own in transformers."""
    row: dict[str, Any] = {
        "name": f"minicpm-v-{version}",
        "recognise": lambda config, template: configs.vision_version(config) == version,
        "sampling": Sampling(temperature=0.7, top_p=0.8, top_k=100, repetition_penalty=1.05, max_new_tokens=2048),
        "chat_template": PLAIN_CHATML_TEMPLATE,
        "add_bos": False,
        "arrange": language_part,
        "vision": Vision(),
    }
    return Family(covers=covers, translate=translate, model_class=model_class, **(row | more))


def _native(name: str, covers: str, model_type: str, class_prefix: str) -> Family:
    """Return the row of a vision family whose whole model is a class of transformers."""
    return Family(
        name=name,
        covers=covers,
        recognise=lambda config, template: _is(config, model_type),
        translate=partial(configs.to_native, f"{class_prefix}Config"),
        model_class=f"{class_prefix}ForConditionalGeneration",
        sampling=Sampling(temperature=0.7, top_p=1.0, top_k=0, repetition_penalty=1.0, max_new_tokens=2048),
        chat_template=CHATML_TEMPLATE,
        add_bos=False,
        stop_tokens=_QWEN_STOPS,
        thinking=True,
        vision=Vision(module="minicpm_core.vision.native"),
        dialect=QWEN3_CODER,
    )


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
        dialect=MINICPM5,
    ),
    Family(
        name="minicpm-llama",
        covers="MiniCPM-2B and MiniCPM-S-1B in llama format",
        recognise=lambda config, template: _is(config, "llama") and (not template or _is_roles(template)),
        translate=translation.to_llama,
        model_class="LlamaForCausalLM",
        sampling=Sampling(temperature=0.3, top_p=0.8, top_k=0, repetition_penalty=1.02, max_new_tokens=1024),
        chat_template=ROLES_TEMPLATE,
        stop_tokens=(),
    ),
    Family(
        name="minicpm-moe",
        covers="MiniCPM-MoE-8x2B",
        recognise=lambda config, template: (
            (_is(config, "minicpm") or (_is(config, "granitemoe") and (_is_roles(template) or _is_chatml(template))))
            and translation.is_mixture(config)
        ),
        translate=translation.to_granite_mixture,
        model_class="GraniteMoeForCausalLM",
        sampling=_ROLES_SAMPLING,
        chat_template=ROLES_TEMPLATE,
        stop_tokens=(),
        arrange=experts.stack,
        quantized_class=experts.linear_class,
        quantized_arrange=experts.separate,
    ),
    Family(
        name="minicpm-s",
        covers="MiniCPM-S-1B (FATReLU)",
        recognise=lambda config, template: (
            _is_text(config, template) and translation.is_sparse(config) and not _is_chatml(template)
        ),
        translate=translation.to_granite,
        model_class="GraniteForCausalLM",
        sampling=_ROLES_SAMPLING,
        chat_template=ROLES_TEMPLATE,
        stop_tokens=(),
    ),
    Family(
        name="minicpm4.1",
        covers="MiniCPM4.1-8B",
        recognise=lambda config, template: (
            _is_text(config, template) and _is_chatml(template) and _is_thinking(template)
        ),
        translate=translation.to_granite,
        model_class="GraniteForCausalLM",
        sampling=Sampling(temperature=0.6, top_p=0.95, top_k=0, repetition_penalty=1.0, max_new_tokens=2048),
        thinking_sampling=Sampling(temperature=0.6, top_p=0.95, top_k=0, repetition_penalty=1.0, max_new_tokens=32768),
        chat_template=CHATML_TEMPLATE,
        thinking=True,
        notice=translation.sparse_attention_notice,
        dialect=PYTHON,
    ),
    Family(
        name="minicpm4",
        covers="MiniCPM4-0.5B, MiniCPM4-8B, BitCPM4-0.5B, BitCPM4-1B",
        recognise=lambda config, template: (
            _is_text(config, template) and not _is_roles(template) and _is_long(config, template)
        ),
        translate=translation.to_granite,
        model_class="GraniteForCausalLM",
        sampling=_CHAT_SAMPLING,
        chat_template=PLAIN_CHATML_TEMPLATE,
        notice=translation.sparse_attention_notice,
        dialect=PYTHON,
    ),
    Family(
        name="minicpm-128k",
        covers="MiniCPM-2B-128k",
        recognise=lambda config, template: _is_text(config, template) and _is_chatml(template),
        translate=translation.to_granite,
        model_class="GraniteForCausalLM",
        sampling=_ROLES_SAMPLING,
        chat_template=PLAIN_CHATML_TEMPLATE,
    ),
    Family(
        name="minicpm3",
        covers="MiniCPM3-4B",
        recognise=lambda config, template: _is(config, "minicpm3"),
        translate=translation.to_latent,
        model_class="MiniCPM3ForCausalLM",
        sampling=_CHAT_SAMPLING,
        chat_template=PLAIN_CHATML_TEMPLATE,
        dialect=PYTHON,
    ),
    Family(
        name="minicpm",
        covers="MiniCPM-1B, MiniCPM-2B (sft, dpo; bf16, fp32)",
        recognise=lambda config, template: _is_text(config, template),
        translate=translation.to_granite,
        model_class="GraniteForCausalLM",
        sampling=_ROLES_SAMPLING,
        chat_template=ROLES_TEMPLATE,
        stop_tokens=(),
    ),
    _seeing(
        "1.0",
        "MiniCPM-V (1.0)",
        configs.to_granite,
        "GraniteForCausalLM",
        chat_template=ROLES_TEMPLATE,
        add_bos=True,
        stop_tokens=(),
        vision=Vision(tower="square", nested_slices=True, sliced=False),
    ),
    _seeing(
        "2.0",
        "MiniCPM-V 2.0",
        configs.to_granite,
        "GraniteForCausalLM",
        chat_template=ROLES_TEMPLATE,
        add_bos=True,
        stop_tokens=(),
        vision=Vision(tower="square", nested_slices=True),
    ),
    _seeing(
        "2.5",
        "MiniCPM-Llama3-V 2.5",
        translation.to_llama,
        "LlamaForCausalLM",
        chat_template=LLAMA3_TEMPLATE,
        add_bos=True,
        stop_tokens=("<|eot_id|>", "<|end_of_text|>"),
        vision=Vision(tower="strip", nested_slices=True),
    ),
    _seeing(
        "2.6",
        "MiniCPM-V 2.6, text and pictures of MiniCPM-o 2.6",
        configs.to_qwen2,
        "Qwen2ForCausalLM",
        chat_template=QWEN2_TEMPLATE,
        stop_tokens=_QWEN_STOPS,
    ),
    _seeing("4.0", "MiniCPM-V 4.0", translation.to_llama, "LlamaForCausalLM"),
    _seeing(
        "4.5",
        "MiniCPM-V 4.5, text and pictures of MiniCPM-o 4.5",
        configs.to_qwen3,
        "Qwen3ForCausalLM",
        chat_template=CHATML_TEMPLATE,
        stop_tokens=_QWEN_STOPS,
        thinking=True,
        vision=Vision(temporal=True),
        dialect=HERMES,
    ),
    _native("minicpm-v-4.6", "MiniCPM-V 4.6", "minicpmv4_6", "MiniCPMV4_6"),
    _native("minicpm-v-4.7", "MiniCPM-V 4.7", "minicpmv4_7", "MiniCPMV4_7"),
    _native("minicpm-ocr", "MiniCPM-OCR", "minicpm_ocr", "MiniCPMOcr"),
)

UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported(
        covers="MiniCPM-SALA",
        recognise=lambda config: _is(config, "minicpm_sala") or "mixer_types" in config,
        reason="its lightning attention layers exist in no class of transformers; "
        "use openbmb/MiniCPM4.1-8B, the dense model of the same size",
    ),
    Unsupported(
        covers="OmniLMM-12B",
        recognise=lambda config: _is(config, "omnilmm"),
        reason="its EVA-02 vision tower exists in no class of transformers; "
        "use openbmb/MiniCPM-V-4.6, which is smaller and newer",
    ),
)
"""Looked at after FAMILIES, so that a new row there takes a kind of checkpoint out of here."""


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
    for kind in UNSUPPORTED:
        if kind.recognise(config):
            raise ValueError(f"this is a checkpoint of {kind.covers}, which is not supported: {kind.reason}")
    raise ValueError(
        f"no MiniCPM family has model_type {translation.model_type(config)!r} with such a config and chat template; "
        f"known families: {names}. If the checkpoint is one of these, name it with family=..."
    )
