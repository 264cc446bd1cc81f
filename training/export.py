"""The bundle of a trained adapter: PEFT's files, golden outputs, a check as a server makes it, and its place."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.bundle import Bundle, Golden, Limits, Manifest, open_bundle, write_bundle
from adapters.bundle.archive import CONFIG, MANIFEST, WEIGHTS
from adapters.bundle.peft_config import read_config
from adapters.foundation import FoundationFiles
from adapters.spec import FoundationSpec, HeadSpec, Preprocessing, TaskClass
from training.batch import outputs
from training.data import Example
from training.encoding import Encoded
from training.model import head_modules
from training.recipe import RecipeFile

if TYPE_CHECKING:
    from torch import nn

_GOLDEN_INPUTS = 12
_MAX_RANK = 64


@dataclass(frozen=True)
class Written:
    """What a run leaves in its output folder."""

    folder: Path
    zip: Path
    metrics: Path


def save(model: nn.Module, folder: Path, files: FoundationFiles, task_class: TaskClass) -> dict[str, bytes]:
    """PEFT's two files of the trained adapter, in `folder` and returned; the same adapter gives the same bytes.

    Nothing in them tells where they were made: the base model goes by the foundation's public name.
    """
    saved: Any = model
    # "auto" asks the hub whether the vocabulary has grown, which an offline machine cannot answer.
    saved.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = files.name
    config["revision"] = files.revision
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    config["modules_to_save"] = head_modules(task_class)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def golden(reloaded: nn.Module, examples: Sequence[Example], encoded: Sequence[Encoded]) -> Golden:
    """Held-out inputs, evenly spread over the file, each with its raw output computed alone, without padding."""
    step = max(1, len(examples) // _GOLDEN_INPUTS)
    chosen = range(0, len(examples), step)[:_GOLDEN_INPUTS]
    rows = outputs(reloaded.float(), [encoded[i] for i in chosen], batch_size=1)
    return Golden(tuple(examples[i].text for i in chosen), tuple(rows))


def make_bundle(
    source: RecipeFile,
    spec: FoundationSpec,
    labels: Sequence[str],
    task: str,
    files: Mapping[str, bytes],
    evaluation: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Bundle:
    """The bundle of the adapter's files, opened again and checked in full; Rejected if it could not be served."""
    task_class = spec.class_for(task)
    config = read_config(json.loads(files[CONFIG]))
    manifest = Manifest(
        task=task,
        problem_type="single_label_classification" if task == "text-classification" else None,
        head=HeadSpec("hf", class_name=task_class.name),
        labels=tuple(labels),
        preprocessing=Preprocessing(source.recipe.training.max_length),
        foundation={"fingerprint": spec.fingerprint, "name": spec.name, "revision": spec.revision},
        targets=tuple(sorted(name.removeprefix(task_class.prefix) for name in config.targets(task_class))),
        files={},
        evaluation=evaluation,
        provenance=provenance,
        license=source.recipe.license,
    )
    bundle = open_bundle(write_bundle(manifest, files).to_zip(), Limits(), spec)
    bundle.adapter(spec, _MAX_RANK)
    return bundle


def publish(bundle: Bundle, metrics: Mapping[str, Any], name: str, output_dir: Path) -> Written:
    """Put metrics.json, bundle/ and NAME.zip into `output_dir`: each whole, or not there.

    They are written beside their places first and then renamed, so an interrupted run leaves no half of one.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    written = Written(output_dir / "bundle", output_dir / f"{name}.zip", output_dir / "metrics.json")
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=output_dir) as staging:
        new = Path(staging)
        (new / "bundle").mkdir()
        for member, content in {**bundle.files, MANIFEST: bundle.manifest.to_bytes()}.items():
            (new / "bundle" / member).write_bytes(content)
        (new / "zip").write_bytes(bundle.to_zip())
        (new / "metrics").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if written.folder.exists():
            # A folder cannot be replaced in one step while it has content: the old one steps aside.
            written.folder.rename(new / "old")
        (new / "bundle").rename(written.folder)
        os.replace(new / "zip", written.zip)
        os.replace(new / "metrics", written.metrics)
    return written
