"""Alerts by HTTP, sent by a thread of their own: no step waits for whoever listens."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

TIMEOUT_SECONDS = 5.0
WAITING = 100
"""Alerts that may wait; more are dropped: the log has them all."""


class Webhook:
    """Posts each alert, once, as ``{"alert": …, "at": …, and its numbers}``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(WAITING)
        threading.Thread(target=self._post, name="webhook", daemon=True).start()

    def send(self, alert: str, numbers: Mapping[str, Any]) -> None:
        """Queues an alert; returns at once."""
        try:
            self._waiting.put_nowait({"alert": alert, "at": time.time(), **numbers})
        except queue.Full:
            structlog.get_logger().warning("an alert was dropped", alert=alert)

    def _post(self) -> None:
        import httpx

        while True:
            alert = self._waiting.get()
            try:
                httpx.post(self._url, json=alert, timeout=TIMEOUT_SECONDS).raise_for_status()
            except httpx.HTTPStatusError as error:
                # Not its own words, which hold the address.
                _undelivered(alert, f"answered {error.response.status_code}")
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                _undelivered(alert, str(error) or type(error).__name__)


def _undelivered(alert: Mapping[str, Any], reason: str) -> None:
    structlog.get_logger().warning("an alert wasn't delivered", alert=alert["alert"], reason=reason)
