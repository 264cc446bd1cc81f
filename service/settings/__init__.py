"""The server's settings: environment variables that begin with ROOTSTOCK_, checked at start."""

from rootstock.service.settings.settings import PREFIX, Settings, SettingsError, read_settings

__all__ = ["PREFIX", "Settings", "SettingsError", "read_settings"]
