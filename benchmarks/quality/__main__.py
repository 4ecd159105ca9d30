"""``python -m benchmarks.quality``: every stream, ours and the peers, figures and goals."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import reporting
from benchmarks.quality.drawing import draw
from benchmarks.quality.figures import OURS, best, figures, goals, segments
from benchmarks.quality.peers import PEERS
from benchmarks.quality.running import Progress as Told
from benchmarks.quality.running import ours, peer
from benchmarks.quality.streams import SPECS, Spec, encode, read
from headwater.errors import UnreadableFile


def main(
    streams: Annotated[str, typer.Option(help="Names, with commas between.")] = ",".join(SPECS),
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first so many events; no goal is judged.")
    ] = None,
    only: Annotated[
        Literal["ours"] | None, typer.Option(help="Runs no peer; kept results of peers are used.")
    ] = None,
) -> None:
    """Measures, writes results/quality.json and .png; exit status 1 where a goal is missed.

    Streams that aren't run keep the figures that the file has of them. With a limit it is a trial,
    and the files go to .cache instead.
    """
    folder = reporting.folder(limit is not None)
    console = reporting.console()
    names = reporting.chosen(streams, SPECS)
    done: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    for name in names:
        try:
            done[name] = _measure(SPECS[name], limit, only is None, console)
        except UnreadableFile as error:
            skipped.append(name)
            console.print(f"SKIPPED {name}: {error}", style="bold yellow")
            continue
        console.print(_table(name, done[name]))
        console.print(_segments(name, done[name]))
        streams_now = reporting.merged("quality", "streams", done, SPECS, folder)
        missing = [one for one in skipped if one not in streams_now]
        results = {"limit": limit, "skipped": missing, "streams": streams_now}
        # Written after every stream, so that a run that is cut off has not run for nothing.
        reporting.write("quality", results, folder)
        draw(folder / "quality.png", streams_now)
    judged = [] if limit else [(s, goal) for s, one in done.items() for goal in one["goals"]]
    for stream, goal in judged:
        if not goal["met"]:
            against = f" against {goal['against']}" if goal["against"] else ""
            console.print(
                f"MISSED {stream}: {goal['goal']}{against} is {goal['figure']:.4f}, "
                f"asked is {goal['limit']:.4f}",
                style="bold red",
            )
    print(_sentence(done, skipped, judged, limit))
    sys.exit(any(not goal["met"] for _, goal in judged) or not done)


def _measure(spec: Spec, limit: int | None, run_peers: bool, console: Console) -> dict[str, Any]:
    interactions = read(spec, limit)
    stream = encode(interactions, spec)
    settings: dict[str, Any] = {}
    not_run: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(spec.name)

        def told(what: str, events: int, total: int) -> None:
            bar.update(task, description=f"{spec.name}: {what}", completed=events, total=total)

        progress: Told | None = told if run_peers else None
        replayed = ours(interactions, stream, spec, told)
        ranks = dict(replayed.ranks)
        experts = [name for name in ranks if name != OURS]
        for name in PEERS:
            found = peer(stream, name, progress)
            if found is None:
                not_run.append(name)
                continue
            # An expert may have the name of a peer.
            ranks[f"peer {name}"] = found.ranks
            settings[f"peer {name}"] = {**found.settings, "tried": found.tried}
    models = figures(ranks)
    parts = segments(ranks, experts, replayed.segments)
    return {
        "events": len(interactions),
        "ties": "grouped" if spec.grouped else "order",
        "repeats": spec.repeats,
        **{name: replayed.results[name] for name in ("seconds", "peak_rss_mb")},
        "models": models,
        "peers": settings,
        "not_run": not_run,
        "experts": experts,
        "segments": parts,
        "goals": goals(spec, models, experts, list(settings), parts),
    }


def _table(name: str, one: dict[str, Any]) -> Table:
    n = one["models"][OURS]["n"]
    table = Table(title=f"{name}, second half, {n:,} predictions", title_justify="left")
    table.add_column("model", no_wrap=True)
    for header in ("NDCG@10", "95 %", "HR@10", "ours ahead", "95 % paired"):
        table.add_column(header, justify="right", no_wrap=True)
    for model, found in one["models"].items():
        low, high = found["ndcg@10_interval"]
        row = [f"{found['ndcg@10']:.4f}", f"{low:.4f}-{high:.4f}", f"{found['hit_rate@10']:.4f}"]
        if "ours_ahead" in found:
            low, high = found["ours_ahead_interval"]
            row += [f"{found['ours_ahead']:+.1%}", f"{low:+.1%} to {high:+.1%}"]
        table.add_row(f"expert {model}" if model in one["experts"] else model, *row)
    if one["not_run"]:
        table.caption = f"not run: {', '.join(one['not_run'])}"
    return table


def _segments(name: str, one: dict[str, Any]) -> Table:
    """Ours beside the best expert, of the stream and of each segment."""
    table = Table(title=f"{name}, the mixture beside its best expert", title_justify="left")
    for header in ("segment", "n", "NDCG@10", "best expert", "its NDCG@10", "ahead", "95 % paired"):
        table.add_column(header, justify="right", no_wrap=True)
    for segment, found in {"all": one["models"], **one["segments"]}.items():
        rival = best(found, one["experts"])
        row = [f"{found[OURS]['n']:,}", f"{found[OURS]['ndcg@10']:.4f}"]
        row += [rival, f"{found[rival]['ndcg@10']:.4f}"]
        if "ours_ahead" in found[rival]:
            low, high = found[rival]["ours_ahead_interval"]
            row += [f"{found[rival]['ours_ahead']:+.1%}", f"{low:+.1%} to {high:+.1%}"]
        table.add_row(segment, *row)
    return table


def _sentence(
    done: dict[str, dict[str, Any]],
    skipped: list[str],
    judged: list[tuple[str, dict[str, Any]]],
    limit: int | None,
) -> str:
    parts = []
    for name, one in done.items():
        text = f"{name} {one['models']['headwater']['ndcg@10']:.4f}"
        if one["peers"]:
            best = max(one["peers"], key=lambda model: one["models"][model]["ndcg@10"])
            text += f" ({best} {one['models'][best]['ndcg@10']:.4f})"
        parts.append(text)
    met = sum(goal["met"] for _, goal in judged)
    verdict = f"no goal judged with --limit {limit}" if limit else f"{met} of {len(judged)} goals"
    verdict += "" if limit else " met"
    missing = f"; skipped {', '.join(skipped)}" if skipped else ""
    return f"NDCG@10 of the second half: {', '.join(parts) or 'nothing'}; {verdict}{missing}."


if __name__ == "__main__":
    typer.run(main)
