"""Headwater: a recommender that never stops learning.

These names are the public root. They are loaded on first use, so that importing
the nouns never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.client import AsyncClient, Client
    from headwater.config import Config
    from headwater.config import load as load_config
    from headwater.errors import HeadwaterError
    from headwater.loop import Follower, Learner
    from headwater.types import Event, Item, Recommendations, Request

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "Config",
    "Event",
    "Follower",
    "HeadwaterError",
    "Item",
    "Learner",
    "Recommendations",
    "Request",
    "__version__",
    "load_config",
]

_HOMES = {
    "AsyncClient": ("headwater.client", "AsyncClient"),
    "Client": ("headwater.client", "Client"),
    "Config": ("headwater.config", "Config"),
    "Event": ("headwater.types", "Event"),
    "Follower": ("headwater.loop", "Follower"),
    "HeadwaterError": ("headwater.errors", "HeadwaterError"),
    "Item": ("headwater.types", "Item"),
    "Learner": ("headwater.loop", "Learner"),
    "Recommendations": ("headwater.types", "Recommendations"),
    "Request": ("headwater.types", "Request"),
    "load_config": ("headwater.config", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
