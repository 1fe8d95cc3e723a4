"""Chat templates for checkpoints that bring none; rows of the family table name them."""

from __future__ import annotations

ROLES_TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'user' -%}<用户>{{ m.content | trim }}<AI>"
    "{%- else -%}{{ m.content | trim }}{%- endif -%}"
    "{%- endfor -%}"
)
"""The plain-text roles of MiniCPM-1B and 2B (`chat()` of the official modelling code)."""

PLAIN_CHATML_TEMPLATE = (
    r"{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
"""ChatML of MiniCPM3, MiniCPM4 and MiniCPM-2B-128k."""

CHATML_TEMPLATE = PLAIN_CHATML_TEMPLATE.removesuffix("{%- endif -%}") + (
    r"{%- if enable_thinking is defined -%}"
    r"{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}"
    r"{%- endif -%}{%- endif -%}"
)
"""ChatML with the thinking switch."""

QWEN2_TEMPLATE = (
    r"{%- if messages[0].role != 'system' -%}"
    r"{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif -%}"
) + PLAIN_CHATML_TEMPLATE
"""Qwen2's ChatML, with its default system message."""

LLAMA3_TEMPLATE = (
    r"{{ '<|begin_of_text|>' }}{%- for m in messages -%}"
    r"{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
)
"""Llama 3's headers."""
