"""An adapter of every site of each architecture of images and audio: our updates give PEFT's outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.spec import CLASSIFICATION, EMBEDDING
from tests.adapters.bundle.media_models import (
    graft,
    make_model,
    peft_media_model,
    save_media_adapter,
    zipped,
)
from tests.media_foundations import MEDIA
from tests.peft_adapters import close

# With its usual padding, the model reads the stride of its convolutions, which PEFT's layers do not have.
CONFIG = {"mobilenet_v2": {"tf_padding": False}}
# The model reads the stride of these.
LEFT_OUT = {"whisper": ("conv1", "conv2")}
CASES = [(name, headless) for name in MEDIA for headless in (False, True)]


@pytest.mark.parametrize(("name", "headless"), CASES)
def test_an_adapter_of_every_site_gives_peft_s_outputs(tmp_path: Path, name: str, headless: bool) -> None:
    media = make_model(name, tmp_path / "base", **CONFIG.get(name, {}))
    spec = media.spec
    tasks = EMBEDDING if headless else CLASSIFICATION
    if tasks[spec.modality] not in spec.tasks:
        with pytest.raises(ValueError, match="is not served"):
            spec.class_for(tasks[spec.modality])
        return
    task_class = spec.class_for(tasks[spec.modality])
    sites = spec.sites.keys() - set(LEFT_OUT.get(name, ()))
    targets = sorted({task_class.prefix + site for site in sites} & task_class.linears.keys())
    assert targets
    folder = save_media_adapter(media, tmp_path / "saved", headless=headless, r=2, target_modules=targets)
    adapter = open_bundle(zipped(folder), Limits(), spec).adapter(spec, 64, media.base)
    assert adapter.task == tasks[spec.modality]
    assert sorted(task_class.prefix + site for site in adapter.weights.sites) == targets
    updates, head = adapter.weights.sites, adapter.weights.head
    ours = media.outputs(graft(media.model(headless), task_class.prefix, updates, head))
    theirs = media.outputs(peft_media_model(media, folder, headless))
    bare = media.outputs(graft(media.model(headless), task_class.prefix, {}, head))
    assert all(close(actual, expected) for actual, expected in zip(ours, theirs, strict=True))
    assert max(np.abs(b - e).max() for b, e in zip(bare, theirs, strict=True)) > 2e-3
