"""Every cell of the matrix answers as PEFT does, alone and mixed with all others; every other cell is refused."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from rootstock.adapters import spec
from rootstock.adapters.bundle.kinds.methods import CONVERTED, NATIVE
from rootstock.adapters.spec import AdapterWeights, Rejected
from rootstock.adapters.tasks import task_named
from tests.parity.bench import INPUTS, Bench
from tests.parity.matrix import (
    ALONE,
    ARCHITECTURES,
    HEADS,
    KINDS,
    RUNNERS,
    SAME_OUTPUTS,
    TASKS,
    Cell,
    alone,
    cells,
    gap,
    is_slow,
    options,
    served,
)
from tests.parity.spans import answers
from tests.peft_adapters import PeftAdapter, close

BATCH = 48
LOW_RANK = ("head", "lora", "lora-all", "lora-patterns", "lora-top", "adalora")
# Each makes other demands on the graphs: all that an update may hold, less, and one token alone.
CHOICES: dict[str, Callable[[Cell], bool]] = {
    "everything": lambda _: True,
    "low-rank": lambda cell: cell.kind in LOW_RANK,
    "classifiers": lambda cell: TASKS[cell.task].peft == "SEQ_CLS",
}
Benches = Callable[[str], Bench]


def _marked(architecture: str, *rest: str) -> Any:
    """Return a parameter, which is slow if the architecture is."""
    return pytest.param(architecture, *rest, marks=[pytest.mark.slow] if ARCHITECTURES[architecture].slow else [])


def _cell(cell: Cell, *runner: str) -> Any:
    slow = is_slow(cell, *runner or ("torch",))
    return pytest.param(cell, *runner, marks=[pytest.mark.slow] if slow else [], id="-".join((*cell, *runner)))


every_architecture = pytest.mark.parametrize("architecture", [_marked(name) for name in ARCHITECTURES])
every_runner = pytest.mark.parametrize("runner", RUNNERS)


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benches]:
    threads = torch.get_num_threads()
    # Models as small as these are slower on more.
    torch.set_num_threads(1)
    yield functools.cache(lambda name: Bench(name, tmp_path_factory.mktemp(name)))
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("cell", "runner"), [_cell(cell, runner) for cell in served() for runner in RUNNERS])
def test_an_adapter_alone_answers_as_peft_does(cell: Cell, runner: str, benches: Benches) -> None:
    bench = benches(cell.architecture)
    one = bench.served(cell)
    for i, output in enumerate(bench.run(runner, [(one.adapter, i) for i in range(len(INPUTS))])):
        assert close(output, one.expected[i]), difference(output, one.expected[i])


@every_runner
@pytest.mark.parametrize(
    ("architecture", "task"), [_marked(name, task) for name in ARCHITECTURES for task in alone(name)]
)
def test_the_foundation_alone_answers_as_transformers_does(
    architecture: str, task: str, runner: str, benches: Benches
) -> None:
    bench = benches(architecture)
    one = bench.served(task)
    for i in range(len(INPUTS)):
        (output,) = bench.run(runner, [(one.adapter, i)])
        assert close(output, one.expected[i]), difference(output, one.expected[i])


@pytest.mark.parametrize(
    ("architecture", "task"), [(name, task.name) for task in ALONE.values() for name in task.gaps]
)
def test_a_task_that_the_foundation_cannot_answer_is_not_among_its_own(
    architecture: str, task: str, benches: Benches
) -> None:
    spec = benches(architecture).tiny.spec
    assert task not in spec.own_tasks
    assert list(spec.own_tasks) == alone(architecture)


@every_runner
@pytest.mark.parametrize("chosen", CHOICES)
@every_architecture
def test_mixed_adapters_on_few_inputs_answer_as_peft_does(
    architecture: str, chosen: str, runner: str, benches: Benches
) -> None:
    """Kinds, tasks, head sizes, lengths and the bare foundation in one batch, and each input many times."""
    bench = benches(architecture)
    mixed = [one for one in bench.everything() if isinstance(one.cell, str) or CHOICES[chosen](one.cell)]
    rows = [(one, i) for one in mixed for i in range(len(INPUTS))]
    random.Random(0).shuffle(rows)
    wrong = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        outputs = bench.run(runner, [(one.adapter, i) for one, i in batch])
        for (one, i), output in zip(batch, outputs, strict=True):
            if not close(output, one.expected[i]):
                wrong.append((one.cell, i, difference(output, one.expected[i])))
    assert not wrong


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        _marked(name, task)
        for name in ARCHITECTURES
        for task in ("token-classification", "question-answering")
        if gap(Cell(name, "lora", task)) is None
    ],
)
def test_spans_are_where_the_pipeline_finds_them(architecture: str, task: str, benches: Benches) -> None:
    """With the tokenizer that the architecture's checkpoints have, whatever it counts as part of a token."""
    for actual, wanted in answers(benches(architecture), task):
        assert [item | {"score": 0} for item in actual] == [item | {"score": 0} for item in wanted]
        assert [a["score"] for a in actual] == pytest.approx([w["score"] for w in wanted], abs=1e-4)


@every_architecture
def test_every_adapter_s_update_shows_in_its_answers(architecture: str, benches: Benches) -> None:
    """Without this, the tests above would pass for updates too small to see."""
    bench = benches(architecture)
    made = [one for one in bench.everything() if isinstance(one.cell, Cell)]
    updated = [one for one in made if one.adapter.weights.changes_trunk]
    assert len(updated) >= len(made) - len(TASKS)
    bare = [
        replace(a, digest=f"{a.digest} bare", weights=AdapterWeights({}, a.weights.head))
        for a in (one.adapter for one in updated)
    ]
    pairs = [(adapter, row) for adapter in bare for row in range(len(bench.rows))]
    outputs = iter(bench.run("onnx", pairs))
    for one in updated:
        assert max(np.abs(next(outputs) - answer).max() for answer in one.expected) > 1e-3, one.cell


@pytest.mark.parametrize(
    "architecture", [_marked(name) for name in ARCHITECTURES if name not in ("mpnet", "deberta-v2")]
)
def test_the_tolerance_is_twice_what_peft_differs_by_between_its_own_attentions(
    architecture: str, benches: Benches
) -> None:
    """transformers has one attention alone for MPNet and DeBERTa."""
    bench, cell = benches(architecture), Cell(architecture, "lora-all", "token-classification")
    fused = bench.oracle.answers(cell, bench.saved(cell).folder, bench.rows, attention="sdpa")
    for eager, other in zip(bench.served(cell).expected, fused, strict=True):
        assert 2 * np.abs(eager - other).max() < 1e-4


@pytest.mark.parametrize("cell", [_cell(c) for c in cells() if (why := gap(c)) and why.check])
def test_a_cell_that_cannot_be_is_refused_for_its_reason(cell: Cell, benches: Benches, tmp_path: Path) -> None:
    bench, why = benches(cell.architecture), gap(cell)
    assert why is not None
    folder = tmp_path / "adapter"
    if why.peft_refuses:
        with pytest.raises(ValueError, match=why.peft_refuses):
            bench.oracle.save(cell, folder)
        bench.oracle.save(cell._replace(kind="lora"), folder)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | options(cell)))
    else:
        bench.oracle.save(cell, folder)
    with pytest.raises(Rejected) as refused:
        bench.opened(cell, PeftAdapter(folder, cell.task, 0).zip())
    assert refused.value.check == why.check


NEEDED = [
    Cell(name, "lora", task)
    for name, architecture in ARCHITECTURES.items()
    for task, modules in architecture.heads.items()
    if not architecture.finds_heads
]


@pytest.mark.parametrize("cell", [_cell(cell) for cell in NEEDED])
def test_a_head_of_which_peft_saves_a_part_is_refused(cell: Cell, benches: Benches, tmp_path: Path) -> None:
    bench = benches(cell.architecture)
    bench.oracle.save(cell, tmp_path / "adapter", modules_to_save=None)
    with pytest.raises(Rejected) as refused:
        bench.opened(cell, PeftAdapter(tmp_path / "adapter", cell.task, 0).zip())
    assert refused.value.check == "sites"


def test_peft_s_class_for_question_answering_drops_token_types_unless_the_config_names_no_task(
    benches: Benches, tmp_path: Path
) -> None:
    """Why the oracle calls the model inside it, and what docs/compatibility.md advises."""
    bench, cell, row = benches("bert"), Cell("bert", "lora", "question-answering"), benches("bert").rows[2]
    bench.oracle.save(cell, tmp_path / "none", task_type=None, modules_to_save=["qa_outputs"])
    ids, types = torch.tensor([row.ids]), torch.tensor([row.type_ids])
    effects = []
    for folder in (bench.saved(cell).folder, tmp_path / "none"):
        model = PeftModel.from_pretrained(bench.oracle.base(cell), folder).eval()
        with torch.inference_mode():
            starts = [model(input_ids=ids, token_type_ids=given).start_logits[0] for given in (types, None)]
        effects.append(float((starts[0] - starts[1]).abs().max()))
    assert effects[0] == 0 < effects[1]
    adapter = bench.opened(cell, PeftAdapter(tmp_path / "none", cell.task, 0).zip())
    assert close(bench.run("onnx", [(adapter, 2)])[0][:, 0], starts[0].numpy())


def test_the_matrix_has_every_task_and_every_kind_that_is_served(benches: Benches) -> None:
    of_texts = {task for task in spec.TASKS if task_named(task).modality == "text"}
    assert {*TASKS, *SAME_OUTPUTS} == of_texts - set(spec.GENERATION)
    bert = benches("bert").tiny.spec
    for task, other in SAME_OUTPUTS.items():
        assert bert.class_for(task) is bert.class_for(other)
    kinds = {kind.peft for kind in KINDS.values()}
    assert {None, *NATIVE} < kinds
    assert kinds - {None, *NATIVE} <= set(CONVERTED)
    assert TASKS.keys() == HEADS.keys()


def difference(output: np.ndarray, expected: np.ndarray) -> str:
    if output.shape != expected.shape:
        return f"shape {output.shape}; PEFT gives {expected.shape}"
    return f"differs by {np.abs(output - expected).max():.1e} where PEFT gives up to {np.abs(expected).max():.1e}"
