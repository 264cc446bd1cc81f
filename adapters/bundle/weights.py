"""Maps an adapter's tensors to the foundation's modules, and checks each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from rootstock.adapters.bundle.archive import WEIGHTS
from rootstock.adapters.bundle.base_weights import TRANSPOSED, BaseWeights
from rootstock.adapters.bundle.block import new_block
from rootstock.adapters.bundle.kinds.adalora import adalora_update, check_allocation
from rootstock.adapters.bundle.kinds.biases import with_biases
from rootstock.adapters.bundle.kinds.ia3 import ia3_update
from rootstock.adapters.bundle.kinds.lora import lora_update
from rootstock.adapters.bundle.kinds.methods import wrong_option
from rootstock.adapters.bundle.kinds.norms import saved_norms, tuned_norms
from rootstock.adapters.bundle.kinds.pooler import saved_pooler
from rootstock.adapters.bundle.kinds.target import target_module
from rootstock.adapters.bundle.peft_config import PeftConfig, ends_in
from rootstock.adapters.bundle.peft_options import is_of_training
from rootstock.adapters.bundle.plain.origin import check_origin, head_hint, short_names, why_left
from rootstock.adapters.bundle.tensors import check_finite, take
from rootstock.adapters.bundle.vocabulary.word_rows import take_vocabulary
from rootstock.adapters.spec import (
    EMBEDDING,
    AdapterWeights,
    Array,
    FoundationSpec,
    HeadSpec,
    Rejected,
    SiteUpdate,
    TaskClass,
)
from rootstock.adapters.vocabulary.added_token import AddedToken
from rootstock.adapters.vocabulary.words import OutputRows, WordRows

# In fp32 numbers: each array begins at a multiple of 64 bytes in the block that holds all of them.
_ALIGN = 16
_OVERFLOWS = {
    "output_scale": "the magnitude divided by the norm of the updated weight is not finite in fp32",
    "shift": "the bias minus the foundation's bias is too large for fp32",
    "b": "lora_B times its scale (from lora_alpha and r) is too large for fp32",
}


def read_weights(
    tensors: Mapping[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    head: HeadSpec,
    foundation: FoundationSpec,
    labels: int,
    max_rank: int,
    base: BaseWeights | None = None,
    tokens: tuple[AddedToken, ...] | None = None,
) -> AdapterWeights:
    """Return the tensors in the engine's form.

    Every tensor must have a known place, and none may be missing or left over; else raise Rejected. The checks
    run in this order: "sites" (name and shape) and "labels", "finite", "rank". `base` is the foundation's
    weights: DoRA, trained biases, rows of the word embedding and modules that are saved whole are stated relative
    to them. `tokens` are those that the adapter's tokenizer adds, None if nothing states them.
    """
    named = short_names(tensors, config)
    try:
        sites, whole, head_tensors, rows = _placed(
            named, config, task_class, head, foundation, labels, base, tokens
        )
    except Rejected:
        # An adapter of another model fails by one of its tensors first; its origin says why.
        check_origin(named, config, task_class, foundation)
        raise
    check_finite(tensors)
    _check_products(sites)
    _check_rank(sites, whole, max_rank)
    return in_one_array(sites, head_tensors, *rows)


def _placed(
    named: Mapping[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    head: HeadSpec,
    foundation: FoundationSpec,
    labels: int,
    base: BaseWeights | None,
    tokens: tuple[AddedToken, ...] | None,
) -> tuple[dict[str, SiteUpdate], Collection[str], dict[str, Array], tuple[WordRows | None, OutputRows | None]]:
    """Return each site's update, the sites that are saved whole, the head's tensors, and the tokens' rows."""
    left = {name: tensor for name, tensor in named.items() if not is_of_training(name, config.values)}
    sites = _targeted(left, config, task_class, foundation, base)
    head_tensors = _head(left, task_class, head, foundation, labels)
    rows = take_vocabulary(left, config, task_class, foundation, tokens, base)
    normed = tuned_norms(left, config, task_class, foundation, base)
    normed |= saved_norms(left, config, task_class, foundation, base)
    whole = saved_pooler(left, config, task_class, foundation, base)
    sites = with_biases(sites | normed | whole, left, config, task_class, foundation, base)
    if left:
        name = sorted(left)[0]
        raise Rejected("sites", name, why_left(name, task_class, foundation))
    return sites, whole, head_tensors, rows


def _targeted(
    left: dict[str, Array],
    config: PeftConfig,
    task_class: TaskClass,
    foundation: FoundationSpec,
    base: BaseWeights | None,
) -> dict[str, SiteUpdate]:
    """Return the update of each site that the config targets."""
    targets = config.targets(task_class)
    if config.peft_type not in (None, "LN_TUNING", "TRAINABLE_TOKENS") and not targets:
        option = config.values.get("target_modules")
        raise Rejected("sites", "target_modules", f"{option!r} matches no linear module of {task_class.name}")
    if config.peft_type == "ADALORA":
        check_allocation(targets, config)
    _check_parameters(targets, config, foundation)
    sites = {}
    for module in targets:
        target = target_module(module, str(config.peft_type), task_class, foundation)
        if config.peft_type == "IA3":
            sites[target.site] = ia3_update(target, left, config)
        elif config.peft_type == "ADALORA":
            sites[target.site] = adalora_update(target, left, config)
        else:
            sites[target.site] = lora_update(target, left, config, base)
    # AdaLoRA may have kept no direction of a module, which then stays as in the foundation.
    return {site: update for site, update in sites.items() if update.rank or not update.is_low_rank}


def _check_parameters(targets: Collection[str], config: PeftConfig, foundation: FoundationSpec) -> None:
    """Raise Rejected (check "schema") for a target parameter that is no weight of a linear layer."""
    parameters = config.values.get("target_parameters") or []
    if parameters and foundation.model_type in TRANSPOSED:
        message = f"{parameters!r}: the weights of {foundation.model_type} are transposed; use target_modules"
        raise wrong_option("target_parameters", message)
    for name in parameters:
        if not any(ends_in(config.weight(module), [name]) for module in targets):
            message = f"{name!r} is no weight of a linear layer of the trunk; name its module in target_modules"
            raise wrong_option("target_parameters", message)


def _head(
    left: dict[str, Array], task_class: TaskClass, head: HeadSpec, foundation: FoundationSpec, labels: int
) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    shapes: Mapping[str, tuple[int | None, ...]]
    if head.kind != "linear":
        shapes = task_class.head
    else:
        names = ("head.weight", "head.bias")
        full: dict[str, tuple[int | None, ...]] = {
            names[0]: (None, foundation.hidden_size),
            names[1]: (None,),
        }
        embeds = task_class.task in EMBEDDING.values()
        needed = () if embeds else names
        shapes = {n: full[n] for n in names if n in left or n in needed}
        if names[1] in shapes and names[0] not in shapes:
            raise Rejected("sites", names[0], f"missing from {WEIGHTS}, although the file holds {names[1]}")
        if shapes and embeds:
            labels = left[names[0]].shape[0] if left[names[0]].ndim else 0
            if labels < 1:
                raise Rejected(
                    "labels", names[0], f"has shape {list(left[names[0]].shape)}, which gives no outputs"
                )
    for name, shape in shapes.items():
        _check_labels(left, name, shape, labels)
        sized = tuple(labels if size is None else size for size in shape)
        if name not in left and head.kind != "linear":
            message = f"missing from {WEIGHTS}; expected shape {list(sized)}; {head_hint(task_class)}"
            raise Rejected("sites", name, message)
        tensors[name] = take(left, name, sized)
    return tensors


def _check_labels(left: Mapping[str, Array], name: str, shape: tuple[int | None, ...], labels: int) -> None:
    tensor = left.get(name)
    if tensor is None or tensor.ndim != len(shape):
        return
    for axis, size in enumerate(shape):
        if size is None and tensor.shape[axis] != labels:
            raise Rejected("labels", name, f"gives {tensor.shape[axis]} outputs; there are {labels} labels")


def _check_products(sites: Mapping[str, SiteUpdate]) -> None:
    for site, update in sites.items():
        for field, reason in _OVERFLOWS.items():
            array = getattr(update, field)
            if array is not None and not np.isfinite(array).all():
                raise Rejected("finite", site, reason)


def _check_rank(sites: Mapping[str, SiteUpdate], whole: Collection[str], max_rank: int) -> None:
    limited = [site for site in sites if site not in whole]
    worst = max(limited, key=lambda s: sites[s].rank, default=None)
    if worst is not None and sites[worst].rank > max_rank:
        raise Rejected("rank", worst, f"rank {sites[worst].rank}; this server serves at most {max_rank}")


def in_one_array(
    sites: Mapping[str, SiteUpdate],
    head: Mapping[str, Array],
    words: WordRows | None = None,
    outputs: OutputRows | None = None,
) -> AdapterWeights:
    """Return the same arrays as views of one contiguous fp32 array.

    An adapter is one block: the system gets it back as a whole (new_block), and a runner can copy it to a device
    at once.
    """
    arrays = AdapterWeights(sites, head, words, outputs).arrays()
    sizes = [-(-array.size // _ALIGN) * _ALIGN for array in arrays]
    block = new_block(sum(sizes))
    views: dict[int, Array] = {}
    start = 0
    for array, size in zip(arrays, sizes, strict=True):
        view = block[start : start + array.size].reshape(array.shape)
        view[...] = array
        views[id(array)] = view
        start += size
    moved = {
        site: replace(update, **{k: views[id(v)] for k, v in vars(update).items() if v is not None})
        for site, update in sites.items()
    }
    if words is not None:
        words = WordRows(words.ids, views[id(words.changes)])
    if outputs is not None:
        biases = None if outputs.biases is None else views[id(outputs.biases)]
        outputs = replace(outputs, rows=views[id(outputs.rows)], biases=biases)
    return AdapterWeights(moved, {name: views[id(tensor)] for name, tensor in head.items()}, words, outputs)
