"""The training of `auto` on few texts: upper layers, enough steps, and the states below computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import Job, prepare
from rootstock.training.network.construction import new_network
from rootstock.training.network.inputs import TokenInputs
from rootstock.training.network.kept_states import KeptStates
from rootstock.training.recipe.recipe_file import load_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("rows"),
]


@pytest.fixture
def job(write_recipe: Callable[..., Path]) -> Callable[..., Job]:
    def prepared(*changes: str) -> Job:
        few = {"contrastive_epochs": None}
        return prepare(load_recipe(write_recipe(training=few, peft={"target_modules": "all-linear"}), changes))

    return prepared


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        (["peft.method=auto"], {"1"}),
        (["peft.method=auto", "peft.layers_to_transform=[0]"], {"0"}),
        (["peft.method=lora"], {"0", "1"}),
        (["peft.method=auto", "training.contrastive_epochs=0"], {"0", "1"}),
    ],
)
def test_auto_changes_the_upper_half_of_the_layers_for_few_texts_unless_the_recipe_says_more(
    job: Callable[..., Job], changes: list[str], layers: set[str]
) -> None:
    assert {site.split(".")[2] for site in job(*changes).network.sites} == layers


@pytest.mark.parametrize(("epochs", "steps"), [("null", 32), ("5", 5)])
def test_few_rows_take_at_least_32_steps_unless_the_recipe_says_how_many(
    job: Callable[..., Job], epochs: str, steps: int
) -> None:
    made, totals = job(f"training.contrastive_epochs={epochs}"), set()
    plan = made.plan(lambda done, total, note: totals.add(total))
    with deterministic(0):
        train_candidate("lora", made.training_rows, plan)
    assert totals == {steps}


def test_the_states_of_a_row_are_computed_once_for_all_trainings_of_a_run(job: Callable[..., Job]) -> None:
    made = job("peft.method=auto")
    network = new_network(made.network, "lora", 0, torch.device("cpu"))
    network.train(False)
    rows = made.rows["train"]
    kept = KeptStates(rows, 0, torch.device("cpu"))
    first = kept.of(rows[3], network.trunk, network.spec, 1)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the trunk ran again")

    silent = torch.nn.Module()
    silent.forward = never
    part = cast(TokenInputs, made.encoder.inputs([rows[5], rows[3]]))
    assert part.keep_states(silent, network.spec, 1, known=kept.of)
    assert first is not None
    torch.testing.assert_close(part.states_of(1), first, rtol=0, atol=0)
    alone = cast(TokenInputs, made.encoder.inputs([rows[3]]))
    alone.keep_states(network.trunk, network.spec, 1)
    torch.testing.assert_close(alone.states_of(0), first)
    assert kept.of(made.rows["test"][0], silent, network.spec, 1) is None


class _CountedRows(list[Any]):
    """Rows that count how often somebody goes through them."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


def test_a_row_whose_states_are_kept_is_found_without_a_pass_over_the_others(job: Callable[..., Job]) -> None:
    made = job("peft.method=auto")
    network = new_network(made.network, "lora", 0, torch.device("cpu"))
    network.train(False)
    rows = _CountedRows(made.rows["train"])
    kept = KeptStates(rows, 0, torch.device("cpu"))
    kept.of(rows[0], network.trunk, network.spec, 1)
    before = rows.passes
    assert all(kept.of(rows[i], network.trunk, network.spec, 1) is not None for i in range(len(rows)))
    assert rows.passes == before


def test_the_pass_of_all_rows_through_the_frozen_layers_is_reported_once(job: Callable[..., Job]) -> None:
    made, told = job("peft.method=auto", "training.contrastive_epochs=1"), []

    def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
        told.append((done, total, note))

    plan = made.plan(preparing=report)
    with deterministic(0):
        for _ in range(2):
            train_candidate("lora", made.training_rows, plan)
    count = len(made.rows["train"]) + len(made.rows["validation"])
    shared = [(done, total) for done, total, note in told if note.startswith("all trainings: rows through")]
    assert shared[-1] == (count, count)
    assert shared == sorted(set(shared))
