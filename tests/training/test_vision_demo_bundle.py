"""The adapter that a server of the vision foundation registers: its recipe and its answers."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.bundle import Bundle, Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.foundation.named import NAMED
from rootstock.adapters.media import ImageFile
from rootstock.service.composition.demo_adapters import VISION_DEMO
from rootstock.training.recipe.recipe_file import load_recipe

ROOT = Path(__file__).parents[2]
VISION = NAMED["vision"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(VISION.package) is None,
    reason=f"needs {VISION.requirement}, which `make install` installs",
)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROOTSTOCK_HOME", str(tmp_path_factory.mktemp("home")))
        return locate("vision")


@pytest.fixture(scope="module")
def demo(vision: FoundationFiles) -> Bundle:
    return open_bundle((VISION_DEMO / "sign-digits.zip").read_bytes(), Limits(), describe(vision))


def test_the_vision_demo_is_made_from_the_recipe_that_lies_here_and_its_card_states_its_gain(
    demo: Bundle,
) -> None:
    source = load_recipe(ROOT / "training/recipes/images/sign-digits.yaml")
    assert demo.manifest.provenance["recipe_sha256"] == source.sha256
    assert demo.manifest.license == source.recipe.license
    assert "head alone on the frozen foundation" in demo.files["README.md"].decode()


def test_the_golden_answers_of_the_vision_demo_are_pefts_own(
    demo: Bundle, vision: FoundationFiles, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from PIL import Image
    from safetensors.torch import load_file
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    golden = demo.golden()
    assert golden is not None
    for member, content in demo.files.items():
        (tmp_path / member).write_bytes(content)
    classes: Any = AutoModelForImageClassification
    model: Any = PeftModel.from_pretrained(classes.from_pretrained(vision.folder, num_labels=10), tmp_path).eval()
    head = load_file(tmp_path / "adapter_model.safetensors")
    processor = AutoImageProcessor.from_pretrained(vision.folder, backend="pil")
    assert golden.inputs
    for value, raw in zip(golden.inputs, golden.outputs, strict=True):
        assert isinstance(value, ImageFile)
        pixels = processor(Image.open(io.BytesIO(value.data)), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            first = model.base_model.model.dinov2(pixels).last_hidden_state[0, 0]
        expected = head["head.weight"] @ (first / first.norm()) + head["head.bias"]
        np.testing.assert_allclose(raw, expected.numpy(), atol=1e-4, rtol=1e-4)
