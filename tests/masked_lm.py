"""Makes a tiny BERT whose checkpoint has its masked-language-model head, and transformers' pipeline on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.service.engine.runners.onnx.export.export import export
from rootstock.service.exports.cache import path_of
from tests.parity.foundations import Tiny, make_tiny
from tests.parity.matrix import ARCHITECTURES


def make_filling(folder: Path) -> Tiny:
    """Return the foundation, saved like a checkpoint of the hub: trunk with pooler, and head."""
    return make_tiny(ARCHITECTURES["bert"], folder)


def home_of(tiny: Tiny, home: Path) -> Path:
    """Export the foundation into the cache of `home`, and return `home`."""
    files = locate(str(tiny.folder))
    export(files.folder, describe(files), path_of(files, home))
    return home


def pipeline_of(folder: Path) -> Any:
    """Return transformers' fill-mask pipeline on a foundation's folder."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, device="cpu")
