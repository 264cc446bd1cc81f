"""Which adapters a task takes: its class on the foundation, its labels, its problem type."""

from __future__ import annotations

import pytest

from rootstock.adapters.bundle import Limits, PlainFields, open_bundle, write_bundle
from rootstock.adapters.spec import GENERATION, TASKS, FoundationSpec, HeadSpec, Rejected
from rootstock.adapters.tasks import task_named
from tests.peft_adapters import PeftAdapter

NLI = ("contradiction", "neutral", "Entailment")


def plain(spec: FoundationSpec, saved: PeftAdapter, **fields: object) -> object:
    bundle = open_bundle(saved.zip(), Limits(), spec, PlainFields(**fields))  # type: ignore[arg-type]
    adapter = bundle.adapter(spec, 64)
    again = open_bundle(bundle.to_zip(), Limits(), spec)
    assert again.adapter(spec, 64).digest == adapter.digest
    return adapter.task, adapter.labels, adapter.problem_type, adapter.head.class_name


def test_every_task_for_text_but_generation_is_served_on_the_default_foundation(spec: FoundationSpec) -> None:
    texts = [task for task in TASKS if task_named(task).modality == "text"]
    assert spec.tasks == tuple(task for task in texts if task not in GENERATION)
    sequence = spec.class_for("text-classification")
    assert spec.class_for("text-ranking") == spec.class_for("zero-shot-classification") == sequence
    answers = spec.class_for("question-answering")
    assert answers.name == "BertForQuestionAnswering"
    assert answers.head == {"qa_outputs.weight": (2, 384), "qa_outputs.bias": (2,)}
    assert not any(name.startswith("bert.pooler") for name in answers.linears)


def test_a_foundation_without_a_class_serves_none_of_its_tasks(spec: FoundationSpec) -> None:
    content = spec.to_json()
    del content["classes"]["BertForSequenceClassification"]
    less = FoundationSpec.from_json(content)
    assert less.tasks == ("token-classification", "feature-extraction", "question-answering")
    with pytest.raises(Rejected, match="'text-ranking' is not served on"):
        less.class_for("text-ranking")


def test_a_plain_folder_takes_the_task_that_the_form_names(
    spec: FoundationSpec, peft_saved: dict[str, PeftAdapter]
) -> None:
    head = "BertForSequenceClassification"
    ranking = plain(spec, peft_saved["scalar"], task="text-ranking")
    assert ranking == ("text-ranking", ("LABEL_0",), "regression", head)
    nli = plain(spec, peft_saved["first"], task="zero-shot-classification", labels=NLI)
    assert nli == ("zero-shot-classification", NLI, None, head)


@pytest.mark.parametrize(
    ("kind", "fields", "check", "where", "said"),
    [
        ("first", {"task": "text-ranking"}, "labels", "labels", "3 labels; text-ranking takes from 1 to 1"),
        ("first", {"task": "zero-shot-classification"}, "labels", "labels", "begins with 'entail'"),
        ("scalar", {"task": "zero-shot-classification"}, "labels", "labels", "1 labels"),
        ("first", {"task": "question-answering"}, "sites", "qa_outputs.weight", "missing"),
        ("first", {"task": "question-answering", "labels": NLI}, "labels", "labels", "takes no labels"),
        ("scalar", {"task": "text-ranking", "problem_type": "single_label_classification"}, "schema", "prob", ""),
        ("scalar", {"task": "fill-mask"}, "schema", "task", "'fill-mask' is not served"),
    ],
)
def test_a_plain_folder_that_cannot_answer_the_task_is_refused(
    spec: FoundationSpec,
    peft_saved: dict[str, PeftAdapter],
    kind: str,
    fields: dict[str, object],
    check: str,
    where: str,
    said: str,
) -> None:
    with pytest.raises(Rejected) as raised:
        plain(spec, peft_saved[kind], **fields)
    assert raised.value.check == check
    assert where in raised.value.where
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("task", "change", "where"),
    [
        ("text-ranking", {"labels": ("a", "b")}, "id2label"),
        ("text-ranking", {"problem_type": None}, "problem_type"),
        ("text-ranking", {"problem_type": "single_label_classification"}, "problem_type"),
        ("zero-shot-classification", {"labels": ("entailment",)}, "id2label"),
        ("zero-shot-classification", {"labels": ("yes", "no")}, "id2label"),
        ("question-answering", {"labels": ("start", "end")}, "id2label"),
        ("question-answering", {"labels": (), "head": HeadSpec("linear")}, "head.kind"),
    ],
)
def test_a_manifest_that_does_not_fit_its_task_is_refused_by_its_key(
    spec: FoundationSpec, peft_saved: dict[str, PeftAdapter], task: str, change: dict[str, object], where: str
) -> None:
    made = open_bundle(peft_saved["scalar"].zip(), Limits(), spec, PlainFields())
    manifest = type(made.manifest)(
        **{**vars(made.manifest), "task": task, "problem_type": "regression", **change}
    )
    with pytest.raises(Rejected) as raised:
        open_bundle(write_bundle(manifest, made.files).to_zip(), Limits(), spec)
    assert raised.value.where == f"bundle.json: {where}"
