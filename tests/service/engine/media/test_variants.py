"""An export has a graph for each set of updates that adapters of its foundation use."""

from __future__ import annotations

from pathlib import Path

from rootstock.adapters.foundation.architecture import describe
from rootstock.service.engine.runners.onnx.export.export import variants_of
from tests.media_foundations import make_media_foundation


def test_convolutions_have_a_graph_of_their_own_and_the_default_is_query_and_value(tmp_path: Path) -> None:
    spec = describe(make_media_foundation("vit", tmp_path))
    variants = variants_of(spec)
    assert list(variants) == ["bare", "default", "all", "convolutions", "shared", "full"]
    assert {site.rpartition(".")[2] for site in variants["default"].sites} == {"q_proj", "v_proj"}
    assert set(variants["all"].sites) == set(variants["shared"].sites) == set(spec.sites) - set(spec.convolutions)
    assert set(variants["convolutions"].sites) == set(variants["full"].sites) == set(spec.sites)


def test_a_trunk_without_linear_layers_has_no_second_graph_without_sites(tmp_path: Path) -> None:
    spec = describe(make_media_foundation("resnet", tmp_path))
    assert list(variants_of(spec)) == ["bare", "convolutions", "shared", "full"]
    assert variants_of(spec)["bare"].sites == variants_of(spec)["shared"].sites == ()
