"""The pictures of a load test's page, each a piece of SVG. Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rootstock.loadtest.measure.outcome import Outcome
from rootstock.loadtest.measure.row import BenchmarkRow
from rootstock.loadtest.report.chart import panel

Series = Sequence[Mapping[str, Any]]
_WIDE, _HIGH = 7.6, 2.7


@dataclass(frozen=True)
class Plot:
    """A picture with its title."""

    title: str
    svg: str


def plots_of_rows(rows: Sequence[BenchmarkRow]) -> list[Plot]:
    """Return a picture of each row that is more than a count."""
    plots = []
    for row in rows:
        if row.exact:
            continue
        with _drawing(wide=False) as (axes, svg):
            panel(row, axes)
            axes.set_title("")
            axes.set_xlabel("pair")
        plots.append(Plot(f"{row.benchmark}: {row.title}", svg()))
    return plots


def plots_of_outcome(outcome: Outcome) -> list[Plot]:
    """Return the pictures of a timeline and its stages. Figures that the server does not give are left out."""
    plots = [
        *_over_time(outcome.timeline, "Latency from the intended start, ms", ("p50_ms", "p95_ms", "p99_ms")),
        *_over_time(
            outcome.timeline, "Time to the first token, ms", ("first_p50_ms", "first_p95_ms", "first_p99_ms")
        ),
        *_over_time(
            outcome.timeline, "Time per further token, ms", ("token_p50_ms", "token_p95_ms", "token_p99_ms")
        ),
        *_over_time(outcome.timeline, "Tokens a second", ("tokens_s",)),
        *_over_time(outcome.timeline, "Requests a second", ("offered_s", "goodput_s", "refused")),
        *_over_time(
            outcome.timeline, "Queue and inference time, p50 of the answers' timings, ms",
            ("queue_p50_ms", "inference_p50_ms"),
        ),
        *_over_time(outcome.timeline, "A batch: inputs, and distinct adapters", ("batch_rows", "batch_adapters")),
        *_over_time(outcome.timeline, "Share of padding among the tokens run", ("padding_share",)),
        *_over_time(outcome.timeline, "Residency: slots, loads, evictions", ("slots_used", "loads", "evictions")),
        *_over_time(outcome.timeline, "Queued inputs", ("waiting",)),
        *_over_time(outcome.timeline, "Sequences that run", ("sequences",)),
        *_over_time(outcome.timeline, "Resident memory, MB", ("resident_mb",)),
    ]  # fmt: skip
    if outcome.knee is not None:
        plots.insert(0, _against_offered(outcome))
    if outcome.stages and "adapters" in outcome.stages[0]:
        plots[:0] = _by_adapters(outcome.stages)
    return plots


def _over_time(timeline: Series, title: str, names: Sequence[str]) -> list[Plot]:
    series = [name for name in names if any(one.get(name) is not None for one in timeline)]
    if not series:
        return []
    with _drawing() as (axes, svg):
        for name in series:
            known = [(one["second"], one[name]) for one in timeline if one.get(name) is not None]
            axes.plot(*zip(*known, strict=True), label=name, linewidth=1, marker=".", markersize=3)
        _shade(axes, timeline)
        axes.set_xlabel("second")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, loc="upper left")
    return [Plot(title, svg())]


def _shade(axes: Any, timeline: Series) -> None:
    """Draw every other phase in grey, so that alternating windows can be told apart."""
    for i, (_, stretch) in enumerate(groupby(timeline, key=lambda one: one["phase"])):
        seconds = [one["second"] for one in stretch]
        if i % 2:
            axes.axvspan(seconds[0], seconds[-1] + 1, color="grey", alpha=0.12, linewidth=0)


def _against_offered(outcome: Outcome) -> Plot:
    ramp = (stage for stage in outcome.stages if str(stage["phase"]).startswith("stage"))
    stages = sorted(ramp, key=lambda stage: float(stage["rate"]))
    offered = [stage["offered_s"] for stage in stages]
    with _drawing() as (axes, svg):
        axes.plot(offered, offered, color="grey", linestyle=":", label="offered")
        axes.plot(offered, [stage["goodput_s"] for stage in stages], marker="o", label="right answers")
        axes.plot(offered, [stage["refused"] / stage["seconds"] for stage in stages], marker="x", label="refused")
        if outcome.knee:
            each = stages[0]["inputs_s"] / stages[0]["goodput_s"] if stages[0]["goodput_s"] else 1.0
            axes.axvline(outcome.knee / each, color="tab:red", linestyle="--", label="knee")
        axes.set_xlabel("offered, requests/s")
        axes.set_ylabel("requests/s")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
    return Plot("Throughput against offered load", svg())


def _by_adapters(stages: Series) -> Iterator[Plot]:
    some = [stage for stage in stages if stage["adapters"]]
    for title, names in (
        ("Latency by registered adapters, ms", ("p50_ms", "p99_ms")),
        ("Requests a second by registered adapters", ("goodput_s",)),
        ("Resident memory by registered adapters, MB", ("resident_mb",)),
        ("Loads and evictions by registered adapters", ("loads", "evictions")),
    ):
        with _drawing() as (axes, svg):
            for name in names:
                known = [(s["adapters"], s[name]) for s in some if s.get(name) is not None]
                if known:
                    axes.plot(*zip(*known, strict=True), marker="o", label=name)
            axes.set_xscale("log")
            axes.set_xlabel("adapters")
            axes.set_ylim(bottom=0)
            axes.legend(fontsize=7)
        yield Plot(title, svg())


@contextmanager
def _drawing(wide: bool = True) -> Iterator[tuple[Any, Any]]:
    """Yield axes to draw into, and a function that returns the SVG afterwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDE, _HIGH))
    # Fixed margins: matplotlib's layout engines double the time of a page.
    figure.subplots_adjust(left=0.1, right=0.98 if wide else 0.78, bottom=0.17, top=0.95)
    texts: list[str] = []
    yield figure.subplots(), lambda: texts[0]
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # HTML has no XML declaration.
    texts.append("<svg" + out.getvalue().partition("<svg")[2])
