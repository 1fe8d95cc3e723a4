"""Run notebooks from top to bottom and store their outputs: `python -m tools.run_notebooks [NOTEBOOK...]`, else all."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = (*sorted(ROOT.glob("notebooks/*.ipynb")), *sorted(ROOT.glob("docs/*/*.ipynb")))


def run_notebook(path: Path) -> Any:
    """Return the notebook, run in a kernel of its own in its folder."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook


def join_printed(outputs: list[Any]) -> list[Any]:
    """Return what was printed as one output; what a library said about this machine on stderr is no result."""
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    others = [output for output in outputs if output.output_type != "stream"]
    return ([nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []) + others


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for path in [Path(name).resolve() for name in sys.argv[1:]] or NOTEBOOKS:
        notebook = run_notebook(path)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when each cell ran tells a reader nothing
            if cell.cell_type == "code":
                cell.outputs = join_printed(cell.outputs)
        nbformat.write(notebook, path)
        print(path.name)
