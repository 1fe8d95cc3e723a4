"""Hooks of MkDocs: files of the repository outside of `docs`, and notebooks with what they printed, become pages."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TEXTS = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "minicpm_core/demo/README.md": "demo.md",
}
"""Texts outside of `docs`, and where they stand in the site."""
_SIGNS = {"✅": ':material-check:{ title="yes" }', "❌": ':material-close:{ title="no" }'}
_LINK = re.compile(r"\]\(([^):#]+\.(?:ipynb|md|png))\b")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; notebooks outside of `docs` are put under `notebooks/`."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = write_page(file.content_string, file.src_uri, f"docs/{posixpath.dirname(file.src_uri)}")
        files.append(File.generated(config, _page(file.src_uri), content=page))
    for source, name in TEXTS.items():
        text = lead_links((ROOT / source).read_text(encoding="utf-8"), posixpath.dirname(source), "")
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, name = path.read_text(encoding="utf-8"), f"notebooks/{path.name}"
        files.append(File.generated(config, name, content=text))
        files.append(File.generated(config, _page(name), content=write_page(text, name, "notebooks")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to notebooks of the repository lead to their pages, and signs be drawn where no font has them."""
    folder = posixpath.dirname(page.file.src_uri)
    for sign, drawn in _SIGNS.items():
        markdown = markdown.replace(sign, drawn)
    return lead_links(markdown, posixpath.join("docs", folder), folder)


def write_page(notebook: str, name: str, folder: str) -> str:
    """Return a notebook's JSON as Markdown: the code in fences, and below each what it printed.

    Args:
        notebook: its content.
        name: its place in the site.
        folder: its folder in the repository.
    """
    cells = "\n\n".join(_write_cell(cell) for cell in json.loads(notebook)["cells"])
    title, _, rest = cells.partition("\n\n")
    download = f'<a href="{posixpath.basename(name)}" download>Download this notebook</a>'
    return lead_links(f"{title}\n\n{download}\n\n{rest}\n", folder, posixpath.dirname(name))


def lead_links(markdown: str, folder: str, site_folder: str) -> str:
    """Return a page with its relative links to pages and notebooks made those of the site.

    Args:
        markdown: the page.
        folder: its folder in the repository.
        site_folder: its folder in the site, in which `docs` is the root.
    """

    def lead(match: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(folder, match[1]))
        target = TEXTS.get(source) or _page(source.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, site_folder or '.')}"

    return _LINK.sub(lead, markdown)


def _page(name: str) -> str:
    return name.removesuffix(".ipynb") + ".md" if name.endswith(".ipynb") else name


def _write_cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    outputs = [_fence("text", text) for output in cell["outputs"] if (text := _printed(output))]
    return "\n\n".join([_fence("python", source), *outputs])


def _printed(output: dict[str, Any]) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(text).rstrip()


def _fence(language: str, text: str) -> str:
    marks = "```"
    while marks in text:
        marks += "`"
    return f"{marks}{language}\n{text}\n{marks}"
