"""Errors of load and faults, each a kind of the built-in one that programs catch already."""

from __future__ import annotations


class QueueFullError(RuntimeError):
    """As many requests wait for the engine as `max_waiting` allows; this one was not begun."""


class AnswerTimeoutError(TimeoutError):
    """An answer was not complete within `timeout`, the wait for its turn included; the model was stopped."""


class OutOfMemoryError(MemoryError):
    """The memory did not suffice in the middle of an answer; its memory was freed, and the engine goes on."""


class IndexDamagedError(ValueError):
    """Files of an index are damaged or missing; `minicpm doctor --index DIR --repair` mends it."""


class IndexStorageError(OSError):
    """The disk of an index refuses to write: it is full, read-only, or its folder is gone."""


class IndexLockedError(RuntimeError):
    """Another process holds the index."""
