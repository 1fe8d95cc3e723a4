"""`minicpm web`: a page in the browser to ask one's documents."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from argparse import Namespace
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any

from minicpm_app.ask import make_chat_model, print_line
from minicpm_app.cli import UsageError
from minicpm_app.documents import cache_folder
from minicpm_app.web.collection import Limits
from minicpm_app.web.guard import Policy, check_login, choose_password, is_local
from minicpm_app.web.library import Library
from minicpm_app.web.sight import Sight


def run(options: Namespace) -> int:
    """Load the model, show the page, and serve it until Ctrl-C."""
    try:
        password = choose_password(options.host, options.password)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for name in ("max_file_size", "max_files"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name)}: accepted are numbers from 1 on")
    if options.port is not None and not 1 <= options.port <= 65535:
        raise UsageError(f"--port {options.port}: accepted are 1 to 65535")
    check_pages(options)
    with tempfile.TemporaryDirectory(prefix="minicpm-web-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        require_gradio()
        folder = Path(options.data) if options.data else cache_folder() / "collections"
        embeddings = options.embeddings or ("demo" if options.model == "demo" else None)
        limits = Limits(options.max_file_size, options.max_files)
        with closing(Library(folder, embeddings, limits, chroma_url=options.chroma_url)) as library:
            chat = make_chat_model(options)
            if not options.json:
                sys.stderr.write(f"loading {chat.model} ...\n")
            library.sight = make_sight(options, chat, sees=chat.load_engine().family.vision is not None)
            blocks = serve(
                chat, library, host=options.host, port=options.port, password=password, open_browser=options.open
            )
            address = blocks.local_url.rstrip("/")
            try:
                with suppress(KeyboardInterrupt):
                    print_line(json.dumps({"url": address}) if options.json else f"{address}  (Ctrl-C ends it)")
                    Event().wait()
            finally:
                blocks.close(verbose=False)
    return 0


def check_pages(options: Namespace) -> None:
    """Refuse options about scanned pages that do not go together.

    Raises:
        UsageError: what does not go with what.
    """
    if options.pages in ("image", "auto"):
        if options.page_model:
            raise UsageError(f"--page-model reads pages into text, which --pages {options.pages} does not do")
    elif options.page_embeddings:
        raise UsageError("--page-embeddings embed pages as pictures; give --pages image or --pages auto too")


def make_sight(options: Namespace, chat: Any, *, sees: bool) -> Sight:
    """Return how scanned pages and pictures are taken in: by the page's own model where it sees.

    Raises:
        ValueError: pages are to be shown to a model that does not see.
    """
    if options.pages in ("image", "auto") and not sees:
        raise ValueError(
            f"--pages {options.pages} shows pages to the model as pictures, and {chat.model} reads text only; give a "
            "model that sees as --model, or one that reads pages into text as --page-model"
        )
    return Sight(options.pages, options.page_embeddings, options.page_model or (chat if sees else None))


def require_gradio() -> None:
    """Import Gradio with everything off that would call home.

    Raises:
        ImportError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError('the page needs Gradio: pip install "minicpm-integrations[web]"', name=error.name) from error


def bypass_proxies(host: str) -> None:
    """Ask this machine directly, also where a proxy is set for all others: Gradio asks itself when it starts."""
    for name in ("NO_PROXY", "no_proxy"):
        known = [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, "localhost", "127.0.0.1", "::1", host]))


def serve(
    chat: Any, library: Library, *, host: str, port: int | None, password: str | None = None, open_browser: bool = False
) -> Any:
    """Start serving the page in a thread; return Gradio's blocks (`local_url`, `close()`).

    Args:
        chat: a ChatMiniCPM.
        library: its collections are shown to all who can reach the page.
        host: address to bind to.
        port: None takes the first that is free from 7860 on.
        password: demanded at the door.
        open_browser: open the page here.
    """
    from starlette.middleware import Middleware

    from minicpm_app.web.appearance import APPEARANCE
    from minicpm_app.web.page import make_page

    names = ("127.0.0.1", "localhost", "[::1]", host) if is_local(host) else None
    bypass_proxies(host)
    blocks = make_page(chat, library)
    blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        auth=check_login(password) if password else None,
        auth_message="MiniCPM: any name, and the password / 名称任意，输入密码" if password else None,
        max_file_size=library.limits.megabytes * 2**20,
        app_kwargs={"middleware": [Middleware(Policy, hosts=names)], "docs_url": None, "redoc_url": None},
        prevent_thread_lock=True,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        quiet=True,
        footer_links=[],
        enable_monitoring=False,
        **APPEARANCE,
    )
    return blocks
