"""A real ``headwater serve`` on loopback under open-loop load.

All that a list takes shares the machine: API, trainer and load generator. Lists have 20 items and
all reasons; half of them go to users with an event of the last second, which was acknowledged
before the list was due. Meanwhile 200 single events/s come in and are learned. No list is cached.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.loading import Answer, Ask, Load, Stream, load, request
from benchmarks.realtime.system import System, fill
from benchmarks.realtime.world import World
from headwater.errors import HeadwaterError

USERS, HISTORY = 20_000, 20_000
EVENTS = 200
"""Single events per second while lists are asked for."""
SETTINGS = '[recommend]\ncatalogue = "all"\n'
LIMIT_MS = 25.0
"""Latency that 99 % of the lists may not exceed."""
RATES = (100, 250, 500, 750, 1_000, 1_250, 1_500, 1_750, 2_000)
_WARM_UP, _SETTLE = 5.0, 1.0
_START_SECONDS = 900.0


class Traffic:
    """Makes the requests of one run.

    Args:
        world: whose users ask, and whose events come in.
        number: of the run; users are drawn by it.
    """

    def __init__(self, world: World, number: int) -> None:
        self._pairs = world.pairs()
        self._users = world.users
        self._random = np.random.default_rng(number)
        self._fresh: deque[str] = deque(maxlen=EVENTS)

    def streams(self, rate: float) -> list[Stream]:
        return [Stream(rate, self._list), Stream(EVENTS, self._event)]

    def _event(self, _: int) -> Ask:
        user, item = next(self._pairs)
        body = msgspec.json.encode({"type": "view", "user_id": user, "item_id": item})

        def then(answer: Answer) -> None:
            if answer.status == 200:
                self._fresh.append(user)

        return Ask("event", request("POST", "/v1/events", body), then)

    def _list(self, n: int) -> Ask:
        place = int(self._random.integers(1 << 30))
        if n % 2 and self._fresh:
            user = self._fresh[place % len(self._fresh)]
        else:
            user = f"u{place % self._users}"
        return Ask("list", request("GET", f"/v1/users/{user}/recommendations?n=20"))


@dataclass
class Rung:
    """What one rate of the ladder gave."""

    rate: int
    answered: float
    """Lists per second that were answered."""
    p50: float
    p99: float
    """Milliseconds from the time a list was due."""
    late: float
    """Milliseconds that 99 % of the requests left after they were due, at most."""
    cpu: dict[str, float]
    """Processor milliseconds per list, by process; those of the events are in them."""

    @property
    def holds(self) -> bool:
        return self.p99 <= LIMIT_MS and self.answered >= 0.99 * self.rate


@dataclass
class Run:
    """One run: single requests, then the ladder up to two rates in a row that don't hold."""

    single_p50: float
    rungs: list[Rung]

    @property
    def highest(self) -> int:
        return max((rung.rate for rung in self.rungs if rung.holds), default=0)

    def at(self, rate: int) -> Rung:
        """The rung of a rate; of the highest one that was tried, where that is lower."""
        return min(self.rungs, key=lambda rung: abs(rung.rate - rate))


def measure(
    folder: Path, items: int, runs: int, seconds: float, rates: tuple[int, ...] = RATES
) -> list[Run]:
    """Fills ``folder``, serves it, and climbs the ladder so many times."""
    world = World(items, USERS)
    now = time.time()
    fill(folder, world.catalogue(), now)
    fill(folder, world.history(HISTORY, now), now)
    with System(folder, SETTINGS) as system:
        _until_learned(system, items + HISTORY)
        load(*system.address, Traffic(world, 0).streams(200), _WARM_UP)
        return [_run(system, world, number + 1, seconds, rates) for number in range(runs)]


def _until_learned(system: System, offset: int) -> None:
    until = time.perf_counter() + _START_SECONDS
    while True:
        try:
            system.until_ready()
            if system.status()["trained_through"] >= offset:
                return
        except HeadwaterError:
            if time.perf_counter() > until:
                raise
        if time.perf_counter() > until:
            raise TimeoutError(f"the history wasn't learned within {_START_SECONDS:g} seconds")
        time.sleep(0.5)


def _run(system: System, world: World, number: int, seconds: float, rates: tuple[int, ...]) -> Run:
    alone = load(*system.address, [Stream(20, Traffic(world, number)._list)], seconds)
    found = Run(alone.milliseconds(50), [])
    for rate in rates:
        time.sleep(_SETTLE)
        before = system.usage()
        done = load(*system.address, Traffic(world, number).streams(rate), seconds)
        after = system.usage()
        cpu = {name: after[name].cpu_seconds - before[name].cpu_seconds for name in after}
        cpu["generator"] = done.cpu_seconds
        found.rungs.append(_rung(rate, done, cpu))
        # One stall may spoil a rung; of two in a row the next would be worse.
        if not any(rung.holds for rung in found.rungs[-2:]) and len(found.rungs) > 1:
            break
    return found


def _rung(rate: int, done: Load, cpu: dict[str, float]) -> Rung:
    lists = done.of("list")
    per_list: dict[str, Any] = {
        name: 1_000.0 * seconds / max(lists.answered, 1) for name, seconds in cpu.items()
    }
    return Rung(
        rate,
        lists.answered / done.seconds,
        lists.milliseconds(50),
        lists.milliseconds(99),
        1_000.0 * float(np.percentile(lists.late, 99)),
        per_list,
    )
