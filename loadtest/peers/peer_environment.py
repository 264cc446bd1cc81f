"""Install a peer into a virtual environment of the user's cache, once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rootstock.loadtest.fixtures.setup import Say

DONE = "installed"


class PeerMissing(Exception):
    """A peer that cannot be installed here. Names the command and its last output."""


@dataclass(frozen=True)
class PeerEnvironment:
    """The virtual environment of a peer, from the file `<name>-requirements.txt` beside this module.

    `size` describes the download. `unwanted` packages are removed after the installation.
    """

    name: str
    size: str
    unwanted: tuple[str, ...] = ()

    @property
    def requirements(self) -> Path:
        return Path(__file__).with_name(f"{self.name}-requirements.txt")

    @property
    def folder(self) -> Path:
        """Return the virtual environment's folder, which is named by the requirements."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        digest = hashlib.sha256(self.requirements.read_bytes() + version.encode()).hexdigest()
        return cache / "rootstock" / "peers" / f"{self.name}-{digest[:12]}"

    @property
    def installed(self) -> bool:
        return (self.folder / DONE).is_file()

    def program(self, name: str, say: Say) -> Path:
        """Return a program of the peer; install the peer the first time.

        Raise PeerMissing if the installation fails.
        """
        if not self.installed:
            say(f"installing {self.name} into {self.folder}, once ({self.size})")
            self._install()
        return self.folder / "bin" / name

    def _install(self) -> None:
        python = str(self.folder / "bin" / "python")
        pip = [python, "-m", "pip"]
        install = [*pip, "install", "--quiet", "--disable-pip-version-check"]
        self._run([sys.executable, "-m", "venv", str(self.folder)])
        # torch goes first and alone: another package's range can pull several GB of CUDA libraries.
        for line in self.requirements.read_text().splitlines():
            if line.startswith("torch=="):
                self._run([*install, line])
        self._run([*install, "-r", str(self.requirements)])
        if self.unwanted:
            self._run([*pip, "uninstall", "--yes", "--quiet", *self.unwanted])
        (self.folder / DONE).touch()

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
        if done.returncode:
            output = (done.stderr or done.stdout).strip()[-2000:]
            raise PeerMissing(f"{self.name} could not be installed: {' '.join(command)} ended with: {output}")
