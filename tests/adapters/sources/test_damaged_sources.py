"""Damaged and hostile files of models: one error that names the fault, and nothing outside the folder is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rootstock.adapters.errors import SourceError
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.sources.kinds import open_source
from tests.tiny_models import save_tuned_encoder


@pytest.mark.parametrize("path", ["../outside", "1_Pooling/../../outside", "absolute"])
def test_a_module_outside_the_model_s_folder_is_not_read(
    tiny: FoundationFiles, tmp_path: Path, path: str
) -> None:
    folder = save_tuned_encoder(tiny.folder, tmp_path / "tuned")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_text('{"key": "a secret"}')
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = str(tmp_path / "outside") if path == "absolute" else path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SourceError, match=r"the module's folder '.*outside' is outside the model's") as caught:
        open_source(folder, True, False)
    assert "a secret" not in str(caught.value)
