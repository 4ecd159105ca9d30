"""Lists of a challenger for a share of the users, before it is promoted, if it ever is."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import structlog

from headwater.config import Config, overridden
from headwater.deploy import Challengers, in_canary
from headwater.errors import HeadwaterError, SnapshotError
from headwater.log import EventsLog, UpdatesLog
from headwater.log.sqlite import SqliteUpdatesLog
from headwater.loop._follower import Follower
from headwater.types import Canary, Explanation, Recommendations, Request

LOOK_SECONDS = 1.0
"""From one look at whether there is a canary to the next."""

log = structlog.get_logger()


class CanaryFollower(Follower):
    """A follower that has the users of a canary answered by a second one, which follows the
    challenger's own updates, for as long as there is one.

    Both fold the same events before they answer. A challenger that can't be followed, or raises
    an error, answers nobody any more: its users get the live model's lists.

    Args:
        challengers: the folder of the challengers.
    """

    def __init__(
        self,
        config: Config,
        events: EventsLog,
        updates: UpdatesLog,
        snapshots: Path | None,
        challengers: Path,
    ) -> None:
        self._folder = Challengers(challengers)
        self._looked = 0.0
        self._beside: _Beside | None = None
        super().__init__(config, events, updates, snapshots)

    def catch_up(self) -> None:
        super().catch_up()
        self._look()
        if (beside := self._beside) is not None:
            beside.catch_up()

    def look_on(self) -> bool:
        more = super().look_on()
        return (self._beside is not None and self._beside.look_on()) or more

    def rest(self) -> bool:
        more = super().rest()
        return (self._beside is not None and self._beside.rest()) or more

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]:
        answers: dict[int, Recommendations] = {}
        places = [k for k, one in enumerate(requests) if self._is_in_canary(one.user_id)]
        if places and (beside := self._beside) is not None:
            found = beside.recommend([requests[k] for k in places], now)
            answers = dict(zip(places, found, strict=False))
        left = [k for k in range(len(requests)) if k not in answers]
        if left:
            found = super().recommend([requests[k] for k in left], now)
            answers.update(zip(left, found, strict=True))
        return [answers[k] for k in range(len(requests))]

    def explain(self, user_id: str, n: int, now: float) -> Explanation:
        if self._is_in_canary(user_id) and (beside := self._beside) is not None:
            found = beside.explain(user_id, n, now)
            if found is not None:
                return found
        return super().explain(user_id, n, now)

    def _is_in_canary(self, user_id: str | None) -> bool:
        beside = self._beside
        if beside is None or user_id is None or not beside.answers:
            return False
        return in_canary(beside.canary, user_id)

    def _look(self) -> None:
        """Takes up a canary that has begun, and leaves one that has ended."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            wanted = self._folder.canary()
        except SnapshotError as error:
            log.error("no canary", reason=str(error))
            wanted = None
        if wanted == (self._beside.canary if self._beside else None):
            return
        if self._beside is not None:
            self._beside.leave()
        self._beside = None
        if wanted is not None:
            self._beside = _Beside(self._configured, self._events, self._folder, wanted)


class _Beside:
    """The second follower, made in a thread of its own, as loading a state takes time."""

    def __init__(
        self, config: Config, events: EventsLog, folder: Challengers, canary: Canary
    ) -> None:
        self.canary = canary
        self._follower: Follower | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(config, events, folder), name="canary", daemon=True
        )
        self._thread.start()

    @property
    def answers(self) -> bool:
        """Whether there is a state of the challenger to answer by."""
        follower = self._follower
        return follower is not None and follower.version == -self.canary.number

    def catch_up(self) -> None:
        if (follower := self._follower) is not None:
            try:
                follower.catch_up()
            except Exception:
                self._fail("following it failed")

    def look_on(self) -> bool:
        if (follower := self._follower) is not None:
            try:
                return follower.look_on()
            except Exception:
                self._fail("following it failed")
        return False

    def rest(self) -> bool:
        return (follower := self._follower) is not None and follower.rest()

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]:
        """Answers to all of them, or to none where it fails."""
        if (follower := self._follower) is not None:
            try:
                return follower.recommend(requests, now)
            except Exception:
                self._fail("recommending failed")
        return []

    def explain(self, user_id: str, n: int, now: float) -> Explanation | None:
        if (follower := self._follower) is not None:
            try:
                return follower.explain(user_id, n, now)
            except Exception:
                self._fail("explaining failed")
        return None

    def leave(self) -> None:
        """Answers no more."""
        self._follower = None
        self._over.set()

    def _fail(self, what: str) -> None:
        log.exception("canary left", number=self.canary.number, reason=what)
        self.leave()

    def _follow(self, config: Config, events: EventsLog, folder: Challengers) -> None:
        number = self.canary.number
        try:
            own = overridden(config, self.canary.settings)
            with closing(SqliteUpdatesLog(folder.updates(number))) as updates:
                follower = Follower(own, events, updates, folder.snapshots(number))
                follower.catch_up()
                log.info("canary answers", number=number, share=self.canary.share)
                self._follower = follower
                self._over.wait()
        except (HeadwaterError, OSError) as error:
            log.error("canary left", number=number, reason=str(error))
