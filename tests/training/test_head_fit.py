"""The head of few rows, beside scikit-learn's on transformers' own features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rootstock.adapters.spec import Array
from rootstock.training.fit import plan as plans
from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.fit.method import out_of_fold
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.recipe.recipe_file import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Rows whose label the words do not tell, under labels that are words of the foundation."""
    lines = [
        f"{text} {i},{label}"
        for i in range(6)
        for text, label in (("it was", "good_Ann"), ("the Bo", "bad-Rome"))
    ]
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def embedded(folder: Path, texts: Sequence[str]) -> Array:
    """The mean over each text's tokens, of length 1: knows nothing of ours."""
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    model = AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        ids = torch.tensor([tokenizer(text, padding=False)["input_ids"]])
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0)
        vectors.append((mean / mean.norm()).numpy())
    return np.stack(vectors)


@pytest.mark.usefixtures("colours")
@pytest.mark.parametrize("named", [True, False])
def test_of_few_rows_the_head_alone_is_a_logistic_regression_of_the_rows_and_of_the_labels_names(
    write_recipe: Callable[..., Path], tiny_bert: Path, named: bool
) -> None:
    job = prepare(
        load_recipe(
            write_recipe(
                training={"label_names": named, "contrastive_epochs": 1},
                data={"splits": {"test_size": 0.34, "val_size": 0.34}},
            )
        )
    )
    rows = job.rows["train"]
    fitted = train_candidate("head_only", TrainingRows(job.parts.train, rows), job.plan())
    texts = [example.text for example in job.parts.train]
    targets = [row.targets[0] for row in rows]
    if named:
        assert job.labels == ("bad-Rome", "good_Ann")
        texts, targets = [*texts, "bad Rome", "good Ann"], [*targets, 0, 1]
    wanted = LogisticRegression(C=10.0, max_iter=2000).fit(embedded(tiny_bert, texts), targets)
    test = [example.text for example in job.parts.test]
    probabilities = torch.from_numpy(np.stack(fitted.predict(job.inputs("test")))).softmax(-1)
    np.testing.assert_allclose(probabilities, wanted.predict_proba(embedded(tiny_bert, test)), atol=1e-4)


@pytest.mark.usefixtures("colours")
def test_two_labels_of_one_name_have_no_row_for_it(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("bad-Rome", "good-Ann"), encoding="utf-8")
    job = prepare(load_recipe(write_recipe(training={"contrastive_epochs": 1})))
    assert job.labels == ("good-Ann", "good_Ann")
    rows = TrainingRows(job.parts.train, job.rows["train"])
    unnamed = prepare(load_recipe(write_recipe(training={"contrastive_epochs": 1, "label_names": False})))
    pair = (job.plan(), unnamed.plan())
    outputs = [train_candidate("head_only", rows, plan).predict(job.inputs("test")) for plan in pair]
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.usefixtures("rows")
def test_a_fold_of_many_rows_is_trained_as_all_of_them_are(
    write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(load_recipe(write_recipe(training={"contrastive_epochs": None, "num_train_epochs": 1})))
    notes: list[str] = []
    rows = TrainingRows(job.parts.train, job.rows["train"])
    plan = job.plan(lambda done, total, note: notes.append(note))
    # Twenty rows of two labels are not few, the fifteen of a fold would be.
    monkeypatch.setattr(plans, "FEW", 10)
    out_of_fold("lora", rows, plan)
    assert notes
    assert not any("contrast" in note for note in notes)
    monkeypatch.setattr(plans, "FEW", 11)
    notes.clear()
    out_of_fold("lora", rows, plan)
    assert all("contrast" in note for note in notes)


@pytest.mark.usefixtures("rows")
def test_the_contrastive_stage_keeps_less_of_its_change_the_slower_its_average(
    write_recipe: Callable[..., Path],
) -> None:
    sizes = []
    for decay in (0.0, 0.9):
        settings = {"contrastive_epochs": 4, "ema_decay": decay, "learning_rate": 0.01}
        job = prepare(load_recipe(write_recipe(training=settings)))
        with deterministic(0):
            rows = TrainingRows(job.parts.train, job.rows["train"])
            candidate = train_candidate("lora", rows, job.plan())
        parameters = candidate.network.parameters()
        sizes.append(sum(float(p.detach().norm()) for n, p in parameters.items() if ".lora_B." in n))
    assert 0 < sizes[1] < sizes[0] / 2
