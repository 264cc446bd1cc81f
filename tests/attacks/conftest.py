"""What the attacks share: a tiny foundation."""

from __future__ import annotations

import pytest

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.spec import FoundationSpec
from tests.attacks.forge import tiny_bert


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FoundationSpec:
    return describe(tiny_bert(tmp_path_factory.mktemp("tiny")))
