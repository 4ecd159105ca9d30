"""Streams of events that ship with the package, for the demo and the tests.

Each is a folder with ``interactions.parquet``, ``items.parquet`` and the licence
of the data; ``NOTICE`` at the root of the project says where it comes from.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from headwater.errors import UnreadableFile


def names() -> list[str]:
    """The shipped streams, in alphabetical order.

    >>> names()
    ['movietweetings-100k']
    """
    return sorted(found.parent.name for found in _root().glob("*/interactions.parquet"))


def path(name: str) -> Path:
    """The folder of a shipped stream.

    >>> sorted(file.name for file in path("movietweetings-100k").glob("*.parquet"))
    ['interactions.parquet', 'items.parquet']

    Raises:
        UnreadableFile: no stream of that name is shipped; the message lists those that are.
    """
    if name not in names():
        raise UnreadableFile(f"no stream {name!r} is shipped; there is: {', '.join(names())}")
    return _root() / name


def _root() -> Path:
    return Path(str(files(__name__)))
