"""Environments of clients that the project's environment cannot hold. Each is installed once and kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.bounds import HANG

HERE = Path(__file__).parent
# By environment: what it installs. docs/clients.md states the versions.
PYTHON = {
    "infinity": ("infinity_client==0.0.78",),
    "kserve": ("kserve==0.21.0",),
    "langchain": ("langchain-huggingface==1.2.3", "huggingface_hub==1.33.0"),
    "llama_index": (
        "llama-index-embeddings-openai-like==0.4.0",
        "llama-index-embeddings-text-embeddings-inference==0.6.0",
        "llama-index-llms-openai-like==0.8.1",
    ),
    "tei": ("tei-client==0.2.4",),
    "tgi": ("text-generation==0.7.0",),
}
NODE = {"node": ("openai@6.30.1", "@huggingface/inference@4.13.30", "cohere-ai@8.1.0")}


def answers_of(name: str, url: str) -> Any:
    """Return the answers that an environment's program gets from the server at `url`, by its calls."""
    command = _node(name, NODE[name]) if name in NODE else _python(name, PYTHON[name])
    settings = {"HF_HUB_OFFLINE": "0", "PYTHONPATH": "", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*command, url], env={**os.environ, **settings}, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _python(name: str, packages: tuple[str, ...]) -> list[str]:
    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(pip, check=True)

    folder = _kept((sys.version, *packages), install)
    return [str(folder / "bin" / "python"), str(HERE / f"{name}_calls.py")]


def _node(name: str, packages: tuple[str, ...]) -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")

    def install(folder: Path) -> None:
        folder.mkdir()
        quiet = ("--no-audit", "--no-fund", "--loglevel", "error")
        subprocess.run([npm, "install", *quiet, "--prefix", str(folder), *packages], check=True)

    folder = _kept(packages, install)
    # A program finds its packages beside itself.
    program = shutil.copy(HERE / f"{name}_calls.mjs", folder)
    return [node, str(program)]


def _kept(key: tuple[str, ...], install: Callable[[Path], None]) -> Path:
    """Return the folder of an environment, which `install` fills if it is not there yet."""
    digest = sha256("\n".join(key).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"rootstock-clients-{digest}"
    whole = folder / "whole"
    if not whole.exists():
        shutil.rmtree(folder, ignore_errors=True)
        install(folder)
        whole.touch()
    return folder
