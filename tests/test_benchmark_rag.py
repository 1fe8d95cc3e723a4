"""The parts of `benchmarks.rag` that count, on cases counted by hand."""

from __future__ import annotations

from benchmarks.rag import kind_of, other_half, refusals_by_kind
from benchmarks.rag_causes import describe_odds
from benchmarks.stand_in import to_llama
from minicpm_app.evaluate_rag import Measured
from minicpm_core.rag import REFUSALS, Passage, RagSettings
from minicpm_core.rag_evaluation import Answered, Question


def test_the_other_half_takes_every_second_question_of_each_kind() -> None:
    plain = [Question(text, "a") for text in ("one", "two", "three", "一", "二")]
    asked = [*plain, Question("four", "a"), Question("five", "a"), Question("三", "a")]
    ranks = (1, 2, 3, 4, 5, 6, None, 8)
    assert other_half(ranks, asked, plain) == (2, 5, None)


def test_what_a_threshold_on_the_odds_could_reach() -> None:
    wanted = [(Question(str(n), "a"), float(n)) for n in range(20)]
    others = [(Question(f"no {n}"), 8.5 + n) for n in range(20)]
    (line,) = describe_odds([*wanted, *others])
    assert "area under the curve of 0.83" in line  # 334 of 400 pairs
    assert "5 % false refusals leave 10 of 20 (50.0 %) right ones" in line
    assert "85 % right ones cost 8 of 20 (40.0 %) false ones" in line


def test_refusals_are_counted_by_kind_and_way() -> None:
    plain = [Question("one", "a"), Question("一", "a"), Question("none"), Question("near", near=True)]
    asked = [*plain, Question("other", "a"), Question("once more", "a")]
    kinds = ["answered, en", "answered, zh", "that must be, en", "that must be, en, near misses"]
    assert [kind_of(question, plain) for question in asked] == [*kinds, *["answered, en, other words"] * 2]

    def answered(*refused: str) -> list[Answered]:
        said = {True: REFUSALS["en"], False: "Yes [1]."}
        return [Answered(q, said[q.question in refused], (Passage("1", "Yes.", "a"),)) for q in asked]

    found = Measured(asked, {}, answered("other", "none"), RagSettings(), asked=answered("near", "none", "once more"))
    head, rows = refusals_by_kind(found, plain)
    assert head[1:] == [
        "of 1 answered, en",
        "of 2 answered, en, other words",
        "of 1 answered, zh",
        "of 1 that must be, en",
        "of 1 that must be, en, near misses",
    ]
    assert rows == [["as it is", 0, 1, 0, 1, 0], ["asked first", 0, 1, 0, 1, 1]]


def test_the_stand_in_computes_what_its_original_does() -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    ids = torch.randint(0, 99, (1, 20))
    with torch.inference_mode():
        expected = model(ids).logits
        torch.testing.assert_close(to_llama(model)(ids).logits, expected, rtol=0, atol=1e-6)
        for name, weight in model.named_parameters():
            if name.endswith("q_proj.bias"):
                weight.zero_()
        assert not torch.allclose(model(ids).logits, expected, atol=1e-3)
