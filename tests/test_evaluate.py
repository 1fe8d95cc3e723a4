"""`minicpm evaluate`: the figures are those of a direct computation, a row that fails stops nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minicpm_app import evaluate as command
from minicpm_app.cli import main
from minicpm_core import evaluation_process
from minicpm_core.devices import peak_memory
from minicpm_core.evaluation import TEXT as PROSE
from minicpm_core.evaluation import Evaluation, Failure, Settings, evaluate
from minicpm_core.perplexity import log_likelihoods, sliding_windows
from tests.toy import CORPUS
from tests.toy_families import longrope, write_family
from tests.toy_minicpmv import write_minicpmv

TEXT = " ".join(CORPUS * 2)
ROW = Evaluation(
    model="demo",
    quantization="none",
    dtype="bfloat16",
    device="cpu",
    threads=2,
    weight_bytes=3 * 2**20,
    load_seconds=1.25,
    peak_bytes=500 * 2**20,
    scoring_peak_bytes=600 * 2**20,
    window=1024,
    stride=512,
    text_tokens=4,
    log_likelihoods=(-1.0, -2.0, -3.0),
    prompt_tokens=512,
    prefill_tokens_per_second=1234.4,
    decode_tokens=32,
    decode_tokens_per_second=56.78,
)


def direct_perplexity(model: Any, ids: Sequence[int], window: int, stride: int) -> float:
    """Return the perplexity as the page that `log_likelihoods` cites computes it: labels, and the model's own loss."""
    import torch

    total, count, before = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        labels = inputs.clone()
        labels[:, : before - begin if before else 0] = -100
        scored = int((labels[:, 1:] != -100).sum())
        with torch.inference_mode():
            total += float(model(inputs, labels=labels, use_cache=False).loss) * scored
        count, before = count + scored, end
        if end == len(ids):
            break
    assert count == len(ids) - 1
    return math.exp(total / count)


def perplexity(scored: Sequence[float]) -> float:
    return math.exp(-sum(scored) / len(scored))


@pytest.mark.parametrize(("window", "stride"), [(512, 256), (64, 32), (64, 63), (48, 1), (2, 1)])
def test_perplexity_is_that_of_transformers(toy: Path, window: int, stride: int) -> None:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    model = LlamaForCausalLM.from_pretrained(toy, dtype=torch.float32).eval()
    ids = PreTrainedTokenizerFast.from_pretrained(toy).encode(TEXT, add_special_tokens=False)[:200]
    with torch.inference_mode():
        scored = log_likelihoods(model, ids, window=window, stride=stride)
    assert len(scored) == len(ids) - 1
    assert perplexity(scored) == pytest.approx(direct_perplexity(model, ids, window, stride), rel=1e-4)


@pytest.mark.parametrize("family", ["minicpm", "minicpm3", "minicpm-moe", "minicpm4.1"])
def test_pieces_do_not_change_it(family: str, tmp_path: Path) -> None:
    import torch

    import minicpm_core

    with minicpm_core.load(write_family(tmp_path, family), dtype="float32") as engine, torch.inference_mode():
        ids = engine.encode(TEXT)[:150]
        expected = direct_perplexity(engine.model, ids, 100, 50)
        whole = log_likelihoods(engine.model, ids, window=100, stride=50)
        assert perplexity(whole) == pytest.approx(expected, rel=1e-4)
        for piece in (1, 7, 64):
            pieces = log_likelihoods(engine.model, ids, window=100, stride=50, piece=piece)
            assert pieces == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize(
    ("rope", "tolerance"),
    [
        (longrope(8, original=64), 1e-4),
        ({"rope_type": "dynamic", "factor": 2.0}, 1e-3),  # the last token, which scores nothing, is not read
    ],
)
def test_pieces_do_not_change_it_where_positions_turn_by_the_length(
    toy: Path, rope: dict[str, Any], tolerance: float
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(toy)
    config.rope_parameters, config.max_position_embeddings = rope | {"rope_theta": 10000.0}, 64
    torch.manual_seed(0)
    model, ids = LlamaForCausalLM(config).eval(), list(range(4, 154))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    with torch.inference_mode():
        pieces = log_likelihoods(model, ids, window=100, stride=50, piece=7)
        assert perplexity(pieces) == pytest.approx(direct_perplexity(model, ids, 100, 50), rel=tolerance)


def test_windows_score_each_token_once_with_half_a_window_before_it() -> None:
    assert list(sliding_windows(10, 4, 2)) == [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]
    assert list(sliding_windows(9, 4, 2)) == [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 9)]
    assert list(sliding_windows(4, 4, 2)) == [(0, 1, 4)]
    assert list(sliding_windows(2, 1024, 512)) == [(0, 1, 2)]


@pytest.mark.parametrize("stride", [0, 8, -1])
def test_a_stride_that_leaves_tokens_without_context_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride is {stride}; accepted: 1 to 7, less than the window of 8 tokens"):
        log_likelihoods(None, [1, 2, 3], window=8, stride=stride)


def test_perplexity_and_its_ratio_are_the_formulas() -> None:
    other = replace(ROW, quantization="int4", log_likelihoods=(-1.5, -2.1, -3.3))
    assert (ROW.cross_entropy, ROW.perplexity) == (2.0, pytest.approx(math.exp(2)))
    ratio, error = other.compare(ROW) or (0.0, 0.0)
    assert ratio == pytest.approx(other.perplexity / ROW.perplexity) == pytest.approx(math.exp(0.3))
    assert error == pytest.approx(math.exp(0.3) * 0.2 / math.sqrt(3))  # differences 0.5, 0.1, 0.3
    assert replace(other, window=512).compare(ROW) is None
    assert replace(other, log_likelihoods=(-1.5, -2.1)).compare(ROW) is None
    assert replace(ROW, log_likelihoods=(-800.0,)).perplexity == math.inf


def test_evaluate_reports_what_was_asked_for(toy: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    settings = Settings(context_window=100, stride=40, max_tokens_scored=150, prompt_tokens=20, decode_tokens=3)
    row = evaluate(str(toy), "none", TEXT, settings)
    model = LlamaForCausalLM.from_pretrained(toy, dtype=torch.float32).eval()
    ids = PreTrainedTokenizerFast.from_pretrained(toy).encode(TEXT, add_special_tokens=False)
    assert row.text_tokens == len(ids)
    assert len(row.log_likelihoods) == 150
    assert row.perplexity == pytest.approx(direct_perplexity(model, [0, *ids][:151], 100, 40), rel=1e-4)  # BOS is 0
    assert row.weight_bytes == sum(t.numel() * 4 for t in (*model.parameters(), *model.buffers()))
    assert (row.model, row.quantization, row.dtype, row.device) == (str(toy), "none", "float32", "cpu")
    assert (row.window, row.stride, row.prompt_tokens, row.decode_tokens) == (100, 40, 20, 3)
    assert min(row.load_seconds, row.prefill_tokens_per_second, row.decode_tokens_per_second) > 0
    if sys.platform == "linux":
        assert row.scoring_peak_bytes is not None
        assert row.peak_bytes is not None
        assert row.scoring_peak_bytes >= row.peak_bytes > row.weight_bytes


def test_a_family_that_sees_is_measured_on_text(tmp_path: Path) -> None:
    write_minicpmv(tmp_path, "2.6")
    row = evaluate(str(tmp_path), "none", "Hello world, hello lamp.", Settings(context_window=64, decode_tokens=2))
    assert len(row.log_likelihoods) in (row.text_tokens, row.text_tokens - 1)  # with BOS or without
    assert row.text_tokens > 5
    assert row.prompt_tokens == 62


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_remembers_the_most(toy: Path) -> None:
    import torch

    cpu, status = torch.device("cpu"), Path("/proc/self/status")
    held = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    block = b"\1" * 2**29
    with_block = peak_memory(cpu)
    assert with_block is not None
    assert with_block > held + 0.9 * len(block)
    del block
    assert peak_memory(cpu) == pytest.approx(with_block, rel=0.01)  # the system counts in batches


def test_the_timed_tokens_are_the_texts_and_the_seeds(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerFast

    from minicpm_core.prefix import Context

    read: list[tuple[int, ...]] = []
    original = Context.read

    def record(self: Any, ids: Sequence[int], *rest: Any, **more: Any) -> Any:
        read.append(tuple(ids))
        return original(self, ids, *rest, **more)

    monkeypatch.setattr(Context, "read", record)
    seen = []
    for seed in (1, 1, 2):
        evaluate(str(toy), "none", "a lamp costs 35 EUR", Settings(prompt_tokens=40, decode_tokens=2, seed=seed))
        seen.append(read[:])
        read.clear()
    assert seen[0] == seen[1] != seen[2]
    timed, scored = seen[0][3:6], seen[0][-1]  # behind a short round for warmth
    assert [len(ids) for ids in timed] == [40, 1, 1]
    last = PreTrainedTokenizerFast.from_pretrained(toy).encode("a lamp costs 35 EUR", add_special_tokens=False)[-1]
    assert {token for ids in timed for token in ids} <= {*scored, last}


@pytest.mark.parametrize(
    ("text", "settings", "sentence"),
    [
        ("a", Settings(), r"the text is 1 token\(s\) for this model; perplexity needs two"),
        (TEXT, Settings(context_window=1), "context_window is 1; two tokens at least"),
        (TEXT, Settings(context_window=64, prompt_tokens=64), "64 tokens and 32 decoded ones do not fit .* of 64"),
        (TEXT, Settings(context_window=9999), "context_window is 9999"),
        (TEXT, Settings(stride=512), "stride is 512; accepted: 1 to 511"),
    ],
)
def test_what_cannot_be_measured_says_why(toy: Path, text: str, settings: Settings, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluate(str(toy), "none", text, settings)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended by the system (SIGKILL), as it does when the memory runs out"),
        ("import os; os.kill(os.getpid(), 11)", "ended by the system (SIGSEGV)"),
        ("import sys; sys.stderr.write('first\\nno room left\\n'); sys.exit(3)", "ended with code 3: no room left"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_is_ended_is_a_row_with_its_reason(
    code: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_process, "_CHILD", code)
    row = evaluation_process.evaluate_apart("demo", "int8", TEXT, Settings())
    assert isinstance(row, Failure)
    assert (row.model, row.quantization) == ("demo", "int8")
    assert sentence in row.error


def test_the_command_prints_what_the_model_computes(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = "import sys; from minicpm_app.cli import main; sys.exit(main(sys.argv[1:]))"
    options = "--quantization int4 none --max-tokens-scored 300 --prompt-tokens 40 --decode-tokens 2 --seed 7".split()
    done = subprocess.run(
        [sys.executable, "-c", run, "evaluate", "demo", *options, "--json"], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["settings"]["seed"] == 7
    plain, small = printed["rows"]
    assert [(row["model"], row["quantization"]) for row in (plain, small)] == [("demo", "none"), ("demo", "int4")]
    here = evaluate("demo", "none", PROSE.read_text(encoding="utf-8"), Settings(max_tokens_scored=300))
    assert plain["perplexity"] == pytest.approx(here.perplexity, rel=1e-4)
    assert plain["cross_entropy"] == pytest.approx(math.log(plain["perplexity"]))
    assert (plain["perplexity_ratio"], plain["perplexity_ratio_error"]) == (1, 0)
    assert small["perplexity_ratio"] == pytest.approx(small["perplexity"] / plain["perplexity"])
    assert 0.5 < small["perplexity_ratio"] < 2
    assert small["perplexity_ratio_error"] > 0
    assert small["weight_bytes"] < 0.6 * plain["weight_bytes"]
    assert plain["weight_bytes"] == here.weight_bytes
    for row in (plain, small):
        assert (row["tokens_scored"], row["prompt_tokens"], row["decode_tokens"], row["dtype"]) == (
            300,
            40,
            2,
            "float32",
        )
        assert "log_likelihoods" not in row


def test_a_row_that_fails_does_not_stop_the_others(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    import minicpm_core

    stored, text = minicpm_core.quantize(toy, tmp_path / "stored"), tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    arguments = ["evaluate", str(stored), "--quantization", "none", "int4", "--text", str(text), "--decode-tokens", "1"]
    assert main(arguments) == 1
    output = capsys.readouterr()
    names, units, failed, measured, *notes = output.out.splitlines()
    assert names.split() == "model weights in weights load peak memory perplexity ratio to none prefill decode".split()
    assert units.split() == ["MiB", "s", "MiB", "tokens/s", "tokens/s"]
    assert failed.split()[:3] == ["stored", "none", "failed:"]
    assert failed.endswith("the weights are stored in int4; quantization='none' needs unquantised ones")
    assert measured.split()[:2] == ["stored", "int4"]
    assert measured.split()[6] == "-"  # there is nothing to compare with
    assert any(f"tokens of {text}; windows of 512 tokens, 256 new ones in each" in note for note in notes)
    assert main([*arguments[:2], "--quantization", "none", "--memory-limit", "300MiB", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert set(row) == {"model", "quantization", "error"}


def test_the_table_is_aligned_and_says_what_was_measured() -> None:
    int4 = replace(ROW, quantization="int4", log_likelihoods=(-1.5, -2.1, -3.3), peak_bytes=None)
    int8 = Failure("demo", "int8", "no kernel")
    lines = command.write_head(["demo"]) + [command.write_row(row, ROW, ["demo"]) for row in (ROW, int8, int4)]
    assert lines == [
        "model  weights in   weights     load  peak memory   perplexity     ratio to none    prefill     decode",
        "                        MiB        s          MiB                                  tokens/s   tokens/s",
        "demo   bfloat16        3.00      1.2        500.0         7.39                 1      1,234      56.78",
        "demo   int8        failed: no kernel",
        "demo   int4            3.00      1.2      unknown         9.97   1.3499 ± 0.1559      1,234      56.78",
    ]
    assert command.write_row(ROW, ROW, ["demo", "other/model"]).startswith("demo         bfloat16  ")
    notes = command.write_notes([ROW, int8, replace(int4, text_tokens=9)], Settings(), "a.txt")
    assert "demo: perplexity of 3 tokens of a.txt; windows of 1024 tokens, 512 new ones in each" in notes
    assert (
        "demo: perplexity of 3 tokens of a.txt, the first of 9; windows of 1024 tokens, 512 new ones in each" in notes
    )
    assert "cpu, 2 threads" in "\n".join(notes)
    assert command.write_notes([int8], Settings(), None) == []


def test_json_holds_no_numbers_that_json_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = command.list_rows([replace(ROW, log_likelihoods=(-900.0, -900.0))])
    assert (row["perplexity"], row["cross_entropy"]) == (None, 900.0)
    json.dumps(row, allow_nan=False)


def test_the_figure_shows_every_row(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from minicpm_app.evaluate_plot import draw

    rows = [ROW, replace(ROW, quantization="int4", decode_tokens_per_second=99.5), replace(ROW, model="other/model")]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw(rows, str(tmp_path / "a.svg"))
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for text in ("demo", "other/model", "bfloat16", "int4", "7.39", "0.49", "1,234", "56.78", "99.50", "Perplexity"):
        assert f">{text}<" in drawn or f">{text}" in drawn, text
    draw(rows, str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_figure_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    monkeypatch.setattr(evaluation_process, "evaluate_apart", lambda *_: pytest.fail("measured"))
    assert main(["evaluate", "demo", "--plot", "a.png"]) == 1
    assert 'pip install "minicpm-integrations[plot]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["demo", "--text", "nowhere.txt"], 1, "nowhere.txt"),
        (["demo", "--text", "empty.txt"], 1, "empty.txt is empty"),
        (["demo", "--text", "latin.txt"], 1, "latin.txt is not text in UTF-8 (byte 3); save it as UTF-8"),
        (["model.gguf"], 1, 'not read from GGUF files; accepted: a checkpoint folder, a hub id, or "demo"'),
        (["demo", "./no-such-model"], 1, "no folder ./no-such-model; give an existing folder, a hub id"),
        (["demo", "--memory-limit", "much"], 1, "memory size 'much' cannot be read"),
        (["demo", "--plot", "a.jpeg"], 2, "--plot a.jpeg: accepted are files that end in .png, .svg, .pdf"),
        (["demo", "--plot", "nowhere/a.png"], 2, "there is no folder"),
        (["demo", "--max-tokens-scored", "0"], 2, "--max-tokens-scored 0: accepted are numbers from 1 on"),
    ],
)
def test_errors_are_one_line_before_anything_is_measured(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation_process, "evaluate_apart", lambda *_: pytest.fail("measured"))
    Path("empty.txt").write_text(" \n")
    Path("latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    assert main(["evaluate", *arguments]) == code
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith("minicpm evaluate: error: ")
    assert message in output.err
