"""Stage 6, deploy: what was learned goes live, in one piece and only when it is fit to.

``encode`` and ``decode`` give an update its form on the updates log, ``Watch``
holds back a batch before its step and ``check`` an update that would harm,
``Snapshots`` keeps whole states to start from, ``Versions`` remembers which
state was live when, and ``Challengers`` what is tried beside it.
"""

from __future__ import annotations

from headwater.deploy._challengers import (
    CHALLENGERS,
    Challengers,
    challenging,
    in_canary,
    ordered,
)
from headwater.deploy._guards import check
from headwater.deploy._rollbacks import rollback_to, set_aside
from headwater.deploy._sealing import state_digest
from headwater.deploy._snapshots import Manifest, Shape, Snapshots, needed_after
from headwater.deploy._updates import decode, digest, encode
from headwater.deploy._versions import VERSIONS, Versions
from headwater.deploy._watch import GUARDS, PAUSED, Watch

__all__ = [
    "CHALLENGERS",
    "GUARDS",
    "PAUSED",
    "VERSIONS",
    "Challengers",
    "Manifest",
    "Shape",
    "Snapshots",
    "Versions",
    "Watch",
    "challenging",
    "check",
    "decode",
    "digest",
    "encode",
    "in_canary",
    "needed_after",
    "ordered",
    "rollback_to",
    "set_aside",
    "state_digest",
]
