"""How much of a change is kept: what PEFT's own scaling gives, and chosen where methods are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import choose, final
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.metrics.expected_gain import expected_gains
from rootstock.training.metrics.gain_priors import GAIN_PRIORS
from rootstock.training.network.network import outputs
from rootstock.training.network.strength import STRENGTHS
from rootstock.training.recipe.recipe_file import load_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("rows"),
]


def test_at_half_its_change_a_network_embeds_as_peft_does_at_half_its_scaling(
    write_recipe: Callable[..., Path],
) -> None:
    job = prepare(load_recipe(write_recipe(training={"learning_rate": 0.05})))
    with deterministic(0):
        candidate = train_candidate("lora", TrainingRows(job.parts.train, job.rows["train"]), job.plan())
    network, test = candidate.network, job.inputs("test")
    assert candidate.line is not None
    assert network.head is not None
    whole, embedded = np.stack(outputs(network, test)), np.stack(outputs(network, test, "embed"))
    candidate.line.move(0)
    began = network.head.weight.detach().clone()
    candidate.line.move(0.5)
    halved, weight = np.stack(outputs(network, test, "embed")), network.head.weight.detach().clone()
    candidate.line.move(1)
    np.testing.assert_array_equal(np.stack(outputs(network, test)), whole)
    torch.testing.assert_close(weight, (began + network.head.weight) / 2)
    for module in cast(Any, network.model).modules():
        if hasattr(module, "lora_A"):
            module.scaling["default"] /= 2
    np.testing.assert_allclose(halved, np.stack(outputs(network, test, "embed")), atol=1e-6)
    assert np.abs(halved - embedded).max() > 1e-3


@pytest.mark.parametrize("contrast", [0, 4])
@pytest.mark.parametrize("choose_by", ["validation", "cross_validation"])
def test_the_strength_of_the_highest_gain_to_expect_is_kept_where_the_method_is_judged(
    write_recipe: Callable[..., Path], choose_by: str, contrast: int
) -> None:
    splits = {"test_size": 0.25, "val_size": 0.25, "seed": 1, "choose_by": choose_by}
    recipe = write_recipe(
        data={"splits": splits},
        peft={"choose_strength": True},
        training={"learning_rate": 0.05, "contrastive_epochs": contrast},
    )
    job = prepare(load_recipe(recipe))
    rows, plan = job.training_rows, job.plan()
    with deterministic(0):
        choice = choose(rows, plan, alpha=0.5, force=True)
        candidate = final(choice, rows, plan)
    judged = choice.chosen
    assert judged.method == "lora"
    assert judged.strength in STRENGTHS
    assert candidate.line is not None
    before = outputs(candidate.network, job.inputs("test"))
    candidate.line.move(judged.strength)
    np.testing.assert_array_equal(before, outputs(candidate.network, job.inputs("test")))
    if choose_by == "validation":
        held_out, validation = {}, job.inputs("validation")
        for strength in STRENGTHS:
            candidate.line.move(strength)
            held_out[strength] = candidate.predict(validation)
        alone = train_candidate("head_only", rows, plan).predict(validation)
        observed = job.encoder.problem.observe(alone, list(held_out.values()), rows.validation)
        gains = expected_gains(GAIN_PRIORS["few_texts" if contrast else "many_texts"], observed, STRENGTHS)
        assert judged.gain is not None
        assert judged.gain.mean == pytest.approx(max(gain.mean for gain in gains))
        assert judged.score == macro_f1(held_out[judged.strength], rows.validation, job.labels)
