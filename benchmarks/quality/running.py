"""Runs ours in this process and peers in their own, and keeps what they gave."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.quality.figures import OURS
from benchmarks.quality.peers import PEERS, Settings
from benchmarks.quality.protocol import MISS, Flags, Ranks, Stream, gains
from benchmarks.quality.streams import CACHE, Spec
from headwater.config import Config, effective
from headwater.evaluate import HISTORY_BUCKETS, ITEM_AGE_BUCKETS
from headwater.ingest import Interactions
from headwater.replay import replay
from headwater.types import Longs

ROOT = Path(__file__).parents[2]

TUNING_EVENTS = 50_000
"""Most events of the first half that a peer's settings are chosen on."""

Progress = Callable[[str, int, int], None]
"""Called with what runs, the events done and all of them."""


class PeerFailed(Exception):
    """A peer's process ended with an error."""


@dataclass(frozen=True)
class Ours:
    """What a replay gave: ranks of the mixture and its experts, and what they are judged by."""

    ranks: Ranks
    segments: dict[str, Flags]  # segment -> (n,) the targets that are in it
    results: dict[str, Any]  # as of ``headwater replay --json``


def ours(interactions: Interactions, stream: Stream, spec: Spec, progress: Progress) -> Ours:
    """A replay with the default configuration; kept until the software's code changes."""
    config = Config.model_validate({"recommend": {"repeats": spec.repeats}})
    code = [path.read_bytes() for path in sorted((ROOT / "headwater").rglob("*.py"))]
    digest = _digest(stream, code, [effective(config), stream.grouped])
    kept = CACHE / "ours" / f"{spec.name}-{digest}.parquet"
    results_kept = kept.with_suffix(".json")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        table, results = _replayed(interactions, stream, spec, config, progress)
        results_kept.write_text(json.dumps(results) + "\n")
        part = kept.with_suffix(".part")
        table.write_parquet(part)
        part.replace(kept)
    table = pl.read_parquet(kept)
    names = {"rank": OURS}
    names |= {c: c.removeprefix("rank_") for c in table.columns if c.startswith("rank_")}
    return Ours(
        {name: table[c].cast(float).fill_null(MISS).to_numpy() for c, name in names.items()},
        _segments(table["history_length"].to_numpy(), table["item_events_before"].to_numpy()),
        json.loads(results_kept.read_text()),
    )


def _replayed(
    interactions: Interactions, stream: Stream, spec: Spec, config: Config, progress: Progress
) -> tuple[pl.DataFrame, dict[str, Any]]:
    n = len(interactions)
    replayed = replay(
        interactions,
        [],
        config,
        grouped=spec.grouped,
        progress=lambda events, text: progress(OURS, events, n),
    )
    at = replayed.positions
    if not np.array_equal(at, stream.targets()):
        raise PeerFailed(f"{spec.name}: ours and the peers have different targets")
    nobody = [""] * len(at)
    return replayed.report.ranks_table(interactions.index[at], nobody, nobody), replayed.results


def _segments(histories: Longs, item_events: Longs) -> dict[str, Flags]:
    """The segments of ``headwater replay --json``."""
    found = {}
    for title, values, buckets in (
        ("history", histories, HISTORY_BUCKETS),
        ("item age", item_events, ITEM_AGE_BUCKETS),
    ):
        for bucket in buckets:
            # "20+", "5-19" or "0"
            ends = [int(end) for end in re.findall(r"\d+", bucket)]
            most = np.inf if bucket.endswith("+") else ends[-1]
            found[f"{title} {bucket}"] = (ends[0] <= values) & (values <= most)
    return found


@dataclass(frozen=True)
class Rival:
    """A peer with the settings that were best on the first half."""

    ranks: NDArray[np.float64]  # (n,) of the second half, ``MISS`` before
    settings: Settings
    tried: list[dict[str, Any]]  # settings, and NDCG@10 on the first half; none of a single one


def peer(stream: Stream, name: str, progress: Progress | None) -> Rival | None:
    """A peer's settings are chosen, and then it is run.

    ``None``: no result is kept, and none is to be made.

    Args:
        progress: ``None`` asks for kept results only; settings without one count as not tried.
    """
    targets = stream.targets()
    half = int(targets[(len(targets) + 1) // 2]) if len(targets) > 1 else len(stream)
    tuning = min(half, TUNING_EVENTS)
    grid = PEERS[name].grid
    best, tried = grid[0], []
    if len(grid) > 1:
        for settings in grid:
            ranks = _run(stream, name, settings, 0, tuning, progress)
            if ranks is not None:
                tried.append((float(gains(ranks).mean()), settings))
        if not tried:
            return None
        best = max(tried, key=lambda one: one[0])[1]
    ranks = _run(stream, name, best, half, len(stream), progress)
    if ranks is None:
        return None
    return Rival(ranks, best, [{**settings, "ndcg@10": figure} for figure, settings in tried])


def key(stream: Stream, name: str, settings: Settings, start: int, stop: int) -> str:
    """Names a result by everything that it follows from, the code of the peers too."""
    parts = sorted({"protocol", PEERS[name].module})
    code = [Path(__file__).with_name(f"{part}.py").read_bytes() for part in parts]
    rest = [name, settings, start, stop, stream.grouped, stream.repeats, PEERS[name].pins]
    return f"{name}-{_digest(stream, code, rest)}"


def _digest(stream: Stream, code: list[bytes], rest: list[Any]) -> str:
    digest = blake2b(digest_size=12)
    for array in (stream.users, stream.items, stream.times, stream.wanted):
        digest.update(np.ascontiguousarray(array).tobytes())
    for part in code:
        digest.update(part)
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def _run(
    stream: Stream, name: str, settings: Settings, start: int, stop: int, progress: Progress | None
) -> NDArray[np.float64] | None:
    folder = CACHE / "peers"
    out = folder / f"{key(stream, name, settings, start, stop)}.npz"
    if not out.exists():
        if progress is None:
            return None
        python = interpreter(PEERS[name].pins)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "stream.npz"
            stream.save(file)
            arguments = [str(file), name, json.dumps(settings), str(start), str(stop), str(out)]
            with subprocess.Popen(
                [python, "-m", "benchmarks.quality.worker", *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    progress(f"{name} {settings}", int(line), stop)
            if process.returncode:
                raise PeerFailed(f"{name} {settings} ended with exit status {process.returncode}")
    with np.load(out, allow_pickle=False) as kept:
        ranks: NDArray[np.float64] = kept["ranks"]
    return ranks


def interpreter(pins: tuple[str, ...]) -> str:
    """The interpreter of the environment that has the pins, which is made where it is missing."""
    if not pins:
        return sys.executable
    folder = ROOT / "benchmarks" / f".venv-{re.split('[^a-z]', pins[0])[0]}"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(pins):
        if not python.exists():
            venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True)
        ready.write_text("\n".join(pins))
    return str(python)
