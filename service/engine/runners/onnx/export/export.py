"""Export a foundation to ONNX, once: the trunk graphs and a graph for each head.

The trunk graphs share one weights file. The foundation's own masked-language-model head, if it has one, uses that
file as well. The tower for texts of a foundation of two towers has an export inside that of the tower for images.

The variants of the trunk differ in the updates that they take from adapters (trunk.py), so that a batch pays for
no more than it uses. They take no update; low-rank updates of PEFT's default targets; those of all linear layers;
those of all linear layers and convolutions; those of all linear layers, with shared states; or every update.

This module imports torch, transformers and onnx. No module that serves imports it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import onnx

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.runners.onnx.export.heads import export_head, export_masked_lm
from rootstock.service.engine.runners.onnx.export.trunk import Variant, export_trunk
from rootstock.service.engine.runners.onnx.export.weights import share_weights
from rootstock.service.engine.runners.onnx.sessions import TEXT_FOLDER

Progress = Callable[[str], None]
# By modality, the files of a foundation that say how its inputs are read. A foundation has one or both.
READER_FILES = {
    "text": ("tokenizer.json",),
    "image": ("preprocessor_config.json", "processor_config.json"),
    "audio": ("preprocessor_config.json", "processor_config.json"),
}
# PEFT has no default targets for most architectures of images and audio. These are the names of the projections
# that it chooses by default for texts, the query and the value.
_ATTENTION_TARGETS = ("query", "value", "q_proj", "v_proj")


def export(folder: Path, spec: FoundationSpec, target: Path, progress: Progress = lambda _: None) -> None:
    """Write the fp32 ONNX form of the foundation in `folder` to the new folder `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        out = Path(temporary) / "export"
        out.mkdir()
        for name in READER_FILES[spec.modality]:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, out / name)
        variants = variants_of(spec)
        for name, variant in variants.items():
            progress(f"trunk {name}: {len(variant.sites)} sites")
            outputs = export_trunk(folder, spec, variant, out / f"trunk-{name}.onnx")
        paths = [out / f"trunk-{name}.onnx" for name in variants]
        heads = {}
        if spec.masked_lm is not None:
            progress(f"head {spec.masked_lm.class_name}")
            paths.append(out / f"head-{spec.masked_lm.class_name}.onnx")
            export_masked_lm(folder, spec.hidden_size, paths[-1])
            heads[spec.masked_lm.class_name] = False
        share_weights(out, ((path, onnx.load(path)) for path in paths))
        for task_class in spec.classes.values():
            if task_class.head:
                progress(f"head {task_class.name}")
                first_token = export_head(folder, spec, task_class, outputs, out / f"head-{task_class.name}.onnx")
                heads[task_class.name] = first_token
        if spec.text_tower is not None:
            export(folder, spec.text_tower.trunk, out / TEXT_FOLDER, lambda step: progress(f"texts, {step}"))
        written = (path for path in sorted(out.rglob("*")) if path.is_file())
        files = {path.relative_to(out).as_posix(): path.stat().st_size for path in written}
        content = {
            "precision": "fp32",
            "spec": spec.to_json(),
            "variants": {name: asdict(variant) for name, variant in variants.items()},
            "heads": heads,
            "sequence": len(outputs["hidden"]) == 2,
            "files": files,
        }
        (out / "foundation.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(out, target)


def variants_of(spec: FoundationSpec) -> dict[str, Variant]:
    """Return the variants of a foundation's trunk, the cheapest first.

    None of them is mapped if the foundation's layers have no numbers.
    """
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    everything = tuple(sorted(spec.sites))
    linears = tuple(site for site in everything if site not in spec.convolutions)
    targets = DEFAULTS.get(spec.model_type) or (_ATTENTION_TARGETS if spec.modality != "text" else ())
    default = tuple(s for s in linears if any(s == t or s.endswith(f".{t}") for t in targets))
    numbered = bool(spec.layer_prefix)
    variants = {"bare": Variant(()), "default": Variant(default), "all": Variant(linears)}
    if spec.convolutions:
        variants["convolutions"] = Variant(everything)
    if numbered:
        variants["shared"] = Variant(linears, mapped=True)
    variants["full"] = Variant(everything, full=True, mapped=numbered)
    # A trunk without linear layers needs fewer.
    names = {variant: name for name, variant in reversed(variants.items())}
    return {name: variant for variant, name in reversed(names.items())}
