"""What an import may bring along, and that either framework works without the other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "chromadb", "sentence_transformers", "langchain_core", "llama_index")
BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    return set(json.loads(_run(code)))


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import minicpm_core", set()),
        ("import minicpm_core.families, minicpm_core.rag, minicpm_core.index, minicpm_core.memory", set()),
        ("import minicpm_app.cli; minicpm_app.cli.make_parser().format_help()", set()),
        ("import langchain_minicpm", {"langchain_core"}),
        ("import llamaindex_minicpm", {"llama_index"}),
    ],
)
def test_imports_are_light(statement: str, allowed: set[str]) -> None:
    assert _loaded_by(statement) - allowed == set()


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("langchain_minicpm", {"llama_index", "llama_index_core"}),
        ("llamaindex_minicpm", {"langchain", "langchain_core", "langchain_chroma"}),
    ],
)
def test_either_framework_works_without_the_other(package: str, absent: set[str]) -> None:
    code = BLOCK.format(absent=absent) + (
        f"import {package}\n"
        f"for name in {package}.__all__:\n"
        f"    getattr({package}, name)\n"
        f"print(len({package}.__all__))\n"
    )
    assert int(_run(code)) >= 8


@pytest.mark.parametrize(
    ("package", "absent", "extra"),
    [("langchain_minicpm", "langchain_core", "langchain"), ("llamaindex_minicpm", "llama_index", "llamaindex")],
)
def test_a_missing_framework_is_named_with_the_command_that_installs_it(package: str, absent: str, extra: str) -> None:
    code = BLOCK.format(absent={absent}) + (
        f"import {package}\ntry:\n    {package}.MiniCPMLLM\nexcept ImportError as error:\n    print(error)\n"
    )
    assert f"minicpm-integrations[{extra},rag]" in _run(code)


@pytest.mark.parametrize("package", ["minicpm_core", "langchain_minicpm", "llamaindex_minicpm"])
def test_every_public_name_is_there(package: str) -> None:
    module = __import__(package)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    with pytest.raises(AttributeError):
        _ = module.no_such_name
