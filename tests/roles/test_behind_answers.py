"""What is to wait for answers waits, its threads too, and where it may choose no policy."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SAY = """
import json, os, threading
from headwater.roles import behind_answers

if {forbidden}:
    def refuse(*_):
        raise PermissionError
    os.sched_setscheduler = refuse
if {missing}:
    del os.SCHED_IDLE
before = os.nice(0)
behind_answers(5)

def say():
    print(json.dumps([os.nice(0) - before, os.sched_getscheduler(0)]))

thread = threading.Thread(target=say)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="a policy of Linux")
@pytest.mark.parametrize(
    ("forbidden", "missing", "policy"),
    [(False, False, "SCHED_IDLE"), (True, False, "SCHED_OTHER"), (False, True, "SCHED_OTHER")],
)
def test_a_thread_that_is_started_later_yields_as_well(
    forbidden: bool, missing: bool, policy: str
) -> None:
    code = SAY.format(forbidden=forbidden, missing=missing)
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(said.stdout) == [5, getattr(os, policy)]
