"""Bundles of models that other libraries saved: the outputs of the library, the measured difference, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
)

import rootstock.adapters
from rootstock.adapters.bundle import Bundle, Limits, PlainFields, open_bundle
from rootstock.adapters.bundle.archive import CONFIG, GOLDEN
from rootstock.adapters.errors import SourceError
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.sources.kinds import kind_of, open_source
from rootstock.adapters.sources.source_bundle import SourceBundle
from rootstock.adapters.spec import FoundationSpec
from tests.peft_adapters import close, tokenizer_of
from tests.reference_graft import grafted
from tests.tiny_models import LABELS, TEXTS, WIDTH, save_setfit, save_tuned_encoder, vectors


def classifier_outputs(folder: Path, texts: list[str]) -> np.ndarray:
    """Return the outputs of transformers for a whole classifier."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), tokenizer_of(folder)
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


def served_outputs(tiny: FoundationFiles, spec: FoundationSpec, bundle: Bundle, texts: list[str]) -> np.ndarray:
    """Return the outputs of a plain model with the bundle's updates as hooks."""
    adapter = bundle.adapter(spec, 64, FoundationWeights(tiny.folder, spec.model_type))
    model, tokenizer = grafted(tiny.folder, spec, adapter), tokenizer_of(tiny.folder)
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


def test_auto_takes_the_smallest_rank_that_keeps_the_outputs_of_a_whole_classifier(
    tiny: FoundationFiles,
    tiny_spec: FoundationSpec,
    tuned: Callable[..., Path],
    convert: Callable[..., SourceBundle],
) -> None:
    folder = tuned(rank=3)
    made = convert(folder, max_difference=1e-4, texts=TEXTS)
    assert made.figures["rank"] == 3
    assert made.figures["max_difference"] < 1e-4
    expected = classifier_outputs(folder, TEXTS)
    assert close(served_outputs(tiny, tiny_spec, made.bundle, TEXTS), expected)
    assert made.bundle.manifest.labels == tuple(LABELS)
    golden = made.bundle.golden()
    assert golden is not None
    assert close(np.stack(golden.outputs), expected)
    assert made.bundle.manifest.evaluation["conversion"]["max_difference"] == made.figures["max_difference"]


def test_no_smaller_rank_is_within_the_limit(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned(rank=8)
    differences = {
        rank: convert(folder, rank=rank, max_difference=10).figures["max_difference"] for rank in (1, 2, 4, 8)
    }
    limit = differences[4] * 1.001
    smallest = next(rank for rank, difference in differences.items() if difference <= limit)
    assert convert(folder, max_difference=limit).figures["rank"] == smallest
    with pytest.raises(SourceError, match="as a LoRA of rank 1 "):
        convert(folder, rank=1, max_difference=differences[1] / 2)


@pytest.mark.parametrize(
    ("auto", "names", "plain", "task"),
    [
        (AutoModelForTokenClassification, LABELS, None, "token-classification"),
        (AutoModelForQuestionAnswering, LABELS[:2], None, "question-answering"),
        (AutoModelForSequenceClassification, ["score"], PlainFields(task="text-ranking"), "text-ranking"),
    ],
)
def test_whole_models_of_other_tasks_keep_their_outputs(
    tuned: Callable[..., Path],
    convert: Callable[..., SourceBundle],
    auto: Any,
    names: list[str],
    plain: PlainFields | None,
    task: str,
) -> None:
    folder = tuned(task=auto, names=names)
    made = convert(folder, plain, texts=TEXTS, max_difference=1e-4)
    assert made.bundle.manifest.task == task
    golden = made.bundle.golden()
    assert golden is not None
    model, tokenizer = auto.from_pretrained(folder).eval(), tokenizer_of(folder)
    for text, output in zip(golden.inputs, golden.outputs, strict=True):
        given = (text,) if isinstance(text, str) else text
        with torch.no_grad():
            answer = model(**tokenizer(*given, return_tensors="pt"))
        if "start_logits" in answer:
            expected = torch.stack([answer.start_logits[0], answer.end_logits[0]], dim=-1)
        else:
            expected = answer.logits[0]
        assert close(output, expected.numpy())


def test_the_difference_is_that_of_the_outputs_of_the_two_models(
    tiny: FoundationFiles,
    tiny_spec: FoundationSpec,
    tuned: Callable[..., Path],
    convert: Callable[..., SourceBundle],
) -> None:
    folder = tuned(rank=8)
    made = convert(folder, rank=2, max_difference=10, texts=TEXTS)
    assert made.figures["rank"] == 2
    expected = classifier_outputs(folder, TEXTS)
    got = served_outputs(tiny, tiny_spec, made.bundle, TEXTS)
    share = float(np.abs(got - expected).max() / np.abs(expected).max())
    assert share == pytest.approx(made.figures["max_difference"], rel=1e-2)
    assert share > 1e-3


def test_a_change_that_a_lora_cannot_hold_counts_in_the_difference_and_is_named(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned(embeddings=0.002)
    made = convert(folder)
    assert made.figures["left_out"] == ["bert.embeddings.word_embeddings.weight"]
    assert 1e-4 < made.figures["max_difference"] <= 0.1


def test_a_model_that_differs_too_much_is_refused_and_the_message_names_the_parts(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned(embeddings=0.5)
    with pytest.raises(SourceError) as caught:
        convert(folder)
    said = str(caught.value)
    assert "and the limit is 0.1; each part alone: bert.embeddings.word_embeddings.weight by " in said
    assert ", rank 4 by " in said or ", rank 3 by " in said
    assert "--max-difference" in said


def test_the_trainer_s_other_files_are_ignored_and_listed(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    made = convert(tuned())
    assert made.kind == "whole checkpoint"
    trainer = ["optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json", "training_args.bin"]
    assert list(made.ignored) == trainer


def test_a_trainer_s_folder_with_checkpoints_alone_names_the_last(tuned: Callable[..., Path]) -> None:
    folder = tuned()
    runs = folder.parent / "run"
    for step in ("checkpoint-50", "checkpoint-500"):
        (runs / step).mkdir(parents=True)
        (runs / step / "config.json").write_text("{}")
    with pytest.raises(SourceError, match=r"holds 2 checkpoints and no model; give one of them, as .*point-500$"):
        open_source(runs, True, False)


def test_pickled_weights_are_refused(tuned: Callable[..., Path]) -> None:
    folder = tuned()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"pytorch_model.bin, a pickle, which is never read"):
        open_source(folder, True, False)


def test_labels_and_the_problem_type_may_be_given(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder, labels = tuned(), ("a", "b", "c")
    made = convert(folder, PlainFields(labels=labels, problem_type="multi_label_classification", max_length=20))
    manifest = made.bundle.manifest
    assert (manifest.labels, manifest.problem_type) == (labels, "multi_label_classification")
    assert manifest.preprocessing.max_length == 20
    with pytest.raises(SourceError, match="2 labels were given, and the model has 3 outputs"):
        convert(folder, PlainFields(labels=("a", "b")))


def test_a_model_of_another_size_is_refused(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle]
) -> None:
    config = BertConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=400,
        max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "other")
    with pytest.raises(
        SourceError, match=r"intermediate_size is 64 in .*other, and 48 in tiny: this is another model"
    ):
        convert(tmp_path / "other")


def test_a_model_with_another_tokenizer_is_refused(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SourceError, match="makes other tokens than that of tiny"):
        convert(folder)


def test_a_model_without_one_of_its_weights_is_refused(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned()
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match=r"layer.1.output.dense.weight is missing in"):
        convert(folder)


def test_a_class_that_the_foundation_does_not_serve_is_refused_with_those_that_it_serves(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMultipleChoice"]}))
    with pytest.raises(
        SourceError, match=r"is 'BertForMultipleChoice'; on tiny .* BertForSequenceClassification"
    ):
        convert(folder)


def test_a_tuned_model_of_sentence_transformers_embeds_as_it_does_itself(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle]
) -> None:
    folder = save_tuned_encoder(tiny.folder, tmp_path / "tuned")
    made = convert(folder, texts=TEXTS, max_difference=1e-4)
    manifest = made.bundle.manifest
    assert made.kind == "sentence-transformers model"
    assert (manifest.task, manifest.head.pooling) == ("feature-extraction", "cls")
    assert manifest.preprocessing.max_length == 40
    golden = made.bundle.golden()
    assert golden is not None
    assert close(np.stack(golden.outputs), vectors(folder, TEXTS))


def test_a_module_that_is_not_served_is_refused_by_name(tiny: FoundationFiles, tmp_path: Path) -> None:
    folder = save_tuned_encoder(tiny.folder, tmp_path / "tuned")
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode": "max", "embedding_dimension": WIDTH}))
    with pytest.raises(SourceError, match=r"1_Pooling/config.json: the pooling max is not served"):
        open_source(folder, True, False)


def test_a_setfit_model_with_a_tuned_body_answers_as_its_head_on_its_body(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle]
) -> None:
    body = save_tuned_encoder(tiny.folder, tmp_path / "body")
    folder = save_setfit(body, tmp_path / "setfit")
    made = convert(folder, trust=True, texts=TEXTS, max_difference=1e-4)
    head = joblib.load(folder / "model_head.pkl")
    golden = made.bundle.golden()
    assert golden is not None
    assert close(np.stack(golden.outputs), head.decision_function(vectors(body, TEXTS)).astype(np.float32))
    assert (made.kind, made.bundle.manifest.labels) == ("SetFit model", tuple(LABELS))
    assert made.bundle.manifest.head.kind == "linear"


def test_a_setfit_model_with_the_foundation_as_its_body_is_a_head_alone(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle]
) -> None:
    folder = save_setfit(tiny.folder, tmp_path / "setfit")
    made = convert(folder, trust=True)
    assert json.loads(made.bundle.files[CONFIG])["peft_type"] is None
    assert made.figures == {"rank": 0, "max_difference": 0.0, "left_out": []}


def test_setfit_s_pickle_is_not_opened_without_trust_and_a_skops_file_takes_its_place(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle]
) -> None:
    folder = save_setfit(tiny.folder, tmp_path / "setfit")
    with pytest.raises(
        SourceError, match=r"model_head.pkl is a pickle.*skops.io.dump\(estimator, 'model_head.skops'"
    ):
        convert(folder)
    trusted = convert(folder, trust=True)
    skops.io.dump(joblib.load(folder / "model_head.pkl"), folder / "model_head.skops")
    (folder / "model_head.pkl").write_bytes(b"not read")
    made = convert(folder)
    assert made.ignored == ("model_head.pkl",)
    assert made.bundle.files[GOLDEN] == trusted.bundle.files[GOLDEN]


def test_a_live_head_becomes_a_bundle_with_golden_outputs(tiny: FoundationFiles, tmp_path: Path) -> None:
    coef, intercept = np.random.default_rng(0).normal(size=(3, WIDTH)), [0.1, 0.2, 0.3]
    out = tmp_path / "topics.zip"
    bundle = rootstock.adapters.head(coef, intercept, LABELS, out, foundation=str(tiny.folder), texts=TEXTS)
    golden = bundle.golden()
    assert golden is not None
    assert golden.inputs == tuple(TEXTS)
    expected = SentenceTransformer(str(tiny.folder), device="cpu").encode(TEXTS) @ coef.T + intercept
    assert close(np.stack(golden.outputs), expected.astype(np.float32))
    assert bundle.to_zip() == out.read_bytes()


def test_a_head_on_features_of_another_width_is_refused(tiny: FoundationFiles) -> None:
    with pytest.raises(SourceError, match="reads 5 features, and an embedding of tiny has 32; fit it on the emb"):
        rootstock.adapters.head(np.ones((2, 5)), [0.0, 1.0], ["a", "b"], foundation=str(tiny.folder))


def test_an_adapter_s_folder_is_none_of_these(tmp_path: Path, tuned: Callable[..., Path]) -> None:
    assert kind_of(tuned()) == "whole checkpoint"
    (tmp_path / "tuned" / CONFIG).write_text("{}")
    assert kind_of(tmp_path / "tuned") is None
    assert kind_of(tmp_path) is None


def test_a_text_that_is_longer_than_the_longest_input_is_left_out(
    tiny_spec: FoundationSpec, tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    made = convert(tuned(), PlainFields(max_length=5), texts=["ok", "Where is my parcel?"])
    golden = open_bundle(made.bundle.to_zip(), Limits(), tiny_spec).golden()
    assert golden is not None
    assert golden.inputs == ("ok",)
    with pytest.raises(SourceError, match="every text is longer than 3 tokens"):
        convert(tuned(), PlainFields(max_length=3), texts=["Where is my parcel?"])
