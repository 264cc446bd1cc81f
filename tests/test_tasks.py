"""One table of tasks: each room's own list of tasks agrees with it."""

from __future__ import annotations

from typing import get_args

import pytest
from peft import TaskType as PeftTaskType

from rootstock.adapters import spec
from rootstock.adapters.bundle.manifest import UNLABELLED
from rootstock.adapters.tasks import TASK_OF_TYPE, TASKS, task_named
from rootstock.service.engine.encode.tasks import TASKS as PIPELINES
from rootstock.training.recipe.recipe import TaskType


def test_the_server_has_a_pipeline_for_each_task_of_one_pass_and_for_nothing_else() -> None:
    assert list(PIPELINES) == [task.name for task in TASKS if task.name not in spec.GENERATION]


def test_a_task_without_a_head_of_an_adapter_is_the_foundation_s_own() -> None:
    assert [task.name for task in TASKS if not task.heads] == [spec.FILL_MASK]
    assert set(UNLABELLED) < set(spec.TASKS)


def test_every_type_of_the_table_is_one_of_peft_s() -> None:
    assert set(TASK_OF_TYPE) <= {kind.value for kind in PeftTaskType}


@pytest.mark.parametrize("task_type", get_args(TaskType))
def test_a_recipe_s_task_type_means_a_task_that_bears_it(task_type: str) -> None:
    # PEFT has no types for tasks on images and recordings. A recipe names these tasks themselves.
    task = task_named(TASK_OF_TYPE.get(task_type, task_type))
    assert task.peft_type == (task_type if task_type in TASK_OF_TYPE else None)
    assert task.heads


def test_of_tasks_that_share_a_peft_type_the_first_is_meant() -> None:
    assert TASK_OF_TYPE["SEQ_CLS"] == "text-classification"
