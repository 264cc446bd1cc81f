"""Copy an adapter's arrays to the device in one buffer, while the device goes on computing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rootstock.adapters.spec import Array


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a tensor of the array on the device.

    The host does not wait for the copy, so the array must not change afterwards.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # A copy from memory that is not pinned would wait for all work queued before it.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Cutter:
    """A cutter of a flat tensor into consecutive views."""

    def __init__(self, numbers: Tensor) -> None:
        self._left = numbers

    def next(self, *shape: int) -> Tensor:
        """Return the next numbers as a view of this shape."""
        count = math.prod(shape)
        part, self._left = self._left[:count], self._left[count:]
        return part.view(shape)


@dataclass(frozen=True)
class Block:
    """Arrays that follow each other in a buffer. Zeros pad each to a multiple of `unit` numbers."""

    arrays: Sequence[Array]
    unit: int = 1

    def sizes(self) -> list[int]:
        """Return the count of numbers that each array takes up, padding included."""
        return [-(-array.size // self.unit) * self.unit for array in self.arrays]


@dataclass(frozen=True)
class DeviceCopy:
    """Blocks on the device, or still being copied. Call `wait` before work on the current stream reads them."""

    buffer: Tensor
    blocks: Sequence[Tensor]
    ready: torch.cuda.Event | None

    def wait(self) -> None:
        """Make later work on the current stream wait for the copy. The host does not wait."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.buffer.device)
            stream.wait_event(self.ready)
            # The memory belongs to the copier's stream. It must not be reused before this stream has read it.
            self.buffer.record_stream(stream)


class Copier:
    """A copier of blocks to the device: on CUDA, from pinned memory and on a separate stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(self, blocks: Sequence[Block]) -> DeviceCopy:
        """Begin to copy the blocks, in fp32."""
        sizes = [size for block in blocks for size in block.sizes()]
        arrays = [array for block in blocks for array in block.arrays]
        buffer = torch.zeros(sum(sizes), pin_memory=self._stream is not None)
        host = buffer.numpy()
        for array, size, end in zip(arrays, sizes, np.cumsum(sizes).tolist(), strict=True):
            host[end - size : end - size + array.size] = array.ravel()
        ready = None
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                buffer = buffer.to(self._device, non_blocking=True)
                ready = self._stream.record_event()
        ends = np.cumsum([sum(block.sizes()) for block in blocks]).tolist()
        return DeviceCopy(buffer, [buffer[i:j] for i, j in zip([0, *ends], ends, strict=False)], ready)
