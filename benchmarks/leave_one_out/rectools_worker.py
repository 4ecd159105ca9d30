"""SASRec of RecTools on a split, in a process of its own: SPLIT.npz SETTINGS SECONDS OUT.json."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

from benchmarks.quality.protocol import MISS, gains

PATIENCE = 15
"""Epochs without a better figure on the validation events after which it ends."""

Histories = dict[int, list[int]]


def main(split: str, settings: str, seconds: str, out: str) -> None:
    with np.load(split, allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    found = fit_and_test(arrays, json.loads(settings), float(seconds))
    Path(out).write_text(json.dumps(found, indent=2) + "\n")


def fit_and_test(
    split: dict[str, NDArray[Any]], settings: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The figures of the test events, by the epoch that was best on the validation events.

    Args:
        split: ``users`` and ``items`` in order, and ``roles``: 0 training, 1 validation, 2 test.
        settings: of the model; ``seed`` too.
        seconds: of processor time, after which no epoch begins.
    """
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    seed_everything(settings["seed"], verbose=False)
    of_model = {name: value for name, value in settings.items() if name != "seed"}
    users, items, roles = split["users"], split["items"], split["roles"]
    training, validation, test = (roles == role for role in range(3))
    # A second each, so that the order is that of the events.
    times = pd.Timestamp(2000, 1, 1) + pd.to_timedelta(np.flatnonzero(training), unit="s")
    columns = {Columns.User: users[training], Columns.Item: items[training]}
    dataset = Dataset.construct(
        pd.DataFrame({**columns, Columns.Weight: 1.0, Columns.Datetime: times})
    )
    model = SASRecModel(**of_model, epochs=1, deterministic=True)
    histories: Histories = {}
    _extend(histories, users[training], items[training])
    started = time.process_time()
    best, kept, epochs, waited = -1.0, {}, 0, 0
    while time.process_time() - started < seconds and waited < PATIENCE:
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        epochs += 1
        figure = float(gains(_ranks(model, histories, users[validation], items[validation])).mean())
        waited += 1
        if figure > best:
            best, waited = figure, 0
            weights = model.lightning_model.state_dict()
            kept = {name: value.clone() for name, value in weights.items()}
    spent = time.process_time() - started
    model.lightning_model.load_state_dict(kept)
    _extend(histories, users[validation], items[validation])
    ranks = _ranks(model, histories, users[test], items[test])
    return {
        "n": len(ranks),
        "ndcg@10": float(gains(ranks).mean()),
        "hit_rate@10": float(((ranks >= 0) & (ranks < 10)).mean()),
        "validation_ndcg@10": best,
        "epochs": epochs,
        "processor_seconds": round(spent, 1),
    }


def _extend(histories: Histories, users: NDArray[Any], items: NDArray[Any]) -> None:
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        histories.setdefault(user, []).append(item)


def _ranks(
    model: Any, histories: Histories, users: NDArray[Any], items: NDArray[Any]
) -> NDArray[np.float64]:
    """0-based places of the items among all that their users had not, ``MISS`` where unknown."""
    network = model.lightning_model.torch_model.eval()
    known = model.data_preparator.get_known_item_ids().tolist()
    rows = model.data_preparator.get_known_items_sorted_internal_ids().tolist()
    row_of: Callable[[int], int] = dict(zip(known, rows, strict=True)).get  # type: ignore[assignment]
    length = model.session_max_len
    x = np.zeros((len(users), length), np.int64)
    had = [[row for item in histories[user] if (row := row_of(item))] for user in users.tolist()]
    for k, one in enumerate(had):
        if one:
            x[k, -len(one[-length:]) :] = one[-length:]
    ranks = np.full(len(users), MISS)
    with torch.inference_mode():
        vectors = network.item_model.get_all_embeddings()
        for start in range(0, len(users), 256):
            part = {"x": torch.from_numpy(x[start : start + 256])}
            last = network.encode_sessions(part, vectors)[:, -1]
            scores = (last @ vectors.T).numpy()
            for k, of in enumerate(scores, start):
                of[[0, *had[k]]] = -np.inf
                row = row_of(int(items[k]))
                if row is not None and np.isfinite(of[row]):
                    ranks[k] = (of > of[row]).sum()
    network.train()
    return ranks


if __name__ == "__main__":
    main(*sys.argv[1:])
