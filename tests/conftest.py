"""What the tests share: the default foundation, its ONNX export, and quiet offline libraries."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from pathlib import Path

import pytest

from adapters.architecture import describe
from adapters.foundation import FoundationFiles, locate
from adapters.spec import FoundationSpec


@pytest.fixture(scope="session")
def foundation() -> FoundationFiles:
    return locate("default")


@pytest.fixture(scope="session")
def spec(foundation: FoundationFiles) -> FoundationSpec:
    return describe(foundation)


@pytest.fixture(scope="session")
def export_folder(
    foundation: FoundationFiles, spec: FoundationSpec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from service.engine.runners.onnx_export import export

    target = tmp_path_factory.mktemp("export") / "default"
    export(foundation.folder, spec, target)
    return target
