"""Whether the kernels are compiled: numba does it at their first calls, and keeps them."""

from __future__ import annotations

from pathlib import Path

FIRST = "The first run after an installation compiles its kernels, for up to half a minute."


def are_compiled() -> bool:
    """Whether any are kept beside the code, where numba puts them unless it is told otherwise."""
    return any(Path(__file__).parent.rglob("*.nbi"))
