"""How the suites wait for and name an outcome."""

from __future__ import annotations

from collections.abc import Callable

from headwater.errors import HeadwaterError

PATIENCE = 20.0
"""Seconds after which something that must happen counts as not happening."""


def raised(call: Callable[[], object]) -> type[HeadwaterError] | None:
    """What kind of error of ours the call ends in."""
    try:
        call()
    except HeadwaterError as error:
        return type(error)
    return None
