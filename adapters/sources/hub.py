"""Models of the Hugging Face hub: a reference is resolved to a commit, and the commit's files are fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.setfit import HEADS

_REFERENCE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ["*.json", "*.txt", "*.jinja", "*.safetensors", "README.md", HEADS[0]]
# Other forms of the same model, and a Trainer's states.
_OTHERS = ["onnx/*", "openvino/*", "checkpoint-*/*", "runs/*"]


@dataclass(frozen=True)
class HubModel:
    """A model of the hub at a commit, with the folder of its files on this machine."""

    repo: str
    commit: str
    folder: Path


def is_hub_reference(text: str) -> bool:
    """Return whether a text is `org/name@revision`."""
    return _REFERENCE.fullmatch(text) is not None


def fetch(reference: str, trust_pickle: bool) -> HubModel:
    """Fetch a model, `org/name@revision`; the revision is a commit, or a branch or tag that is resolved to one.

    Only safetensors, JSON and text files are fetched; with `trust_pickle` also SetFit's pickled head. Raise
    SourceError if the hub does not have the model or cannot be reached.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise SourceError(f"{reference!r} is no model of the hub; give org/name@revision")
    repo, revision = match["repo"], match["revision"]
    try:
        # The import reads HF_ENDPOINT, and fails for one that is no URL.
        from huggingface_hub import HfApi, snapshot_download

        commit = revision if _COMMIT.fullmatch(revision) else HfApi().model_info(repo, revision=revision).sha
        if commit is None:
            raise SourceError(
                f"the hub states no commit for {reference}; give the commit: {repo}@<40 hex digits>"
            )
        files = [*_FILES, *(HEADS[1:] if trust_pickle else ())]
        folder = snapshot_download(repo, revision=commit, allow_patterns=files, ignore_patterns=_OTHERS)
    except SourceError:
        raise
    # The client lets through the errors of its HTTP library, and those of reading a strange answer.
    except Exception as error:
        raise SourceError(
            f"{reference} cannot be fetched from the hub: {type(error).__name__}: {error}; check the "
            "reference, the network and HF_ENDPOINT"
        ) from error
    return HubModel(repo, commit, Path(folder))
