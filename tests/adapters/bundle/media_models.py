"""Tiny random models of images and audio, their specs, and adapters of them that PEFT makes: an oracle."""

from __future__ import annotations

import io
import tempfile
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

from rootstock.adapters.spec import Convolution, EmbeddingSpec, FoundationSpec, SiteUpdate, TaskClass
from tests.peft_adapters import without_wrong_warnings

LABELS = 3
_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
_RESNET = {"embedding_size": 6, "hidden_sizes": [6, 8], "depths": [1, 1], "layer_type": "basic"}
_SOUND = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (6, 6), "conv_kernel": (5, 3), "conv_stride": (3, 2), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
_CONVNEXT = {"hidden_sizes": [6, 8], "depths": [1, 1], "num_stages": 2, "image_size": 16}
_AST = {**_VIT, "max_length": 24, "num_mel_bins": 16}
_SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
# For each name: the config's class and sizes, the modality, the input's name and its shape.
MODELS: dict[str, tuple[str, dict[str, Any], Any, str, tuple[int, ...]]] = {
    "vit": ("ViTConfig", _VIT, "image", "pixel_values", (3, 16, 16)),
    "beit": ("BeitConfig", _VIT, "image", "pixel_values", (3, 16, 16)),
    "dinov2": ("Dinov2Config", _VIT, "image", "pixel_values", (3, 16, 16)),
    "swin": ("SwinConfig", _SWIN, "image", "pixel_values", (3, 16, 16)),
    "resnet": ("ResNetConfig", _RESNET, "image", "pixel_values", (3, 16, 16)),
    "convnext": ("ConvNextConfig", _CONVNEXT, "image", "pixel_values", (3, 16, 16)),
    "ast": ("ASTConfig", _AST, "audio", "input_values", (24, 16)),
    "wav2vec2": ("Wav2Vec2Config", _SOUND, "audio", "input_values", (400,)),
}


@dataclass(frozen=True)
class MediaModel:
    """A foundation of images or audio in a folder, with the models of its two classes, and its spec."""

    folder: Path
    spec: FoundationSpec

    def model(self, headless: bool) -> Any:
        """Return a new model with the folder's weights, of the class without a head or of the other."""
        if headless:
            return transformers.AutoModel.from_pretrained(self.folder).eval()
        torch.manual_seed(1)
        return _classifying(self.spec.modality).from_pretrained(self.folder, num_labels=LABELS).eval()

    def outputs(self, model: Any) -> list[np.ndarray]:
        """Return the raw output for each of two inputs."""
        inputs = torch.randn(2, 1, *self.spec.input_shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            return [model(**{self.spec.inputs[0]: value})[0].numpy() for value in inputs]

    def weight(self, site: str) -> np.ndarray:
        """Return the foundation's weight of a site, flattened to (out, in)."""
        weight: Tensor = self.model(headless=True).get_submodule(site).weight.detach()
        return weight.reshape(len(weight), -1).numpy()

    def bias(self, module: str) -> np.ndarray | None:
        """Return the foundation's bias of a module."""
        bias = self.model(headless=True).get_submodule(module).bias
        return None if bias is None else bias.detach().numpy()


def make_model(name: str, folder: Path, **sizes: Any) -> MediaModel:
    """Save a tiny random model with large weights and biases, the same on every call, and return it."""
    config_name, own_sizes, modality, input_name, shape = MODELS[name]
    config = getattr(transformers, config_name)(**own_sizes, **sizes)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1 or key.endswith(".bias"):
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return MediaModel(folder, _spec(folder, model, _classifying(modality), modality, input_name, shape))


def _classifying(modality: str) -> Any:
    if modality == "image":
        return transformers.AutoModelForImageClassification
    return transformers.AutoModelForAudioClassification


def _spec(
    folder: Path, trunk: Any, auto: Any, modality: Any, input_name: str, shape: tuple[int, ...]
) -> FoundationSpec:
    config = trunk.config
    config.num_labels = LABELS
    full = auto.from_config(config)
    prefix = f"{full.base_model_prefix}."
    sizes = {n: tuple(p.shape) for n, p in full.named_parameters() if not n.startswith(prefix)}
    head = {n: (None, *size[1:]) if size[0] == LABELS else size for n, size in sizes.items()}
    embedding, classifying = type(trunk).__name__, type(full).__name__
    convolutions = {n: m for n, m in trunk.named_modules() if _is_convolution(m)}
    grouped = {n for n, m in convolutions.items() if m.groups > 1}
    staged = getattr(config, "hidden_sizes", None)
    sizes_of_states = staged or [config.hidden_size]
    return FoundationSpec(
        fingerprint="sha256:0", name=f"tiny/{config.model_type}", revision=None, model_type=config.model_type,
        hidden_size=sizes_of_states[-1], layers=0 if staged else config.num_hidden_layers, max_tokens=64,
        parameters=1, embedding=EmbeddingSpec(), inputs=(input_name,),
        sites={n: size for n, size in _features(trunk).items() if n not in grouped},
        classes={
            embedding: _class(embedding, f"{modality}-feature-extraction", "", trunk),
            classifying: _class(classifying, f"{modality}-classification", prefix, full, head=head),
        },
        norms={n: len(m.bias) for n, m in trunk.named_modules() if isinstance(m, nn.LayerNorm)},
        modality=modality, input_shape=shape, other_names=(str(folder),),
        convolutions={n: _geometry(m) for n, m in convolutions.items() if n not in grouped},
    )  # fmt: skip


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d)


def _geometry(module: Any) -> Convolution:
    return Convolution(module.kernel_size, module.stride, module.padding, module.dilation)


def _class(name: str, task: str, prefix: str, model: nn.Module, **head: Any) -> TaskClass:
    convolutions = frozenset(n for n, m in model.named_modules() if _is_convolution(m))
    return TaskClass(name, task, prefix, _features(model), convolutions=convolutions, **head)


def _features(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {
        name: (module.weight[0].numel(), len(module.weight))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or _is_convolution(module)
    }


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


def media_adapter_zip(media: MediaModel, **config: Any) -> bytes:
    """Return the zip of an adapter, for a test that does not need its folder."""
    with tempfile.TemporaryDirectory() as folder:
        return zipped(save_media_adapter(media, Path(folder), **config))


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
    if len(kernel) == 1:
        x, kernel, stride, padding = x.unsqueeze(2), (1, *kernel), (1, *stride), (0, *padding)
    unfolded: Tensor = nn.functional.unfold(x, kernel, padding=padding, stride=stride)
    return unfolded.transpose(1, 2)
