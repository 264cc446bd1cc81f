"""The default foundation's int8 export, which takes seconds to make."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootstock.service.engine.runners.onnx.export.int8 import quantise


@pytest.fixture(scope="session")
def int8_folder(export_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "export"
    quantise(export_folder, folder)
    return folder
