"""Run the notebooks from top to bottom and store their outputs: `python -m tools.run_notebooks`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


def join_printed(outputs: list[Any]) -> list[Any]:
    """Return what was printed as one output; what a library said about this machine on stderr is no result."""
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    others = [output for output in outputs if output.output_type != "stream"]
    return ([nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []) + others


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
        )
        client.execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # when each cell ran tells a reader nothing
            if cell.cell_type == "code":
                cell.outputs = join_printed(cell.outputs)
        nbformat.write(notebook, path)
        print(path.name)
