"""Twice what it can carry: what is shed, what is kept, and how soon all is as before.

What it can carry is what it answers of far too much. Then come half of that (the usual load),
twice that, and half again, without a pause between: requests of the same mix, six in ten of them
lists, three single events, one an array of 20. A list or an event is accepted where the answer is
200, and shed where it is 429 or 503 with ``Retry-After``; any other end is a failure. The events
log is read afterwards: each acknowledged event must be in it, once.

Recovered is the system once, after the end of the overload, every request of it has got its answer
and from then on no request was shed or failed and p99 was at most twice the usual in each second;
the trainer has caught up when the offset that was acknowledged last is in ``trained_through``.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.loading import Answer, Ask, Load, Stream, load, request
from benchmarks.realtime.figures import (
    Curve,
    Figure,
    Measured,
    Plot,
    at_least,
    at_most,
    percentile,
    runs,
)
from benchmarks.realtime.system import System, fill
from benchmarks.realtime.world import World
from headwater.log.sqlite import SqliteEventsLog
from headwater.types import Event

ITEMS, USERS, HISTORY = 20_000, 20_000, 5_000
SETTINGS = '[recommend]\ncatalogue = "all"\n'
ARRAY = 20
FAR_TOO_MUCH = 4_000.0
"""Requests per second that no system on two cores carries."""
CONNECTIONS = 1_000
"""So many that no request waits on this side for one."""
CATCH_UP_SECONDS = 120.0
_SHED = (429, 503)


class _Result(msgspec.Struct):
    event_id: str
    status: str
    offset: int | None = None


class _Acknowledged(msgspec.Struct):
    results: list[_Result]


_acknowledged = msgspec.json.Decoder(_Acknowledged)


@dataclass
class Asked:
    """What was acknowledged, and what was turned away without saying when to come again."""

    ids: list[str] = field(default_factory=list)
    offset: int = 0
    without_retry: int = 0


class Mix:
    """Makes the stream of requests; an event has an id of its own."""

    def __init__(self, world: World) -> None:
        self._pairs = world.pairs()
        self._sent = 0
        self.asked = Asked()

    def stream(self, rate: float) -> Stream:
        return Stream(rate, self._make)

    def _make(self, n: int) -> Ask:
        if n % 10 < 6:
            user, _ = next(self._pairs)
            path = f"/v1/users/{user}/recommendations?n=20"
            return Ask("list", request("GET", path), self._listed)
        body = msgspec.json.encode([self._event() for _ in range(ARRAY if n % 10 == 9 else 1)])
        return Ask("events", request("POST", "/v1/events", body), self._noted)

    def _event(self) -> dict[str, str]:
        user, item = next(self._pairs)
        self._sent += 1
        return {"event_id": f"o{self._sent}", "type": "view", "user_id": user, "item_id": item}

    def _listed(self, answer: Answer) -> None:
        if answer.status in _SHED and "retry-after" not in answer.headers:
            self.asked.without_retry += 1

    def _noted(self, answer: Answer) -> None:
        self._listed(answer)
        if answer.status == 200:
            for result in _acknowledged.decode(answer.body).results:
                if result.offset is not None:
                    self.asked.ids.append(result.event_id)
                    self.asked.offset = max(self.asked.offset, result.offset)


@dataclass
class Outcome:
    """One run: the capacity, the three stretches, and what came after."""

    capacity: float
    usual: Load
    over: Load
    after: Load
    lag: int
    """Events that the trainer was behind when the overload ended."""
    caught_up: float
    """Seconds from that end until it had learned all that was acknowledged in it."""
    without_retry: int
    lost: int
    doubled: int
    threads: dict[str, int]
    """Of each process, at the end."""
    cpu: dict[str, float]
    """Seconds that each process took while twice as much came as is carried."""


def measure(quick: bool) -> Measured:
    """Shed share, latencies and recovery, beside the same system's usual ones."""
    seconds = 4.0 if quick else 15.0
    found = []
    for run in range(runs(quick)):
        print(f"  run {run + 1} of {runs(quick)}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found.append(_run(Path(folder), seconds))
    return Measured(_figures(found), [_plot(found[-1], seconds)], _notes(found, seconds))


def _run(folder: Path, seconds: float) -> Outcome:
    world = World(ITEMS, USERS)
    now = time.time()
    fill(folder, world.catalogue(), now)
    fill(folder, world.history(HISTORY, now), now)
    mix = Mix(world)
    with System(folder, SETTINGS) as system:
        system.until_ready()

        def run(rate: float, seconds: float) -> Load:
            stream = mix.stream(rate)
            return load(*system.address, [stream], seconds, connections=CONNECTIONS)

        run(100.0, seconds / 3)
        most = run(FAR_TOO_MUCH, seconds / 3)
        capacity = rate_of(most)
        system.until_ready()
        usual = run(capacity / 2, seconds)
        before = system.usage()
        over = run(2 * capacity, seconds)
        spent = system.usage()
        ended, target = time.perf_counter(), mix.asked.offset
        lag = target - system.status()["trained_through"]
        after = run(capacity / 2, seconds)
        while system.status()["trained_through"] < target:
            if time.perf_counter() > ended + CATCH_UP_SECONDS:
                break
            time.sleep(0.05)
        caught_up = time.perf_counter() - ended
    counts = _counts(folder)
    return Outcome(
        capacity,
        usual,
        over,
        after,
        lag,
        caught_up,
        mix.asked.without_retry,
        sum(one not in counts for one in mix.asked.ids),
        sum(counts[one] > 1 for one in mix.asked.ids),
        {name: one.threads for name, one in spent.items()},
        {name: one.cpu_seconds - before[name].cpu_seconds for name, one in spent.items()},
    )


def _counts(folder: Path) -> Counter[str]:
    """Event id -> entries of the log that have it."""
    counts: Counter[str] = Counter()
    with closing(SqliteEventsLog(folder / "events.db")) as log:
        through = 0
        while records := log.read(through, 10_000):
            through = records[-1].offset
            counts.update(r.entry.event_id for r in records if isinstance(r.entry, Event))
    return counts


def accepted(one: Load) -> list[float]:
    """Latencies of what was answered, in ms."""
    found: list[float] = (1_000.0 * one.latencies[one.statuses // 100 == 2]).tolist()
    return found


def share(one: Load, which: Callable[[int], bool]) -> float:
    """Of all requests those with such a status."""
    return float(np.mean([which(status) for status in one.statuses.tolist()]))


def shed(status: int) -> bool:
    return status in _SHED


def failed(status: int) -> bool:
    return status != 200 and status not in _SHED


def taken(one: Load) -> float:
    """Seconds until the last request had its answer: the schedule's, or more."""
    done = (one.due + one.latencies)[np.isfinite(one.latencies)]
    return max(one.seconds, float(done.max(initial=0.0)))


def rate_of(one: Load) -> float:
    """Requests answered per second."""
    return one.answered / taken(one)


def recovery(over: Load, after: Load, limit: float) -> float:
    """Seconds from the end of ``over`` until it has its answers, and then until no second of
    ``after`` is left in which a request was turned away or failed, or p99 was above ``limit`` ms.
    """
    second = after.due.astype(int)
    bad = [
        int(s)
        for s in np.unique(second)
        if (after.statuses[second == s] != 200).any()
        or percentile((1_000.0 * after.latencies[second == s]).tolist(), 99) > limit
    ]
    return taken(over) - over.seconds + float(max(bad, default=-1) + 1)


def _figures(found: Sequence[Outcome]) -> list[Figure]:
    usual = [percentile(accepted(one.usual), 99) for one in found]
    over = [percentile(accepted(one.over), 99) for one in found]
    beside = {"usual": float(np.median(usual))}
    return [
        Figure("carried", "requests/s", [one.capacity for one in found]),
        Figure("usual p99, at half of that", "ms", usual),
        Figure(
            "p99 of accepted at twice that, against usual",
            "times",
            [o / u for o, u in zip(over, usual, strict=True)],
            at_most(2.0),
        ),
        Figure("p99 of accepted at twice that", "ms", over, None, beside),
        Figure("shed at twice that", "of 1", [share(one.over, shed) for one in found]),
        Figure(
            "failed without Retry-After",
            "of 1",
            [share(one.over, failed) + one.without_retry / len(one.over.due) for one in found],
            at_most(0.0),
        ),
        Figure(
            "answered at twice that, against what it carries",
            "of 1",
            [rate_of(one.over) / one.capacity for one in found],
            at_least(0.8),
        ),
        Figure(
            "acknowledged events lost or doubled",
            "events",
            [float(one.lost + one.doubled) for one in found],
            at_most(0.0),
        ),
        Figure(
            "requests are as usual again after",
            "s",
            [recovery(one.over, one.after, 2 * u) for one, u in zip(found, usual, strict=True)],
            at_most(5.0),
        ),
        Figure("trainer behind at the end", "events", [float(one.lag) for one in found]),
        Figure("trainer has caught up after", "s", [one.caught_up for one in found]),
    ]


def _plot(last: Outcome, seconds: float) -> Plot:
    curves = {"p50 of accepted": 50, "p99 of accepted": 99}
    x: list[float] = []
    y: dict[str, list[float]] = {name: [] for name in curves}
    for place, one in enumerate((last.usual, last.over, last.after)):
        second = one.due.astype(int)
        for s in np.unique(second):
            at = (second == s) & (one.statuses // 100 == 2)
            if at.any():
                x.append(place * seconds + float(s))
                for name, q in curves.items():
                    y[name].append(1_000.0 * percentile(one.latencies[at].tolist(), q))
    return Plot(
        "overload",
        f"Half, twice and half of what it carries, {seconds:.0f} s each",
        "seconds",
        "ms",
        [Curve(name, x, y[name]) for name in curves],
        log_y=True,
    )


def _notes(found: Sequence[Outcome], seconds: float) -> dict[str, float | str]:
    statuses = Counter(status for one in found for status in one.over.statuses.tolist())
    last = found[-1]
    answered = max(last.over.answered, 1)
    return {
        "threads": ", ".join(f"{name} {n}" for name, n in last.threads.items()),
        "CPU ms per request answered at twice that": ", ".join(
            f"{name} {1_000 * seconds / answered:.2f}" for name, seconds in last.cpu.items()
        ),
        "items": ITEMS,
        "seconds of a stretch": seconds,
        "statuses at twice that (0: no answer)": ", ".join(
            f"{status}: {n:,}" for status, n in sorted(statuses.items())
        ),
    }
