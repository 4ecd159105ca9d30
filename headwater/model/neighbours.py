"""The neighbours expert: what is used by the same people, in whatever order.

Item-based nearest neighbours (Sarwar et al., WWW 2001) over a window of each
user's history, made online and decayed: undirected associations whose weight falls
slowly with distance, and from which part of the items' popularity is taken back.
"""

from __future__ import annotations

from headwater.config import DAY
from headwater.config import Neighbours as Settings
from headwater.model.associations import Associations


class Neighbours(Associations):
    """Undirected associations between items of the same users."""

    name = "neighbours"

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.width,
            settings.window,
            settings.half_life_days * DAY,
            both_ways=True,
            distance_power=0.5,
            popularity_power=0.25,
        )
