"""`rootstock adapters import`: what is registered, what is skipped, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.home.bulk_import import ImportedBundle, SkippedBundle, import_bundles
from rootstock.adapters.home.home import Home
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.spec import FoundationSpec
from rootstock.adapters.store.folder import FolderStore
from tests.bounds import HANG
from tests.peft_adapters import PeftAdapter, temporary_adapter

DEMO = Path(__file__).parents[2] / "service" / "demo"


@pytest.fixture
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture
def bundles(tmp_path: Path, peft_saved: dict[str, PeftAdapter], spec: FoundationSpec) -> Path:
    """A plain PEFT folder, a plain zip, a bundle without a golden set, and one with."""
    folder = tmp_path / "bundles"
    shutil.copytree(peft_saved["first"].folder, folder / "plain-folder")
    (folder / "plain.zip").write_bytes(peft_saved["second"].zip())
    (folder / "whole.zip").write_bytes(open_bundle(peft_saved["tokens"].zip(), Limits(), spec).to_zip())
    shutil.copy(DEMO / "support-intents.zip", folder / "golden.zip")
    return folder


def run(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, words)], env=environment)


def registered(home: Path) -> dict[str, tuple[int, int | None]]:
    """Name → how many versions, and which is live."""
    with closing(SqlRegistry(f"sqlite:///{home / 'registry.db'}")) as registry:
        return {a.name: (len(a.versions), a.live) for a in registry.list(1000).adapters}


def test_every_bundle_of_a_folder_is_live_under_its_file_s_name(
    home: Path, bundles: Path, spec: FoundationSpec
) -> None:
    result = run(bundles, "--home", home, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"imported": 4, "unchanged": 0, "skipped": [], "interrupted": False}
    assert registered(home) == dict.fromkeys(["golden", "plain", "plain-folder", "whole"], (1, 1))
    with closing(SqlRegistry(f"sqlite:///{home / 'registry.db'}")) as registry:
        versions = {name: registry.version(name, 1) for name in ("golden", "plain", "whole")}
    golden = {name: version.verification["golden"] for name, version in versions.items()}
    assert golden == {"golden": "not replayed", "plain": "none", "whole": "none"}
    store = FolderStore(home / "store")
    for version in versions.values():
        assert version.verification["imported"] is True
        data = store.get(version.digest)
        bundle = open_bundle(data, Limits(), spec)
        assert (bundle.digest, len(data)) == (version.digest, version.size)
        assert bundle.warnings == (), "what is stored says what it is"


def test_importing_again_changes_nothing_and_a_new_file_becomes_the_next_version(
    home: Path, bundles: Path
) -> None:
    assert run(bundles, "--home", home).exit_code == 0
    shutil.copy(bundles / "whole.zip", bundles / "plain.zip")
    again = json.loads(run(bundles, "--home", home, "--json").stdout)
    assert (again["imported"], again["unchanged"]) == (1, 3)
    assert registered(home)["plain"] == (2, 2)
    with closing(SqlRegistry(f"sqlite:///{home / 'registry.db'}")) as registry:
        registry.rollback("plain")
    assert run(bundles, "--home", home).stdout == "0 imported, 4 already registered, 0 skipped\n"
    assert registered(home)["plain"] == (2, 1), "an operator's rollback stays"


def test_a_bundle_that_fails_is_named_and_skipped_and_the_others_are_registered(
    home: Path, bundles: Path
) -> None:
    (bundles / "damaged.zip").write_bytes(b"no zip")
    (bundles / "Bad Name.zip").write_bytes(b"no zip")
    (bundles / "empty").mkdir()
    (bundles / "plain").mkdir()
    (bundles / ".hidden").mkdir()
    (bundles / "notes.txt").write_text("no bundle")
    result = run(bundles, "--home", home, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["imported"] == 3
    reasons = {skipped["file"]: skipped["reason"] for skipped in told["skipped"]}
    assert sorted(reasons) == ["Bad Name.zip", "damaged.zip", "empty", "plain", "plain.zip"]
    assert "not a zip archive" in reasons["damaged.zip"]
    assert "cannot name an adapter" in reasons["Bad Name.zip"]
    assert "is not an adapter's folder" in reasons["empty"]
    assert "has the same name as plain" in reasons["plain.zip"]
    lines = result.stderr.splitlines()
    assert len(lines) == 5, "one line each"
    assert all(line.startswith("rootstock adapters: ") for line in lines)
    assert "plain" not in registered(home)


def test_adapters_stated_relative_to_the_foundation_are_taken_and_others_have_to_be_converted(
    home: Path, tmp_path: Path, foundation: FoundationFiles
) -> None:
    for name, dora in (("dora", True), ("plain", False)):
        data = temporary_adapter(foundation.folder, "SEQ_CLS", 1, r=2, use_dora=dora)
        (tmp_path / f"{name}.zip").write_bytes(data)
    other = tmp_path / "other"
    with zipfile.ZipFile(tmp_path / "plain.zip") as archive:
        archive.extractall(other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LOHA"}))
    result = run(tmp_path, "--home", home)
    assert result.exit_code == 1
    assert "other is skipped" in result.stderr
    assert "rootstock adapters convert" in result.stderr
    assert sorted(registered(home)) == ["dora", "plain"]


def test_the_server_s_own_limits_hold(home: Path, bundles: Path) -> None:
    result = run(bundles, "--home", home, ROOTSTOCK_MAX_RANK="4")
    assert result.exit_code == 1
    assert "rank 8; this server serves at most 4" in result.stderr
    assert registered(home) == {"golden": (1, 1), "plain-folder": (1, 1)}


@pytest.mark.parametrize("what", ["held", "empty", "foundation"])
def test_what_cannot_be_done_is_one_line_and_nothing_is_registered(
    home: Path, bundles: Path, tmp_path: Path, what: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words: tuple[object, ...] = (bundles, "--home", home)
    if what == "held":
        with Home(home).hold("rootstock serve"):
            result, code, told = run(*words), 1, "is in use by rootstock serve"
    elif what == "empty":
        result, code, told = run(empty, "--home", home), 2, "holds no *.zip and no folder"
    else:
        result, code, told = run(*words, "--foundation", "nowhere"), 2, "nowhere"
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (home / "registry.db").exists()


def test_who_stops_asking_keeps_what_was_told_and_gives_the_home_back(
    home: Path, bundles: Path, spec: FoundationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootstock.adapters.home.bulk_import._TOGETHER", 2)
    paths = [bundles / name for name in ("nothing.zip", "plain.zip", "whole.zip", "golden.zip")]
    with closing(import_bundles(paths, home, spec, Limits())) as outcomes:
        first, second = next(outcomes), next(outcomes)
    assert isinstance(first, SkippedBundle)
    assert second == ImportedBundle("plain.zip", "plain", 1, True)
    assert registered(home) == {"plain": (1, 1)}
    rest = list(import_bundles(paths[1:], home, spec, Limits()))
    assert [(o.name, o.created) for o in rest if isinstance(o, ImportedBundle)] == [
        ("plain", False),
        ("whole", True),
        ("golden", True),
    ]


def test_once_stopped_an_import_registers_and_tells_no_more(
    home: Path, bundles: Path, spec: FoundationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootstock.adapters.home.bulk_import._TOGETHER", 1)
    stopped, paths = Event(), [bundles / "plain.zip", bundles / "whole.zip"]
    for outcome in import_bundles(paths, home, spec, Limits(), stopped=stopped):
        assert outcome == ImportedBundle("plain.zip", "plain", 1, True)
        stopped.set()
    assert registered(home) == {"plain": (1, 1)}


def test_a_signal_at_any_moment_of_an_import_stops_it_between_two_steps(
    home: Path, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FolderStore.put

    def put(store: FolderStore, digest: str, data: bytes) -> None:
        real(store, digest, data)
        # From a worker, so that it finds the main thread wherever that is.
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(FolderStore, "put", put)
    monkeypatch.setattr("rootstock.adapters.home.bulk_import._THREADS", 1)
    result = run(bundles, "--home", home, "--json")
    told = {"imported": 0, "unchanged": 0, "skipped": [], "interrupted": True}
    assert (result.exit_code, json.loads(result.stdout)) == (130, told)
    assert registered(home) == {}
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_import_says_so_and_is_finished_by_the_same_command_without_torch(
    home: Path, bundles: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for i in range(101):
        os.link(bundles / "whole.zip", many / f"a-{i:03}.zip")
    # Whoever reads it waits for the writer, so that the interruption falls into the second hundred.
    blocking = many / "b.zip"
    os.mkfifo(blocking)
    program = (
        "import sys\nfrom rootstock.adapters.cli.adapter_commands import app\n"
        "try:\n    app(['import', *sys.argv[1:], '--json'])\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'peft', 'onnxruntime', 'service'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(many), "--home", str(home)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
        out, err = process.communicate(timeout=HANG)
        assert err == ""
        return process.returncode, json.loads(out)

    process = start()
    with blocking.open("wb"):
        process.send_signal(signal.SIGINT)
    told = {"imported": 100, "unchanged": 0, "skipped": [], "interrupted": True}
    assert ended(process) == (130, told)
    blocking.unlink()
    assert ended(start()) == (0, {**told, "imported": 1, "unchanged": 100, "interrupted": False})
    assert len(registered(home)) == 101
