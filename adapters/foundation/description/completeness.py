"""Compares the tensors in a foundation's files with those of its trunk."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rootstock.adapters.foundation.files import FoundationError, FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights

if TYPE_CHECKING:
    from torch import nn

# Old names of a normalisation's tensors, from before transformers renamed them, and the new ones.
RENAMED = {"gamma": "weight", "beta": "bias"}


def check_complete(files: FoundationFiles, model_type: str, trunk: nn.Module) -> None:
    """Raise FoundationError if the files lack a tensor of the trunk, which transformers would make at random.

    Such files are of a model that another code computes, under an architecture's name. A checkpoint may lack the
    pooler, and of tensors that are tied to each other it needs one.
    """
    present = set(map(current, FoundationWeights(files.folder, model_type).names))
    tied: dict[int, set[str]] = defaultdict(set)
    for name, parameter in trunk.named_parameters(remove_duplicate=False):
        tied[id(parameter)].add(name)
    missing = [min(names) for names in tied.values() if not names & present]
    if lacking := sorted(name for name in missing if not name.startswith("pooler.")):
        raise FoundationError(
            f"{files.folder} holds no tensor {lacking[0]!r} ({len(lacking)} of {len(tied)} are missing), so it "
            f"is not a model that transformers computes as {model_type!r}; the code of a checkpoint is never "
            "run: choose one that transformers loads without trust_remote_code"
        )


def current(name: str) -> str:
    """Return the present name of a tensor."""
    stem, dot, last = name.rpartition(".")
    return f"{stem}{dot}{RENAMED.get(last, last)}"
