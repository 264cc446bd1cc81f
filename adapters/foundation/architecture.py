"""Builds a foundation's spec from its transformers classes, without weights (on torch's meta device)."""

from __future__ import annotations

import os

from rootstock.adapters.foundation.description.media_foundation import media_foundation
from rootstock.adapters.foundation.description.text_foundation import text_foundation
from rootstock.adapters.foundation.families import modality_of
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, read_json
from rootstock.adapters.installation import lack
from rootstock.adapters.spec import FoundationSpec


def describe(files: FoundationFiles) -> FoundationSpec:
    """Return the spec of a foundation: its sites, and for each task the class, linear modules and head tensors.

    This imports torch and transformers; raise FoundationError if they are not installed. The result is plain
    data, which is cached with the ONNX export.
    """
    if problem := lack("layers", f"reading the layers of {files.name}"):
        raise FoundationError(problem)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(files.folder)
    raw = read_json(files.folder / "config.json")
    build = text_foundation if modality_of(raw) == "text" else media_foundation
    return build(files, config, raw)
