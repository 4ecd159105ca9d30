"""From an event's acknowledgement until answers reflect it, and until the weights do.

Both at once: a catalogue of 100,000 items, 1,000 events/s and 500 requests/s, for as long as
a run lasts. Requests: 200 single events, each followed by its user's list, which must hold the
event's offset; 8 arrays of 100 events; 62 lists of other users; 30 of similar and popular items.

An event's user sees it from the first answer on that was asked for after the acknowledgement
and that shows it: the list must be of a state that holds the event, and may not offer the item that
the event used up. Weights that learned from it are live once any answer says ``trained_through``
at least its offset.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    percentile_curve,
    runs,
)
from benchmarks.realtime.system import System, Usage, fill
from benchmarks.realtime.world import World
from headwater.types import Doubles, Longs

ITEMS, USERS, HISTORY = 100_000, 20_000, 5_000
SECONDS, WARM_UP = 20.0, 10.0
SETTINGS = '[recommend]\ncatalogue = "all"\n'
SINGLES, ARRAYS, ARRAY, LISTS, SIMILAR, POPULAR = 200, 8, 100, 62, 20, 10
"""Requests per second of each kind, and events in an array."""
EVENTS = SINGLES + ARRAYS * ARRAY
REQUESTS = 2 * SINGLES + ARRAYS + LISTS + SIMILAR + POPULAR
"""Per second: each single event is followed by a list."""

HOSTED = {"hosted services": 1_000.0, "Gorse": 60_000.0}
"""What they document at best, in ms; none of them was run here."""
OTHERS = {"Ekko": 2_400.0, "Monolith": 60_000.0, "Gorse": 3_600_000.0}
"""What was published, in ms; none of them was run here. Sima et al., OSDI 2022; Liu et al.,
arXiv 2209.07663; Gorse's documentation."""


class _Result(msgspec.Struct):
    status: str
    offset: int | None = None


class _Acknowledged(msgspec.Struct):
    results: list[_Result]


class _Item(msgspec.Struct):
    item_id: str


class _List(msgspec.Struct):
    trained_through: int
    items: list[_Item]


_acknowledged = msgspec.json.Decoder(_Acknowledged)
_list = msgspec.json.Decoder(_List)


@dataclass
class Clock:
    """What the answers of a run say of freshness; times are of ``time.perf_counter``."""

    acknowledged: list[tuple[float, int, int]] = field(default_factory=list)
    """When, the highest offset, how many events."""
    trained: list[tuple[float, int]] = field(default_factory=list)
    """When an answer came, and the offset that its weights were trained through."""
    reflected: list[float] = field(default_factory=list)
    """Seconds from an acknowledgement to the end of the answer that reflects it."""
    stale: int = 0
    """Answers that didn't reflect an event that was acknowledged before they were asked for."""

    def live(self) -> tuple[Doubles, Doubles]:
        """Per event: when it was acknowledged, and the seconds until weights that learned from it
        were in an answer; until the last answer, where they never were.
        """
        at, offsets, counts = (np.array(column) for column in zip(*self.acknowledged, strict=True))
        seen, through = (np.array(column) for column in zip(*sorted(self.trained), strict=True))
        place = np.searchsorted(np.maximum.accumulate(through), offsets)
        times = np.append(seen, seen[-1])[place]
        # An answer that was under way already may say so before the acknowledgement is read.
        delays: Doubles = np.maximum(times - at, 0.0)
        return np.repeat(at, counts), np.repeat(delays, counts)


class Requests:
    """Makes the streams of requests, and reads their answers into a clock.

    Args:
        world: whose events are sent.
    """

    def __init__(self, world: World) -> None:
        self._pairs: Iterator[tuple[str, str]] = world.pairs()
        self.clock = Clock()

    def streams(self) -> list[Stream]:
        return [
            Stream(SINGLES, self._single),
            Stream(ARRAYS, self._array),
            Stream(LISTS, self._list_of_anyone),
            Stream(SIMILAR, self._similar),
            Stream(POPULAR, self._popular),
        ]

    def _event(self) -> dict[str, Any]:
        user, item = next(self._pairs)
        return {"type": "rating", "user_id": user, "item_id": item}

    def _single(self, _: int) -> Ask:
        event = self._event()
        body = msgspec.json.encode(event)
        return Ask("event", request("POST", "/v1/events", body), self._follow(event))

    def _follow(self, event: dict[str, Any]) -> Any:
        def then(answer: Answer) -> Ask | None:
            offset = self._note(answer)
            if offset is None:
                return None
            user, item = event["user_id"], event["item_id"]

            def seen(listed: Answer) -> None:
                found = self._trained(listed)
                if found is None:
                    return
                if any(one.item_id == item for one in found.items):
                    self.clock.stale += 1
                else:
                    self.clock.reflected.append(listed.done - answer.done)

            path = f"/v1/users/{user}/recommendations?n=20&min_offset={offset}"
            return Ask("own list", request("GET", path), seen)

        return then

    def _array(self, _: int) -> Ask:
        body = msgspec.json.encode([self._event() for _ in range(ARRAY)])

        def then(answer: Answer) -> None:
            self._note(answer)

        return Ask("array", request("POST", "/v1/events", body), then)

    def _list_of_anyone(self, _: int) -> Ask:
        user, _item = next(self._pairs)
        return self._get("list", f"/v1/users/{user}/recommendations?n=20")

    def _similar(self, _: int) -> Ask:
        _user, item = next(self._pairs)
        return self._get("similar", f"/v1/items/{item}/similar?n=20")

    def _popular(self, _: int) -> Ask:
        return self._get("popular", "/v1/popular?n=20")

    def _get(self, kind: str, path: str) -> Ask:
        def then(answer: Answer) -> None:
            self._trained(answer)

        return Ask(kind, request("GET", path), then)

    def _note(self, answer: Answer) -> int | None:
        """Keeps an acknowledgement; its highest offset."""
        if answer.status != 200:
            return None
        offsets = [one.offset or 0 for one in _acknowledged.decode(answer.body).results]
        self.clock.acknowledged.append((answer.done, max(offsets), len(offsets)))
        return max(offsets)

    def _trained(self, answer: Answer) -> _List | None:
        if answer.status != 200:
            return None
        found = _list.decode(answer.body)
        self.clock.trained.append((answer.done, found.trained_through))
        return found


def measure(quick: bool) -> Measured:
    """The first two rows of the table, and what they take."""
    items, seconds = (5_000, 5.0) if quick else (ITEMS, SECONDS)
    world = World(items, USERS)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        now = time.time()
        fill(folder, world.catalogue(), now)
        fill(folder, world.history(HISTORY, now, "rating"), now)
        with System(folder, SETTINGS) as system:
            system.until_ready()
            load(*system.address, Requests(world).streams(), WARM_UP / (5 if quick else 1))
            for run in range(runs(quick)):
                print(f"  run {run + 1} of {runs(quick)}", flush=True)
                system.until_ready()
                found.append(_run(system, world, seconds))
    return Measured(_figures(found), _plots(found[-1]), _notes(found, items, seconds))


def _run(system: System, world: World, seconds: float) -> dict[str, Any]:
    requests = Requests(world)
    before, started = system.usage(), time.perf_counter()
    through = system.status()["trained_through"]
    done = load(*system.address, requests.streams(), seconds)
    after, took = system.usage(), time.perf_counter() - started
    # What was acknowledged last is learned after the load: asked for until it is there.
    last = max(offset for _, offset, _ in requests.clock.acknowledged)
    until = time.perf_counter() + 30.0
    while (learned := system.status()["trained_through"]) < last and time.perf_counter() < until:
        requests.clock.trained.append((time.perf_counter(), learned))
        time.sleep(0.01)
    requests.clock.trained.append((time.perf_counter(), learned))
    at, delays = requests.clock.live()
    return {
        "clock": requests.clock,
        "started": started,
        "at": at,
        "live": delays * 1_000.0,
        "load": done,
        "before": before,
        "after": after,
        "took": took,
        "learned": learned - through,
    }


def _figures(found: list[dict[str, Any]]) -> list[Figure]:
    def each(what: Any) -> list[float]:
        return [what(one) for one in found]

    def reflected(one: dict[str, Any], q: float) -> float:
        return percentile(one["clock"].reflected, q) * 1_000.0

    return [
        Figure("own answer reflects event, p50", "ms", each(lambda one: reflected(one, 50))),
        Figure(
            "own answer reflects event, p99",
            "ms",
            each(lambda one: reflected(one, 99)),
            at_most(10.0),
            HOSTED,
        ),
        Figure(
            "answers that didn't reflect it",
            "",
            each(lambda one: float(one["clock"].stale)),
            at_most(0.0),
        ),
        Figure(
            "weights live, p50",
            "ms",
            each(lambda one: percentile(one["live"], 50)),
            at_most(250.0),
            OTHERS,
        ),
        Figure(
            "weights live, p99",
            "ms",
            each(lambda one: percentile(one["live"], 99)),
            at_most(1_000.0),
            OTHERS,
        ),
        # What is turned away has no latency: without these two the others would say little.
        Figure(
            "requests answered",
            "/s",
            each(lambda one: one["load"].answered / one["load"].seconds),
            at_least(0.99 * REQUESTS),
        ),
        Figure(
            "events acknowledged",
            "/s",
            each(lambda one: _events(one) / one["load"].seconds),
            at_least(0.99 * EVENTS),
        ),
        Figure(
            "acknowledgement of an event, p99",
            "ms",
            each(lambda one: one["load"].of("event").milliseconds(99)),
        ),
    ]


def _events(one: dict[str, Any]) -> int:
    return sum(count for *_, count in one["clock"].acknowledged)


def _plots(last: dict[str, Any]) -> list[Plot]:
    second = (last["at"] - last["started"]).astype(int)
    at: Longs = np.unique(second)

    def over_time(q: float) -> Curve:
        of_each = [percentile(last["live"][second == s], q) for s in at]
        return Curve(f"p{q:.0f}", at.tolist(), of_each)

    lists: Load = last["load"].of("own list")
    return [
        Plot(
            "freshness",
            "From acknowledged to live in the weights, 1,000 events/s",
            "seconds since the load began",
            "ms",
            [over_time(50), over_time(99)],
            limits={"goal p50": 250.0, "goal p99": 1_000.0},
        ),
        Plot(
            "freshness-percentiles",
            "Delays by percentile, 1,000 events/s and 500 requests/s",
            "percentile",
            "ms",
            [
                percentile_curve("live in the weights", last["live"]),
                percentile_curve("own answer reflects it", _ms(last["clock"].reflected)),
                percentile_curve("latency of a list", _ms(lists.latencies)),
            ],
            log_y=True,
        ),
    ]


def _ms(seconds: Any) -> list[float]:
    return [float(one) * 1_000.0 for one in seconds]


def _notes(found: list[dict[str, Any]], items: int, seconds: float) -> dict[str, float | str]:
    events = sum(map(_events, found))
    answers = sum(one["load"].answered for one in found)
    notes: dict[str, float | str] = {"items": items, "seconds of a run": seconds}
    for name in found[0]["after"]:
        taken = [one["after"][name].cpu_seconds - one["before"][name].cpu_seconds for one in found]
        process: Usage = found[-1]["after"][name]
        notes[f"{name}: threads"] = process.threads
        notes[f"{name}: CPU ms per event"] = 1_000.0 * sum(taken) / events
        notes[f"{name}: CPU ms per request"] = 1_000.0 * sum(taken) / answers
    notes["generator: CPU share of a core"] = sum(one["load"].cpu_seconds for one in found) / sum(
        one["took"] for one in found
    )
    notes["learned, events/s"] = sum(one["learned"] for one in found) / sum(
        one["took"] for one in found
    )
    return notes
