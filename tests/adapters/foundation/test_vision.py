"""The `vision` foundation is the DINOv2 in its package's ONNX file, in the form that transformers writes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file
from transformers import Dinov2Model
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.dinov2 import convert
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.foundation.named import NAMED, source_file

VISION = NAMED["vision"]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(VISION.package) is None,
    reason=f"needs {VISION.requirement}, which `make install` installs",
)
# The normalisation at the trunk's end, in the ONNX file.
LAST = "/backbone/layernorm/Add_1"


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return locate("vision", [tmp_path_factory.mktemp("home")])


def last_hidden_state(pixels: np.ndarray) -> np.ndarray:
    """The hidden state in the ONNX file, which has another output: the graph is cut there."""
    model = onnx.load(source_file("vision"))
    (name,) = (node.output[0] for node in model.graph.node if node.name == LAST)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (hidden,) = session.run([name], {session.get_inputs()[0].name: pixels})
    return np.asarray(hidden)


def test_torch_computes_the_hidden_states_of_the_package_s_file(vision: FoundationFiles) -> None:
    model: Any
    model, loaded = Dinov2Model.from_pretrained(vision.folder, output_loading_info=True)
    assert not any(loaded.values()), loaded
    pixels = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        ours = model.eval()(torch.from_numpy(pixels)).last_hidden_state.numpy()
    # The two agree within 2e-5 where states are as large as 8.
    np.testing.assert_allclose(ours, last_hidden_state(pixels), rtol=1e-5, atol=3e-5)


def test_the_files_are_those_that_transformers_writes(vision: FoundationFiles, tmp_path: Path) -> None:
    assert (vision.name, vision.setting) == ("facebook/dinov2-small", "vision")
    Dinov2Model.from_pretrained(vision.folder).save_pretrained(tmp_path)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (vision.folder, tmp_path))
    assert ours.keys() == theirs.keys()
    assert all(tensor.dtype == np.float32 and np.array_equal(tensor, theirs[n]) for n, tensor in ours.items())
    written = json.loads((tmp_path / "config.json").read_text())
    stated = json.loads((vision.folder / "config.json").read_text())
    assert {key: written[key] for key in stated} == stated


def test_the_image_processor_crops_the_centre_and_normalises_as_imagenet(vision: FoundationFiles) -> None:
    processor = BitImageProcessorPil.from_pretrained(vision.folder)
    side = np.linspace(0, 1, 640)
    # Each pixel's value is its position: 0 at the left, 1 at the right.
    image = np.broadcast_to(np.rint(side * 255)[None, :, None], (480, 640, 3)).astype(np.uint8)
    pixels = processor(image, return_tensors="np")["pixel_values"][0]
    assert pixels.shape == (3, 224, 224)
    values = pixels * np.array([0.229, 0.224, 0.225])[:, None, None]
    values += np.array([0.485, 0.456, 0.406])[:, None, None]
    # 640 pixels become 341, of which the crop keeps 224 in the middle.
    edge = (1 - 224 / (256 * 640 / 480)) / 2
    assert values.min() == pytest.approx(edge, abs=5e-3)
    assert values.max() == pytest.approx(1 - edge, abs=5e-3)


def test_a_second_conversion_has_the_same_bytes(vision: FoundationFiles, tmp_path: Path) -> None:
    """The numbers enter the fingerprint: another version of a library must not part it from its adapters."""
    convert(source_file("vision"), tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (vision.folder / path.name).read_bytes()


def test_vision_is_described_as_an_image_foundation_of_one_fingerprint(vision: FoundationFiles) -> None:
    spec = describe(vision)
    # Adapters name their foundation by it, so another version of a library must not change it.
    assert spec.fingerprint == "sha256:a6d442601ab29f26cd95e080d66ecbc18d0e095f824aa4cb37aa886210ccecf1"
    assert (spec.model_type, spec.modality, spec.inputs) == ("dinov2", "image", ("pixel_values",))
    # 16 × 16 patches and the class token.
    assert (spec.input_shape, spec.max_tokens, spec.hidden_size) == ((3, 224, 224), 257, 384)
    assert (spec.layers, spec.layer_prefix, spec.embedding.pooling) == (12, "encoder.layer.", "cls")
    assert spec.sites.keys() == {"embeddings.patch_embeddings.projection"} | {
        f"encoder.layer.{i}.{name}"
        for i in range(12)
        for name in (*(f"attention.{part}_proj" for part in "qkvo"), "mlp.fc1", "mlp.fc2")
    }
    assert spec.tasks == ("image-classification", "image-feature-extraction")
