"""Write the constants of an export's graphs to one file, because the graphs hold the same foundation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx

WEIGHTS = "weights.bin"
_SHARE_FROM_BYTES = 1024


def share_weights(folder: Path, graphs: Iterable[tuple[Path, Any]]) -> None:
    """Write each graph to its path in `folder`, and each distinct constant once to one file there."""
    places: dict[bytes, tuple[int, int]] = {}
    with (folder / WEIGHTS).open("wb") as weights:
        for path, model in graphs:
            for tensor in model.graph.initializer:
                data = tensor.raw_data
                if len(data) < _SHARE_FROM_BYTES:
                    continue
                if data not in places:
                    weights.write(b"\0" * (-weights.tell() % 4096))
                    places[data] = (weights.tell(), len(data))
                    weights.write(data)
                _point_at(tensor, *places[data])
            onnx.save(model, path)


def _point_at(tensor: Any, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
