"""A method that some folds show to be hopeless: the run leaves it, and --force does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.training.data.split import FOLDS
from rootstock.training.errors import BelowBaseline
from rootstock.training.fit import method
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import Choice, choose
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.run import run

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def recipe(write_recipe: Callable[..., Path], tmp_path: Path) -> Path:
    """Rows that the head alone tells apart, and a rate at which LoRA forgets everything."""
    texts = [f"{word} {word} {i}" for i in range(60) for word in ("good", "bad")]
    lines = [f"{text},{'up' if 'good' in text else 'down'}" for text in texts]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    splits = {"test_size": 0.25, "val_size": 0.25, "seed": 1, "choose_by": "cross_validation"}
    training = {"learning_rate": 10.0, "num_train_epochs": 3}
    return write_recipe(data={"splits": splits}, training=training, peft={"choose_strength": False})


def chosen(recipe: Path, name: str, force: bool = False) -> Choice:
    job = prepare(load_recipe(recipe, [f"peft.method={name}"]))
    with deterministic(0):
        return choose(job.training_rows, job.plan(), 0.5, force)


def test_auto_leaves_a_hopeless_adapter_after_the_first_folds(recipe: Path) -> None:
    choice = chosen(recipe, "auto")
    assert choice.chosen.method == "head_only"
    other = choice.scores[-1]
    assert other.folds is not None
    assert other.folds < FOLDS
    assert len(other.held_out) < len(choice.rows) == len(choice.chosen.held_out)
    assert f"left it after fold {other.folds} of {FOLDS}" in choice.reason
    stated = choice.to_json()["candidates"][-1]
    assert stated["folds"] == other.folds
    assert stated["expected_gain"]["interval"][1] < 0.02
    assert stated["expected_gain"]["rows"] == len(other.held_out)


@pytest.mark.parametrize(("alpha", "folds"), [(2.0, 2), (1e-9, None)])
def test_a_decision_that_is_certain_enough_for_alpha_ends_after_half_of_the_folds(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, alpha: float, folds: int | None
) -> None:
    monkeypatch.setattr(method, "_CERTAIN", 1.0)
    job = prepare(load_recipe(recipe, ["training.learning_rate=1e-4", "training.num_train_epochs=1"]))
    with deterministic(0):
        alone = method.judge("head_only", job.training_rows, job.plan(), None)
        choice = choose(job.training_rows, job.plan(), alpha)
    other = choice.scores[-1]
    judged = 46 if folds else 90
    assert (other.folds, len(other.rows), len(other.held_out)) == (folds, judged, judged)
    places = [id(row) for row in alone.rows]
    at = [places.index(id(row)) for row in other.rows]
    assert at == sorted(set(at))


def test_a_named_method_that_is_expected_to_lose_is_refused_unless_forced(recipe: Path) -> None:
    with pytest.raises(BelowBaseline, match="expected to be worse than the head alone: expected gain −"):
        chosen(recipe, "lora")
    choice = chosen(recipe, "lora", force=True)
    assert choice.chosen.method == "lora"
    assert choice.chosen.folds is None
    assert len(choice.chosen.held_out) == len(choice.rows)


def test_a_run_whose_folds_end_early_states_so_and_keeps_its_adapter(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "_CERTAIN", 1.0)
    few = [
        "peft.method=lora",
        "training.learning_rate=1e-4",
        "training.num_train_epochs=1",
        "evaluation.alpha=0.99",
    ]
    done = run(load_recipe(recipe, few), tmp_path / "out")
    candidate = done.metrics["choice"]["candidates"][-1]
    assert candidate["folds"] == FOLDS // 2
    assert done.metrics["method"] == "lora"
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"The figures of lora are of the first {FOLDS // 2} folds" in report
