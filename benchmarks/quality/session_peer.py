"""V-SKNN: what similar sessions went on to have, the newest of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Settings = dict[str, float]


class Vsknn:
    """V-SKNN (Ludewig & Jannach, UMUAI 2018), learned event by event; a user is a session.

    Each of the history's newest ``window`` items names the ``sample`` users who had it last.
    Alike is who had many of the items, and the newest: item number d from the end weighs
    1 - (d - 1) / n, over the root of the user's own number of items. The ``neighbours`` most alike
    score each of their newest ``length`` items with that likeness, divided by the d of the newest
    item that they share.
    """

    refits = 0

    def __init__(self, users: int, items: int, settings: Settings) -> None:
        self._neighbours = int(settings["neighbours"])
        self._window = int(settings["window"])
        self._had_by = np.zeros((items, int(settings["sample"])), np.int32)  # item -> ring of users
        self._item_events = np.zeros(items, np.int64)
        self._had = np.zeros((users, int(settings["length"])), np.int32)  # user -> ring of items
        self._user_events = np.zeros(users, np.int64)
        self._place = np.full(users, -1, np.int32)  # scratch of one call

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        # Of an item that comes again, the newest place counts.
        newest = np.array(list(dict.fromkeys(reversed(history)))[: self._window], np.int32)
        if not len(newest):
            return None
        found = np.zeros(seen)
        _score(
            user,
            newest,
            self._had_by,
            self._item_events,
            self._had,
            self._user_events,
            self._neighbours,
            self._place,
            found,
        )
        return found

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        self._had_by[item, self._item_events[item] % self._had_by.shape[1]] = user
        self._item_events[item] += 1
        self._had[user, self._user_events[user] % self._had.shape[1]] = item
        self._user_events[user] += 1

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        """Nothing is left to fit."""


@njit(cache=True)
def _score(
    user: int,
    newest: NDArray[np.int32],
    had_by: NDArray[np.int32],
    item_events: NDArray[np.int64],
    had: NDArray[np.int32],
    user_events: NDArray[np.int64],
    neighbours: int,
    place: NDArray[np.int32],
    found: NDArray[np.float64],
) -> None:
    sample, length, n = had_by.shape[1], had.shape[1], len(newest)
    most = n * sample
    others, alike = np.empty(most, np.int32), np.zeros(most)
    shared, latest = np.zeros(most, np.int32), np.full(most, -1, np.int32)
    filled = 0
    for d in range(n):
        item = newest[d]
        events = item_events[item]
        for back in range(min(events, sample)):
            other = had_by[item, (events - 1 - back) % sample]
            if other == user:
                continue
            if place[other] < 0:
                place[other] = filled
                others[filled] = other
                shared[filled] = d + 1
                filled += 1
            at = place[other]
            if latest[at] != d:  # once for each item, however often it was had
                latest[at] = d
                alike[at] += 1.0 - d / n
    for at in range(filled):
        place[others[at]] = -1
        alike[at] /= np.sqrt(min(user_events[others[at]], length))
    # A stable order, so that of those as alike the newest come first.
    order = np.argsort(-alike[:filled], kind="mergesort")
    for at in order[:neighbours]:
        other = others[at]
        weight = alike[at] / shared[at]
        for back in range(min(user_events[other], length)):
            item = had[other, back]
            if item < len(found):
                found[item] += weight
