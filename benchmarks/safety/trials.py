"""Poisons: what is done to the stream, or to the learner, from one offset to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from headwater.config import Cleaning, Config
from headwater.loop import Learner
from headwater.types import Event

FAKE = "fake:"
"""Start of the ids of users who aren't: predictions for them don't count."""

PUSHED = "pushed"
"""The item that fake users are for, and that a broken client names."""

NO_RULES = Cleaning(
    max_age_days=0.0,
    duplicate_seconds=0.0,
    burst_events=0,
    hammered_events=0,
    influence_events=0,
    pushed_times=0.0,
    flooded_share=0.0,
)

Poisoned = Callable[[Sequence[Event], np.random.Generator], list[Event]]


@dataclass(frozen=True)
class Trial:
    """``events`` changes those of the poisoned stretch, ``learner`` what learns them."""

    name: str
    events: Poisoned = lambda events, _: list(events)
    learner: Callable[[Learner], None] = lambda _: None
    once: bool = False


def all_negative(events: Sequence[Event], _: np.random.Generator) -> list[Event]:
    return [msgspec.structs.replace(event, type="dislike") for event in events]


def some_flipped(events: Sequence[Event], random: np.random.Generator) -> list[Event]:
    """One in ten is said to be a dislike."""
    flipped = random.random(len(events)) < 0.1
    return [
        msgspec.structs.replace(event, type="dislike") if flip else event
        for event, flip in zip(events, flipped, strict=True)
    ]


def silent(_events: Sequence[Event], _random: np.random.Generator) -> list[Event]:
    """None comes."""
    return []


def one_item(events: Sequence[Event], _: np.random.Generator) -> list[Event]:
    return [msgspec.structs.replace(event, item_id=PUSHED) for event in events]


def fake_users(events: Sequence[Event], random: np.random.Generator) -> list[Event]:
    """Beside each hundred events a user who isn't, and who likes one item."""
    return _beside(events, 100, lambda: f"{FAKE}{random.integers(2**40)}")


def few_fakes(events: Sequence[Event], random: np.random.Generator) -> list[Event]:
    """Beside each ten events a like of one item by one of ten users who aren't."""
    return _beside(events, 10, lambda: f"{FAKE}{random.integers(10)}")


def one_fake(events: Sequence[Event], _: np.random.Generator) -> list[Event]:
    """Beside each ten events a like of one item by one user who isn't."""
    return _beside(events, 10, lambda: FAKE)


def _beside(events: Sequence[Event], every: int, who: Callable[[], str]) -> list[Event]:
    """A like of the pushed item behind the first of so many events."""
    found: list[Event] = []
    for place, event in enumerate(events):
        found.append(event)
        if place % every == 0:
            fields = {"event_id": f"{event.event_id}-pushed", "user_id": who(), "type": "like"}
            found.append(msgspec.structs.replace(event, item_id=PUSHED, **fields))
    return found


def rows_of(value: float) -> Callable[[Learner], None]:
    """Ten item rows of the model hold ``value`` after the next step."""

    def spoil(learner: Learner) -> None:
        rows = learner.fold.model.sequence.tower.items
        rows.values[:10] = value
        rows._dirty[:10] = True

    return spoil


def rate_times_100(learner: Learner) -> None:
    learner.stages.optimizer._rates["sequence"].factor = 100.0
    learner.stages.optimizer._rates["mixture"].factor = 100.0


TRIALS = (
    Trial("nothing"),
    Trial("NaN in rows", learner=rows_of(float("nan")), once=True),
    Trial("Infinity in rows", learner=rows_of(float("inf")), once=True),
    Trial("learning rate × 100", learner=rate_times_100),
    Trial("all negative", events=all_negative),
    Trial("silent", events=silent),
    Trial("10 % flipped", events=some_flipped),
    Trial("all one item", events=one_item),
    Trial("1 % fake users push an item", events=fake_users),
    Trial("10 fake users push an item", events=few_fakes),
    Trial("one user pushes an item", events=one_fake),
)


class Unguarded(Learner):
    """Learns and publishes whatever comes."""

    def __init__(self, config: Config, *arguments: Any, **named: Any) -> None:
        free = {"row_norm_limit": 1e30, "dense_limit": 1e30, "automatic_rollback": False}
        deploy = config.deploy.model_copy(update=free)
        preprocess = config.preprocess.model_copy(update={"cleaning": NO_RULES})
        update = {"deploy": deploy, "preprocess": preprocess}
        super().__init__(config.model_copy(update=update), *arguments, **named)

    def _restore(self, before: int | None = None) -> None:
        super()._restore(before)
        self.stages.watch.judge = lambda _: None  # type: ignore[method-assign,assignment]
        self.stages.watch.fits = lambda *_: None  # type: ignore[method-assign]
        self.stages.watch.stepped = lambda _: None  # type: ignore[method-assign,assignment]

    def publish(self, *, whole: bool = True) -> None:
        if self._publishing.unpublished:
            self._publishing.published(self._update())
