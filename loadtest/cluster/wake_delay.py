"""Measure how late a thread begins that wakes on a core on which others compute."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from multiprocessing.synchronize import Barrier, Event

import numpy as np

from rootstock.adapters.child_process import end_with_spawner
from rootstock.loadtest.measure.interval import median_interval

# The waker sleeps between these seconds.
_SHORTEST_S, _LONGEST_S = 0.002, 0.012
_READY_S = 60.0


def wake_delays(beside: int, work: float, seconds: float) -> list[float]:
    """Return the seconds by which a thread begins late, one for each time that it wakes within `seconds`.

    It is pinned to one core with `beside` processes that compute. It works for `work` seconds each time. The time
    by which the clock itself is late, without others, is taken off.
    """
    core = min(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Barrier(beside + 1), context.Event()
    processes = [context.Process(target=_compute, args=(core, ready, stop)) for _ in range(beside)]
    earlier = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        least = median_interval(_late(work, seconds / 4)).median
        for process in processes:
            process.start()
        ready.wait(_READY_S)
        return [max(0.0, late - least) for late in _late(work, seconds)]
    finally:
        stop.set()
        os.sched_setaffinity(0, earlier)
        for process in processes:
            if process.pid is not None:
                process.join()


def _late(work: float, seconds: float) -> list[float]:
    dice = random.Random(0)  # noqa: S311 - no secrets
    found = []
    end = time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        pause = dice.uniform(_SHORTEST_S, _LONGEST_S)
        time.sleep(pause)
        found.append(time.monotonic() - begin - pause)
        done = time.thread_time() + work
        while time.thread_time() < done:
            pass
    return found


def _compute(core: int, ready: Barrier, stop: Event) -> None:
    # A parent that is killed sets nothing.
    end_with_spawner()
    os.sched_setaffinity(0, {core})
    matrix = np.ones((256, 256), np.float32)
    ready.wait(_READY_S)
    while not stop.is_set():
        matrix @ matrix
