"""Show how often a checkpoint refuses when the refusals' first tokens weigh more: the choice of `REFUSAL_SCALES`.

`python -m tools.demo_model.calibrate FOLDER`, with FOLDER exported with `--no-calibration`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from minicpm_core.rag import REFUSALS, Language, build_messages
from tools.demo_model.heldout import KINDS, make_set

SCALES = (1.0, 1.02, 1.03, 1.04, 1.06, 1.08, 1.1, 1.15)


def main() -> None:
    """Print the share of refusals per language, set and scale, on other questions than `evaluate` asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.folder)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    cite = tokenizer.encode("[", add_special_tokens=False)[0]
    languages: tuple[Language, ...] = ("en", "zh")
    for language in languages:
        refuse = tokenizer.encode(REFUSALS[language], add_special_tokens=False)[0]
        for kind in KINDS:
            logits = []
            for question in make_set(language, kind, count=args.count, seed=args.seed):
                messages = build_messages(question.question, question.passages)
                prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
                with torch.inference_mode():
                    logits.append(model(ids, logits_to_keep=1).logits[0, -1, [refuse, cite]])
            row = torch.stack(logits)
            shares = (f"{scale}: {100 * (row[:, 0] * scale > row[:, 1]).float().mean():.0f} %" for scale in SCALES)
            print(f"{language} {kind:12} refused at", *shares)


if __name__ == "__main__":
    main()
