"""The loop: receive, preprocess, train, evaluate, optimize, deploy, recommend, feedback.

These files only sequence the stages. ``Learner`` is what the trainer role, the
replay command and the tests run; ``Follower``, beside which ``CanaryFollower``
follows a challenger, is what the API role runs. A challenger is learned by a
``Shadow``, which shares ``Learning`` with the ``Learner``. All are folds of the same
events log; what only the trainer learns reaches a follower through an updates log.
"""

from __future__ import annotations

from headwater.loop._backfill import Backfill, Backfilled, Progress, relearn
from headwater.loop._canary import CanaryFollower
from headwater.loop._fold import Fold
from headwater.loop._follower import Follower
from headwater.loop._learner import Learner
from headwater.loop._pace import events_of, pace_of
from headwater.loop._shadow import Shadow, seed

__all__ = [
    "Backfill",
    "Backfilled",
    "CanaryFollower",
    "Fold",
    "Follower",
    "Learner",
    "Progress",
    "Shadow",
    "events_of",
    "pace_of",
    "relearn",
    "seed",
]
