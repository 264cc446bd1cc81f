"""Compares the packages of constraints.txt with known vulnerabilities, by pip-audit in a separate environment.

The exit code is 1 for a package with a known vulnerability. It is 0 if there is none, and if no database can be
reached, which the last line says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIP_AUDIT = "pip-audit>=2.9,<3"


def main(folder: Path, audit: Sequence[str] | None = None) -> int:
    """Audit and return the exit code; `audit` is the command of pip-audit, else it is installed in `folder`."""
    report = folder / "audit.json"
    report.unlink(missing_ok=True)
    if audit is None:
        audit = _installed(folder)
        if audit is None:
            return _say("pip-audit cannot be installed from the package index", 0)
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"]
    options += ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
    done = subprocess.run([*audit, *options], capture_output=True, text=True, check=False)  # noqa: S603
    try:
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    except (OSError, ValueError, KeyError):
        reason = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        return _say(f"no database of vulnerabilities can be reached ({reason[:300]})", 0)
    audited = [one for one in packages if "vulns" in one]
    faults = [one for one in audited if one["vulns"]]
    for one in faults:
        for fault in one["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no version yet"
            sys.stdout.write(f"{one['name']} {one['version']}: {fault['id']}, mended in {fixed}\n")
    if not audited:
        return _say("the database knows none of the packages", 0)
    skipped = len(packages) - len(audited)
    counts = f"{len(faults)} with known vulnerabilities, {skipped} not in the database"
    sys.stdout.write(f"{len(audited)} packages audited, {counts}\n")
    return 1 if faults else 0


def _installed(folder: Path) -> list[str] | None:
    """Return the command of pip-audit in an environment in `folder`; None if it cannot be installed."""
    python = folder / "venv" / "bin" / "python"
    if (folder / "venv" / "bin" / "pip-audit").exists():
        return [str(python), "-m", "pip_audit"]
    # An interrupted call may have left a part of an environment.
    venv.create(folder / "venv", with_pip=True, clear=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_AUDIT]
    if subprocess.run(install, check=False).returncode:  # noqa: S603
        return None
    return [str(python), "-m", "pip_audit"]


def _say(reason: str, code: int) -> int:
    sys.stdout.write(f"nothing was audited: {reason}; run `make audit` where PyPI can be reached\n")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
