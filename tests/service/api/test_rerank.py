"""POST /v1/rerank ranks as sentence-transformers' CrossEncoder does with PEFT's model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch
from sentence_transformers import CrossEncoder

from rootstock.adapters.foundation.location import FoundationFiles
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter, merged, tokenizer_of

QUERY = "Where is my parcel?"
DOCUMENTS = [
    "It was due on Monday.",
    "ok",
    "The parcel is at the depot in Dorset Street.",
    "Ada met Babbage.",
    "",
]
LIMIT = 32


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    scalar = peft_saved["scalar"].zip()
    ranking = upload(client, "ranking", scalar, task="text-ranking", max_length=str(LIMIT))
    assert ranking.status_code == 201, ranking.text
    assert upload(client, "scalar", scalar, max_length=str(LIMIT)).status_code == 201


def rank(client: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"model": "ranking", "query": QUERY, "documents": DOCUMENTS, **changes}
    return client.post("/v1/rerank", json=body)


@pytest.fixture(scope="module")
def encoder(
    foundation: FoundationFiles, peft_saved: dict[str, PeftAdapter], tmp_path_factory: pytest.TempPathFactory
) -> CrossEncoder:
    folder = tmp_path_factory.mktemp("encoder")
    merged(foundation.folder, peft_saved["scalar"]).save_pretrained(folder)
    tokenizer_of(foundation.folder).save_pretrained(folder)
    return CrossEncoder(str(folder), max_length=LIMIT, device="cpu", local_files_only=True)


@pytest.mark.parametrize(("raw", "activation"), [(False, None), (True, torch.nn.Identity())])
@pytest.mark.parametrize("top_n", [None, 2, 99])
def test_documents_are_ranked_as_a_cross_encoder_ranks_them(
    client: httpx.Client, encoder: CrossEncoder, raw: bool, activation: Any, top_n: int | None
) -> None:
    wanted = encoder.rank(QUERY, DOCUMENTS, top_k=top_n, activation_fn=activation, show_progress_bar=False)
    expected = [
        {"index": w["corpus_id"], "relevance_score": pytest.approx(float(w["score"]), abs=1e-4)} for w in wanted
    ]
    assert rank(client, raw_scores=raw, top_n=top_n).json()["results"] == expected
    shown = rank(client, raw_scores=raw, top_n=top_n, return_documents=True).json()["results"]
    assert shown == [{**one, "document": {"text": DOCUMENTS[int(one["index"])]}} for one in expected]


def test_a_document_may_be_an_object_whose_other_fields_come_back_with_it(client: httpx.Client) -> None:
    objects = [{"text": text, "id": {"page": i}} for i, text in enumerate(DOCUMENTS)]
    shown = rank(client, documents=objects, return_documents=True).json()["results"]
    plain = rank(client).json()["results"]
    assert shown == [
        {**one, "relevance_score": pytest.approx(one["relevance_score"]), "document": objects[one["index"]]}
        for one in plain
    ]


def test_in_one_request_each_task_keeps_or_drops_an_empty_second_text_by_itself(client: httpx.Client) -> None:
    def tokens(**body: Any) -> int:
        answer = client.post("/v1/predict", json=body).json()
        return sum(one["usage"]["prompt_tokens"] for one in answer.get("results", [answer]))

    pair = {"text": QUERY, "text_pair": ""}
    alone = tokens(model="scalar", inputs=QUERY)
    assert tokens(model="scalar", inputs=pair) == alone
    assert tokens(model="ranking", inputs=pair) == alone + 1, "one more separator"
    assert tokens(models=["scalar", "ranking"], inputs=pair) == 2 * alone + 1


def test_documents_that_answer_equally_well_stay_in_their_order(client: httpx.Client) -> None:
    assert [r["index"] for r in rank(client, documents=["ok"] * 5).json()["results"]] == list(range(5))


def test_a_ranking_names_version_digest_tokens_and_times(
    client: httpx.Client, foundation: FoundationFiles
) -> None:
    answer = rank(client, model="ranking@1").json()
    pairs = tokenizer_of(foundation.folder)([QUERY] * len(DOCUMENTS), DOCUMENTS)["input_ids"]
    assert (answer["model"], answer["version"]) == ("ranking@1", 1)
    assert answer["usage"] == {"prompt_tokens": sum(map(len, pairs))}
    assert answer["timings"]["inference_ms"] > 0
    inputs = [{"text": QUERY, "text_pair": document} for document in DOCUMENTS]
    predicted = client.post("/v1/predict", json={"model": "ranking", "inputs": inputs}).json()
    assert (predicted["task"], predicted["digest"]) == ("text-ranking", answer["digest"])
    by_place = sorted(answer["results"], key=lambda result: int(result["index"]))
    assert predicted["predictions"] == [{"score": pytest.approx(r["relevance_score"])} for r in by_place]


def test_a_long_document_is_refused_by_its_field_unless_truncation_is_asked_for(
    client: httpx.Client, encoder: CrossEncoder
) -> None:
    documents = ["ok", "word " * 2 * LIMIT]
    answer = rank(client, documents=documents)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("input_too_long", "documents")
    wanted = encoder.rank(QUERY, documents, show_progress_bar=False)
    assert rank(client, documents=documents, truncation=True).json()["results"] == [
        {"index": w["corpus_id"], "relevance_score": pytest.approx(float(w["score"]), abs=1e-4)} for w in wanted
    ]


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "scalar"}, 422, "wrong_task", "model"),
        ({"model": "foundation"}, 422, "wrong_task", "model"),
        ({"model": "nobody"}, 404, "unknown_adapter", None),
        ({"documents": ["x"] * 257}, 413, "request_too_large", "documents"),
        ({"documents": []}, 422, "invalid_request", "documents"),
        ({"documents": ["x", 3]}, 422, "invalid_request", "documents.1"),
        ({"documents": ["x", {"title": "x"}]}, 422, "invalid_request", "documents.1"),
        ({"documents": [{"text": 3}]}, 422, "invalid_request", "documents.0"),
        ({"documents": "x"}, 422, "invalid_request", "documents"),
        ({"top_n": 0}, 422, "invalid_request", "top_n"),
        ({"query": None}, 422, "invalid_request", "query"),
        ({"top_k": 1}, 422, "invalid_request", "top_k"),
    ],
)
def test_a_ranking_that_cannot_be_made_is_refused_by_its_field(
    client: httpx.Client, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = rank(client, **change)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
