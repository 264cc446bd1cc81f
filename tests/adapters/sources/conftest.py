"""A tiny foundation of sentence-transformers, and models that are trained from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.sources.kinds import open_source
from rootstock.adapters.sources.source_bundle import SourceBundle, SourceOptions, bundle_of
from rootstock.adapters.spec import FoundationSpec
from tests.tiny_models import save_foundation, save_tuned_classifier


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return locate(str(save_foundation(tmp_path_factory.mktemp("foundation") / "tiny")))


@pytest.fixture(scope="session")
def tiny_spec(tiny: FoundationFiles) -> FoundationSpec:
    return describe(tiny)


@pytest.fixture
def tuned(tiny: FoundationFiles, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that saves a whole classifier, trained from the foundation."""
    return lambda **options: save_tuned_classifier(tiny.folder, tmp_path / "tuned", **options)


@pytest.fixture(scope="session")
def convert(tiny: FoundationFiles, tiny_spec: FoundationSpec) -> Callable[..., SourceBundle]:
    """Return a function that makes the bundle of a folder or file, with PlainFields and SourceOptions."""

    def made(path: Path, plain: PlainFields | None = None, trust: bool = False, **options: Any) -> SourceBundle:
        source = open_source(path, tiny_spec.lowercases, trust)
        return bundle_of(source, tiny, tiny_spec, plain, SourceOptions(**options))

    return made
