"""The serving side of the loop: follows both logs, answers, learns nothing of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, pairwise
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
import numpy as np
import structlog

from headwater.config import Config, overridden
from headwater.deploy import Manifest, Shape, Snapshots, decode
from headwater.errors import Dropped, UpdateError
from headwater.log import EventsLog, StoredUpdate, UpdatesLog
from headwater.loop._catching_up import READ, folded
from headwater.loop._fold import Fold, shape
from headwater.loop._forgotten import Forgotten
from headwater.preprocess import Preprocessor
from headwater.recommend import UserVectors
from headwater.types import (
    NO_ROW,
    Event,
    ExplainedItem,
    Explanation,
    HistoryEvent,
    Item,
    Ranking,
    Reason,
    Recommendations,
    RecommendedItem,
    Request,
    SimilarItems,
    SimilarUser,
    SimilarUsers,
    State,
    Update,
)

_AHEAD = 4
"""Updates of some megabytes that may wait to be applied; who falls behind that far reads the rest
itself."""

_LOOKED_AT = 1_024
"""Items whose bytes are made anew between two answers."""

_REST_SECONDS = 2.0
"""Without an update, after which all bytes are made anew: each update has an eighth of them, and
the last one of a stream that falls silent would leave the others as they were."""

log = structlog.get_logger()


class Follower:
    """Follows both logs and answers from what they say; learns nothing of its own.

    Histories, vocabulary and counts are folded from the events at once, so an
    answer reflects an event as soon as it is acknowledged; rows and dense weights
    follow with the updates.

    Raises:
        Dropped: there is no snapshot for what the events log no longer holds.
    """

    def __init__(
        self, config: Config, events: EventsLog, updates: UpdatesLog, snapshots: Path | None
    ) -> None:
        self.config = self._configured = config
        self._events = events
        self._updates = updates
        self._snapshots = Snapshots(snapshots, config.deploy.snapshots_kept) if snapshots else None
        self.report: dict[str, Any] = {}
        self._tried: list[Path] | None = None
        self._failed = False
        self._vectors = UserVectors(config.serve.user_vectors_cached)
        self.caches = {"user_vectors": self._vectors}
        self._ready: dict[int, tuple[StoredUpdate, Update]] = {}  # by the sequence before each
        self._prepared_through: int | None = None  # sequence, once another thread prepares
        self._applied_at = 0.0  # when the newest update was taken over
        self._start(self._newest())

    @property
    def offset(self) -> int:
        """Offset of the newest event that answers reflect."""
        return self.fold.offset

    @property
    def directory(self) -> Preprocessor:
        """What was set of items and users; it is another object after every ``catch_up``."""
        return self.fold.preprocess

    def catch_up(self) -> None:
        """Folds what is new in both logs.

        A damaged update is never passed over: the state before it answers, with new events
        folded in, until there is a snapshot that stands for a later one. After an error the
        next call starts over from a snapshot: the trainer may have set aside what caused it.

        Raises:
            Dropped: the events log begins later, and so does no snapshot.
        """
        if self._failed:
            self._start(self._newest())
        self._failed = True
        self._catch_up()
        self._failed = False

    def prepare(self) -> None:
        """Reads new updates and checks them, which takes half the time of taking one over.

        For another thread than the one that asks. From the first call on, ``catch_up`` takes over
        the updates through the newest of when this was last called; whatever it finds of them that
        isn't plain, it reads again.
        """
        newest = self._updates.end()
        try:
            after = max([self.sequence, *(before + 1 for before in list(self._ready))])
            while after < newest and len(self._ready) < _AHEAD:
                stored = self._updates.read(after, 1)
                if not stored or stored[0].sequence != after + 1:
                    break
                self._ready[after] = stored[0], decode(stored[0].payload)
                after += 1
        except UpdateError:
            pass
        finally:
            self._prepared_through = newest

    def look_on(self) -> bool:
        """Does a little of what no answer waits for, a fifth of a millisecond; whether there is
        more of it.

        Whatever isn't done by then, the next update waits for.
        """
        return self.fold.model.sequence.tower.first_look.look_on(_LOOKED_AT)

    def rest(self) -> bool:
        """Has ``look_on`` do all that is left, where no update has come for a while; whether there
        is any. For the thread that prepares.
        """
        if time.monotonic() - self._applied_at < _REST_SECONDS:
            return False
        return self.fold.model.sequence.tower.first_look.rest()

    def _catch_up(self) -> None:
        try:
            self._fold_events(self._events.end())
        except Dropped as dropped:
            log.warning("following from the snapshot", start=dropped.start)
            self._start(self._newest())
            self._fold_events(self._events.end())
        while (end := self._updates_end()) > self.sequence:
            stored, update = self._next_update()
            if stored is None:
                self._start_over(None, end + 1)
                continue
            try:
                self._apply(stored, update)
            except UpdateError as error:
                if not self._passed(stored, error):
                    break
                self._fold_events(self._events.end())

    def _updates_end(self) -> int:
        """Sequence of the newest update to be taken over."""
        return self._updates.end() if self._prepared_through is None else self._prepared_through

    def _next_update(self) -> tuple[StoredUpdate | None, Update | None]:
        """The one behind what was taken over, ``None`` where it is gone; decoded, if it was."""
        ready = self._ready.pop(self.sequence, None)
        for before in list(self._ready):  # as it is now: another thread may add to it
            if before < self.sequence:
                del self._ready[before]
        if ready is not None:
            return ready
        found = self._updates.read(self.sequence, 1)
        return (found[0] if found else None), None

    def recommend(self, requests: Sequence[Request], now: float) -> list[Recommendations]:
        """Answers requests together, by one state.

        Args:
            requests: what is asked.
            now: seconds since 1970.
        """
        contexts = self.fold.preprocess.contexts(requests, self._stream_now(now))
        longest = max(request.n for request in requests)
        fold = self.fold
        ranking = fold.recommender.rank(contexts, fold.withheld_now(), longest, whole=False)
        items = self._items(
            ranking, fold.recommender.reasons(contexts, ranking, longest, fold.preprocess.items.id)
        )
        return [
            self._answer(of_list[: request.n])
            for request, of_list in zip(requests, items, strict=True)
        ]

    def explain(self, user_id: str, n: int, now: float) -> Explanation:
        """What the list that the user would be recommended now is made from."""
        fold = self.fold
        contexts = fold.preprocess.contexts([Request(n=n, user_id=user_id)], self._stream_now(now))
        ranking = fold.recommender.rank(contexts, fold.withheld_now(), n)
        reasons = fold.recommender.reasons(contexts, ranking, n, fold.preprocess.items.id)[0]
        effects = fold.recommender.effects(ranking, n)[0]
        weights = fold.model.sequence.history_weights(contexts)[0]
        title = fold.preprocess.catalogue.title
        return Explanation(
            user_id=user_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            offset=self.offset,
            events=int(contexts.history_lengths[0]),
            history=[
                HistoryEvent(
                    item_id=fold.preprocess.items.id(row),
                    title=title(row),
                    type=fold.preprocess.type_names[contexts.history_types[0, column]],
                    time=float(contexts.history_times[0, column]),
                    weight=round(float(weights[column]), 6),
                )
                for column, row in reversed(list(enumerate(contexts.history_items[0].tolist())))
                if row != NO_ROW
            ],
            items=[
                ExplainedItem(
                    item_id=fold.preprocess.items.id(row),
                    title=title(row),
                    score=round(float(score), 6),
                    reasons=reasons[place],
                    features=effects[place],
                )
                for place, (row, score) in enumerate(
                    zip(ranking.rows[0, :n].tolist(), ranking.scores[0, :n], strict=True)
                )
                if row != NO_ROW
            ],
        )

    def popular(self, n: int) -> Recommendations:
        """The most popular items of the moment."""
        rows, scores = self.fold.recommender.popular(n, self.fold.withheld_now())
        return self._answer(
            [self._item(row, score, None) for row, score in zip(rows, scores, strict=True)]
        )

    def similar_items(
        self, item_id: str, n: int, exclude: frozenset[str] = frozenset()
    ) -> SimilarItems | None:
        """What goes with an item; ``None`` for one that is removed, or that nothing has named."""
        fold = self.fold
        row = fold.preprocess.items.find(item_id)
        if row == NO_ROW or fold.preprocess.catalogue.is_removed(row):
            return None
        alone = Request(n=n, session_items=(item_id,), exclude=exclude | {item_id})
        contexts = fold.preprocess.contexts([alone], self._clock[0])
        found = fold.recommender.similar_items(contexts, fold.withheld_now(), n)
        return SimilarItems(
            item_id=item_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            items=[self._item(*of_item) for of_item in found],
        )

    def similar_users(self, user_id: str, n: int) -> SimilarUsers:
        """Who is like a user, of those with the newest events; nobody is like an unknown user.

        All are taken as they were at the newest event, so that the state alone decides.
        """
        fold, now = self.fold, self._clock[0]
        row = fold.preprocess.users.find(user_id)
        contexts = fold.preprocess.contexts([Request(n=n, user_id=user_id)], now)
        active = fold.preprocess.active(self.config.recommend.active_users, now)
        found = fold.recommender.similar_users(contexts, active, n + 1)
        others = [(other, similarity) for other, similarity in found if other != row][:n]
        return SimilarUsers(
            user_id=user_id,
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            users=[
                SimilarUser(fold.preprocess.users.id(other), round(similarity, 6))
                for other, similarity in others
            ],
        )

    def _newest(self) -> tuple[State, Manifest] | None:
        return self._snapshots.newest(self._shape) if self._snapshots else None

    def _shape(self, manifest: Manifest) -> Shape:
        return shape(overridden(self._configured, manifest.lineage.settings))

    def _start(self, found: tuple[State, Manifest] | None) -> None:
        """Empty, or as a snapshot has it, with the settings that it was learned by."""
        self._vectors.clear()
        settings = found[1].lineage.settings if found else {}
        self.config = overridden(self._configured, settings)
        self.fold = Fold(self.config, vectors=self._vectors)
        tower = self.fold.model.sequence.tower
        self._forgotten_items, self._forgotten_tokens = Forgotten(), Forgotten()
        self._forgotten = {
            tower.items.name: self._forgotten_items,
            tower.tokens.name: self._forgotten_tokens,
        }
        self.epoch, self.version, self.sequence = 1, 1, 0
        self.trained_through = self.gradient_through = 0
        self._clock = (0.0, 0.0)
        if found:
            state, manifest = found
            self.fold.load(state, manifest.offset)
            tower.first_look.look_again()
            self.epoch, self.version = manifest.epoch, manifest.version
            self.sequence, self.trained_through = manifest.sequence, manifest.offset
            self.gradient_through = int(state["gradient_through"])
            self.report = self.report or manifest.report
        else:
            self.fold.pass_over(self._events.rollbacks(0))
        if self.offset < self._events.start():
            raise Dropped(self._events.start())
        self._read_clock()

    def _read_clock(self) -> None:
        """The clock as folding every event would have left it; a snapshot doesn't hold it."""
        start, through = self._events.start(), self.offset
        while through > start:
            before = max(through - READ, start)
            for record in reversed(self._events.read(before, through - before)):
                # Where the newest event is no longer there, the oldest entry is the next best.
                if isinstance(record.entry, Event) or record.offset == start + 1 > 1:
                    self._clock = (record.stream_time, record.received_at)
                    return
            through = before

    def _fold_events(self, end: int) -> None:
        for read, gone in folded(self.fold, self._events, end):
            self._forgotten_items.note(gone.items, self.offset)
            self._forgotten_tokens.note(gone.tokens, self.offset)
            if len(gone.items) or any(isinstance(r.entry, Item) for r in read.others):
                self._vectors.clear()
            if len(read.places):
                newest = read.places[-1]
                self._clock = (float(read.times[newest]), float(read.received[newest]))

    def _apply(self, stored: StoredUpdate, update: Update | None) -> None:
        """Takes over one update; on a gap or a new epoch, starts again from a snapshot.

        Args:
            stored: the update.
            update: the same decoded, if it was.

        Raises:
            UpdateError: it is damaged; nothing of it was taken over.
        """
        if (stored.epoch, stored.sequence) != (self.epoch, self.sequence + 1):
            self._start_over(stored.epoch, stored.sequence)
            return
        if update is None:
            update = decode(stored.payload)
        self._fold_events(stored.trained_through)
        tables = {
            name: forgotten.current(update.tables[name], update.trained_through)
            for name, forgotten in self._forgotten.items()
            if name in update.tables
        }
        self.fold.model.put(tables, update.tombstones, update.dense)
        self._vectors.clear()
        self.sequence, self.trained_through = update.sequence, update.trained_through
        self.gradient_through = update.gradient_through
        self._applied_at = time.monotonic()
        if stored.report:
            with suppress(msgspec.DecodeError):
                self.report = msgspec.json.decode(stored.report)

    def _start_over(self, epoch: int | None, sequence: int) -> None:
        """From the newest snapshot, where the log goes on with an update that doesn't follow.

        Args:
            epoch: that update's, ``None`` where it isn't there yet and those before are gone.
            sequence: likewise.
        """
        log.warning("following from the snapshot", epoch=epoch, sequence=sequence)
        self._start(self._newest())
        following = [stored.sequence for stored in self._updates.read(self.sequence, 1)]
        goes_on = self.sequence + 1 == sequence or following == [self.sequence + 1]
        if self.sequence < sequence and not (goes_on and epoch in (None, self.epoch)):
            # No snapshot knows the rows before it: the counts carry on, rows start anew.
            self.epoch, self.sequence = epoch or self.epoch, sequence - 1
        self._fold_events(self._events.end())

    def _passed(self, stored: StoredUpdate, error: UpdateError) -> bool:
        """Goes on from a snapshot that holds what a damaged update did, if there is one."""
        newest = self._snapshots.paths()[-1:] if self._snapshots else []
        if newest == self._tried:
            return False
        self._tried = newest
        log.error("update is damaged", sequence=stored.sequence, reason=str(error))
        found = self._newest()
        if found is None or found[1].sequence < stored.sequence:
            return False
        self._start(found)
        return True

    def _stream_now(self, now: float) -> float:
        """Stream time of a request: the newest event's, and what has passed since it came."""
        stream_time, received_at = self._clock
        return stream_time + max(now - received_at, 0.0)

    def _items(
        self, ranking: Ranking, reasons: Sequence[list[list[Reason]]]
    ) -> list[list[RecommendedItem]]:
        """Each list of a ranking, as it is answered; made many at a time."""
        there = ranking.rows != NO_ROW
        rows = ranking.rows[there].tolist()
        items = list(
            map(
                RecommendedItem,
                map(self.fold.preprocess.items.id, rows),
                ranking.scores[there].astype(np.float64).round(6).tolist(),
                chain.from_iterable(reasons),
                map(self.fold.preprocess.catalogue.title, rows),
            )
        )
        ends = np.cumsum(there.sum(axis=1)).tolist()
        return [items[a:b] for a, b in pairwise([0, *ends])]

    def _item(self, row: int, score: float, reasons: list[Any] | None) -> RecommendedItem:
        return RecommendedItem(
            item_id=self.fold.preprocess.items.id(row),
            score=round(float(score), 6),
            reasons=reasons or [],
            title=self.fold.preprocess.catalogue.title(row),
        )

    def _answer(self, items: list[RecommendedItem]) -> Recommendations:
        return Recommendations(
            recommendation_id=token_hex(16),
            version=self.version,
            sequence=self.sequence,
            trained_through=self.trained_through,
            items=items,
        )
