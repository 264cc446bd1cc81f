"""A trunk that starts at the first layer that changes gives what the whole trunk gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.job import Job, prepare
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.network.construction import new_network
from rootstock.training.network.files import load, save
from rootstock.training.network.inputs import TokenInputs
from rootstock.training.network.network import outputs, start_at_states
from rootstock.training.recipe.recipe_file import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def job_on(write_recipe: Callable[..., Path], foundation: Path, **changes: Any) -> Job:
    peft = {"target_modules": "all-linear", **changes.pop("peft", {})}
    return prepare(load_recipe(write_recipe(base_model=str(foundation), peft=peft, **changes)))


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_starting_at_a_layer_gives_the_states_of_the_whole_trunk(
    write_recipe: Callable[..., Path], tiny_bert: Path, depth: int
) -> None:
    job = job_on(write_recipe, tiny_bert)
    network = new_network(job.network, "lora", 0, job.encoder.device)
    network.depth = depth
    inputs = job.inputs("train")
    whole = outputs(network, inputs, "states")
    start_at_states(network, [inputs])
    assert network.from_layer is not None
    assert inputs.states is not None
    for ours, transformers in zip(outputs(network, inputs, "states"), whole, strict=True):
        np.testing.assert_allclose(ours, transformers, atol=1e-5)


@pytest.mark.usefixtures("sentences")
def test_tokens_are_labelled_alike_from_a_layer_and_from_the_ids(
    write_recipe: Callable[..., Path], tiny_bert: Path
) -> None:
    job = job_on(write_recipe, tiny_bert, task_type="TOKEN_CLS", data={"path": "sentences.conll"})
    network = new_network(job.network, "lora", 0, job.encoder.device)
    network.depth = 1
    inputs = job.inputs("train")
    whole = outputs(network, inputs)
    start_at_states(network, [inputs])
    for ours, transformers in zip(outputs(network, inputs), whole, strict=True):
        np.testing.assert_allclose(ours, transformers, atol=1e-5)


@pytest.mark.usefixtures("rows")
def test_with_its_adapter_off_the_foundation_is_bit_for_bit_what_it_was(
    write_recipe: Callable[..., Path], tiny_bert: Path
) -> None:
    from transformers import AutoModel

    job = job_on(write_recipe, tiny_bert, training={"learning_rate": 0.05})
    rows = TrainingRows(job.parts.train, job.rows["train"])
    network = train_candidate("lora", rows, job.plan()).network
    batch = job.inputs("test").batch(range(4))
    arguments = batch.arguments(job.network.foundation)
    trained: Any = network.model
    before = AutoModel.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        changed = network.trunk(**arguments).last_hidden_state
        with trained.disable_adapter():
            off = network.trunk(**arguments).last_hidden_state
        assert not torch.allclose(changed, off, atol=1e-3)
        assert torch.equal(off, before(**arguments).last_hidden_state)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("method", ["lora", "dora", "ia3", None])
def test_a_saved_adapter_answers_as_the_network_it_was_saved_from(
    write_recipe: Callable[..., Path], tiny_bert: Path, tmp_path: Path, method: str | None
) -> None:
    job = job_on(write_recipe, tiny_bert)
    network = new_network(job.network, method, 0, job.encoder.device)
    with torch.no_grad():
        for parameter in network.parameters().values():
            parameter.normal_(std=0.1)
    inputs = job.inputs("test")
    answers = outputs(network, inputs)
    save(network, job.network, tmp_path)
    reloaded = load(tmp_path, job.network)
    for ours, saved in zip(outputs(reloaded, inputs), answers, strict=True):
        np.testing.assert_allclose(ours, saved, atol=1e-5)


def test_padding_changes_no_row() -> None:
    from rootstock.training.data.encoding import TokenRow

    rows = [TokenRow(tuple(range(1, n + 1)), (0,), (0,) * n) for n in (3, 7, 5)]
    batch = TokenInputs(rows, 9, torch.device("cpu")).batch([2, 0])
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 9, 9]]
    assert batch.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
