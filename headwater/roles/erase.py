"""``headwater erase``: everything of a user out of a data folder, in a stopped system.

What was learned can't be unlearned; it is learned again, from a log in which the
user's entries are blank. Where the log's head is no longer kept that isn't
possible: then the user's id, attributes and history are taken out of the state,
and what it learned from them stays, as counts, weights and sequences of items that
name nobody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from headwater.config import Config
from headwater.deploy import CHALLENGERS, Challengers, Snapshots
from headwater.errors import InvalidInput
from headwater.ingest import ANONYMOUS
from headwater.log import EventsLog
from headwater.log.erasing import claim, scrub
from headwater.log.served import ServedLog
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.roles import _folder, compute_on_one_thread
from headwater.roles.bulk import existing_log
from headwater.types import DeadLetter, Event, User, UserRemoval

_READ = 1_000
"""Records, or letters, looked at together."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far there is to go."""


@dataclass(frozen=True)
class Erased:
    """What there was of the users, and through which offset was learned again.

    Events through ``start`` are no longer kept, so what was learned from them stays. ``unnamed``
    are ids that no entry of the log names: misspelt, or erased before.
    """

    entries: int
    letters: int
    lists: int
    start: int
    trained_through: int
    epoch: int
    unnamed: tuple[str, ...] = ()


def erase(
    user_ids: Collection[str],
    data: Path,
    config: Config,
    progress: Progress = lambda doing, done, total: None,
) -> Erased:
    """Erases users from logs, snapshots and dead letters, and learns again without them.

    Challengers begin anew.

    Nothing is half done after a crash: the state always follows from the log, and the command
    can be given again. What is in backups stays there.

    Args:
        user_ids: as in events; an anonymous one with its prefix, ``anon:``.
        config: what the system runs with; it learns by that.

    Raises:
        InvalidInput: an id is empty, which would be found in every dead letter.
        LogError: there is no log, a process uses it, or there is no space to rewrite it.
    """
    if not all(user_id.removeprefix(ANONYMOUS) for user_id in user_ids):
        raise InvalidInput("user_id", "is empty")
    existing_log(data).close()
    with _folder.claim(data):
        logs = [path for name in _LOGS if (path := data / name).is_file()]
        for path in logs:
            claim(path)
        entries, letters, named = _blank(user_ids, data, config, progress)
        lists = 0
        if (data / _SERVED).is_file():
            with closing(ServedLog(data / _SERVED)) as served:
                lists = served.erase(user_ids)
        _scrub(logs, progress)
        challengers = Challengers(data / CHALLENGERS)
        for challenger, _ in challengers.listed():
            challengers.clear(challenger.number)
        start, trained_through, epoch = _learn(user_ids, data, config, progress)
        # Again: only now that there are snapshots of the new epoch are the older updates gone.
        _scrub([data / _UPDATES], progress)
    unnamed = tuple(user_id for user_id in user_ids if user_id not in named)
    return Erased(entries, letters, lists, start, trained_through, epoch, unnamed)


_EVENTS, _UPDATES, _SERVED = _LOGS = ("events.db", "updates.db", "served.db")


def _blank(
    user_ids: Collection[str], data: Path, config: Config, progress: Progress
) -> tuple[int, int, set[str]]:
    """Blanks the users' entries and deletes their dead letters: how many there were, and whose."""
    with (
        closing(SqliteEventsLog(data / _EVENTS)) as events,
        closing(SqliteUpdatesLog(data / _UPDATES)) as updates,
    ):
        found = dict(_found(events, user_ids, progress))
        offsets = list(found)
        if offsets and events.start() == 0:
            # Before the blanking: a state that had learned more than the log says would go
            # unnoticed. The newest update stays until there are newer ones: epochs go on from it.
            _snapshots(data, config).clear()
            updates.drop(updates.end() - 1)
        events.blank(offsets)
        letters = [letter.number for letter in _letters(events) if _names(letter, user_ids)]
        for number in letters:
            events.settle(number)
    return len(offsets), len(letters), set(found.values())


def _found(
    events: EventsLog, user_ids: Collection[str], progress: Progress
) -> Iterator[tuple[int, str]]:
    """Offset and user of every entry of one of the users."""
    after, end = events.start(), events.end()
    while after < end:
        for record in events.read(after, _READ):
            after, entry = record.offset, record.entry
            if isinstance(entry, Event | User | UserRemoval) and entry.user_id in user_ids:
                yield record.offset, entry.user_id
        progress("searching the events log", after, end)


def _letters(events: EventsLog) -> Iterator[DeadLetter]:
    before: int | None = None
    while letters := events.dead_letters(_READ, before):
        yield from letters
        before = letters[-1].number


def _names(letter: DeadLetter, user_ids: Iterable[str]) -> bool:
    """Whether an id stands in a letter, as a word of its own; rather one letter too many."""
    text = f"{letter.body}\n{letter.reason}"
    with suppress(ValueError, RecursionError):  # it may be no JSON, and refused for that
        # However it was escaped there.
        text += json.dumps(json.loads(letter.body), ensure_ascii=False)
    return any(
        re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text)
        for user_id in user_ids
        for id in {user_id, user_id.removeprefix(ANONYMOUS)}
        for form in (id, json.dumps(id)[1:-1], json.dumps(id, ensure_ascii=False)[1:-1])
    )


def _learn(
    user_ids: Collection[str], data: Path, config: Config, progress: Progress
) -> tuple[int, int, int]:
    """Learns what the state lacks: the log's start, and offset and epoch that were arrived at."""
    compute_on_one_thread()
    from headwater.loop import Learner

    with (
        closing(SqliteEventsLog(data / _EVENTS)) as events,
        closing(SqliteUpdatesLog(data / _UPDATES)) as updates,
    ):
        learner = Learner(_in_full(config), events, updates, data / "snapshots")
        while learner.step():
            learner.publish_due()
            progress("learning again", learner.trained_through, events.end())
        if events.start() > 0:
            for user_id in user_ids:
                learner.erase(user_id)
        learner.snapshot()
        if events.start() > 0:
            # Those before it hold what was taken out of it.
            kept = Snapshots(data / "snapshots", keep=1).prune()
            updates.drop(kept[-1].sequence)
        return events.start(), learner.trained_through, learner.epoch


def _in_full(config: Config) -> Config:
    """The settings without the sampling under load: nobody waits for what is learned again."""
    if config.train.pace != "load":
        return config
    return config.model_copy(update={"train": config.train.model_copy(update={"pace": "full"})})


def _scrub(logs: Iterable[Path], progress: Progress) -> None:
    for path in logs:
        progress(f"rewriting {path.name}", 0, 1)
        scrub(path)
        progress(f"rewriting {path.name}", 1, 1)


def _snapshots(data: Path, config: Config) -> Snapshots:
    return Snapshots(data / "snapshots", config.deploy.snapshots_kept)
