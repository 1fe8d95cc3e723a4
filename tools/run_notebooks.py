"""Run the notebooks from top to bottom and store their outputs: `python -m tools.run_notebooks`."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"

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
        nbformat.write(notebook, path)
        print(path.name)
