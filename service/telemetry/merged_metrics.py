"""The metrics of several servers or processes as one page, on which a label tells them apart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# A line with a sample: its name, then its labels or a space (Prometheus's text format 0.0.4).
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{| )", re.MULTILINE)
_HEAD = "# HELP "


def merged_metrics(pages: Mapping[str, str], label: str) -> str:
    """Return pages of metrics in Prometheus's text format as one. `label` gives each series its page's name.

    The pages are those of one program, so a family has the same help and type in each.
    """
    samples: dict[str, list[str]] = {}
    for name, page in pages.items():
        for family in f"\n{page}".split(f"\n{_HEAD}")[1:]:
            about, _, rest = family.partition("\n# TYPE ")
            kind, _, lines = rest.partition("\n")
            samples.setdefault(f"{_HEAD}{about}\n# TYPE {kind}\n", []).append(_labelled(lines, label, name))
    return "".join(part for head, lines in samples.items() for part in (head, *lines))


def _labelled(lines: str, label: str, name: str) -> str:
    """Return lines of samples, each with one more label before the others, and with an end of line."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    def begun(sample: re.Match[str]) -> str:
        return f'{sample[1]}{{{label}="{escaped}"' + ("," if sample[0][-1] == "{" else "} ")

    return _SAMPLE.sub(begun, f"{lines.rstrip()}\n" if lines.strip() else "")


class MetricsMerges(Generic[T]):
    """The merges of one process: each runs in a thread, one at a time, and equal requests share one."""

    def __init__(self, label: str) -> None:
        """Take the label that tells the pages apart."""
        self._label = label
        self._turn = asyncio.Lock()
        self._under_way: dict[Hashable, asyncio.Task[T]] = {}

    async def shared(self, key: Hashable, page: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return a page. A caller with the key of a page that is under way gets that one."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(page())
            task.add_done_callback(lambda done: self._forget(key, done))
        # A caller that leaves ends the page of no other.
        return await asyncio.shield(task)

    async def merged(self, pages: Mapping[str, str]) -> str:
        """Return pages as one, once the merges that were asked for before are done."""
        async with self._turn:
            return await asyncio.to_thread(merged_metrics, pages, self._label)

    def _forget(self, key: Hashable, done: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            # If every caller has left, nobody else reads an error.
            done.exception()
