"""SASRec of RecTools; it runs where that is installed."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule

Settings = dict[str, float]

_SEQUENCES = 128
"""Users in a step, as is RecTools' default."""


class _WithoutPadding(TransformerLightningModule):  # type: ignore[misc]
    """RecTools' full cross-entropy; places without a target, which it weighs 0, aren't scored."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        model, wanted = self.torch_model, batch["y"] > 0
        vectors = model.item_model.get_all_embeddings()
        logits = model.encode_sessions(batch, vectors)[wanted] @ vectors.T
        return torch.nn.functional.cross_entropy(logits, batch["y"][wanted])


class SasRec:
    """SASRec (Kang & McAuley, ICDM 2018) with full cross-entropy, refitted from nothing.

    RecTools can't go on from a fitted model once there are new items, so each refit takes as many
    ``steps``, and as many whole epochs as they make. Histories are encoded as they are now.
    """

    def __init__(self, settings: Settings) -> None:
        self.refits = int(settings["refits"])
        self._settings = settings
        self._model: Any = None
        self._items = torch.zeros(0)  # (rows, D)
        self._row = np.zeros(0, np.int64)  # item -> its row there, 0 without

    def refit(self, users: NDArray[np.int32], items: NDArray[np.int32], seen: int) -> None:
        settings = self._settings
        torch.set_num_threads(1)
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        seed_everything(int(settings["seed"]), verbose=False)
        model = SASRecModel(
            n_blocks=int(settings["blocks"]),
            n_heads=int(settings["heads"]),
            n_factors=int(settings["factors"]),
            session_max_len=int(settings["length"]),
            lr=settings["rate"],
            batch_size=_SEQUENCES,
            epochs=max(round(settings["steps"] / -(-len(np.unique(users)) // _SEQUENCES)), 1),
            deterministic=True,
            lightning_module_type=_WithoutPadding,
        )
        # A second each, so that the order is that of the events.
        times = pd.Timestamp(2000, 1, 1) + pd.to_timedelta(np.arange(len(users)), unit="s")
        model.fit(
            Dataset.construct(
                pd.DataFrame(
                    {
                        Columns.User: users,
                        Columns.Item: items,
                        Columns.Weight: 1.0,
                        Columns.Datetime: times,
                    }
                )
            )
        )
        self._model = model.lightning_model.torch_model.eval()
        known = model.data_preparator.get_known_item_ids().astype(np.int64)
        self._row = np.zeros(seen, np.int64)
        self._row[known] = model.data_preparator.get_known_items_sorted_internal_ids()
        with torch.inference_mode():
            self._items = self._model.item_model.get_all_embeddings()

    def scores(self, user: int, history: list[int], seen: int) -> NDArray[Any] | None:
        rows = self._row[[item for item in history if item < len(self._row)]]
        rows = rows[rows > 0][-int(self._settings["length"]) :]
        if not len(rows):
            return None
        # Padded on the left, as it is trained: positions are counted from the end.
        x = np.zeros((1, int(self._settings["length"])), np.int64)
        x[0, -len(rows) :] = rows
        with torch.inference_mode():
            last = self._model.encode_sessions({"x": torch.from_numpy(x)}, self._items)[0, -1]
            found: NDArray[Any] = (self._items @ last).numpy()[self._row]
        found[self._row == 0] = -np.inf
        return found

    def learn(self, user: int, item: int, history: list[int], time: float) -> None:
        """Learns by refitting only."""
