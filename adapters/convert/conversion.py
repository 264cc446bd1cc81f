"""Converts an adapter of any kind that PEFT can merge to a plain LoRA, and measures the difference.

    python -m rootstock.adapters.convert.conversion IN.zip OUT.zip --foundation SETTING --rank N

reads a plain PEFT folder from a zip, writes a plain LoRA folder as a zip, and prints one JSON object: the result
of the conversion, or the refusal and its reason (exit code 1). This process cannot unpickle, its memory and time
are limited, and it ends when its parent ends.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rootstock.adapters.bundle import Limits, pack
from rootstock.adapters.bundle.archive import CONFIG, MANIFEST, WEIGHTS, open_archive
from rootstock.adapters.bundle.kinds.methods import Unconverted, wrong_option
from rootstock.adapters.bundle.manifest import MAX_LABELS
from rootstock.adapters.bundle.names.tower_names import whole_model
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.bundle.plain.base_model import BASE
from rootstock.adapters.bundle.plain.folder import plain_task
from rootstock.adapters.bundle.plain.origin import head_hint
from rootstock.adapters.bundle.tensors import check_finite, read_tensors
from rootstock.adapters.child_process import end_with_parent, limit_cpu
from rootstock.adapters.convert.inputs import fixed_inputs, fixed_pairs
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, locate
from rootstock.adapters.installation import lack
from rootstock.adapters.spec import (
    TEXT2TEXT_GENERATION,
    TEXT_GENERATION,
    ZERO_SHOT_IMAGES,
    FoundationSpec,
    Rejected,
    TaskClass,
)
from rootstock.adapters.strict_json.json_member import read_json
from rootstock.adapters.trunk_class import load_trunk

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]

# A share of the largest output. With logits of size 5, a probability then moves by at most 0.025.
MAX_DIFFERENCE = 1e-2
# The import of PEFT takes some 10 s. All linear layers of a foundation of 110 M parameters take some 60 s on one
# core.
MAX_SECONDS = 300.0
_GIB = 2**30


@dataclass(frozen=True)
class Conversion:
    """A converted adapter: the LoRA's plain folder as a zip, its largest rank, and its largest difference.

    `kind` is the original's `peft_type`. `max_difference` is the largest difference between an output of the
    LoRA and PEFT's output for the original, as a share of the largest output.
    """

    data: bytes
    kind: str
    rank: int
    max_difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures that go into a version's record."""
        return {"from": self.kind, "rank": self.rank, "max_difference": self.max_difference}


def convert(data: bytes, files: FoundationFiles, rank: int, task: str | None = None) -> Conversion:
    """Convert the adapter in a plain PEFT folder's zip to a LoRA of at most `rank` at each layer.

    PEFT merges the adapter into the foundation, and the change of the weights becomes the LoRA
    (`low_rank.lora_of`). `task` is for an adapter whose `task_type` names no task. Raise Rejected if the zip is
    not a plain PEFT folder. Raise Rejected (check "conversion") if PEFT fails, or if the outputs differ by more
    than MAX_DIFFERENCE. Raise FoundationError if torch or PEFT is not installed.
    """
    if problem := lack("torch", "a conversion to LoRA"):
        raise FoundationError(problem)
    archive = open_archive(data, Limits(max_bundle_bytes=len(data)))
    members = archive.members
    if MANIFEST in members:
        raise Rejected(
            "members", MANIFEST, "the zip is a bundle; convert the plain PEFT folder that it was made from"
        )
    config = read_json(members[CONFIG], CONFIG)
    kind = _kind_to_convert(config)
    spec = describe(files)
    task = plain_task(task, config.get("task_type"), archive, spec)[0]
    tensors = read_tensors(members[WEIGHTS])
    check_finite(tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = _Models(files, spec, spec.class_for(task), {_short(n): t.shape for n, t in tensors.items()})
        before, lora, weights = _merged(models, config, members[WEIGHTS], rank)
        after = models.outputs(models.load(lora, weights))
    difference = largest_difference(before, after)
    if not difference <= MAX_DIFFERENCE:
        raise Rejected(
            "conversion",
            WEIGHTS,
            f"as a LoRA of rank {lora['r']} this {kind} differs by {difference:.2g} of its largest output; it "
            f"may differ by at most {MAX_DIFFERENCE:g}: allow a rank above {rank}, or train a LoRA",
        )
    lora[BASE] = config.get(BASE)
    files_of_lora = {CONFIG: json.dumps(lora, indent=2, sort_keys=True).encode(), WEIGHTS: weights}
    data = pack({**files_of_lora, **archive.descriptions})
    return Conversion(data, kind, lora["r"], difference)


def _kind_to_convert(config: Mapping[str, Any]) -> str:
    """Return the kind of an adapter that must be converted; raise Rejected (check "schema") for any other."""
    try:
        read_config(config)
    except Unconverted as error:
        return error.kind
    kind = config.get("peft_type")
    raise wrong_option("peft_type", f"{kind!r} is served as it is; upload it without a conversion")


def _merged(
    models: _Models, config: Mapping[str, Any], weights: bytes, rank: int
) -> tuple[Tensor, dict[str, Any], bytes]:
    """Return PEFT's outputs for the original, and the LoRA's config and tensors."""
    from safetensors.torch import save

    from rootstock.adapters.convert.low_rank import lora_of, merged_parameters

    try:
        model = models.load(config, weights)
        models.check_complete(model)
        before = models.outputs(model)
        merged = merged_parameters(model)
    except Rejected:
        raise
    # Every error that PEFT raises here counts as a fault of the upload.
    except Exception as error:
        kind = config["peft_type"]
        raise Rejected("conversion", CONFIG, f"PEFT cannot load and merge this {kind}: {error!r}") from error
    lora, tensors = lora_of(models.base, merged, models.task_class, models.norms, rank)
    lora["task_type"] = config.get("task_type")
    return before, lora, bytes(save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}))


class _Models:
    """The foundation as a model of a task class, and the PEFT models on copies of it."""

    def __init__(
        self, files: FoundationFiles, spec: FoundationSpec, task_class: TaskClass, shapes: Shapes
    ) -> None:
        import torch
        import transformers

        self.task_class = task_class
        self.norms = spec.norms
        self._shapes = shapes
        self._inputs = fixed_inputs(files, spec)
        load: Any = load_trunk
        size_options = {}
        if task_class.task == TEXT_GENERATION:
            load = transformers.AutoModelForCausalLM.from_pretrained
        elif task_class.task == TEXT2TEXT_GENERATION:
            load = transformers.AutoModelForSeq2SeqLM.from_pretrained
        elif task_class.task == ZERO_SHOT_IMAGES and spec.text_tower is not None:
            load = transformers.AutoModel.from_pretrained
            self.norms = whole_model(spec).norms
            self._inputs = fixed_pairs(files, spec, spec.text_tower)
        if task_class.head:
            load = getattr(transformers, task_class.name).from_pretrained
            size_options = {"num_labels": _labels(task_class, shapes)}
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.base = load(
            files.folder,
            **size_options,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
        )

    def load(self, config: Mapping[str, Any], weights: bytes) -> Any:
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as folder:
            Path(folder, CONFIG).write_text(json.dumps(dict(config)))
            Path(folder, WEIGHTS).write_bytes(weights)
            return PeftModel.from_pretrained(copy.deepcopy(self.base), folder).eval()

    def check_complete(self, model: Any) -> None:
        """Raise Rejected for missing or left-over tensors.

        PEFT would fill a missing tensor at random and ignore a left-over one. Neither gives the trained adapter.
        """
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        expected = {_short(name): tuple(tensor.shape) for name, tensor in state.items()}
        for name in sorted(expected.keys() ^ self._shapes.keys()):
            if name in expected:
                raise Rejected("sites", name, f"missing from {WEIGHTS}; expected shape {list(expected[name])}")
            raise Rejected("sites", name, f"maps to no module of {self.task_class.name} that the config targets")

    def outputs(self, model: nn.Module) -> Tensor:
        """Return the raw outputs for all fixed inputs, flattened and joined into one vector."""
        import torch

        with torch.no_grad():
            outputs = [value for inputs in self._inputs for value in model(**inputs).to_tuple()]
        # A decoder's outputs include its cache, which is no tensor.
        return torch.cat([value.flatten() for value in outputs if isinstance(value, torch.Tensor)])


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.")


def _labels(task_class: TaskClass, shapes: Shapes) -> int:
    """Return the label count that the head's tensors agree on.

    Raise Rejected if a tensor is missing or has a wrong shape.
    """
    counts = (shapes.get(name) for name, shape in task_class.head.items() if shape[0] is None)
    labels = next((shape[0] for shape in counts if shape and 1 <= shape[0] <= MAX_LABELS), 2)
    for name, template in task_class.head.items():
        shape = shapes.get(name)
        expected = tuple(labels if size is None else size for size in template)
        if shape != expected:
            state = "is missing" if shape is None else f"has shape {list(shape)}"
            message = f"{state} in {WEIGHTS}; expected {list(expected)}; {head_hint(task_class)}"
            raise Rejected("sites", name, message)
    return labels


def largest_difference(before: Tensor, after: Tensor) -> float:
    """Return the largest difference as a share of the largest output; NaN if an output is NaN."""
    difference, scale = float((after - before).abs().max()), float(before.abs().max())
    if scale == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / scale


def main(arguments: Sequence[str]) -> int:
    """Run one conversion with the command line's arguments, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rootstock.adapters.convert.conversion")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--foundation", required=True)
    parser.add_argument(
        "--home", type=Path, action="append", default=[], help="Folder to search for conversions."
    )
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--task")
    parser.add_argument("--seconds", type=float, default=MAX_SECONDS)
    options = parser.parse_args(arguments)
    limit_cpu(options.seconds)
    try:
        files = locate(options.foundation, options.home)
        _confine(files)
        conversion = convert(options.input.read_bytes(), files, options.rank, options.task)
    except FoundationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Rejected as error:
        rejection = {"check": error.check, "where": error.where, "message": error.message}
        sys.stdout.write(json.dumps({"rejected": rejection}) + "\n")
        return 1
    options.output.write_bytes(conversion.data)
    sys.stdout.write(json.dumps(conversion.to_json()) + "\n")
    return 0


def _confine(files: FoundationFiles) -> None:
    """Confine this process: no pickle, low priority, and memory for some copies of the foundation.

    The process reads an uploaded archive, which nobody has checked yet.
    """
    import peft  # noqa: F401 - the limit comes on top of the memory that this import takes
    import torch

    torch.load = _never
    os.nice(10)
    taken = Path("/proc/self/statm")
    if taken.exists():
        size = sum(path.stat().st_size for path in files.folder.glob("*.safetensors"))
        most = int(taken.read_text().split()[0]) * resource.getpagesize() + 2 * _GIB + 16 * size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _never(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("pickled weights are never read")


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(sys.argv[1:]))
