"""Every notebook runs from top to bottom, offline, and prints what is stored in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def _printed(notebook: Any) -> list[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs if out.get("name") == "stdout") for cell in cells]


def test_there_are_notebooks() -> None:
    assert {"langchain_rag.ipynb", "llamaindex_rag.ipynb"} <= set(NOTEBOOKS)


@pytest.mark.enable_socket  # the kernel is talked to over loopback
@pytest.mark.filterwarnings("default")  # jupyter's own
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_prints_what_is_stored_in_it(name: str) -> None:
    import nbformat
    from nbclient import NotebookClient

    stored = nbformat.read(FOLDER / name, as_version=4)
    run = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(run, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    assert _printed(run) == _printed(stored)
    assert sum(map(bool, _printed(stored))) >= 5
