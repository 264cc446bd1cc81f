"""The screen of `rootstock top`: a frame as tables for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from rootstock.service.telemetry.top import Frame, Totals

_MIB = 2**20
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def shown(frame: Frame, url: str, end: str = "") -> RenderableType:
    """Return the frame as tables for a terminal; `end` says how the view ends, in its title."""
    numbers = Table(box=None, show_header=False, title_justify="left", padding=(0, 2, 0, 0))
    state = "ready" if frame.ready else "not ready"
    numbers.title = f"{url}  {state}, up {_duration(frame.totals.seconds)}{end and f'  ({end})'}"
    for line in _lines(frame):
        numbers.add_row(*line)
    return Group(numbers, _foundation_table(frame), _adapter_table(frame))


def _foundation_table(frame: Frame) -> Table:
    columns = ("foundation", "model", "on", "queue", "tokens", "slots", "adapters", "cache")
    foundations = Table(*columns, box=box.SIMPLE_HEAD)
    for f in frame.foundations:
        counts = f.queue_items, f.queue_tokens, f.slots_used, f.cache_adapters
        on = f"{f.runner} {f.precision}"
        foundations.add_row(f.name, f.model, on, *map(str, counts), f"{f.cache_bytes / _MIB:.0f} MiB")
    return foundations


def _adapter_table(frame: Frame) -> Table:
    columns = ("adapter", "live", "in", "answers", "answers/s", "p99", "runner time")
    adapters = Table(*columns, box=box.SIMPLE_HEAD)
    for a in frame.adapters:
        live = "-" if a.live is None else str(a.live)
        row = (str(a.answers), f"{a.answers_per_s:.1f}", _milliseconds(a.p99_ms), _percent(a.share))
        adapters.add_row(a.name, live, a.residency or "-", *row)
    return adapters


def _lines(f: Frame) -> list[list[str]]:
    answers = [f"{f.answers_per_s:.1f}/s", f"p50 {_milliseconds(f.p50_ms)}", f"p99 {_milliseconds(f.p99_ms)}"]
    answers += [f"failed {f.failed_per_s:.1f}/s", f"refused {f.refused_per_s:.1f}/s"]
    queue = [f"{f.queue_items}/{f.queue_items_limit}", f"waiting {_milliseconds(f.queue_ms)}"]
    queue += [f"inference {_milliseconds(f.inference_ms)}"]
    batches = [f"{f.batches_per_s:.1f}/s", f"inputs {_number(f.batch_rows)}"]
    batches += [f"adapters {_number(f.batch_adapters)}", f"padding {_percent(f.padding)}"]
    batches += [f"tokens {f.tokens_per_s:.0f}/s"]
    slots = [f"{f.slots_used}/{f.slots_limit}", *_moves(f, "slot")]
    cache = [f"{f.cache_bytes / _MIB:.0f}/{f.cache_bytes_limit / _MIB:.0f} MiB", *_moves(f, "memory")]
    cache += [f"adapters {f.cache_adapters}", f"process {f.memory_bytes / _MIB:.0f} MiB"]
    lines = [
        ["answers", *answers],
        ["queue", *queue],
        ["batches", *batches],
        ["slots", *slots],
        ["cache", *cache],
    ]
    if f.sequences or f.totals.texts:
        texts = [
            f"{f.generated_per_s:.0f} tokens/s",
            f"sequences {f.sequences}",
            f"running {f.sequences_running}",
        ]
        lines.insert(3, ["texts", *texts])
    return [*lines, ["in all", *_counts(f.totals)]]


def _counts(totals: Totals) -> list[str]:
    """Return the counts since the server's start, which an idle server shows too."""
    counts = [f"answers {totals.answers}", f"tokens {totals.tokens}", f"failed {totals.failed}"]
    counts += [f"refused {totals.refused}"]
    if totals.texts:
        counts += [f"texts {totals.texts}, {totals.generated_tokens} tokens"]
    return counts


def _duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def _moves(f: Frame, tier: str) -> list[str]:
    return [f"loads {f.loads_per_s[tier]:.1f}/s", f"evictions {f.evictions_per_s[tier]:.1f}/s"]


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
