"""The search for the sequence expert's best items, beside an exact scan and faiss IVF.

The vectors are those of a system that has served and learned: of its data folder, read when it has
stopped. One thread, users in batches as requests are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.recommend.answering import SETTINGS, USERS
from headwater import config
from headwater.log.sqlite import SqliteEventsLog, SqliteUpdatesLog
from headwater.loop import Follower
from headwater.model import single_threaded
from headwater.types import Floats, Ints, Request

ASKED = 256
BATCH = 32
RECALL = 0.98
_TIMES = 3


@dataclass
class Found:
    """Processor milliseconds per request, and the share of the exact list that was found."""

    exact: float
    ours: float
    recall: float
    faiss: float
    faiss_recall: float
    faiss_probes: int
    cells: int


def measure(folder: Path) -> Found:
    """Searches for users of the system in ``folder``, which doesn't run."""
    settings = folder / "headwater.toml"
    settings.write_text(SETTINGS)
    loaded = config.load(settings)
    with (
        closing(SqliteEventsLog(folder / "events.db")) as events,
        closing(SqliteUpdatesLog(folder / "updates.db")) as updates,
    ):
        follower = Follower(loaded, events, updates, folder / "snapshots")
        follower.catch_up()
    single_threaded()
    fold, expert = follower.fold, follower.fold.model.sequence
    k = loaded.mixture.candidates
    withheld = fold.withheld()
    asked = np.random.default_rng(1).integers(USERS, size=(ASKED // BATCH, BATCH))
    contexts = [
        fold.preprocess.contexts([Request(k, f"u{user}") for user in batch], time.time())
        for batch in asked.tolist()
    ]
    for batch in contexts:  # excluded items would have to be asked for beyond k in faiss
        batch.excluded, batch.excluded_starts = batch.excluded[:0], 0 * batch.excluded_starts
    users = [expert.encode(batch) for batch in contexts]
    vectors = np.ascontiguousarray(expert.tower.vectors())
    vectors = vectors.copy()
    vectors[withheld, -1] = -1e6

    def scanned(number: int) -> Ints:
        scores = users[number] @ vectors.T
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return best.astype(np.int32)

    def ours(number: int) -> Ints:
        return expert.candidates(users[number], contexts[number], withheld, k)[0]

    truth = [scanned(number) for number in range(len(users))]
    exact_ms, _ = _timed(scanned, truth)
    ours_ms, recall = _timed(ours, truth)
    probes, cells, faiss_ms, faiss_recall = _faiss(vectors, users, truth, k)
    return Found(exact_ms, ours_ms, recall, faiss_ms, faiss_recall, probes, cells)


def _faiss(
    vectors: Floats, users: list[Floats], truth: list[Ints], k: int
) -> tuple[int, int, float, float]:
    """IVF by inner product with about 4 √N cells, and the fewest probes, doubled each time, that
    reach the recall.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    cells = int(4 * np.sqrt(len(vectors)))
    dim = vectors.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = 64
    index.cp.niter = 10
    index.train(vectors)
    index.add(vectors)

    def searched(number: int) -> Ints:
        rows: Ints = index.search(users[number], k)[1].astype(np.int32)
        return rows

    probes = 1
    while True:
        index.nprobe = probes
        milliseconds, recall = _timed(searched, truth)
        if recall >= RECALL or probes >= cells:
            return probes, cells, milliseconds, recall
        probes *= 2


def _timed(search: Callable[[int], Ints], truth: list[Ints]) -> tuple[float, float]:
    """Processor milliseconds per request, the best of a few times, and the recall."""
    best = np.inf
    for _ in range(_TIMES):
        started = time.thread_time()
        found = [search(number) for number in range(len(truth))]
        best = min(best, time.thread_time() - started)
    hits = [
        len(np.intersect1d(one, other)) / len(other)
        for ours, theirs in zip(found, truth, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return 1_000.0 * best / (len(truth) * BATCH), float(np.mean(hits))
