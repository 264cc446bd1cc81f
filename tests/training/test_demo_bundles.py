"""The three adapters that the server registers on an empty registry: they open, serve, and are what PEFT says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from rootstock.training.recipe.recipe_file import load_recipe

ROOT = Path(__file__).parents[2]
NAMES = ("support-intents", "review-sentiment", "entities")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_demo_bundle_serves_on_the_default_foundation_and_its_golden_outputs_are_pefts_own(
    name: str,
    foundation: FoundationFiles,
    spec: FoundationSpec,
    tmp_path: Path,
    peft_outputs: Callable[[Path, Path, str, int, Sequence[str]], list[Any]],
) -> None:
    data = (ROOT / "service" / "demo" / f"{name}.zip").read_bytes()
    assert len(data) < 400_000
    bundle = open_bundle(data, Limits(), spec)
    adapter = bundle.adapter(spec, 16)
    golden = bundle.golden()
    assert golden is not None
    assert 8 <= len(golden.inputs) <= 16
    for member, content in bundle.files.items():
        (tmp_path / member).write_bytes(content)
    texts = [text for text in golden.inputs if isinstance(text, str)]
    theirs = peft_outputs(foundation.folder, tmp_path, adapter.task, len(adapter.labels), texts)
    for ours, peft in zip(golden.outputs, theirs, strict=True):
        np.testing.assert_allclose(ours, peft, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_bundle_is_made_from_the_recipe_and_data_that_lie_here(name: str, spec: FoundationSpec) -> None:
    import hashlib

    source = load_recipe(ROOT / "training" / "recipes" / f"{name}.yaml")
    data = (ROOT / "service" / "demo" / f"{name}.zip").read_bytes()
    made = open_bundle(data, Limits(), spec).manifest
    assert made.provenance["recipe_sha256"] == source.sha256
    data_hash = "sha256:" + hashlib.sha256(source.resolve(source.recipe.data.path).read_bytes()).hexdigest()
    assert made.provenance["data_sha256"] == {"train": data_hash}
    assert made.license == source.recipe.license
