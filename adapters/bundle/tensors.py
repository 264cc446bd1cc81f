"""Reads the tensors of a safetensors file as fp32. It never reads pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, deserialize

from rootstock.adapters.bundle.archive import WEIGHTS
from rootstock.adapters.spec import Array, Rejected
from rootstock.adapters.strict_json.json_member import read_json

# A header of a few hundred tensors takes some 50 KB. One of many megabytes would only waste time in the parser.
_MAX_HEADER_BYTES = 2**20
_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


def read_tensors(data: bytes) -> dict[str, Array]:
    """Return every tensor of a safetensors file as fp32, by name.

    A tensor that is fp32 in the file is a read-only view of its bytes. Raise Rejected (check "safetensors") for
    a damaged file.
    """
    _header_bytes(data[:8])
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise Rejected("safetensors", WEIGHTS, f"cannot be read: {error}") from None
    return {name: _tensor(name, entry["dtype"], entry["shape"], entry["data"]) for name, entry in entries}


def read_shapes(file: IO[bytes]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a safetensors file, by name. Only the header is read.

    Raise Rejected (check "safetensors" or "schema") for a damaged header.
    """
    header = read_json(file.read(_header_bytes(file.read(8))), WEIGHTS)
    header.pop("__metadata__", None)
    return {name: _shape(name, entry) for name, entry in header.items()}


def _header_bytes(start: bytes) -> int:
    """Return the size of the header, which the first 8 bytes of a safetensors file state."""
    size = int.from_bytes(start, "little")
    if size > _MAX_HEADER_BYTES:
        raise Rejected(
            "safetensors", WEIGHTS, f"has a header of {size} bytes and the limit is {_MAX_HEADER_BYTES}"
        )
    return size


def _shape(name: str, entry: Any) -> tuple[int, ...]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Rejected("safetensors", name, f"{shape!r} is not a shape")
    return tuple(shape)


def as_fp32(name: str, dtype: str, shape: tuple[int, ...], data: Any) -> Array:
    """Return a tensor's little-endian bytes (any object with a buffer) as fp32.

    Raise Rejected for a dtype that is not served.
    """
    if dtype == "BF16":
        widened = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return widened.view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        raise Rejected(
            "safetensors", name, f"dtype {dtype} is not served; use one of: {', '.join(_DTYPES)}, BF16"
        )
    flat = np.frombuffer(data, dtype=np.dtype(_DTYPES[dtype]).newbyteorder("<"))
    with np.errstate(over="ignore"):
        return np.asarray(flat.reshape(shape), dtype=np.float32)


def take(left: dict[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    """Remove a tensor from `left` and return it; raise Rejected (check "sites") if it is missing or misshapen."""
    if name not in left:
        raise Rejected("sites", name, f"missing from {WEIGHTS}; expected shape {list(shape)}")
    tensor = left.pop(name)
    if tensor.shape != shape:
        raise Rejected("sites", name, f"has shape {list(tensor.shape)}; expected {list(shape)}")
    return tensor


def check_finite(tensors: Mapping[str, Array]) -> None:
    """Raise Rejected (check "finite") that names the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            bad = tensor[~np.isfinite(tensor)][0]
            raise Rejected("finite", name, f"holds {bad}; every value must be finite in fp32")


def _tensor(name: str, dtype: str, shape: Iterable[int], data: bytes) -> Array:
    try:
        return as_fp32(name, dtype, tuple(shape), data)
    except ValueError as error:
        if isinstance(error, Rejected):
            raise
        raise Rejected("safetensors", name, f"shape {list(shape)}: {error}") from None
