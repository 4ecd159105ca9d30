"""The transitions expert: what came next, and how often, after each item.

Sequential rules (Kamehkhosh, Jannach and Ludewig, 2017), made online and decayed:
directed associations with weight 1 / d over the last few events.
"""

from __future__ import annotations

from headwater.config import DAY
from headwater.config import Transitions as Settings
from headwater.model.associations import Associations


class Transitions(Associations):
    """Directed associations, from an item to what follows it."""

    name = "transitions"

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.width,
            settings.window,
            settings.half_life_days * DAY,
            both_ways=False,
            distance_power=1.0,
            popularity_power=0.0,
        )
