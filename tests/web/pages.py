"""Serves the pages that the tests visit from one process: `python -m tests.web.pages FOLDER`.

Prints {"demo": URL, "slow": URL, "sees": URL}, and ends when its standard input does. Asking other machines is
refused and noted in FOLDER/outside.txt.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from pathlib import Path
from typing import Any


def forbid_outside(record: Path) -> None:
    """Refuse to look up or connect to anything but this machine, and note every attempt."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = arguments[0]
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        name = host.decode() if isinstance(host, bytes) else host
        if name in (None, "", "localhost"):
            return
        try:
            inside = ipaddress.ip_address(name).is_loopback
        except ValueError:
            inside = False
        if not inside:
            with record.open("a", encoding="utf-8") as file:
                file.write(f"{event} {name}\n")
            raise OSError(f"{name}: the tests ask no other machine")

    record.touch()
    sys.addaudithook(watch)


def main(folder: Path) -> None:
    forbid_outside(folder / "outside.txt")
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")

    from langchain_minicpm import ChatMiniCPM
    from minicpm_app.web import require_gradio, serve
    from minicpm_app.web.collection import Limits
    from minicpm_app.web.library import Library
    from minicpm_app.web.sight import Sight
    from minicpm_core.index import page_models
    from tests.toy import write_llama
    from tests.toy_vision import write_native

    require_gradio()
    page_models._MOST_READ = 8  # random weights write on and on
    # So slow that no answer of it ends by itself while a test looks.
    large = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "max_position_embeddings": 32768}
    chats = {
        "demo": ChatMiniCPM(model="demo", temperature=0),
        "slow": ChatMiniCPM(model=str(write_llama(folder / "slow-model", **large)), temperature=0),
        "sees": ChatMiniCPM(
            model=str(write_native(folder / "seeing-model", "minicpmv4_6")), temperature=0, max_tokens=8
        ),
    }
    addresses = {}
    for name, chat in chats.items():
        sight = Sight(page_model=chat if name == "sees" else None)
        library = Library(folder / name, "demo", Limits(megabytes=1, count=4), sight)
        addresses[name] = serve(chat, library, host="127.0.0.1", port=None).local_url.rstrip("/")
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # the answers in work are of no interest


if __name__ == "__main__":
    main(Path(sys.argv[1]))
