"""What every test runs under: one thread per process, and no settings of the machine's own."""

from __future__ import annotations

import os

# Before torch and numba are imported, here and in the processes that tests start: on micro-batches
# a second thread makes a step slower, by far when the other test process wants the core too.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

for name in [name for name in os.environ if name.startswith("HEADWATER_")]:
    del os.environ[name]

from hypothesis import settings  # noqa: E402

# A slow moment of a shared machine is no failure, and the same examples every time make a red run
# repeatable; --hypothesis-profile=default searches at random again.
settings.register_profile("headwater", deadline=None, derandomize=True)
settings.load_profile("headwater")
