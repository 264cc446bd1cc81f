"""What the attacks share: a tiny foundation."""

from __future__ import annotations

import pytest

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec
from tests.attacks.forge import tiny_bert


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return tiny_bert(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_files: FoundationFiles) -> FoundationSpec:
    return describe(tiny_files)


@pytest.fixture(scope="session")
def base(tiny_files: FoundationFiles) -> FoundationWeights:
    return FoundationWeights(tiny_files.folder, "bert")
