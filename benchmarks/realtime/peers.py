"""Online matrix factorisation by others: events/s of learning user-item pairs, and nothing else.

Both learn one pair at a time, with 16 factors. They keep no histories, test nothing, publish
nothing and have nobody to be told.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.running import interpreter

FACTORS = 16
WABBIT = ("vowpalwabbit==9.11.9",)

_LEARN = """
import sys, time
from vowpalwabbit import Workspace
lines = open(sys.argv[1]).read().splitlines()
model = Workspace("--rank 16 -q ui -b 24 --l2 0.001 --learning_rate 0.015 --power_t 0 --quiet")
started = time.perf_counter()
for line in lines:
    model.learn(line)
print(len(lines) / (time.perf_counter() - started))
"""


def river(pairs: Sequence[tuple[str, str]]) -> float:
    """River's ``BiasedMF`` (Montiel et al., JMLR 2021)."""
    from river.reco import BiasedMF

    model: Any = BiasedMF(n_factors=FACTORS, seed=1)
    started = time.perf_counter()
    for user, item in pairs:
        model.learn_one(user, item, 1.0)
    return len(pairs) / (time.perf_counter() - started)


def vowpal_wabbit(pairs: Sequence[tuple[str, str]]) -> float:
    """Vowpal Wabbit with ``--rank``, by its Python module in an environment of its own."""
    python = interpreter(WABBIT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.vw"
        file.write_text("".join(f"1 |u {user} |i {item}\n" for user, item in pairs))
        done = subprocess.run(
            [python, "-c", _LEARN, str(file)], capture_output=True, text=True, check=True
        )
    return float(done.stdout)
