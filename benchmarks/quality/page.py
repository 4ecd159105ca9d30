"""``python -m benchmarks.quality.page``: the results as Markdown, for pages that show them."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import reporting
from benchmarks.quality.figures import OURS, best
from benchmarks.quality.peers import PEERS
from benchmarks.quality.streams import SPECS


def table(streams: dict[str, dict[str, Any]]) -> str:
    """A line for each stream: ours, the best expert alone, the best peer; then what is missing."""
    head = ("stream", "repeats", "simultaneous events", "served (mixture)", "best expert alone")
    lines = [_line(*head, "best peer", "ahead of it (95 %)")]
    lines.append(_line(*["---"] * (len(head) + 2)))
    for name, one in streams.items():
        models, expert = one["models"], best(one["models"], one["experts"])
        lines.append(
            _line(
                SPECS[name].title,
                "yes" if one["repeats"] else "no",
                "grouped" if one["ties"] == "grouped" else "in order",
                f"**{_short(models[OURS]['ndcg@10'])}**{_goal(name, models[OURS]['ndcg@10'])}",
                _named(models, expert),
                *_best_peer(one),
            )
        )
    missing = [
        f"{', '.join(one['not_run'])} on {SPECS[name].title}"
        for name, one in streams.items()
        if one["not_run"]
    ]
    return "\n".join([*lines, "", f"Not run: {'; '.join(missing)}." if missing else ""]).rstrip()


def peers(streams: dict[str, dict[str, Any]]) -> str:
    """A line for each stream, a column for each peer."""
    lines = [_line("stream", OURS, *PEERS), _line(*["---"] * (len(PEERS) + 2))]
    for name, one in streams.items():
        models = {model: one["models"][model]["ndcg@10"] for model in (OURS, *one["peers"])}
        most = max(models.values())
        cells = []
        for model in (OURS, *(f"peer {peer}" for peer in PEERS)):
            value = models.get(model)
            text = "not run" if value is None else _short(value)
            cells.append(f"**{text}**" if value == most else text)
        lines.append(_line(SPECS[name].title, *cells))
    return "\n".join(lines)


def _best_peer(one: dict[str, Any]) -> tuple[str, str]:
    if not one["peers"]:
        return "not run", ""
    rival = best(one["models"], list(one["peers"]))
    found = one["models"][rival]
    low, high = found["ours_ahead_interval"]
    return _named(one["models"], rival), f"{found['ours_ahead']:+.0%} ({low:+.0%} to {high:+.0%})"


def _goal(name: str, ours: float) -> str:
    goal = SPECS[name].goal
    return f"; the goal, {_short(goal)}, isn't reached" if goal and ours < goal else ""


def _named(models: dict[str, Any], model: str) -> str:
    return f"{_short(models[model]['ndcg@10'])} {model.removeprefix('peer ')}"


def _short(value: float) -> str:
    """As the field writes it.

    >>> _short(0.0374)
    '.037'
    """
    return f"{value:.3f}".removeprefix("0")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    results = json.loads((reporting.RESULTS / "quality.json").read_text())
    print(table(results["streams"]), peers(results["streams"]), sep="\n\n")
