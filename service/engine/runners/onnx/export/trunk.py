"""Export one trunk graph: a foundation's body whose sites take their updates from graph inputs.

A graph has these inputs beside the model's own. Each site has `<site>.A` (rows, r, in) and `<site>.B` (rows, r,
out); r is free, and 0 if no row has an update. A full graph also has `<site>.input_scale`, `<site>.output_scale`
and `<site>.shift`, each (rows, 1, features), and `<norm>.output_scale` and `<norm>.shift`. Each of these may have
one row, which then applies to every row. `words.changes` (n, width) and `words.places` (rows, tokens) are those
of a WordSite. A mapped graph gathers the hidden states that its rows continue from, before each layer except the
first and before the pooler. It takes them from `parents.<layer>` and `roots.<layer>` (sharing.Level). If the
hidden states are a sequence of tokens, `kept` (1,) is the number of tokens that the last layer computes. A
convolutional trunk's are a grid, (rows, channels, height, width).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import torch
import transformers
from torch import Tensor, nn

from rootstock.adapters import trunk_class
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.runners.modules import load_trunk
from rootstock.service.engine.runners.onnx.export.attention import DOMAIN, FUSED
from rootstock.service.engine.runners.onnx.export.fixed_shape import fixed_shape
from rootstock.service.engine.runners.onnx.export.graph import (
    drop_unused,
    keep_first_tokens,
    straighten_attention,
)
from rootstock.service.engine.runners.onnx.stack import WORD_CHANGES, WORD_PLACES
from rootstock.service.engine.runners.sites import (
    PARTS,
    Site,
    SiteNorm,
    WordSite,
    graft_norms,
    graft_sites,
    graft_words,
    has_rows,
    select_rows,
)

# This is for the TorchScript exporter. ONNX Runtime runs its graphs 5 to 8 % faster than those of the dynamo
# exporter, and it writes them in a tenth of the time (docs/adr/0003).
OPSET = 17
KEPT = "kept"
# The samples of a recording to trace with: 0.1 s.
_WAVE = 1600


@dataclass(frozen=True)
class Variant:
    """A variant of the trunk graph: its sites, whether they take full updates, and whether it is mapped.

    A full update is more than a low-rank one: it can have scales and a shift.
    """

    sites: tuple[str, ...]
    full: bool = False
    mapped: bool = False


def export_trunk(folder: Path, spec: FoundationSpec, variant: Variant, path: Path) -> dict[str, tuple[int, ...]]:
    """Write the trunk graph of a variant, with its constants inside.

    Return the shape of each output for one input.
    """
    attention = attention_of(folder)
    trunk = load_trunk(folder, attention, spec.model_type)
    sites = graft_sites(trunk, variant.sites)
    norms = graft_norms(trunk, spec.norms) if variant.full else {}
    words = graft_words(trunk, spec.words) if variant.full else None
    feeds = _feeds(spec, variant)
    wrapped = _Trunk(trunk, spec, sites, norms, words, tuple(feeds), variant.mapped).eval()
    with torch.no_grad(), fixed_shape(trunk, spec):
        computed = dict(zip(("hidden", "pooled"), wrapped(*feeds.values()), strict=False))
        axes = {name: _axes(name, spec) for name in feeds} | {n: _output_axes(v) for n, v in computed.items()}
        domains = (DOMAIN,) if attention == FUSED else ()
        to_onnx(wrapped, tuple(feeds.values()), path, list(feeds), list(computed), axes, domains=domains)
    model = onnx.load(path)
    straighten_attention(model.graph)
    if is_sequence(computed["hidden"]):
        keep_first_tokens(model.graph, "hidden", KEPT)
    drop_unused(model.graph)
    # Delete the shapes noted before the rewrites, because ONNX Runtime would plan its buffers by them.
    del model.graph.value_info[:]
    onnx.save(model, path)
    return {name: tuple(value.shape[1:]) for name, value in computed.items()}


def is_sequence(hidden: Tensor) -> bool:
    """Tell whether hidden states are a sequence of tokens, and not a grid."""
    return hidden.dim() == 3


def attention_of(folder: Path) -> str:
    """Return the attention to export with: fused if the architecture uses transformers' registry, else eager."""
    with torch.device("meta"):
        trunk: Any = trunk_class.new_trunk(transformers.AutoConfig.from_pretrained(folder))
        uses_registry = trunk._supports_attention_backend
    return FUSED if uses_registry else "eager"


class _Trunk(nn.Module):
    """The trunk with graph inputs. It returns hidden states and, with a pooler, the pooler's output."""

    def __init__(
        self,
        trunk: nn.Module,
        spec: FoundationSpec,
        sites: dict[str, Site],
        norms: dict[str, SiteNorm],
        words: WordSite | None,
        names: tuple[str, ...],
        mapped: bool,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.grafted: dict[str, Site | SiteNorm] = {**sites, **norms}
        self.words = words
        self.names = names
        self.feeds: dict[str, Tensor] = {}
        self.pooler: Any = None
        if mapped:
            # Move a pooler with weights out of the trunk, so that it reads the hidden states after they are
            # gathered.
            pooler = getattr(trunk, "pooler", None)
            if pooler is not None and any(True for _ in pooler.parameters()):
                self.pooler = pooler
                cast(Any, trunk).pooler = None
            layers = cast(nn.ModuleList, trunk.get_submodule(spec.layer_prefix.rstrip(".")))
            for i, layer in enumerate(layers):
                if i > 0:
                    layer.register_forward_pre_hook(self._gather(i), with_kwargs=True)
        self.mapped = mapped
        self.trunk = trunk

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        self.feeds = dict(zip(self.names, tensors, strict=True))
        for name, module in self.grafted.items():
            module.take({key: self.feeds.get(f"{name}.{key}") for key in PARTS})
        if self.words is not None:
            self.words.take(self.feeds[WORD_CHANGES], self.feeds[WORD_PLACES])
        output = self.trunk(**{name: self.feeds[name] for name in self.spec.inputs})
        hidden, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
        if self.mapped:
            parents = self.feeds[f"parents.{self.spec.layers}"]
            hidden = hidden.index_select(0, parents)
            pooled = None if pooled is None else pooled.index_select(0, parents)
            pooled = pooled if self.pooler is None else self.pooler(hidden)
        return (hidden,) if pooled is None else (hidden, pooled)

    def _gather(self, layer: int) -> Any:
        """Return a hook to run before a layer.

        It selects the hidden states by parent, and arguments that the first layer got too (the mask) by root.
        """

        def gather(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            parents, roots = self.feeds[f"parents.{layer}"], self.feeds[f"roots.{layer}"]
            values = [*args, *kwargs.values()]
            rows = int(values[0].shape[0])
            values[0] = values[0].index_select(0, parents)
            for i, value in enumerate(values[1:], start=1):
                if isinstance(value, Tensor) and value.dim() > 1 and has_rows(value, rows):
                    values[i] = select_rows(value, rows, roots)
            return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

        return gather


def _feeds(spec: FoundationSpec, variant: Variant) -> dict[str, Tensor]:
    """Return inputs to trace with. Rows, tokens and rank are all different, and none of them is 1."""
    rows, rank = 3, 4
    feeds = _inputs(spec, rows)
    for site in variant.sites:
        width_in, width_out = spec.sites[site]
        feeds[f"{site}.A"] = torch.randn(rows, rank, width_in)
        feeds[f"{site}.B"] = torch.randn(rows, rank, width_out)
        if variant.full:
            feeds[f"{site}.input_scale"] = torch.randn(rows, 1, spec.scaled_width(site))
            feeds[f"{site}.output_scale"] = torch.randn(rows, 1, width_out)
            feeds[f"{site}.shift"] = torch.randn(rows, 1, width_out)
    if variant.full:
        for norm, width in spec.norms.items():
            feeds[f"{norm}.output_scale"] = torch.randn(rows, 1, width)
            feeds[f"{norm}.shift"] = torch.randn(rows, 1, width)
    if variant.full and spec.words is not None:
        feeds[WORD_CHANGES] = torch.randn(5, spec.words.width)
        feeds[WORD_PLACES] = torch.randint(0, 5, (rows, 7))
    if variant.mapped:
        for layer in range(1, spec.layers):
            feeds[f"parents.{layer}"] = feeds[f"roots.{layer}"] = torch.arange(rows)
        feeds[f"parents.{spec.layers}"] = torch.arange(rows)
    return feeds


def _inputs(spec: FoundationSpec, rows: int) -> dict[str, Tensor]:
    """Return the model's own inputs to trace with."""
    if spec.modality != "text":
        (name,) = spec.inputs
        return {name: torch.randn(rows, *(size or _WAVE for size in spec.input_shape))}
    ids = torch.randint(4, 100, (rows, 7))
    own = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: own[name] for name in spec.inputs}


def _axes(name: str, spec: FoundationSpec) -> dict[int, str]:
    """Return the dimensions of an input that vary."""
    stem, _, part = name.rpartition(".")
    if stem in ("parents", "roots"):
        return {0: name}
    if name in (WORD_CHANGES, WORD_PLACES):
        return {0: f"{name}.rows"} | ({1: f"{name}.tokens"} if name == WORD_PLACES else {})
    if part in ("A", "B"):
        return {0: f"{stem}.rows", 1: f"{stem}.rank"}
    if part in PARTS:
        return {0: f"{name}.rows"}
    if spec.modality == "text":
        return {0: "rows", 1: "tokens"}
    return {0: "rows"} | {axis: "length" for axis, size in enumerate(spec.input_shape, start=1) if size is None}


def _output_axes(output: Tensor) -> dict[int, str]:
    """Return the dimensions of an output of the trunk that vary."""
    return {0: "states", 1: "kept_tokens"} if is_sequence(output) else {0: "states"}


def to_onnx(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    fold: bool = True,
    domains: tuple[str, ...] = (),
) -> None:
    """Trace a module and write its ONNX graph.

    `axes` names the dimensions of each tensor that vary. `domains` names operator sets beside ONNX's own. `fold`
    turns on constant folding.
    """
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            module,
            arguments,
            str(path),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=fold,
            dynamo=False,
            custom_opsets=dict.fromkeys(domains, 1),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer's warnings about each branch that it fixes.

    The graphs are compared with torch instead.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
