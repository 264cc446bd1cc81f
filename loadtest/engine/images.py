"""Adapters on images, on the foundation `vision`: against the foundation alone, PEFT and a call for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rootstock.adapters.foundation.location import FoundationError
from rootstock.loadtest import targets
from rootstock.loadtest.engine.adapters_vs_bare import bare_row
from rootstock.loadtest.engine.fan_out import TASKS, fan_out_row, tasks_in_engine
from rootstock.loadtest.engine.vs_peft import PeftComparison, against_peft
from rootstock.loadtest.fixtures.images import images, vision_setup
from rootstock.loadtest.fixtures.local_engine import SLOTS
from rootstock.loadtest.fixtures.runner_bench import ROWS, open_image_bench
from rootstock.loadtest.fixtures.setup import BenchmarkSetup
from rootstock.loadtest.fixtures.workload import HEAD_ONLY, make_adapters
from rootstock.loadtest.measure.row import BenchmarkRow, NotRun
from rootstock.service.engine.encode.modalities.foundation_reader import open_reader
from rootstock.service.engine.runners.onnx.runner import OnnxRunner

_IMAGES = f"{ROWS} images"
_VS_BARE, _VS_PEFT, _FAN_OUT = "images-vs-bare", "images-vs-peft", "images-fan-out"

Measured = Callable[[BenchmarkSetup], Sequence[BenchmarkRow]]


def images_vs_bare(setup: BenchmarkSetup) -> Sequence[BenchmarkRow | NotRun]:
    """Measure 32 adapters on 32 images against the foundation alone."""
    return _on_vision(setup, _VS_BARE, f"{ROWS} adapters in {_IMAGES} ÷ the foundation alone", bare_rows)


def images_vs_peft(setup: BenchmarkSetup) -> Sequence[BenchmarkRow | NotRun]:
    """Measure the runner against PEFT in two ways, on 32 images under 32 adapters."""
    return _on_vision(setup, _VS_PEFT, f"against PEFT's mixed batch, {_IMAGES}", image_peft_rows)


def images_fan_out(setup: BenchmarkSetup) -> Sequence[BenchmarkRow | NotRun]:
    """Measure one call for 20 heads on one image against one call for each."""
    return _on_vision(setup, _FAN_OUT, f"{TASKS} head-only tasks, one image", image_heads_rows)


def bare_rows(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure the foundation's seconds ÷ those of 32 distinct adapters, on the same images."""
    setup.say(f"{_VS_BARE}: {ROWS} adapters on {_IMAGES}")
    bench = open_image_bench(setup.export, setup.threads)
    return [bare_row(_VS_BARE, _IMAGES, bench, setup.pairs, targets.IMAGES_VS_BARE)]


def image_peft_rows(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure PEFT's seconds ÷ the runner's, on the same adapters, images and threads."""
    compared = PeftComparison(_VS_PEFT, _IMAGES, "of one image", targets.IMAGES_VS_PEFT)
    return against_peft(setup, lambda: open_image_bench(setup.export, setup.threads), compared)


def image_heads_rows(setup: BenchmarkSetup) -> list[BenchmarkRow]:
    """Measure 20 calls' seconds ÷ those of one call for the same 20 heads, on one image."""
    setup.say(f"{_FAN_OUT}: {TASKS} heads on one image")
    runner = OnnxRunner(setup.export, SLOTS, setup.threads)
    workload = make_adapters(runner.spec, TASKS, HEAD_ONLY)
    reader = open_reader(runner.spec, setup.export)
    with tasks_in_engine(runner, reader, workload, images(1)[0]) as tasks:
        title = f"{TASKS} head-only tasks, one image"
        return [fan_out_row(_FAN_OUT, title, targets.IMAGES_FAN_OUT, tasks, setup.pairs)]


def _on_vision(
    setup: BenchmarkSetup, name: str, title: str, measure: Measured
) -> Sequence[BenchmarkRow | NotRun]:
    try:
        vision = vision_setup(setup)
    except FoundationError as error:
        return [NotRun(name, title, str(error))]
    return measure(vision)
