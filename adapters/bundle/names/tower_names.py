"""The names of the modules of a model of two towers, which an adapter of the whole model uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from rootstock.adapters.spec import ZERO_SHOT_IMAGES, FoundationSpec

T = TypeVar("T")

# The parts of the whole model: its towers, each with a dot, and the layers that project their vectors.
IMAGE, TEXT = "vision_model.", "text_model."
PROJECTIONS = {IMAGE: "visual_projection", TEXT: "text_projection"}


def whole_model(spec: FoundationSpec) -> FoundationSpec:
    """Return a spec whose sites are those of both towers and of the projections, by their names in the model.

    A spec without a tower for texts is returned as it is.
    """
    if spec.text_tower is None:
        return spec
    text = spec.text_tower.trunk
    linears = spec.class_for(ZERO_SHOT_IMAGES).linears
    return replace(
        spec,
        sites={
            **_within(IMAGE, spec.sites),
            **_within(TEXT, text.sites),
            **{name: linears[name] for name in PROJECTIONS.values() if name in linears},
        },
        norms={**_within(IMAGE, spec.norms), **_within(TEXT, text.norms)},
        convolutions=_within(IMAGE, spec.convolutions),
        layer_prefix="",
    )


def inside(tower: str, modules: Mapping[str, T]) -> dict[str, T]:
    """Return what belongs to the modules of one tower, by the names inside it."""
    return {name.removeprefix(tower): value for name, value in modules.items() if name.startswith(tower)}


def _within(tower: str, modules: Mapping[str, T]) -> dict[str, T]:
    return {f"{tower}{name}": value for name, value in modules.items()}
