"""A training run that is killed at any moment leaves no half of a bundle, and goes on to the same one."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec

_RECIPE = """
task_type: SEQ_CLS
name: killed
license: cc-by-4.0
description: A test.
data: {path: rows.csv}
peft: {method: lora, r: 4, target_modules: [query, value]}
training: {num_train_epochs: 8, contrastive_epochs: 0, max_length: 32}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Rows of four topics, beside a recipe."""
    topics = {
        "tea": ("kettle", "leaf"),
        "rail": ("train", "track"),
        "sky": ("cloud", "star"),
        "law": ("court", "judge"),
    }
    lines = [
        f"about a {word} number {i},{topic}"
        for topic, words in topics.items()
        for word in words
        for i in range(40)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
    return tmp_path / "recipe.yaml"


def command(recipe: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "rootstock.adapters.cli.console",
        "train",
        "run",
        str(recipe),
        "--force",
        "--output-dir",
        str(out),
    ]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_killed_at_ten_random_moments_end_with_the_digest_of_one_that_was_not(
    recipe: Path, tmp_path: Path, foundation: FoundationFiles, spec: FoundationSpec
) -> None:
    import time

    started = time.monotonic()
    subprocess.run(command(recipe, tmp_path / "whole"), check=True, capture_output=True)
    length = time.monotonic() - started
    whole = open_bundle((tmp_path / "whole" / "killed.zip").read_bytes(), Limits(), spec)
    chance = random.Random(7)
    out = tmp_path / "out"
    for _ in range(10):
        running = subprocess.Popen(command(recipe, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            running.wait(timeout=chance.uniform(0.2, 1.0) * length)
        running.kill()
        running.wait()
        if (out / "killed.zip").exists():
            assert open_bundle((out / "killed.zip").read_bytes(), Limits(), spec).digest == whole.digest
    subprocess.run(command(recipe, out), check=True, capture_output=True)
    assert open_bundle((out / "killed.zip").read_bytes(), Limits(), spec).digest == whole.digest
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
