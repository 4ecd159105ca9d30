"""Cheap checks between a training step and the servers: an update passes all or stays back."""

from __future__ import annotations

import numpy as np

from headwater.config import Deploy
from headwater.errors import GuardTripped
from headwater.types import Floats, Update


def check(update: Update, settings: Deploy) -> None:
    """Lets an update pass that is finite and within its bounds; costs one pass over its values.

    Guards: ``finite`` (no NaN or Infinity in rows or dense weights),
    ``row_norm`` (no row's Euclidean norm above ``deploy.row_norm_limit``),
    ``dense`` (no dense weight's magnitude above ``deploy.dense_limit``).

    Raises:
        GuardTripped: names the guard, the table or dense array, the place and the number.
    """
    for name, table in update.tables.items():
        _check_rows(name, table.rows, table.values, settings.row_norm_limit)
    for name, values in update.dense.items():
        _check_dense(name, values, settings.dense_limit)


def _check_rows(name: str, rows: np.ndarray, values: Floats, limit: float) -> None:
    squares = np.einsum("ij,ij->i", values, values)
    # NaN compares false, and squares of finite numbers may overflow: both land in the slow path.
    if bool((squares <= limit * limit).all()):
        return
    finite = np.isfinite(values)
    if not finite.all():
        at, column = np.argwhere(~finite)[0]
        raise GuardTripped(
            "finite", f"table {name}, row {rows[at]}, column {column} is {values[at, column]}"
        )
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    worst = int(norms.argmax())
    if norms[worst] > limit:
        raise GuardTripped(
            "row_norm",
            f"table {name}, row {rows[worst]} has norm {norms[worst]:.6g}, above "
            f"deploy.row_norm_limit = {limit:g}",
        )


def _check_dense(name: str, values: Floats, limit: float) -> None:
    if not values.size or bool(max(values.max(), -values.min()) <= limit):
        return
    flat = values.reshape(-1)
    finite = np.isfinite(flat)
    if not finite.all():
        at = int(finite.argmin())
        raise GuardTripped("finite", f"dense weight {name}[{at}] is {flat[at]}")
    worst = int(np.abs(flat).argmax())
    raise GuardTripped(
        "dense",
        f"dense weight {name}[{worst}] is {flat[worst]:.6g}, beyond deploy.dense_limit = {limit:g}",
    )
