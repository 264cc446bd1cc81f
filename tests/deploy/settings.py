"""What files that deploy the server say of its settings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from rootstock.service.settings import PREFIX, Settings, read_settings


def read(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a server started with this environment has; SettingsError as it would raise."""
    with monkeypatch.context() as only:
        for name, value in environment.items():
            if name.startswith(PREFIX):
                only.setenv(name, value)
        return read_settings()
