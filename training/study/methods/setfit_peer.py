"""SetFit on the rows of a recipe, run by the Python of another environment that has it installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rootstock.training.data.example import Example
from rootstock.training.errors import RecipeError, TrainingError
from rootstock.training.recipe.recipe_file import RecipeFile

# The settings that SetFit's own guide uses for few rows: pairs of each row, once.
ITERATIONS, EPOCHS, BATCH = 10, 1, 16

# The script reads a JSON object and writes one as its last line. Neither environment imports the other.
_SCRIPT = """
import json, sys, time
job = json.load(sys.stdin)
import torch
torch.set_num_threads(job["threads"])
from setfit import SetFitModel, Trainer, TrainingArguments
from datasets import Dataset
start, worked = time.perf_counter(), time.process_time()
model = SetFitModel.from_pretrained(job["model"], device="cpu")
settings = TrainingArguments(
    num_iterations=job["iterations"], num_epochs=job["epochs"], batch_size=job["batch"], seed=job["seed"],
    show_progress_bar=False, report_to="none", output_dir=job["folder"],
)
trainer = Trainer(model=model, args=settings, train_dataset=Dataset.from_dict(job["train"]))
trainer.train()
seconds, worked = time.perf_counter() - start, time.process_time() - worked
answers = [int(answer) for answer in model.predict(job["test"])]
print(json.dumps({"answers": answers, "seconds": seconds, "processor_seconds": worked}))
"""


@dataclass(frozen=True)
class SetFitRun:
    """A training by SetFit: the share of right answers on the test rows, its seconds and processor seconds."""

    accuracy: float
    seconds: float
    processor_seconds: float


def check_setfit(python: Path, source: RecipeFile) -> None:
    """Raise TrainingError if there is no such program, and RecipeError for a recipe that SetFit cannot learn."""
    _program(python)
    if source.recipe.data.pair_column is not None:
        raise RecipeError(
            f"{source.path}: data.pair_column: SetFit reads one text a row, and the rows are pairs; leave out "
            "--setfit-python, or name another recipe"
        )


def run_setfit(
    python: Path,
    foundation: Path,
    train: Sequence[Example],
    test: Sequence[Example],
    labels: Sequence[str],
    folder: Path,
    seed: int = 0,
) -> SetFitRun:
    """Train SetFit from the same foundation on the same rows, and measure it on the same test rows.

    Raise TrainingError if that Python cannot be run or has no SetFit.
    """
    import torch

    job = {
        "model": str(foundation.absolute()),
        "train": {"text": [e.text for e in train], "label": [labels.index(e.labels[0]) for e in train]},
        "test": [e.text for e in test],
        "iterations": ITERATIONS,
        "epochs": EPOCHS,
        "batch": BATCH,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "folder": str(folder.absolute()),
    }
    command = [str(_program(python)), "-c", _SCRIPT]
    try:
        # The user names the interpreter, and the script is a constant.
        done = subprocess.run(  # noqa: S603
            command,
            input=json.dumps(job),
            capture_output=True,
            text=True,
            cwd=folder,
            env=_environment(),
            check=False,
        )
    except OSError as error:
        raise TrainingError(f"--setfit-python {python}: cannot be run: {error.strerror}; name a Python") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"--setfit-python {python}: SetFit failed: {last}; install setfit in its environment")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    right = sum(a == labels.index(e.labels[0]) for a, e in zip(result["answers"], test, strict=True))
    return SetFitRun(right / len(test), result["seconds"], result["processor_seconds"])


def _program(python: Path) -> Path:
    """Return the place of a program, which is named by its file or, without a folder, found on the PATH.

    The place is not resolved: the Python of an environment is a link, and its place tells it the environment.
    """
    found = python if python.is_file() else shutil.which(python)
    if found is None:
        raise TrainingError(f"--setfit-python {python}: cannot be run: No such file; name a Python")
    return Path(found).absolute()


def _environment() -> dict[str, str]:
    """Return this process's environment without the paths that this Python imports from."""
    import os

    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
