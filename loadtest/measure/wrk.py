"""HTTP load from wrk: a script that cycles over requests, and the figures of one run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MISSING = (
    "wrk is not on PATH; it generates the HTTP load. Install it: `apt-get install wrk` (Debian, Ubuntu), "
    "`brew install wrk` (macOS), or from https://github.com/wg/wrk"
)
_MARK = "rootstock-result "
_SCRIPT = """-- Sends the bodies in turn, over any free connection.
local path = {path}
local bodies = {{{bodies}}}
local expected = {{{expected}}}
local requests, nextone = {{}}, 0
wrong = 0

local threads = {{}}
function setup(thread) table.insert(threads, thread) end

function init(args)
  local headers = {{ ["Content-Type"] = "application/json" }}
  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", path, headers, body) end
end

function request()
  nextone = nextone % #requests + 1
  return requests[nextone]
end
{check}
function done(summary, latency, all)
  local mistaken = 0
  for _, thread in ipairs(threads) do mistaken = mistaken + thread:get("wrong") end
  local e = summary.errors
  io.write(string.format(
    '\\n{mark}{{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"wrong":%d,"p50_ms":%.3f,"p99_ms":%.3f}}\\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout, mistaken,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""
# A check of every answer in Lua costs the load generator time, so that only untimed runs do it.
_CHECK = """
function response(status, headers, body)
  local parts = expected[body:match('"model":"([^"]*)"') or ""]
  if parts == nil then wrong = wrong + 1 return end
  for _, part in ipairs(parts) do
    if not body:find(part, 1, true) then wrong = wrong + 1 return end
  end
end
"""


class LoadError(Exception):
    """A run without usable figures: wrk is missing or failed, or the server gave errors or wrong answers."""


@dataclass(frozen=True)
class Load:
    """The figures of one wrk run. Latencies are in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Return the requests a second."""
        return self.requests / self.seconds


def find_wrk() -> str:
    """Return the path of wrk. Raise LoadError, which says how to install it, if there is none."""
    path = shutil.which("wrk")
    if path is None:
        raise LoadError(MISSING)
    return path


def script(path: str, bodies: Sequence[bytes], expected: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a wrk script that posts the bodies to `path` in turn.

    With `expected` (model → texts that its answers must hold) the script checks every answer too.
    """
    models = ", ".join(
        f"[{_literal(model.encode())}] = {{{', '.join(_literal(p.encode()) for p in parts)}}}"
        for model, parts in (expected or {}).items()
    )
    return _SCRIPT.format(
        path=_literal(path.encode()),
        bodies=", ".join(_literal(body) for body in bodies),
        expected=models,
        check=_CHECK if expected else "",
        mark=_MARK,
    )


def load(url: str, lua: str, connections: int, seconds: int) -> Load:
    """Load a server for whole seconds from one thread. Raise LoadError unless every answer was good."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "load.lua"
        file.write_text(lua, encoding="ascii")
        command = [
            find_wrk(),
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "30s",
            "-s",
            str(file),
            url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode != 0 or len(lines) != 1:
        raise LoadError(f"wrk failed with exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    figures = json.loads(lines[0].removeprefix(_MARK))
    faults = {name: figures[name] for name in ("refused", "broken", "wrong") if figures[name]}
    if faults or not figures["requests"]:
        raise LoadError(f"wrk counted {faults or 'no answers'} of {figures['requests']} answers")
    return Load(figures["requests"], figures["seconds"], figures["p50_ms"], figures["p99_ms"])


def _literal(data: bytes) -> str:
    """Return the bytes as a Lua string: all but plain ASCII as decimal escapes."""
    plain = b'"\\'
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in plain else f"\\{b:03d}" for b in data) + '"'
