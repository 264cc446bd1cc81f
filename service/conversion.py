"""Uploads of a kind that is served as LoRA, converted in a separate process: this one imports no torch."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.spec import Rejected

# The process bounds its own computing too (adapters/convert/conversion.py). Importing PEFT takes part of it.
_SECONDS = 300.0


@dataclass(frozen=True)
class ConvertedFolder:
    """The plain LoRA folder that an upload became, as a zip, and what the version's record says of it."""

    data: bytes
    record: dict[str, Any]


class Converter:
    """Run adapters/convert/conversion.py, one upload at a time, each in a process that is killed after `seconds`.

    The process ends with this one, and of itself once it has computed for `seconds`.
    `foundation` is the setting that names the foundation, `rank` the largest rank of the result.
    """

    def __init__(self, foundation: str, rank: int, seconds: float = _SECONDS) -> None:
        self._foundation = foundation
        self._rank = rank
        self._seconds = seconds
        self._turn = asyncio.Lock()

    @property
    def available(self) -> bool:
        """Tell whether what converts is installed: serving itself needs neither torch nor PEFT."""
        return all(importlib.util.find_spec(name) for name in ("torch", "peft", "transformers"))

    async def convert(self, data: bytes, kind: str, task: str | None) -> ConvertedFolder:
        """Return the LoRA of a plain PEFT folder's zip.

        Raise Rejected as `rootstock.adapters.convert.conversion.convert`, with check "conversion" also
        where the process crashes or takes too long.
        """
        if not self.available:
            raise Rejected(
                "schema",
                f"{CONFIG}: peft_type",
                f"{kind!r} has to become LoRA first, for which this server lacks torch and peft; where they are, "
                "run: rootstock adapters convert FOLDER OUT.zip",
            )
        with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
            given, made = Path(folder, "in.zip"), Path(folder, "out.zip")
            await asyncio.to_thread(given.write_bytes, data)
            command = [str(given), str(made), "--foundation", self._foundation, "--rank", str(self._rank)]
            command += ["--seconds", str(self._seconds)]
            async with self._turn:
                code, said = await self._run(*command, *(() if task is None else ("--task", task)))
            answer = _last_object(said)
            if refused := answer.get("rejected"):
                raise Rejected(refused["check"], refused["where"], refused["message"])
            if code != 0 or "from" not in answer:
                message = f"converting this {kind} to LoRA ended with exit code {code}; do it before uploading"
                raise Rejected("conversion", WEIGHTS, message)
            return ConvertedFolder(await asyncio.to_thread(made.read_bytes), answer)

    async def _run(self, *arguments: str) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "rootstock.adapters.convert.conversion", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            async with asyncio.timeout(self._seconds):
                # `communicate` would close the standard input, which tells the process that this one is gone.
                said = b"" if process.stdout is None else await process.stdout.read()
                await process.wait()
        except TimeoutError:
            raise self._late() from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == -signal.SIGXCPU:
            raise self._late()
        return process.returncode, said

    def _late(self) -> Rejected:
        message = f"converting it to LoRA took longer than {self._seconds:g} s; convert it before uploading"
        return Rejected("conversion", WEIGHTS, message)


def _environment() -> dict[str, str]:
    """Return an environment without this server's keys, the network and the GPU, on one core."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROOTSTOCK_")}
    alone = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**kept, **alone, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


def _last_object(said: bytes) -> dict[str, Any]:
    """Return the JSON object in the last line; libraries may have written before it."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
