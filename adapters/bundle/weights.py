"""An adapter's tensors, mapped to the foundation's sites and checked one by one. Pickle is never read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from safetensors import SafetensorError, deserialize

from adapters.bundle.archive import WEIGHTS
from adapters.bundle.peft_config import PeftConfig
from adapters.spec import AdapterWeights, Array, FoundationSpec, HeadSpec, SiteUpdate, Rejected, TaskClass

_PEFT_PREFIX = "base_model.model."
_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"
# A header of a few hundred tensors takes some 50 KB; one of many megabytes is only there to be parsed.
_MAX_HEADER_BYTES = 2**20
_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}


def read_tensors(data: bytes) -> dict[str, Array]:
    """Every tensor of a safetensors file as fp32, by name; Rejected for a damaged file, NaN or Inf."""
    header = int.from_bytes(data[:8], "little")
    if header > _MAX_HEADER_BYTES:
        raise Rejected(
            "safetensors", WEIGHTS, f"declares a header of {header} bytes; at most {_MAX_HEADER_BYTES}"
        )
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise Rejected("safetensors", WEIGHTS, f"cannot be read: {error}") from None
    return {name: _tensor(name, entry["dtype"], entry["shape"], entry["data"]) for name, entry in entries}


def read_weights(
    tensors: Mapping[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    head: HeadSpec,
    foundation: FoundationSpec,
    labels: int,
    max_rank: int,
) -> AdapterWeights:
    """The tensors in the engine's form; Rejected unless each maps to a known place, none missing or left over.

    Checks, in order: "sites" (name and shape), "finite", "rank", "labels".
    """
    left = {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in tensors.items()}
    if len(left) != len(tensors):
        raise Rejected("sites", WEIGHTS, f"two tensors have the same name but for {_PEFT_PREFIX!r}")
    sites = {}
    for module in config.targets(task_class):
        pair = _pair(module, left, config, task_class)
        site = module.removeprefix(task_class.prefix)
        if not module.startswith(task_class.prefix) or site not in foundation.sites:
            raise Rejected("sites", module, "this module belongs to the head; adapters target the trunk")
        sites[site] = pair
    if config.peft_type is not None and not sites:
        named = config.values.get("target_modules")
        raise Rejected("sites", "target_modules", f"{named!r} matches no linear module of {task_class.name}")
    head_tensors = _head(left, task_class, head, foundation, labels)
    if left:
        name = sorted(left)[0]
        raise Rejected("sites", name, f"maps to no site of {task_class.name} that the config targets")
    weights = AdapterWeights(sites, head_tensors)
    _check_finite(tensors, sites)
    if weights.max_rank > max_rank:
        worst = max(sites, key=lambda s: sites[s].rank)
        raise Rejected("rank", worst, f"rank {weights.max_rank}; this server serves at most {max_rank}")
    return weights


def _tensor(name: str, dtype: str, shape: Iterable[int], data: bytes) -> Array:
    try:
        return _as_fp32(name, dtype, tuple(shape), data)
    except ValueError as error:
        if isinstance(error, Rejected):
            raise
        raise Rejected("safetensors", name, f"shape {list(shape)}: {error}") from None


def _as_fp32(name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> Array:
    if dtype == "BF16":
        widened = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return widened.view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        raise Rejected("safetensors", name, f"dtype {dtype}; served: {', '.join(_DTYPES)}, BF16")
    flat = np.frombuffer(data, dtype=np.dtype(_DTYPES[dtype]).newbyteorder("<"))
    with np.errstate(over="ignore"):
        return np.array(flat.reshape(shape), dtype=np.float32)


def _take(left: dict[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    if name not in left:
        raise Rejected("sites", name, f"missing from {WEIGHTS}; expected shape {list(shape)}")
    tensor = left.pop(name)
    if tensor.shape != shape:
        raise Rejected("sites", name, f"shape {list(tensor.shape)}; expected {list(shape)}")
    return tensor


def _pair(module: str, left: dict[str, Array], config: PeftConfig, task_class: TaskClass) -> SiteUpdate:
    width_in, width_out = task_class.linears[module]
    rank = config.rank(module)
    a = _take(left, module + _LORA_A, (rank, width_in))
    b = _take(left, module + _LORA_B, (width_out, rank))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.ascontiguousarray(b.T * np.float32(config.scale(module)))
    return SiteUpdate(np.ascontiguousarray(a), scaled)


def _head(
    left: dict[str, Array], task_class: TaskClass, head: HeadSpec, foundation: FoundationSpec, labels: int
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    shapes: Mapping[str, tuple[int | None, ...]]
    if head.kind == "hf":
        shapes = task_class.head
    else:
        names = ("head.weight", "head.bias")
        full: dict[str, tuple[int | None, ...]] = {
            names[0]: (None, foundation.hidden_size),
            names[1]: (None,),
        }
        needed = names if task_class.task != "feature-extraction" else ()
        shapes = {n: full[n] for n in names if n in left or n in needed}
        if names[1] in shapes and names[0] not in shapes:
            raise Rejected("sites", names[0], f"missing from {WEIGHTS}, which holds {names[1]}")
        if shapes and task_class.task == "feature-extraction":
            labels = left[names[0]].shape[0] if left[names[0]].ndim else 0
            if labels < 1:
                raise Rejected("labels", names[0], f"shape {list(left[names[0]].shape)} gives no outputs")
    for name, shape in shapes.items():
        _check_labels(left, name, shape, labels)
        found[name] = np.ascontiguousarray(_take(left, name, tuple(labels if d is None else d for d in shape)))
    return found


def _check_labels(left: Mapping[str, Array], name: str, shape: tuple[int | None, ...], labels: int) -> None:
    tensor = left.get(name)
    if tensor is None or tensor.ndim != len(shape):
        return
    for axis, size in enumerate(shape):
        if size is None and tensor.shape[axis] != labels:
            raise Rejected("labels", name, f"gives {tensor.shape[axis]} outputs; there are {labels} labels")


def _check_finite(tensors: Mapping[str, Array], sites: Mapping[str, SiteUpdate]) -> None:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            bad = tensor[~np.isfinite(tensor)][0]
            raise Rejected("finite", name, f"holds {bad}; every value must be finite in fp32")
    for site, pair in sites.items():
        if not np.isfinite(pair.b).all():
            raise Rejected("finite", site, "lora_B times its scale (from lora_alpha and r) is beyond fp32")
