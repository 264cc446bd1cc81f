"""An adapter of any kind that PEFT can merge, as a plain LoRA, with the difference that this makes measured.

    python -m rootstock.adapters.convert.conversion IN.zip OUT.zip --foundation SETTING --rank N

reads a plain PEFT folder from a zip, writes a plain LoRA folder as a zip, and prints one JSON object: what was
converted, or what was refused and why (exit code 1). Run so, it cannot unpickle, its memory and time are bounded,
and it ends when its parent does.
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
from rootstock.adapters.bundle.kinds.methods import CONVERTED, check_kind, wrong_option
from rootstock.adapters.bundle.manifest import MAX_LABELS, read_json
from rootstock.adapters.bundle.peft_config import check_expressions
from rootstock.adapters.bundle.plain.base_model import BASE
from rootstock.adapters.bundle.plain.folder import plain_task
from rootstock.adapters.bundle.plain.origin import head_hint
from rootstock.adapters.bundle.tensors import check_finite, read_tensors
from rootstock.adapters.child_process import end_with_parent, limit_cpu
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, locate
from rootstock.adapters.installation import lack
from rootstock.adapters.spec import FoundationSpec, Rejected, TaskClass

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]

# Of the largest output. Where logits are of size 5, a probability then moves by at most 0.025.
MAX_DIFFERENCE = 1e-2
TEXTS = (
    "ok",
    "Where is my parcel? It was due on Monday, and nobody answers the telephone.",
    "The quick brown fox jumps over the lazy dog while 12 of 1,337 sensors report 98.6 °F.",
    "Ada Lovelace met Charles Babbage in London in June 1833. " * 8,
)
# Importing PEFT takes some 10 s, all linear layers of a 110 M parameter foundation some 60 s on one core.
MAX_SECONDS = 300.0
_GIB = 2**30


@dataclass(frozen=True)
class Conversion:
    """A LoRA's plain folder as a zip, its largest rank, and the largest difference of an output.

    The difference is to what PEFT computes for the original, as a share of the largest output.
    """

    data: bytes
    kind: str
    rank: int
    max_difference: float

    def to_json(self) -> dict[str, Any]:
        """Return what a version's record says of it."""
        return {"from": self.kind, "rank": self.rank, "max_difference": self.max_difference}


def convert(data: bytes, files: FoundationFiles, rank: int, task: str | None = None) -> Conversion:
    """Return the LoRA of at most `rank` at a layer that stands for the adapter in a plain PEFT folder's zip.

    PEFT merges the adapter into the foundation; what that changed becomes the LoRA (`merged_lora.lora_of`).
    `task` is for an adapter whose `task_type` names none. Raise Rejected for a folder that is not one, and
    with check "conversion" where PEFT fails or the outputs differ by more than MAX_DIFFERENCE. Raise
    FoundationError where torch or PEFT is not installed.
    """
    if problem := lack("torch", "a conversion to LoRA"):
        raise FoundationError(problem)
    archive = open_archive(data, Limits(max_bundle_bytes=len(data)))
    members = archive.members
    if MANIFEST in members:
        raise Rejected("members", MANIFEST, "a bundle; convert the plain PEFT folder that it was made from")
    config = read_json(members[CONFIG], CONFIG)
    kind = config.get("peft_type")
    if kind not in CONVERTED:
        check_kind(kind)
        raise wrong_option("peft_type", f"{kind!r} is served as it is; upload it unconverted")
    check_expressions(config)
    spec = describe(files)
    task = plain_task(task, config.get("task_type"), archive)[0]
    tensors = read_tensors(members[WEIGHTS])
    check_finite(tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = _Models(files, spec, spec.class_for(task), {_short(n): t.shape for n, t in tensors.items()})
        before, lora, weights = _merged(models, config, members[WEIGHTS], rank)
        after = models.outputs(models.load(lora, weights))
    difference = _difference(before, after)
    if not difference <= MAX_DIFFERENCE:
        raise Rejected(
            "conversion",
            WEIGHTS,
            f"as LoRA of rank {lora['r']} this {kind} differs by {difference:.2g} of its largest output; at most "
            f"{MAX_DIFFERENCE:g}: allow a rank above {rank}, or train a LoRA",
        )
    lora[BASE] = config.get(BASE)
    made = {CONFIG: json.dumps(lora, indent=2, sort_keys=True).encode(), WEIGHTS: weights}
    data = pack({**made, **archive.descriptions})
    return Conversion(data, str(kind), lora["r"], difference)


def _merged(
    models: _Models, config: Mapping[str, Any], weights: bytes, rank: int
) -> tuple[Tensor, dict[str, Any], bytes]:
    """Return what PEFT computes for the original, and the LoRA's config and tensors."""
    from safetensors.torch import save

    from rootstock.adapters.convert.low_rank import lora_of, merged_parameters

    try:
        model = models.load(config, weights)
        models.check_complete(model)
        before = models.outputs(model)
        merged = merged_parameters(model)
    except Rejected:
        raise
    # Any error that PEFT raises on odd input is the input's fault.
    except Exception as error:
        kind = config["peft_type"]
        raise Rejected("conversion", CONFIG, f"PEFT cannot load and merge this {kind}: {error!r}") from error
    lora, tensors = lora_of(models.base, merged, models.task_class, rank)
    lora["task_type"] = config.get("task_type")
    return before, lora, bytes(save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}))


class _Models:
    """The foundation in the class of a task, and PEFT's models on copies of it."""

    def __init__(
        self, files: FoundationFiles, spec: FoundationSpec, task_class: TaskClass, shapes: Shapes
    ) -> None:
        import torch
        import transformers

        self.task_class = task_class
        self._shapes = shapes
        self._inputs = _inputs(files, spec)
        named: Any = transformers.AutoModel
        sized = {}
        if task_class.head:
            named = getattr(transformers, task_class.name)
            sized = {"num_labels": _labels(task_class, shapes)}
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.base = named.from_pretrained(
            files.folder,
            **sized,
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

        PEFT starts what is missing at random and ignores what is left over; neither is what was trained.
        """
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        expected = {_short(name): tuple(tensor.shape) for name, tensor in state.items()}
        for name in sorted(expected.keys() ^ self._shapes.keys()):
            if name in expected:
                raise Rejected("sites", name, f"missing from {WEIGHTS}; expected shape {list(expected[name])}")
            raise Rejected("sites", name, f"maps to nothing of {self.task_class.name} that the config targets")

    def outputs(self, model: nn.Module) -> Tensor:
        """Return every raw output for the fixed sentences, one after another."""
        import torch

        with torch.no_grad():
            tensors = [tensor for ids in self._inputs for tensor in model(input_ids=ids).to_tuple()]
        return torch.cat([tensor.flatten() for tensor in tensors])


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.")


def _labels(task_class: TaskClass, shapes: Shapes) -> int:
    """Return the label count that the head's tensors agree on.

    Raise Rejected where one is missing or misshapen.
    """
    counts = (shapes.get(name) for name, shape in task_class.head.items() if shape[0] is None)
    labels = next((shape[0] for shape in counts if shape and 1 <= shape[0] <= MAX_LABELS), 2)
    for name, template in task_class.head.items():
        shape = shapes.get(name)
        wanted = tuple(labels if size is None else size for size in template)
        if shape != wanted:
            held = "is missing" if shape is None else f"has shape {list(shape)}"
            told = f"{held} in {WEIGHTS}; expected {list(wanted)}; {head_hint(task_class)}"
            raise Rejected("sites", name, told)
    return labels


def _inputs(files: FoundationFiles, spec: FoundationSpec) -> list[Tensor]:
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [torch.tensor([tokenizer.encode(text).ids[: spec.max_tokens]]) for text in TEXTS]


def _difference(before: Tensor, after: Tensor) -> float:
    """Return the largest difference as a share of the largest output; NaN where an output is."""
    difference, scale = float((after - before).abs().max()), float(before.abs().max())
    if scale == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / scale


def main(arguments: Sequence[str]) -> int:
    """Convert as the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rootstock.adapters.convert.conversion")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--foundation", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--task")
    parser.add_argument("--seconds", type=float, default=MAX_SECONDS)
    given = parser.parse_args(arguments)
    limit_cpu(given.seconds)
    try:
        files = locate(given.foundation)
        _confine(files)
        done = convert(given.input.read_bytes(), files, given.rank, given.task)
    except FoundationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Rejected as error:
        refused = {"check": error.check, "where": error.where, "message": error.message}
        sys.stdout.write(json.dumps({"rejected": refused}) + "\n")
        return 1
    given.output.write_bytes(done.data)
    sys.stdout.write(json.dumps(done.to_json()) + "\n")
    return 0


def _confine(files: FoundationFiles) -> None:
    """Confine this process: no pickle, low priority, and memory for some copies of the foundation.

    The archive is an upload.
    """
    import peft  # noqa: F401 - what its import takes comes on top
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
