"""How the runner's speed depends on the number of adapters, how popular each is, their rank, and the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from rootstock.loadtest.fixtures.popularity import POPULARITIES, choose
from rootstock.loadtest.fixtures.runner_bench import Bench, Say, open_bench
from rootstock.loadtest.fixtures.workload import Kind, sentences
from rootstock.loadtest.measure.agreement import require_equal
from rootstock.loadtest.measure.interval import MedianInterval, median_interval
from rootstock.loadtest.measure.pairs import interleaved
from rootstock.loadtest.measure.row import Pair
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.encode.modalities.text import pad

# Batches drawn for a cell; one after the other is run.
_BATCHES = 4
_CHECKED = 4


@dataclass(frozen=True)
class Cell:
    """A combination: distinct adapters, how traffic spreads over them, their rank, rows a batch, tokens a row."""

    adapters: int = 32
    popularity: str = "distinct"
    rank: int = 8
    batch: int = 32
    tokens: int = 64


FACTORS: dict[str, Sequence[Any]] = {
    "adapters": (1, 4, 16, 32, 128),
    "popularity": POPULARITIES,
    "rank": (8, 16, 64),
    "batch": (1, 8, 32),
    "tokens": (16, 64, 256),
}
CENTRE = Cell()


@dataclass(frozen=True)
class Point:
    """A cell as measured: pairs of seconds, the foundation alone (top) and the cell (bottom)."""

    cell: Cell
    pairs: Sequence[Pair]

    @property
    def ratio(self) -> MedianInterval:
        """The cell's speed ÷ the foundation's."""
        return median_interval([pair.ratio for pair in self.pairs])

    @property
    def rows_s(self) -> float:
        """The median of the cell's rows a second."""
        return median_interval([self.cell.batch / pair.bottom for pair in self.pairs]).median

    def to_json(self) -> dict[str, Any]:
        """The cell with its figures, JSON-ready."""
        ratio = self.ratio
        return {
            **asdict(self.cell),
            "rows_s": self.rows_s,
            "ratio": ratio.median,
            "interval": [ratio.low, ratio.high],
            "coverage": ratio.coverage,
            "pairs": [{"bare_s": pair.top, "seconds": pair.bottom} for pair in self.pairs],
        }


def cells(full: bool, factors: Mapping[str, Sequence[Any]] | None = None) -> list[Cell]:
    """Every combination, or the centre and what differs from it in one factor; those of one rank together."""
    values = factors or FACTORS
    if full:
        found = [Cell(**dict(zip(values, combined, strict=True))) for combined in product(*values.values())]
    else:
        found = [replace(CENTRE, **{name: value}) for name in values for value in values[name]]
    return sorted(dict.fromkeys(found), key=lambda cell: (cell.rank, cell.adapters))


def sweep(export: Path, chosen: Sequence[Cell], pairs: int, threads: int, say: Say) -> list[Point]:
    """Measure the cells. Disagreement where a row's answer is not what it is alone."""
    points = []
    bench: Bench | None = None
    kind: tuple[int, int] | None = None
    for i, cell in enumerate(chosen):
        say(f"{i + 1} of {len(chosen)}: {_shown(cell)}")
        if bench is None or kind != (cell.rank, cell.adapters):
            kind = (cell.rank, cell.adapters)
            bench = open_bench(export, FACTORS["tokens"][0], threads, cell.adapters, Kind(rank=cell.rank))
        points.append(Point(cell, _measured(bench, cell, pairs)))
    return points


def _measured(bench: Bench, cell: Cell, pairs: int) -> list[Pair]:
    run = bench.runner.run
    batches = list(_batches(bench, cell))
    for batch in batches:
        answers = run(batch)
        for row in range(min(cell.batch, _CHECKED)):
            require_equal([answers[row]], run(batch.only([row])), f"{_shown(cell)}: row {row} against alone")
    bare = cycle([replace(batch, slots=(0,) * cell.batch) for batch in batches])
    mixed = cycle(batches)
    return interleaved(lambda: run(next(bare)), lambda: run(next(mixed)), pairs)


def _batches(bench: Bench, cell: Cell) -> Iterator[Batch]:
    spec, tokenizer = bench.runner.spec, bench.tokenizer
    texts = sentences(tokenizer, spec, cell.batch, cell.tokens)
    encoded = replace(bench.workload, sentences=tuple(texts)).encoded(tokenizer, spec)
    slots = dict(zip(bench.workload.names, range(1, bench.adapters + 1), strict=True))
    chosen = choose(bench.workload.names, cell.popularity)
    for _ in range(_BATCHES):
        yield pad(encoded, [slots[name] for name in islice(chosen, cell.batch)], tokenizer.pad_id)


def _shown(cell: Cell) -> str:
    size = f"{cell.batch}×{cell.tokens} tokens"
    return f"{cell.adapters} adapters, {cell.popularity}, rank {cell.rank}, batches of {size}"
