"""The HTTP API: events in, recommendations out, and what an operator asks.

``serve`` runs it on a data folder; ``create_app`` makes the ASGI application over
logs that are already open. Routes are in ``_events``, ``_recommendations``,
``_items`` and ``_operations``; ``_engine`` holds the thread that owns the model, ``_asks`` what
waits for it.
"""

from headwater.api._app import create_app
from headwater.api._serve import Address, running, serve

__all__ = ["Address", "create_app", "running", "serve"]
