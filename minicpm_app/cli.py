"""The `minicpm` command: arguments, errors and exit codes; heavy imports wait for the command that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from minicpm_core.threads import wait_briefly

COMMANDS = {
    "ask": "answer questions from your documents, with the sources",
    "index": "read documents into an index that LangChain, LlamaIndex and this command share",
    "chat": "talk with a model, with or without documents",
    "read": "read the text of a picture, with the place of each line",
    "web": "open a page in the browser to ask your documents",
    "models": "list the families of checkpoints that run, and what they cover",
    "convert": "write a copy of a checkpoint that stock transformers, vLLM and llama.cpp can open",
    "quantize": "write a copy of a checkpoint in int4 that stock transformers opens",
    "merge-adapter": "write a copy of a checkpoint with a LoRA adapter merged into it",
    "cache": "list the int4 copies that later loads start from, or delete them",
    "evaluate": "measure perplexity, memory and speed of models in 16 bit, int8 and int4, side by side",
    "evaluate-rag": "measure how well an index is searched and questions over it are answered",
    "doctor": "show what is installed, the device, its memory, and which models fit",
}
_COPY = ", and --index is then this machine's copy of the records (default: in the cache)"
EPILOG = "Errors are one line; the exit code is 2 for wrong usage, 1 for anything else that fails."


class UsageError(Exception):
    """The command line asks for something that cannot be meant."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser for all commands."""
    parser = argparse.ArgumentParser(prog="minicpm", description="Local MiniCPM models.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"minicpm-integrations {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {name: commands.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}

    ask = parsers["ask"]
    ask.add_argument("question", nargs="*", metavar="QUESTION", help="one or several, each in quotes, before --docs")
    _add_index_arguments(ask)
    _add_model_arguments(ask)

    index = parsers["index"]
    index.add_argument("paths", nargs="+", metavar="PATH", help="files and folders: PDF, TXT, Markdown, HTML")
    index.add_argument("--index", metavar="DIR", help="folder of the index; made if it is not there")
    _add_server_argument(index, _COPY)
    _add_embeddings_argument(index)
    _add_page_arguments(index)

    chat = parsers["chat"]
    _add_index_arguments(chat)
    _add_model_arguments(chat)
    chat.add_argument("--system", metavar="TEXT", help="system message; with documents in front of the rule")

    read = parsers["read"]
    read.add_argument("picture", metavar="PICTURE", help="a file, a URL or a data URI")
    read.add_argument("--boxes", metavar="FILE", help="draw the places into a copy of the picture: .png, .jpg or .webp")
    read.add_argument("--font", metavar="FILE", help="for --boxes (default: one of this computer with the characters)")
    read.add_argument("--lines", action="store_true", help="join what stands beside each other, from top to bottom")
    read.add_argument("--max-slices", type=int, metavar="N", help="tiles at most; more show smaller writing")
    _add_model_arguments(read, "$MINICPM_VISION_MODEL or MiniCPM-V-4.6")

    _add_web_arguments(parsers["web"])

    merge = parsers["merge-adapter"]
    for command in (parsers["convert"], parsers["quantize"], merge):
        command.add_argument("model", help="a folder or hub id")
        if command is merge:
            command.add_argument("adapter", help="a PEFT folder")
        command.add_argument("out", help="a folder that does not exist yet, or is empty")
        command.add_argument("--family", metavar="NAME", help="a name of `minicpm models`, if not recognised")

    parsers["cache"].add_argument("--clear", action="store_true", help="delete the copies")

    _add_evaluate_arguments(parsers["evaluate"])

    _add_evaluate_rag_arguments(parsers["evaluate-rag"])

    doctor = parsers["doctor"]
    doctor.add_argument("model", nargs="?", help="a folder, hub id or demo: show what it needs in memory")
    doctor.add_argument("--memory", metavar="SIZE", help='memory to plan for, such as "4GiB" (default: what is free)')
    doctor.add_argument("--quantization", choices=("int4", "int8", "none", "auto"), default="auto")
    doctor.add_argument("--context-window", type=int, metavar="TOKENS", help="default: the largest that fits")
    doctor.add_argument(
        "--embeddings", metavar="NAME", help="an embedding model that is loaded beside MODEL; or that made the index"
    )
    doctor.add_argument("--index", metavar="DIR", help="check the index in a folder instead; exit code 1 on damage")
    doctor.add_argument("--repair", action="store_true", help="with --index: mend what can be mended")
    for command in parsers.values():
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_index_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("documents")
    group.add_argument("--docs", nargs="+", metavar="PATH", help="files and folders; indexed when they have changed")
    group.add_argument("--index", metavar="DIR", help="folder of an index; with --docs, where to keep it")
    _add_server_argument(group, _COPY)
    _add_embeddings_argument(group)
    _add_page_arguments(group)


def _add_server_argument(parser: argparse._ActionsContainer, copy: str = "") -> None:
    parser.add_argument(
        "--chroma-url",
        metavar="URL",
        help="a Chroma server that holds the index, and its name: http://localhost:8000/contracts; its token is taken "
        f"from $MINICPM_CHROMA_TOKEN{copy}",
    )


def _add_embeddings_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--embeddings",
        metavar="NAME",
        help='embedding model: "demo" (offline), or a sentence-transformers folder or hub id; '
        "an index remembers its own (default: a multilingual model; demo with --model demo)",
    )


def _add_page_arguments(parser: argparse._ActionsContainer, reader: str = "that of the index") -> None:
    parser.add_argument(
        "--pages",
        choices=("text", "image", "auto"),
        help="scanned pages and pictures: by their text, as pictures, or by their text where there is any "
        "(default: as the index, text for a new one)",
    )
    parser.add_argument(
        "--page-embeddings",
        metavar="NAME",
        help='what embeds pages as pictures: "demo", or a folder or hub id of VisRAG-Ret or of a CLIP model for '
        "sentence-transformers (default: VisRAG-Ret)",
    )
    parser.add_argument(
        "--page-model",
        metavar="NAME",
        help=f"vision model that reads pages without a text layer, with --pages text (default: {reader})",
    )


def _add_model_arguments(parser: argparse.ArgumentParser, default: str = "$MINICPM_MODEL or MiniCPM5-1B") -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="NAME", help=f'folder, hub id or "demo" (default: {default})')
    group.add_argument(
        "--quantization", choices=("int4", "int8", "none", "auto"), help="default: auto, int4 for large ones"
    )
    group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    group.add_argument("--memory-limit", metavar="SIZE", help='such as "4GiB"; the context window is fitted to it')
    group.add_argument("--context-window", type=int, metavar="TOKENS")
    group.add_argument("--max-tokens", type=int, metavar="TOKENS", help="longest answer")
    group.add_argument("--temperature", type=float, help="0 is greedy; default: what the model's authors recommend")
    group.add_argument("--seed", type=int, help="makes sampling reproducible")


def _add_web_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="where collections are kept (default: in the cache folder)")
    _add_server_argument(parser, ", and it is a collection of the page then")
    _add_embeddings_argument(parser)
    _add_page_arguments(parser, "what --model is, where it sees")
    parser.add_argument("--open", action="store_true", help="open the page in the browser of this machine")
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="others need a password (default: 127.0.0.1)"
    )
    server.add_argument("--port", type=int, metavar="N", help="default: the first that is free from 7860 on")
    server.add_argument(
        "--password", metavar="TEXT", help="better in $MINICPM_WEB_PASSWORD, which other users cannot see; 8 or more"
    )
    server.add_argument("--max-file-size", type=int, default=100, metavar="MB", help="of an upload (default: 100)")
    server.add_argument("--max-files", type=int, default=50, metavar="N", help="of an upload (default: 50)")
    _add_model_arguments(parser)


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help='folders, hub ids or "demo"')
    kinds = ("none", "int8", "int4")
    parser.add_argument(
        "--quantization", nargs="+", choices=kinds, default=kinds, help="rows of each model (default: all three)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw memory against perplexity and speed: .png, .svg or .pdf")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--memory-limit", metavar="SIZE", help='such as "4GiB"; what does not fit is a row that says so'
    )
    text = parser.add_argument_group("perplexity")
    text.add_argument("--text", metavar="FILE", help="text in UTF-8 to score (default: three pages that are shipped)")
    text.add_argument(
        "--max-tokens-scored", type=int, default=4096, metavar="TOKENS", help="of its beginning (default: 4096)"
    )
    text.add_argument(
        "--context-window", type=int, metavar="TOKENS", help="seen at a time (default: 1024, or the model's if smaller)"
    )
    text.add_argument("--stride", type=int, metavar="TOKENS", help="new ones each time (default: half of those seen)")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--prompt-tokens", type=int, metavar="TOKENS", help="prompt that is timed (default: 512)")
    speed.add_argument("--decode-tokens", type=int, default=32, metavar="TOKENS", help="behind it (default: 32)")
    speed.add_argument("--seed", type=int, default=0, help="draws the timed tokens from the text (default: 0)")


def _add_evaluate_rag_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "index", nargs="?", metavar="INDEX", help="folder of an index; with --chroma-url, of this machine's records"
    )
    _add_server_argument(parser)
    parser.add_argument(
        "--questions",
        metavar="FILE",
        help='JSONL: {"question", "source", "passage", "answer"} a line, without a source for what must be refused '
        "(default: the model writes them)",
    )
    parser.add_argument(
        "--no-rerank", action="store_true", help="leave out the search with a reranker, which takes longest"
    )
    parser.add_argument("--count", type=int, metavar="N", help="questions that the model writes (default: 20)")
    _add_embeddings_argument(parser)
    _add_model_arguments(parser)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know Chinese: that must not end an answer
            stream.reconfigure(errors="backslashreplace")
    parser = make_parser()
    options = parser.parse_args(arguments)
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    wait_briefly()
    try:
        return int(import_module(f"minicpm_app.{options.command.replace('-', '_')}").run(options) or 0)
    except UsageError as error:
        sys.stderr.write(f"minicpm {options.command}: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # nothing more can be written
        return 1
    except (ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"minicpm {options.command}: error: {_describe(error)}\n")
        return 1


def _describe(error: Exception) -> str:
    """Return the message on one line; of pydantic's errors only what was refused."""
    causes = (
        [row.get("ctx", {}).get("error") or row["msg"] for row in error.errors()] if hasattr(error, "errors") else []
    )
    return " ".join("; ".join(map(str, causes or [error])).split()) or type(error).__name__


def _version() -> str:
    try:
        return version("minicpm-integrations")
    except PackageNotFoundError:
        return "unknown"
