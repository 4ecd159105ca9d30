"""One peer over one stream: STREAM.npz PEER SETTINGS START STOP OUT.npz."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.quality.peers import make
from benchmarks.quality.protocol import Stream, evaluate


def main(stream_file: str, name: str, settings: str, start: str, stop: str, out: str) -> None:
    stream = Stream.load(Path(stream_file))
    peer = make(
        name,
        json.loads(settings),
        users=int(stream.users.max()) + 1,
        items=int(stream.items.max()) + 1,
        events=len(stream),
    )
    started = time.perf_counter()
    ranks = evaluate(
        stream,
        peer,
        start=int(start),
        stop=int(stop),
        progress=lambda events: print(events, flush=True),
    )
    seconds = time.perf_counter() - started
    # A result that is half written must not be found by the next run.
    part = Path(out).with_suffix(".part.npz")
    np.savez(part, ranks=ranks, seconds=np.array(seconds))
    part.replace(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
