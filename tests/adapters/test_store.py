"""The store in a folder keeps bytes whole or not at all; test_store_rules.py has what holds of every store."""

import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rootstock.adapters.errors import InvalidDigest, StoreFull
from rootstock.adapters.store.folder import FolderStore

ONE = "sha256:" + "1a" * 32
TWO = "sha256:" + "2b" * 32


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_what_was_put_is_got_back_also_after_a_restart(tmp_path: Path) -> None:
    FolderStore(tmp_path / "deep" / "store").put(ONE, b"bytes")
    assert FolderStore(tmp_path / "deep" / "store").get(ONE) == b"bytes"


def test_a_bundle_lies_under_the_first_two_digits_of_its_digest(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(ONE, b"bytes")
    assert files(tmp_path) == [f"1a/{'1a' * 32}.zip"]
    assert store.path(ONE).read_bytes() == b"bytes"


def test_putting_the_same_bytes_again_leaves_the_file_alone(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(ONE, b"bytes")
    before = store.path(ONE).stat()
    store.put(ONE, b"bytes")
    assert store.path(ONE).stat().st_ino == before.st_ino
    assert store.path(ONE).stat().st_mtime_ns == before.st_mtime_ns


def test_putting_again_mends_a_damaged_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(ONE, b"bytes")
    store.path(ONE).write_bytes(b"bytez")
    store.put(ONE, b"bytes")
    assert store.get(ONE) == b"bytes"


def test_only_bundles_are_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for digest in (TWO, ONE):
        store.put(digest, b"bytes")
    (tmp_path / "1a" / "notes.zip").write_bytes(b"")
    (tmp_path / "1a" / f"{'3c' * 32}.zip").write_bytes(b"")
    (tmp_path / "README").write_bytes(b"")
    assert list(store.digests()) == [ONE, TWO]


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "1a" * 32,
        "sha256:" + "1A" * 32,
        "sha256:" + "1a" * 31,
        "sha256:" + "1a" * 32 + "\n",
        "sha256:../../../../../etc/passwd",
        "sha256:" + "/../" * 16,
        "sha256:" + "\0" * 64,
        "sha256:" + "١" * 64,
    ],
)
def test_no_digest_leads_out_of_the_folder(tmp_path: Path, digest: str) -> None:
    store = FolderStore(tmp_path / "store")
    for use in (store.path, store.get, store.delete, lambda text: store.put(text, b"bytes")):
        with pytest.raises(InvalidDigest):
            use(digest)
    assert files(tmp_path) == []


def test_opening_sweeps_what_an_interrupted_write_left_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from rootstock.adapters.store.folder import FolderStore\n"
        # The file is written and has its name not yet.
        "os.fsync = lambda file: os._exit(9)\n"
        "FolderStore(Path(sys.argv[1])).put(sys.argv[2], bytes(1000))\n"
    )
    FolderStore(tmp_path).put(TWO, b"bytes")
    assert subprocess.run([sys.executable, "-c", script, tmp_path, ONE], check=False).returncode == 9
    assert len(files(tmp_path)) == 2
    assert list(FolderStore(tmp_path).digests()) == [TWO]
    assert files(tmp_path) == [f"2b/{'2b' * 32}.zip"]


def test_a_write_survives_another_process_opening_the_store(tmp_path: Path) -> None:
    store, done = FolderStore(tmp_path), threading.Event()

    def open_again_and_again() -> None:
        while not done.is_set():
            FolderStore(tmp_path)
            done.wait(0.001)

    opener = threading.Thread(target=open_again_and_again)
    opener.start()
    try:
        for number in range(40):
            store.put(f"sha256:{number:064x}", bytes(10_000))
    finally:
        done.set()
        opener.join()
    assert len(list(store.digests())) == 40


def test_readers_never_see_part_of_a_bundle(tmp_path: Path) -> None:
    store, versions = FolderStore(tmp_path), [bytes([number]) * 300_000 for number in range(2)]
    store.put(ONE, versions[0])
    writer = threading.Thread(target=lambda: [store.put(ONE, versions[number % 2]) for number in range(20)])
    writer.start()
    while writer.is_alive():
        assert store.get(ONE) in versions
    writer.join()


def test_a_write_that_the_system_cuts_short_leaves_nothing_and_the_old_bytes_stay(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(TWO, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for digest in (ONE, TWO):
            with pytest.raises(StoreFull) as full:
                store.put(digest, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.code == "store_full"
    assert files(tmp_path) == [f"2b/{'2b' * 32}.zip"]
    assert store.get(TWO) == b"old"


FULL_DISK = """
import sys
from pathlib import Path
from rootstock.adapters.errors import StoreFull
from rootstock.adapters.store.folder import FolderStore

root = Path(sys.argv[1])
store = FolderStore(root)
store.put("sha256:" + "2b" * 32, b"old")
try:
    store.put("sha256:" + "1a" * 32, bytes(200_000))
except StoreFull as full:
    assert "No space left" in str(full), full
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["2b" * 32 + ".zip"]
    print("full")
"""


def test_a_full_disk_is_said_to_be_full_and_nothing_is_left_behind(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=64k small "{tmp_path}"'
    try:
        subprocess.run(["unshare", "-Urm", "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs user namespaces")
    ran = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f'{mount} && exec "$0" -c "$1" "{tmp_path}"', sys.executable, FULL_DISK],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "full\n", ran.stderr
