"""Tiny random foundations of images and audio, and adapters of them that PEFT makes: an oracle."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import Tensor, nn

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import CLASSIFICATION, FoundationSpec, SiteUpdate
from rootstock.adapters.trunk_class import load_trunk
from tests.media_foundations import make_media_foundation
from tests.peft_adapters import without_wrong_warnings

LABELS = 3
_WAVE_LENGTH = 3000


@dataclass(frozen=True)
class MediaModel:
    """A foundation of images or audio, with its spec and weights."""

    files: FoundationFiles
    spec: FoundationSpec
    base: FoundationWeights

    def model(self, headless: bool = False) -> Any:
        """Return a new model with the foundation's weights: the trunk, or the class that classifies."""
        if headless:
            return load_trunk(self.files.folder).eval()
        torch.manual_seed(1)
        kind = getattr(transformers, self.spec.class_for(CLASSIFICATION[self.spec.modality]).name)
        return kind.from_pretrained(self.files.folder, num_labels=LABELS).eval()

    def outputs(self, model: Any) -> list[np.ndarray]:
        """Return the raw output for each of two inputs."""
        shape = [_WAVE_LENGTH if size is None else size for size in self.spec.input_shape]
        inputs = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            return [model(**{self.spec.inputs[0]: value})[0].numpy() for value in inputs]


def make_model(name: str, folder: Path, **config: Any) -> MediaModel:
    """Save a tiny random foundation with large weights and biases, the same on every call, and return it."""
    files = make_media_foundation(name, folder, **config)
    model = transformers.AutoModel.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1 or key.endswith(".bias"):
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    spec = describe(files)
    return MediaModel(files, spec, FoundationWeights(folder, spec.model_type))


def save_media_adapter(
    media: MediaModel, folder: Path, kind: str = "LORA", headless: bool = False, **config: Any
) -> Path:
    """Save an adapter that PEFT made, with every trained tensor moved from its start, and return its folder."""
    torch.manual_seed(3)
    chosen = {"task_type": None, **config}
    if not headless:
        chosen.setdefault("modules_to_save", ["classifier", "projector"])
    with without_wrong_warnings():
        model = get_peft_model(media.model(headless), PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](**chosen))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn_like(parameter))
                parameter.mul_(3 if ".lora_B." in name or "lora_E" in name else 1)
    with without_wrong_warnings():
        model.save_pretrained(folder)
    return folder


def peft_media_model(media: MediaModel, folder: Path, headless: bool = False) -> Any:
    """Return PEFT's model of a saved adapter."""
    with without_wrong_warnings():
        return PeftModel.from_pretrained(media.model(headless), folder).eval()


def zipped(files: Mapping[str, bytes] | Path) -> bytes:
    """Return a folder's files, or files by name, as a zip."""
    members = files if isinstance(files, Mapping) else {p.name: p.read_bytes() for p in sorted(files.iterdir())}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def graft(
    model: nn.Module, prefix: str, updates: Mapping[str, SiteUpdate], head: Mapping[str, np.ndarray]
) -> Any:
    """Return the model with the updates applied by hooks, and the head's tensors in their places."""
    for site, update in updates.items():
        model.get_submodule(prefix + site).register_forward_hook(_hook(update))
    for name, tensor in head.items():
        model.get_parameter(name).data.copy_(torch.tensor(tensor))
    return model


def _hook(update: SiteUpdate) -> Any:
    def changed(module: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        axes = (1,) * len(module.kernel_size) if isinstance(module, nn.Conv1d | nn.Conv2d) else ()

        def over(vector: np.ndarray) -> Tensor:
            return torch.tensor(vector).reshape(-1, *axes)

        x = inputs[0]
        if update.input_scale is not None:
            out = module.forward(x * over(update.input_scale))
        if update.output_scale is not None:
            out = out * over(update.output_scale)
        if update.shift is not None:
            out = out + over(update.shift)
        if not update.rank:
            return out
        windows = _windows(module, x) if axes else x
        product = (windows @ torch.tensor(update.a).T) @ torch.tensor(update.b)
        return out + (product.transpose(1, 2).reshape(out.shape) if axes else product)

    return changed


def _windows(module: Any, x: Tensor) -> Tensor:
    """Return the windows of a convolution's input, flattened with the channels first: (rows, places, in)."""
    kernel, stride, padding = module.kernel_size, module.stride, module.padding
    if isinstance(padding, str):
        padding = tuple((size - 1) // 2 if padding == "same" else 0 for size in kernel)
    if len(kernel) == 1:
        x, kernel, stride, padding = x.unsqueeze(2), (1, *kernel), (1, *stride), (0, *padding)
    unfolded: Tensor = nn.functional.unfold(x, kernel, padding=padding, stride=stride)
    return unfolded.transpose(1, 2)
