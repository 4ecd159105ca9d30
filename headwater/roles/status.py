"""Where a running system stands, asked over HTTP and shown as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError

if TYPE_CHECKING:
    from rich.table import Table

TIMEOUT_SECONDS = 5.0


def address(data: Path) -> str:
    """The URL of the API that serves a data folder.

    Raises:
        HeadwaterError: none does.
    """
    from headwater import api

    found = api.running(data)
    if found is None:
        raise HeadwaterError(
            f"no server runs on {data}; start it with `headwater serve --data {data}`, or name "
            "another with --data or --url"
        )
    return found.url


def ask(url: str, api_key: str | None = None) -> dict[str, Any]:
    """The answer of ``/v1/status``, with the ``metrics`` of ``/v1/metrics`` beside it.

    Raises:
        HeadwaterError: nothing answers there, or it refuses the key, or it isn't Headwater.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key is not None else {}
    base = url.rstrip("/")
    status = _get(base, "/v1/status", headers)
    metrics = _get(base, "/v1/metrics", headers)["metrics"]
    return {"url": base, **status, "metrics": metrics}


def _get(url: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    import httpx

    try:
        answer = httpx.get(f"{url}{path}", headers=headers, timeout=TIMEOUT_SECONDS)
        if answer.status_code == 401:
            does = "refuses the key" if headers else "takes no request without a key"
            raise HeadwaterError(
                f"{url} {does}; set HEADWATER_SERVE__API_KEY to an admin's "
                "(`headwater key create --role admin` makes one)"
            )
        if answer.status_code == 403:
            raise HeadwaterError(
                f"{url} refuses a key of this role; set HEADWATER_SERVE__API_KEY to an admin's"
            )
        found: dict[str, Any] = answer.raise_for_status().json()
    except httpx.HTTPStatusError as error:
        raise HeadwaterError(
            f"{url} answers {error.response.status_code}; is it a Headwater server?"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HeadwaterError(f"{url} doesn't answer: {error}") from None
    except ValueError:
        raise HeadwaterError(f"{url} doesn't answer in JSON; is it a Headwater server?") from None
    return found


def table(answer: Mapping[str, Any]) -> Table:
    """A status as a table of two columns."""
    from rich.table import Table

    made = Table(show_header=False, box=None, pad_edge=False)
    made.add_column(style="bold")
    made.add_column()
    for name, value in _rows(answer):
        made.add_row(name, value)
    return made


def _rows(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    state = "ready" if answer["ready"] else "starting: folding the log"
    yield "address", f"{answer['url']} ({state})"
    yield "software", f"headwater {answer['software']}"
    yield "up", f"{answer['uptime_seconds']:,.0f} s"
    yield (
        "model",
        f"version {answer['version']}, epoch {answer['epoch']}, sequence {answer['sequence']:,}",
    )
    dropped = f", after {answer['start']:,} dropped" if answer["start"] else ""
    yield "events log", f"{answer['end'] - answer['start']:,} entries{dropped}"
    yield "folded", f"{answer['offset']:,} ({_behind(answer['lag'], answer['lag_seconds'])})"
    behind = _behind(answer["training_lag"], answer["training_lag_seconds"])
    yield "learned", f"{answer['trained_through']:,} ({behind})"
    yield "dead letters", f"{answer['dead_letters']:,}"
    for row in answer["clicks"]:
        yield (
            f"clicks, version {row['version']}",
            f"{row['clicked']:,} of {row['served']:,} lists ({row['rate']['value']:.1%}), "
            f"{row['by_window']:,} of them by window",
        )
    report = answer["trainer"]
    if "events_per_second" in report:
        yield "learning", f"{report['events_per_second']:,.0f} events/s"
    if (pace := report.get("pace")) and pace["gradient"] < 1.0:
        yield (
            "sampled under load",
            f"gradient {pace['gradient']:.0%}, predictions {pace['evaluated']:.0%}, "
            f"replay {'on' if pace['replay'] else 'off'}",
        )
    if found := {reason: n for reason, n in report.get("cleaned", {}).items() if n}:
        yield "taught nothing", ", ".join(f"{n:,} {reason}" for reason, n in found.items())
    if "known" in report:
        yield (
            "remembered",
            ", ".join(
                f"{report['known'][kind]:,} {kind} ({report['expired'][kind]:,} expired)"
                for kind in ("users", "items")
            ),
        )
    if found := {guard: n for guard, n in report.get("guards", {}).items() if n}:
        yield "guards tripped", ", ".join(f"{n:,} {guard}" for guard, n in found.items())
    if report.get("paused"):
        yield "learning is paused", f"{report['paused']} sane batches to go; or `headwater resume`"
    for held in report.get("tripped", [])[-3:]:
        yield f"held back at {held['through']:,}", f"{held['guard']}: {held['reason']}"
    for change in report.get("timeline", [])[-3:]:
        yield f"stream changed at {change['offset']:,}", f"{change['what']}: {change['reason']}"
    reception = report.get("reception", {})
    if reception.get("silent"):
        yield "the stream is silent", "no live event comes, far longer than is usual"
    if reception.get("refusing"):
        yield "much is refused", "see the dead letters: `headwater dead-letters`"
    for name, factor in report.get("rates", {}).items():
        yield f"learning rate, {name}", f"{factor:.2f} of the configured one"
    for metrics in answer["metrics"]:
        if metrics["segment"] == "all":
            yield from _quality(metrics)


def _behind(lag: int, seconds: float) -> str:
    return f"{lag:,} and {seconds:,.0f} s behind" if lag else "up to date"


def _quality(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """NDCG@10 of every model, and of the version before; the other figures are in the JSON."""
    before = metrics["window"] == "before"
    for name, metric in metrics["values"].items():
        model, _, kind = name.rpartition(".")
        if kind == "ndcg@10":
            yield (
                "NDCG@10, version before" if before else f"NDCG@10, {model}",
                f"{metric['value']:.4f} ({metric['low']:.4f} to {metric['high']:.4f}, "
                f"{'its newest' if before else metrics['window']} {metric['n']:,})",
            )
