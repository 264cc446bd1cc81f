"""Capture recurring work as CUDA graphs, so that a batch takes one launch instead of hundreds."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]

# The number of keys seen once that are remembered, as a multiple of the number of graphs.
_REMEMBERED = 8


class Graphs:
    """A cache of CUDA graphs that runs functions of tensors.

    It captures a function when its key comes for the second time, and replays it from then on. It keeps `most`
    graphs and drops the least recently used first; with 0 it captures nothing. A key must stand for everything
    except the tensors' numbers: the function, its launches and the addresses it reads. A function that cannot be
    captured runs uncaptured. On a CPU there is nothing to capture, so the function runs on the copied inputs.
    """

    def __init__(self, device: torch.device, most: int) -> None:
        self.most = most
        self._captured: OrderedDict[Hashable, _Captured | None] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        # All graphs share one memory pool, because no output stays in it (`_Captured.replay`).
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" and most else None

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, key: Hashable, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the function's outputs for these inputs."""
        if key not in self._captured:
            if not self._comes_again(key):
                return function(*inputs)
            self._captured[key] = self._capture(key, function, inputs)
            if len(self._captured) > self.most:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        captured = self._captured[key]
        return function(*inputs) if captured is None else captured.replay(inputs)

    def _comes_again(self, key: Hashable) -> bool:
        if not self.most:
            return False
        if key in self._seen:
            del self._seen[key]
            return True
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED * self.most:
            self._seen.popitem(last=False)
        return False

    def _capture(self, key: Hashable, function: Function, inputs: Sequence[Tensor]) -> _Captured | None:
        try:
            return _Captured(function, inputs, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logging.getLogger(__name__).warning("runs without a CUDA graph: %s: %s", key, error)
            return None


class _Captured:
    """A function with its own copies of the inputs, recorded as a CUDA graph if there is a memory `pool`."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], pool: Any) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._function = partial(function, *self._inputs)
        self._outputs: tuple[Tensor, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None
        if pool is not None:
            self._record(pool)

    def _record(self, pool: Any) -> None:
        """Warm up on a side stream, then capture. Source: PyTorch's notes on CUDA graphs."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._function()
            self._function()
        current.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Another thread may open a head on the device at the same time. That must not fail this capture.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = self._function()

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for copy, tensor in zip(self._inputs, inputs, strict=True):
            copy.copy_(tensor)
        if self._graph is None:
            return self._function()
        self._graph.replay()
        # Clone the outputs, because the next graph writes to the same pool.
        return tuple(output.clone() for output in self._outputs)
