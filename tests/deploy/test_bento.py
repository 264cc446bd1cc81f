"""The bentos: what is in them, and the Dockerfiles that they bring."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools import find_namespace_packages

from rootstock.service.settings import SettingsError
from tests.deploy.conftest import ROOT
from tests.deploy.image import instructions
from tests.deploy.settings import read

BENTOFILES = ("bentofile.yaml", "bentofile.gpu.yaml")
Build = Callable[[str], Path]


def dockerfile(folder: Path) -> list[tuple[str, str]]:
    return list(instructions((folder / "env" / "docker" / "Dockerfile").read_text()))


def environment(folder: Path) -> dict[str, str]:
    pairs = [rest.partition("=") for word, rest in dockerfile(folder) if word == "ENV"]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_a_bento_holds_the_server_and_nothing_else_of_the_tree(bento: Build, bentofile: str) -> None:
    source = bento(bentofile) / "src"
    packed = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    ours = {
        path.relative_to(ROOT)
        for package in ("adapters", "service")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    beside = {Path(name) for name in ("pyproject.toml", "README.md", "LICENSE")}
    beside |= {path.relative_to(ROOT) for path in (ROOT / "deploy" / "image").glob("*.txt")}
    beside |= {Path("src/rootstock") / name for name in ("__init__.py", "py.typed")}
    assert packed == ours | beside | {Path("bentofile.yaml")}
    assert Path("service/demo/entities.zip") in packed


def test_the_gpu_s_bento_is_the_cpu_s_but_for_its_name_and_environment() -> None:
    cpu, gpu = (yaml.safe_load((ROOT / name).read_text()) for name in BENTOFILES)
    assert gpu.pop("name") == "rootstock-gpu"
    on_cpu, on_gpu = cpu["docker"].pop("env"), gpu["docker"].pop("env")
    assert cpu == gpu
    assert on_cpu.keys() <= on_gpu.keys()
    assert on_cpu["TORCH_INDEX"].endswith("/cpu")
    assert on_gpu["TORCH_INDEX"] == ""
    assert (on_cpu["TORCH_BUILD"], on_gpu["TORCH_BUILD"]) == ("cpu", "cuda")


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_a_bento_installs_the_project_without_an_index(bento: Build, bentofile: str) -> None:
    python = bento(bentofile) / "env" / "python"
    requirements = (python / "requirements.txt").read_text().splitlines()
    assert "--editable ../../src[chat,postgres,s3,serve]" in requirements
    assert "PIP_ARGS=(--no-index --no-build-isolation)" in (python / "install.sh").read_text()
    assert not (python / "requirements.lock.txt").exists()


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_every_step_of_a_container_that_asks_an_index_checks_hashes(bento: Build, bentofile: str) -> None:
    folder = bento(bentofile)
    installs = [rest for word, rest in dockerfile(folder) if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    for step in installs:
        # The lists are whole, so pip adds nothing to them.
        assert "pip install --no-deps --require-hashes " in step
        lists = re.findall(r"src/(deploy/image/\S+?\.txt)", step.replace("$TORCH_BUILD", "cpu"))
        assert lists
        assert all((folder / "src" / path).is_file() for path in lists)


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_a_container_s_steps_give_setuptools_the_packages_that_a_bento_holds(
    bento: Build, bentofile: str, tmp_path: Path
) -> None:
    folder = bento(bentofile)
    shutil.copytree(folder / "src", tmp_path / "src")
    (step,) = (rest for word, rest in dockerfile(folder) if word == "RUN" and "ln -s" in rest)
    subprocess.run(["sh", "-ec", step], cwd=tmp_path, check=True)
    settings = tomllib.loads((tmp_path / "src" / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = find_namespace_packages(str(tmp_path / "src" / "src"), settings["find"]["exclude"])
    assert {"rootstock.adapters.bundle", "rootstock.service.engine.core"} < set(packages)


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_a_container_is_not_root_s_has_a_health_check_and_one_volume(bento: Build, bentofile: str) -> None:
    steps: dict[str, Any] = dict(dockerfile(bento(bentofile)))
    user, group = steps["USER"].split(":")
    assert min(int(user), int(group)) > 0
    assert "/readyz" in steps["HEALTHCHECK"]
    assert json.loads(steps["VOLUME"]) == ["/data"]
    assert json.loads(steps["CMD"]) == ["rootstock", "serve"]
    assert (steps["STOPSIGNAL"], steps["EXPOSE"]) == ("SIGTERM", "3000")


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_a_container_listens_to_all_and_so_demands_an_admin_key(
    bento: Build, bentofile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(bento(bentofile))
    with pytest.raises(SettingsError, match="there is no ROOTSTOCK_ADMIN_KEY"):
        read(given, monkeypatch).check_openness(stored_keys=False)
    settings = read({**given, "ROOTSTOCK_ADMIN_KEY": "k" * 16}, monkeypatch)
    settings.check_openness(stored_keys=False)
    assert (settings.host, settings.port, settings.drain_delay) == ("0.0.0.0", 3000, 5.0)
    assert settings.home_folder.is_relative_to("/data")
    assert not settings.export_folders[0].is_relative_to("/data")


@pytest.mark.parametrize("bentofile", BENTOFILES)
def test_a_container_reports_to_nobody(bento: Build, bentofile: str) -> None:
    given = environment(bento(bentofile))
    assert (given["BENTOML_DO_NOT_TRACK"], given["ORT_DISABLE_TELEMETRY"]) == ("true", "1")
