"""The contract of an events log."""

from __future__ import annotations

from headwater.testing._events_appending import Appending
from headwater.testing._events_letters import Letters
from headwater.testing._events_orders import Orders
from headwater.testing._events_reading import Reading
from headwater.testing._events_removal import Removal
from headwater.testing._events_shared import Shared


class EventsLogContract(Reading, Appending, Orders, Letters, Removal):
    """One open events log: order, uniqueness, stream time, waiting, dead letters, removal."""


class SharedEventsLogContract(EventsLogContract, Shared):
    """An events log that outlives its process and may be open several times at once."""
