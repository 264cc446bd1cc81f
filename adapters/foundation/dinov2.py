"""Converts the ONNX file of DINOv2 to the files that transformers' `save_pretrained` writes.

The file holds an unchanged DINOv2 and a decoder on it, which is left out. The JSON files are those of
facebook/dinov2-small on the Hugging Face hub. Source: Oquab et al., "DINOv2: Learning Robust Visual Features
without Supervision", 2023.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from rootstock.adapters.foundation.conversion import run_conversion

_CONFIG = {
    "architectures": ["Dinov2Model"],
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "dtype": "float32",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 384,
    "image_size": 518,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "use_mask_token": False,
    "use_swiglu_ffn": False,
}
_PREPROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
_TRUNK = "backbone."
# The class token's position and those of the patches, which the exporter has split and renamed.
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")
_MATRIX = ("/backbone/", "/MatMul")

Tensors = dict[str, npt.NDArray[Any]]


def convert(source: Path, folder: Path) -> None:
    """Write the model in an ONNX file to a folder: weights in fp32, config and the image processor's config."""
    import onnx

    graph = onnx.load(source).graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in _trunk(graph, constants).items()}
    _write(folder / "config.json", _CONFIG)
    _write(folder / "preprocessor_config.json", _PREPROCESSOR)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    # safetensors makes a file that its owner alone can read.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def _trunk(graph: Any, constants: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """Return the trunk's tensors by their names in transformers' files."""
    tensors = {n.removeprefix(_TRUNK): tensor for n, tensor in constants.items() if n.startswith(_TRUNK)}
    start, end = _MATRIX
    for node in graph.node:
        # A linear layer's weight is the constant that its product reads, transposed. Its name is not kept.
        if node.name.startswith(start) and node.name.endswith(end) and node.input[1] in constants:
            layer = node.name.removeprefix(start).removesuffix(end).replace("/", ".")
            tensors[f"{layer}.weight"] = constants[node.input[1]].T
    positions = [constants[name] for name in _POSITIONS]
    return tensors | {"embeddings.position_embeddings": np.concatenate(positions, axis=1)}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_conversion(convert))
