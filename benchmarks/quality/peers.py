"""The peers: what else is in use, with sensible settings, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.quality.protocol import Peer, Popularity

Settings = dict[str, float]

IMPLICIT = ("implicit==0.7.3", "numpy==2.4.6", "scipy==1.17.1")
RECTOOLS = ("rectools[torch]==0.19.0", "torch==2.13.0", "numpy==1.26.4")


@dataclass(frozen=True)
class Kind:
    """A kind of peer: the settings tried on the first half of a stream, of which the best is run.

    ``module`` holds its code, ``pins`` are what has to be installed in an environment of its own;
    without any it runs in ours.
    """

    module: str
    grid: tuple[Settings, ...]
    pins: tuple[str, ...] = ()


PEERS = {
    "popularity": Kind(
        "protocol",
        tuple({"half_life": share} for share in (0.0002, 0.0005, 0.002, 0.005, 0.02, 0.05, 0.2)),
    ),
    "transitions": Kind(
        "streaming_peers",
        tuple(
            {"window": 10, "half_life": share} for share in (0.0005, 0.002, 0.01, 0.05, 0.2, 1.0)
        ),
    ),
    "isgd": Kind(
        "streaming_peers",
        tuple(
            {"factors": 64, "rate": rate, "regularization": l2, "seed": 1}
            for rate, l2 in ((0.01, 0.01), (0.05, 0.01), (0.2, 0.01), (0.05, 0.1), (0.1, 0.1))
        ),
    ),
    "vsknn": Kind(
        "session_peer",
        tuple(
            {"neighbours": neighbours, "sample": 500, "window": 20, "length": 100}
            for neighbours in (100, 500)
        ),
    ),
    "ease": Kind("ease_peer", tuple({"l2": l2, "items": 6000} for l2 in (100.0, 500.0))),
    "implicit-knn": Kind(
        "implicit_peers", tuple({"neighbours": k} for k in (50, 200)), pins=IMPLICIT
    ),
    "implicit-als": Kind(
        "implicit_peers",
        tuple(
            {"factors": 64, "regularization": l2, "iterations": 15, "alpha": alpha, "seed": 1}
            for alpha, l2 in ((1.0, 0.05), (1.0, 5.0), (20.0, 0.05), (20.0, 10.0))
        ),
        pins=IMPLICIT,
    ),
    "rectools-sasrec": Kind(
        "rectools_peer",
        (
            {"factors": 64, "blocks": 2, "heads": 2, "length": 50}
            | {"rate": 0.001, "steps": 300.0, "refits": 4.0, "seed": 1.0},
        ),
        pins=RECTOOLS,
    ),
}


def make(name: str, settings: Settings, users: int, items: int, events: int) -> Peer:
    """A peer that has learned nothing.

    Args:
        name: a key of ``PEERS``.
        settings: of that peer; half-lives are shares of the stream.
        users: users in the stream, for the size of tables.
        items: items in the stream, likewise.
        events: events in the stream.
    """
    # What a module imports may be installed in an environment of its peers only.
    if name == "popularity":
        return Popularity(items, settings["half_life"] * events)
    if name in ("transitions", "isgd"):
        from benchmarks.quality.streaming_peers import Isgd, Transitions

        if name == "isgd":
            return Isgd(users, items, settings)
        return Transitions(items, int(settings["window"]), settings["half_life"] * events)
    if name == "vsknn":
        from benchmarks.quality.session_peer import Vsknn

        return Vsknn(users, items, settings)
    if name == "ease":
        from benchmarks.quality.ease_peer import Ease

        return Ease(settings["l2"], int(settings["items"]))
    if name == "rectools-sasrec":
        from benchmarks.quality.rectools_peer import SasRec

        return SasRec(settings)
    from benchmarks.quality.implicit_peers import Als, Knn

    return Knn(int(settings["neighbours"])) if name == "implicit-knn" else Als(settings)
