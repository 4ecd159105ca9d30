"""Contract suites: what every backend of the two logs, and every expert, must do.

A backend inherits a suite in its own tests and says how it is opened; pytest
collects the inherited ``test_*`` methods and gives each a folder of its own:

    class TestKafkaEventsLog(SharedEventsLogContract):
        def open(self, folder: Path) -> EventsLog:
            return KafkaEventsLog(...)

``EventsLogContract`` and ``UpdatesLogContract`` need one open log. The
``Shared...`` suites add what a log does that outlives its process and is open
in several: there, ``open`` twice on the same folder gives the same log.

``ExpertContract`` is for experts: bounded, repeatable, and good enough on a stream
whose right answers are obvious.
"""

from headwater.testing._events import EventsLogContract, SharedEventsLogContract
from headwater.testing._experts import ExpertContract, checkerboard, checkerboard_items
from headwater.testing._updates import SharedUpdatesLogContract, UpdatesLogContract

__all__ = [
    "EventsLogContract",
    "ExpertContract",
    "SharedEventsLogContract",
    "SharedUpdatesLogContract",
    "UpdatesLogContract",
    "checkerboard",
    "checkerboard_items",
]
