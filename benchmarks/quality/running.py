"""Runs ours in this process and peers in their own, and keeps what peers answered."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.peers import GRIDS, NEEDS_IMPLICIT, Settings
from benchmarks.quality.protocol import MISS, REFIT_EVENTS, REFITS, Stream, gains
from benchmarks.quality.streams import CACHE, Spec
from headwater.config import Config
from headwater.ingest import Interactions
from headwater.replay import replay

ROOT = Path(__file__).parents[2]
VENV = ROOT / "benchmarks" / ".venv-peers"
PINS = ("implicit==0.7.3", "numpy==2.4.6", "scipy==1.17.1")

Progress = Callable[[str, int, int], None]
"""Called with what runs, the events done and all of them."""

Ranks = dict[str, NDArray[np.float64]]


class PeerFailed(Exception):
    """A peer's process ended with an error."""


def ours(
    interactions: Interactions, stream: Stream, spec: Spec, progress: Progress
) -> tuple[Ranks, float]:
    """Ranks of the mixture and its experts, and the seconds that the replay took."""
    config = Config.model_validate({"recommend": {"repeats": spec.repeats}})
    n = len(interactions)
    replayed = replay(
        interactions,
        [],
        config,
        grouped=spec.grouped,
        progress=lambda events, text: progress("headwater", events, n),
    )
    at = replayed.positions
    if not np.array_equal(at, stream.targets()):
        raise PeerFailed(f"{spec.name}: ours and the peers have different targets")
    table = replayed.report.ranks_table(interactions.index[at], [""] * len(at), [""] * len(at))
    names = {"rank": "headwater"}
    names |= {c: c.removeprefix("rank_") for c in table.columns if c.startswith("rank_")}
    return {
        name: table[column].cast(float).fill_null(MISS).to_numpy() for column, name in names.items()
    }, float(replayed.results["seconds"])


def peer(stream: Stream, name: str, progress: Progress | None) -> tuple[Ranks, Settings] | None:
    """Ranks of a peer at its best settings of the first half; ``None``: not kept, not to be run.

    Args:
        progress: ``None`` asks for kept results only.
    """
    targets = stream.targets()
    half = int(targets[(len(targets) + 1) // 2]) if len(targets) > 1 else len(stream)
    grid = GRIDS[name]
    best = grid[0]
    if len(grid) > 1:
        figures = []
        for settings in grid:
            ranks = _run(stream, name, settings, half, progress)
            if ranks is None:
                return None
            figures.append(float(gains(ranks).mean()))
        best = grid[int(np.argmax(figures))]
    ranks = _run(stream, name, best, len(stream), progress)
    return None if ranks is None else ({name: ranks}, best)


def key(stream: Stream, name: str, settings: Settings, stop: int) -> str:
    """Names a result by everything that it follows from, the code of the peers too."""
    digest = blake2b(digest_size=12)
    for array in (stream.users, stream.items, stream.times, stream.wanted):
        digest.update(np.ascontiguousarray(array).tobytes())
    code = [Path(__file__).with_name(f"{part}.py") for part in ("protocol", "peers")]
    if name in NEEDS_IMPLICIT:
        code.append(Path(__file__).with_name("implicit_peers.py"))
    for path in code:
        digest.update(path.read_bytes())
    rest = [name, settings, stop, stream.grouped, stream.repeats, REFITS, REFIT_EVENTS, PINS]
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return f"{name}-{digest.hexdigest()}"


def _run(
    stream: Stream, name: str, settings: Settings, stop: int, progress: Progress | None
) -> NDArray[np.float64] | None:
    folder = CACHE / "peers"
    out = folder / f"{key(stream, name, settings, stop)}.npz"
    if not out.exists():
        if progress is None:
            return None
        python = _peers_python() if name in NEEDS_IMPLICIT else sys.executable
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "stream.npz"
            stream.save(file)
            arguments = [str(file), name, json.dumps(settings), str(stop), str(out)]
            with subprocess.Popen(
                [python, "-m", "benchmarks.quality.worker", *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    progress(f"{name} {'' if stop == len(stream) else settings}", int(line), stop)
            if process.returncode:
                raise PeerFailed(f"{name} {settings} ended with exit status {process.returncode}")
    with np.load(out, allow_pickle=False) as kept:
        ranks: NDArray[np.float64] = kept["ranks"]
    return ranks


@cache
def _peers_python() -> str:
    """The interpreter of the peers' own environment, which is made where it is missing."""
    python = VENV / "bin" / "python"
    ready = VENV / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(PINS):
        if not python.exists():
            venv.create(VENV, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS], check=True)
        ready.write_text("\n".join(PINS))
    return str(python)
