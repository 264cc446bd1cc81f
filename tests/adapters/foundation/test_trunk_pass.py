"""The pass that describes a trunk leaves no trace in the process."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from rootstock.adapters.foundation.architecture import describe
from tests.media_foundations import SIDE, make_media_foundation


def test_a_described_model_computes_the_same_on_every_call(tmp_path: Path) -> None:
    """BEiT keeps a table of positions for all models of a process. One without numbers would spoil the others."""
    files = make_media_foundation("beit", tmp_path)
    describe(files)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
        image = torch.ones(1, 3, SIDE, SIDE)
        first, *others = [model(image).last_hidden_state for _ in range(4)]
    assert first.isfinite().all()
    assert all(torch.equal(other, first) for other in others)
