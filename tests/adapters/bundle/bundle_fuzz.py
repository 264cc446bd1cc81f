"""Read mutated and forged uploads, in a process with a limit on its addresses. Print the outcome as JSON.

`python bundle_fuzz.py COUNT SEED`
"""

from __future__ import annotations

import faulthandler
import gc
import io
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle
from rootstock.adapters.bundle.archive import open_archive
from rootstock.adapters.bundle.bundle_file import open_bundle_file
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.signing.signature import Signature
from rootstock.adapters.signing.statement import statement_of
from rootstock.adapters.spec import FoundationSpec, Rejected
from tests.adapters.bundle.bundle_mutations import BundleMutations, members_of
from tests.attacks.forge import good_files, plain_files, tiny_bert

DEMO = Path(__file__).parents[3] / "service" / "demo"
# The limits of a server, by default.
LIMITS = Limits()
# The most bytes of addresses beyond those of the libraries. An upload may unpack to 128 MiB, and its arrays come
# on top.
ADDRESSES = 2**30


def main(count: int, seed: int) -> None:
    """Read `count` uploads. Any error but Rejected ends the process with a traceback."""
    faulthandler.enable()
    # Some forged zips have a name twice on purpose.
    warnings.filterwarnings("ignore", "Duplicate name")
    with tempfile.TemporaryDirectory() as folder:
        tiny = describe(tiny_bert(Path(folder)))
    specs = {spec.fingerprint: spec for spec in (tiny, describe(locate("default")))}
    demo = [members_of(path.read_bytes()) for path in sorted(DEMO.glob("*.zip"))]
    # The tiny ones are read faster, and so are more frequent.
    mutations = BundleMutations(seed, [good_files(tiny), plain_files()] * 8 * len(demo) + demo)
    cap = _figure("VmSize") + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    outcomes: Counter[str] = Counter()
    slowest, before, began = 0.0, _figure("VmRSS"), time.process_time()
    _forget_the_peak()
    for i in range(count):
        data = mutations.next()
        started = time.process_time()
        try:
            outcomes[f"upload {_outcome(lambda data=data: _upload(data, specs))}"] += 1
            outcomes[f"stored {_outcome(lambda data=data: _stored(data))}"] += 1
        except BaseException:
            Path(f"bundle-{seed}-{i}.zip").write_bytes(data)
            raise
        if (took := time.process_time() - started) > slowest:
            slowest = took
            Path("slowest.zip").write_bytes(data)
        if i == min(count, 2000) // 2:
            gc.collect()
            warm = _figure("VmRSS"), len(os.listdir("/proc/self/fd"))
    gc.collect()
    report = {
        "outcomes": dict(sorted(outcomes.items())),
        "seconds": round(time.process_time() - began, 1),
        "slowest_seconds": round(slowest, 2),
        "peak_growth_mib": (_figure("VmHWM") - before) // 2**20,
        "kept_mib": (_figure("VmRSS") - warm[0]) // 2**20,
        "files_left_open": len(os.listdir("/proc/self/fd")) - warm[1],
    }
    print(json.dumps(report))


def _outcome(read: Callable[[], None]) -> str:
    try:
        read()
    except Rejected as error:
        # A message that cannot be sent would be a fault of the answer.
        f"{error.where}: {error.message}".encode()
        return error.check
    return "read"


def _upload(data: bytes, specs: dict[str, FoundationSpec]) -> None:
    """Read an upload as the server does: the zip, its signature, its bundle, its tensors, its golden set."""
    archive = open_archive(data, LIMITS)
    if archive.signature is not None:
        signature = Signature.read(archive.signature)
        signature.check(statement_of(archive, PlainFields()))
    first, *others = specs.values()
    bundle = open_bundle(archive, LIMITS, first)
    spec = next((o for o in others if o.fingerprint == bundle.manifest.foundation["fingerprint"]), first)
    bundle.adapter(spec, LIMITS.max_rank)
    bundle.golden()


def _stored(data: bytes) -> None:
    """Read a file of the store as the server does: without the values of its tensors, then as a whole."""
    with open_bundle_file(io.BytesIO(data), LIMITS) as bundle:
        bundle.describe()
        bundle.card()
        bundle.check()


def _forget_the_peak() -> None:
    """Let the peak of this process's memory begin again (`man 5 proc_pid_clear_refs`)."""
    Path("/proc/self/clear_refs").write_text("5")


def _figure(name: str) -> int:
    """Return a figure of this process's memory, in bytes. `getrusage` would count its parent's too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].removesuffix("kB")) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
