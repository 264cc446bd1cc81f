"""The blocking and the asynchronous client do the same on a real server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.bundle import Limits
from rootstock.adapters.bundle.archive import open_archive
from rootstock.adapters.client.async_client import AsyncClient
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.composition.weighted_adapters import WeightedAdapters
from rootstock.adapters.client.errors import InvalidRequest, Misused, NotFound, RejectedBundle, StateConflict
from rootstock.adapters.client.predictions import (
    AnswerResult,
    ClassificationResult,
    EmbeddingResult,
    EntitiesResult,
    FillMaskResult,
    RelevanceResult,
    ZeroShotResult,
)
from rootstock.adapters.errors import UnknownVersion
from tests.live_server import RunningServer
from tests.peft_adapters import TEXTS, PeftAdapter

CONTEXT = "Ada Lovelace met Charles Babbage in London in June 1833."


@pytest.fixture
def client(live: RunningServer, open_client: Callable[[str], Any]) -> Any:
    return open_client(live.url)


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[tuple[str, Any]]]:
        public = {name: method for name, method in inspect.getmembers(kind, callable) if not name.startswith("_")}
        signatures = {name: inspect.signature(method).parameters for name, method in public.items()}
        return {
            name: [(p.name, p.default) for p in parameters.values()] for name, parameters in signatures.items()
        }

    # scikit-learn and transformers call what blocks.
    blocking = {name: of for name, of in methods(Client).items() if name not in ("classifier", "pipeline")}
    assert blocking == methods(AsyncClient)


def test_each_task_has_a_typed_result_that_says_what_answered(client: Any) -> None:
    question = {"question": "Who met Charles Babbage?", "context": CONTEXT}
    results = {
        "mood": client.predict("mood", "ok", ClassificationResult, top_k=None),
        "tags": client.predict("tags", CONTEXT, EntitiesResult, aggregation_strategy="simple"),
        "embedder": client.predict("embedder", "ok", EmbeddingResult),
        "qa": client.predict("qa", question, AnswerResult, top_k=2),
        "ranker": client.predict("ranker", {"text": "a", "text_pair": "b"}, RelevanceResult),
        "nli": client.predict("nli", "ok", ZeroShotResult, candidate_labels=["music", "history"]),
    }
    for name, result in results.items():
        shown = client.show(name)
        assert (result.version, result.digest) == (1, shown.versions[0].digest)
        assert shown.task == result.task
    mood = results["mood"]
    assert mood.scores.keys() == {"neutral", "glad", "angry"}
    assert (mood.label, mood.score) == max(mood.scores.items(), key=lambda item: item[1])
    assert sum(mood.scores.values()) == pytest.approx(1)
    for entity in results["tags"]:
        assert CONTEXT[entity.start : entity.end].lower().startswith(entity.word[:1])
    assert results["tags"][0] == next(iter(results["tags"]))
    answer = results["qa"]
    assert answer.answer == CONTEXT[answer.start : answer.end]
    assert [answer.score >= other.score for other in answer.others] == [True]
    assert results["nli"].scores.keys() == {"music", "history"}
    assert np.asarray(results["embedder"]).shape == results["embedder"].vector.shape
    filled = client.predict("foundation", "[MASK] is [MASK].", FillMaskResult, top_k=3)
    assert [len(mask) for mask in filled.masks] == [3, 3]


def test_a_result_of_another_task_is_refused_by_the_server(client: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.predict("mood", "ok", EntitiesResult)
    assert (caught.value.code, caught.value.param) == ("wrong_task", "task")
    assert caught.value.request_id


def test_many_inputs_have_the_results_of_single_ones(client: Any) -> None:
    texts = [*TEXTS * 3, "one more"]
    many = list(client.predict_many("mood", texts, ClassificationResult, batch=4, concurrency=3))
    assert len(many) == len(texts)
    for result, text in zip(many, texts, strict=True):
        alone = client.predict("mood", text, ClassificationResult)
        assert (result.label, result.digest) == (alone.label, alone.digest)
        assert result.score == pytest.approx(alone.score, abs=1e-4)


def test_labels_of_many_inputs_that_are_too_many_rows_are_split(client: Any) -> None:
    labels = [f"label {i}" for i in range(200)]
    results = list(client.predict_many("nli", TEXTS, ZeroShotResult, candidate_labels=labels))
    assert [len(result.scores) for result in results] == [200] * len(TEXTS)


def test_several_models_answer_one_call_and_one_may_fail(client: Any) -> None:
    mood, nobody, tags = client.fan_out(["mood", "nobody", "tags"], ["ok", "no"])
    assert [type(one) for one in mood] == [ClassificationResult] * 2
    assert [type(one) for one in tags] == [EntitiesResult] * 2
    assert (nobody.code, "nobody" in str(nobody)) == ("unknown_adapter", True)


def test_weighted_adapters_answer_as_one_with_the_head_that_is_named(client: Any) -> None:
    alone = client.predict("mood", TEXTS, ClassificationResult, top_k=None)
    parts = {"mood": 1.0, "embedder@1": 0.5}
    mixed = client.predict(WeightedAdapters(parts), TEXTS, ClassificationResult, top_k=None)
    assert [one.version for one in mixed] == [None] * len(TEXTS)
    assert mixed[0].digest != alone[0].digest
    assert [one.scores for one in mixed] != [one.scores for one in alone]
    many = list(client.predict_many(WeightedAdapters(parts), TEXTS, ClassificationResult, batch=2))
    assert [one.digest for one in many] == [mixed[0].digest] * len(TEXTS)
    vectors = client.embed(WeightedAdapters(parts, head="embedder@1"), TEXTS)
    assert vectors.shape == client.embed("embedder", TEXTS).shape
    with pytest.raises(InvalidRequest) as caught:
        client.predict(WeightedAdapters(parts, head="tags"), "ok")
    assert (caught.value.code, caught.value.param) == ("invalid_composition", "head")


def test_embeddings_are_an_array_with_a_row_for_each_text(client: Any) -> None:
    one, many = client.embed("embedder", TEXTS[0]), client.embed("embedder", TEXTS)
    assert (one.dtype, many.shape) == (np.float32, (len(TEXTS), *one.shape))
    assert np.allclose(many[0], one, atol=1e-4)
    for row, text in zip(many, TEXTS, strict=True):
        assert np.allclose(row, client.predict("embedder", text, EmbeddingResult).vector, atol=1e-4)


def test_documents_are_ranked_by_the_score_of_their_pair(client: Any) -> None:
    query = "Where is my parcel?"
    ranked = client.rerank("ranker", query, TEXTS, top_n=3)
    pairs = [{"text": query, "text_pair": text} for text in TEXTS]
    scores = [one.score for one in client.predict("ranker", pairs, RelevanceResult)]
    order = sorted(range(len(TEXTS)), key=lambda i: -scores[i])[:3]
    assert [one.index for one in ranked] == order
    assert [one.document for one in ranked] == [TEXTS[i] for i in order]
    assert {one.digest for one in ranked} == {client.show("ranker").versions[0].digest}


def test_an_adapter_is_published_moved_fetched_and_deleted(
    client: Any, saved: dict[str, PeftAdapter], tmp_path: Path
) -> None:
    # A number is not given again under a name, so that each client has its name.
    name = f"life-{type(client).__name__.lower()}"
    first = client.push(saved["mood"].folder, name)
    again = client.push(str(saved["mood"].folder), name)
    second = client.push(saved["nli"].folder, name, activate=False, labels=["a", "b", "c"])
    assert [first.version, again.version, second.version] == [1, 1, 2]
    assert client.show(name).live == 1
    assert client.promote(name, 2).alias == "live"
    assert client.predict(name, "ok", ClassificationResult).label in {"a", "b", "c"}
    assert client.rollback(name).version == 1
    with pytest.raises(StateConflict):
        client.rollback(name)
    assert client.share(name).shared
    assert not client.share(name, False).shared
    assert client.set_shadow(name, 2, 20).shadow == {"version": 2, "percent": 20}
    assert client.end_shadow(name).shadow is None
    limits = client.set_rule(name, max_disagreement=0.1, min_requests=20).rule
    assert client.rule(name).rule == limits
    assert (limits["max_disagreement"], limits["min_requests"], limits["max_p95_ratio"]) == (0.1, 20, None)
    assert client.remove_rule(name).rule is None
    client.promote(name, 2, "next")
    assert client.resolve(f"{name}@next") == (name, 2)
    assert client.resolve(f"{name}@{second.digest[:20]}") == (name, 2)
    described = client.describe(name, 2)
    assert (described["digest"], bool(described["description"]["labels"])) == (second.digest, True)
    with pytest.raises(UnknownVersion):
        client.resolve(f"{name}@nothing")
    got = client.pull(f"{name}@next", tmp_path)
    assert got.path == tmp_path / f"{name}-2.zip"
    assert got.size == got.path.stat().st_size
    assert "bundle.json" in open_archive(got.path.read_bytes(), Limits()).members
    with pytest.raises(StateConflict, match="next"):
        client.delete(name, 2)
    client.delete(name, 2, force=True)
    assert client.push(got.path, name, activate=False).digest == second.digest
    client.delete(name)
    with pytest.raises(NotFound):
        client.show(name)


def test_an_alias_is_split_and_a_request_key_decides_who_answers(
    client: Any, saved: dict[str, PeftAdapter]
) -> None:
    name = f"split-{type(client).__name__.lower()}"
    client.push(saved["mood"].folder, name)
    client.push(saved["nli"].folder, name, activate=False, labels=["a", "b", "c"])
    split = client.split(name, {2: 50})
    assert (split.name, split.alias, split.version, split.candidates) == (name, "live", 1, {2: 50.0})
    assert client.show(name).splits == {"live": {2: 50.0}}
    answers = {
        key: [client.with_request_key(key).predict(name, "ok", ClassificationResult).version for _ in range(2)]
        for key in map(str, range(20))
    }
    assert {tuple(versions) for versions in answers.values()} == {(1, 1), (2, 2)}
    with pytest.raises(StateConflict):
        client.delete(name, 2)
    assert client.end_split(name).version == 1
    assert client.show(name).splits == {}
    with pytest.raises(NotFound):
        client.end_split(name)
    with pytest.raises(Misused):
        client.with_request_key("line\nend")
    client.delete(name)


def test_a_bundle_that_fails_a_check_names_the_check(client: Any, saved: dict[str, PeftAdapter]) -> None:
    with pytest.raises(RejectedBundle) as caught:
        client.push(saved["mood"].folder, "wrong", labels=["one", "two"])
    assert (caught.value.status, caught.value.check) == (422, "labels")


def test_the_list_has_every_adapter_whatever_the_size_of_a_page(client: Any) -> None:
    names = [entry.name for entry in client.list(limit=2)]
    assert names == sorted({*names})
    assert {"embedder", "mood", "nli", "qa", "ranker", "tags"} <= {*names}


def test_the_server_is_ready_and_describes_itself(client: Any) -> None:
    client.wait("mood@1", timeout=30)
    assert client.model("mood")["task"] == "text-classification"
    assert {"mood", "tags"} <= {model["id"] for model in client.models()["data"]}
    assert client.limits()["max_inputs"] == 256
    assert "rootstock_batch_rows" in client.metrics()
