"""The conversion of uploads of other PEFT kinds to LoRA, in a separate process: this one imports no torch."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.child_process import module_command, without_secrets
from rootstock.adapters.spec import Rejected

# The time limit of a conversion. The process limits its CPU time too (adapters/convert/conversion.py). Importing
# PEFT takes part of it.
_SECONDS = 300.0


@dataclass(frozen=True)
class ConvertedFolder:
    """The result of a conversion: a plain LoRA folder as a zip, and an entry for the version's record."""

    data: bytes
    record: dict[str, Any]


class Converter:
    """The converter of one foundation. It runs adapters/convert/conversion.py for one upload at a time.

    Each conversion has its own process, which is killed after `seconds`. The process also ends after `seconds` of
    CPU time, and with this process. `foundation` is the setting that names the foundation, `rank` the largest
    rank of the result, and `homes` the folders that hold converted foundations.
    """

    def __init__(self, foundation: str, rank: int, homes: Sequence[Path] = (), seconds: float = _SECONDS) -> None:
        self._foundation = foundation
        self._rank = rank
        self._homes = homes
        self._seconds = seconds
        self._turn = asyncio.Lock()

    @property
    def available(self) -> bool:
        """Tell whether torch, PEFT and transformers are installed, which only a conversion needs."""
        return all(importlib.util.find_spec(name) for name in ("torch", "peft", "transformers"))

    async def convert(self, data: bytes, kind: str, task: str | None) -> ConvertedFolder:
        """Return the LoRA form of the plain PEFT folder in a zip.

        Raise Rejected as `rootstock.adapters.convert.conversion.convert` does. The check is "conversion" if the
        process crashes or takes too long.
        """
        if not self.available:
            raise Rejected(
                "schema",
                f"{CONFIG}: peft_type",
                f"{kind!r} must be converted to LoRA, and this server lacks torch and peft; on a machine with "
                "both, run: rootstock adapters convert FOLDER OUT.zip",
            )
        with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
            source, target = Path(folder, "in.zip"), Path(folder, "out.zip")
            await asyncio.to_thread(source.write_bytes, data)
            command = [str(source), str(target), "--foundation", self._foundation, "--rank", str(self._rank)]
            command += ["--seconds", str(self._seconds), *(f"--home={home}" for home in self._homes)]
            async with self._turn:
                code, output = await self._run(*command, *(() if task is None else ("--task", task)))
            answer = _last_object(output)
            if refused := answer.get("rejected"):
                raise Rejected(refused["check"], refused["where"], refused["message"])
            if code != 0 or "from" not in answer:
                message = (
                    f"the conversion of {kind} to LoRA failed with exit code {code}; convert it before upload"
                )
                raise Rejected("conversion", WEIGHTS, message)
            return ConvertedFolder(await asyncio.to_thread(target.read_bytes), answer)

    async def _run(self, *arguments: str) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *module_command("rootstock.adapters.convert.conversion", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            async with asyncio.timeout(self._seconds):
                # Keep the standard input open: `communicate` would close it, and the process would end itself.
                output = b"" if process.stdout is None else await process.stdout.read()
                await process.wait()
        except TimeoutError:
            raise self._late() from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == -signal.SIGXCPU:
            raise self._late()
        return process.returncode, output

    def _late(self) -> Rejected:
        message = f"the conversion to LoRA took longer than {self._seconds:g} s; convert it before uploading"
        return Rejected("conversion", WEIGHTS, message)


def _environment() -> dict[str, str]:
    """Return an environment without this server's settings and secrets, offline, without a GPU, on one core."""
    public = without_secrets(os.environ)
    kept = {name: value for name, value in public.items() if not name.startswith("ROOTSTOCK_")}
    alone = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**kept, **alone, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


def _last_object(output: bytes) -> dict[str, Any]:
    """Return the JSON object in the last line of the output, or {}. Libraries may write lines before it."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
