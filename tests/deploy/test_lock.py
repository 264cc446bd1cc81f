"""deploy/image/*.txt: each file that the image downloads has a hash, and the lists hold all that it needs."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from rootstock.adapters.foundation.named import NAMED
from tests.deploy.conftest import ROOT

FOLDER = ROOT / "deploy" / "image"
LISTS = sorted(path.name for path in FOLDER.glob("*.txt"))
EXTRAS = ("chat", "postgres", "s3", "serve")
# pip itself and what builds the project are in the list too.
BUILDS = ("setuptools",)


def pinned(name: str) -> dict[str, str]:
    """Return the releases in a list by package."""
    entries = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (FOLDER / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in entries}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(package): version for package, version in pairs}


def needed() -> set[str]:
    """Return the packages that the project with the image's extras needs, by the metadata installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    waiting += [Requirement(f"rootstock[{','.join(EXTRAS)}]")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in requirement.extras or {""}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            own = (
                project["optional-dependencies"].get(extra, [])
                if name == "rootstock"
                else metadata.requires(name)
            )
            for found in map(Requirement, own or []):
                if found.marker is None or found.marker.evaluate({"extra": extra}):
                    waiting.append(found)
    return {name for name, _ in seen} - {"rootstock"}


@pytest.mark.parametrize("name", LISTS)
def test_each_package_of_a_list_has_one_release_and_a_hash(name: str) -> None:
    lines = (FOLDER / name).read_text().replace("\\\n", " ").splitlines()
    entries = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert entries
    # A release for other platforms alone may stand behind a marker.
    form = re.compile(r"[A-Za-z0-9._-]+==[^\s;]+( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [entry for entry in entries if not form.fullmatch(entry)] == []
    assert len(pinned(name)) == len(entries)


def test_the_lists_hold_the_releases_that_the_tests_run_with() -> None:
    known = constraints()
    listed = {**pinned("requirements.txt"), **pinned("foundations.txt"), **pinned("torch.cpu.txt")}
    assert {p: (v, known.get(p)) for p, v in listed.items() if Version(v).public != known.get(p)} == {}


def test_the_lists_hold_all_that_the_image_needs_and_no_more() -> None:
    known = constraints()
    drifted = sorted(name for name in needed() if metadata.version(name).split("+")[0] != known.get(name))
    if drifted:
        pytest.skip(f"constraints.txt has other releases of {', '.join(drifted)} than are installed here")
    listed = pinned("requirements.txt").keys()
    # torch's two builds have lists of their own.
    assert needed() - {"torch"} - listed == set()
    assert listed - needed() - set(BUILDS) == set()


def test_both_builds_of_torch_are_one_release() -> None:
    cpu, cuda = (Version(pinned(f"torch.{build}.txt")["torch"]) for build in ("cpu", "cuda"))
    assert cpu.public == cuda.public
    assert set(pinned("torch.cpu.txt")) == {"torch"}
    shared = pinned("requirements.txt")
    others = pinned("torch.cuda.txt")
    assert {name: v for name, v in others.items() if shared.get(name, v) != v} == {}


def test_the_packages_that_hold_foundations_are_those_that_the_server_names() -> None:
    named = {NAMED[name].requirement for name in ("chat", "vision")}
    assert {f"{name}=={version}" for name, version in pinned("foundations.txt").items()} == named
