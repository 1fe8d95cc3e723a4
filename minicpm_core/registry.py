"""One loaded engine per identical arguments, shared by all the classes that ask for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicpm_core.engine import Engine
from minicpm_core.loading import load

_engines: dict[tuple[tuple[str, Any], ...], Engine] = {}
_locks: dict[tuple[tuple[str, Any], ...], threading.Lock] = {}
_lock = threading.Lock()


def shared_engine(**arguments: Any) -> Engine:
    """Return the engine that `load(**arguments)` made, loading it the first time or after it was closed."""
    key = tuple(sorted((name, _hashable(value)) for name, value in arguments.items() if value is not None))
    with _lock:
        own = _locks.setdefault(key, threading.Lock())
    with own:
        engine = _engines.get(key)
        if engine is None or engine.model is None:
            engine = _engines[key] = load(**arguments)
        return engine


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):  # adapters by name, in which the order says which is active
        return tuple((name, str(folder)) for name, folder in value.items())
    return str(value) if isinstance(value, Path) else value


def _begin_anew() -> None:
    """Forget, in a forked process, engines whose threads did not come along, and locks that may be held for ever."""
    global _lock
    _lock = threading.Lock()
    _engines.clear()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def close_all() -> None:
    """Close every shared engine and free its memory; the classes load again when they are used."""
    with _lock:
        engines = list(_engines.values())
        _engines.clear()
    for engine in engines:
        engine.close()
