"""A foundation that generates also classifies, tags, ranks and embeds with the adapters that PEFT saved."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.bundle.golden import Golden
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.adapters.spec import FoundationSpec, Preprocessing
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter, close, peft_model, save_adapter, tokenizer_of
from tests.service.engine.generate.families import END, make_decoder

TEXTS = ("Where is my parcel?", "ok", "The left ear cup broke within a week of careful use.")
QUERY = "How long is the way?"
PREFIX = "Instruct: find the answer\nQuery: "
LABELS = {"0": "negative", "1": "positive", "2": "mixed"}
# By name: task type, labels, the options of the kind, and the form fields.
UPLOADS: dict[str, tuple[str, int, dict[str, Any], dict[str, str]]] = {
    "mood": ("SEQ_CLS", 3, {"target_modules": "all-linear"}, {}),
    "topic": ("SEQ_CLS", 2, {"target_modules": ["v_proj"], "use_dora": True}, {"labels": '["a", "b"]'}),
    "rank": ("SEQ_CLS", 1, {"target_modules": ["q_proj", "v_proj"]}, {"task": "text-ranking"}),
    "tags": ("TOKEN_CLS", 4, {"target_modules": ["up_proj"]}, {}),
    "embed": ("FEATURE_EXTRACTION", 0, {"target_modules": ["q_proj", "v_proj"]}, {}),
    "speak": ("CAUSAL_LM", 0, {"target_modules": ["q_proj", "v_proj"]}, {}),
}


@dataclass(frozen=True)
class Hosted:
    """A server of one foundation that generates, and the adapters of UPLOADS on it."""

    folder: Path
    spec: FoundationSpec
    saved: dict[str, PeftAdapter]
    server: RunningServer

    def oracle(self, name: str, *texts: str) -> np.ndarray:
        """Return PEFT's output for a text or a pair, tokenised as transformers does by default."""
        ids = tokenizer_of(self.folder)(*texts).input_ids
        with torch.no_grad():
            out = peft_model(self.folder, self.saved[name])(input_ids=torch.tensor([ids]))
        if "logits" in out:
            return np.asarray(out.logits[0])
        vector = out.last_hidden_state[0, -1]
        return np.asarray(vector / vector.norm())

    def golden(self, name: str, texts: tuple[str, ...], prefix: str = "", wrong: float = 0.0) -> bytes:
        """Return an upload as a bundle with a golden set of PEFT's outputs."""
        plain = open_bundle(self.saved[name].zip(), Limits(), self.spec)
        outputs = [self.oracle(name, prefix + text) + np.float32(wrong) for text in texts]
        manifest = replace(plain.manifest, preprocessing=Preprocessing(64, prefix=prefix))
        golden = Golden(texts, tuple(outputs))
        return write_bundle(manifest, {**plain.files, GOLDEN: golden.to_bytes()}).to_zip()


def _with_config(data: bytes, labels: dict[str, str]) -> bytes:
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("config.json", json.dumps({"model_type": "qwen3", "id2label": labels}))
    return out.getvalue()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    root = tmp_path_factory.mktemp("root")
    folder = make_decoder("qwen3", root / "tiny").folder
    # Qwen3-Embedding's tokenizer appends its end token to each text.
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    saved = {
        name: save_adapter(folder, root / name, task, seed, labels, **kind)
        for seed, (name, (task, labels, kind, _)) in enumerate(UPLOADS.items())
    }
    settings = Settings(
        home=root / "home", foundation=str(folder), demo=False, log_level="error", slots=4, threads=1, pin="mood"
    )
    with run_server(settings) as running, running.client() as client:
        for name, (_, _, _, fields) in UPLOADS.items():
            data = saved[name].zip()
            answer = upload(client, name, _with_config(data, LABELS) if name == "mood" else data, **fields)
            assert answer.status_code == 201, answer.text
        yield Hosted(folder, describe(locate(str(folder))), saved, running)


@pytest.fixture
def client(hosted: Hosted) -> Iterator[httpx.Client]:
    with hosted.server.client() as client:
        yield client


def _answer(client: httpx.Client, route: str, **body: Any) -> Any:
    answer = client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(logits) / np.exp(logits).sum())


def test_texts_are_classified_and_ranked_and_embedded_while_others_are_generated(
    hosted: Hosted, client: httpx.Client
) -> None:
    def chat(_: int) -> str:
        with openai.OpenAI(base_url=f"{hosted.server.url}/v1", api_key="unused", max_retries=0) as api:
            messages: Any = [{"role": "user", "content": TEXTS[0]}]
            answer = api.chat.completions.create(model="speak", messages=messages, temperature=0, max_tokens=12)
        return answer.choices[0].message.content or ""

    def predict(_: int) -> Any:
        with hosted.server.client() as other:
            return _answer(
                other, "/v1/predict", models=["mood", "topic", "mood"], inputs=TEXTS, parameters={"top_k": None}
            )["results"]

    alone = chat(0)
    with ThreadPoolExecutor(6) as threads:
        chats, calls = threads.map(chat, range(8)), threads.map(predict, range(8))
        assert set(chats) == {alone}
        for results in calls:
            for name, result in zip(("mood", "topic", "mood"), results, strict=True):
                names = list(LABELS.values()) if name == "mood" else ["a", "b"]
                for text, prediction in zip(TEXTS, result["predictions"], strict=True):
                    expected = dict(zip(names, _softmax(hosted.oracle(name, text)), strict=True))
                    scores = {one["label"]: one["score"] for one in prediction}
                    assert scores == pytest.approx(expected, abs=1e-4)


def test_documents_are_ranked_by_a_head_with_one_output(hosted: Hosted, client: httpx.Client) -> None:
    results = _answer(client, "/v1/rerank", model="rank", query=QUERY, documents=TEXTS, raw_scores=True)[
        "results"
    ]
    scores = [hosted.oracle("rank", QUERY, text)[0] for text in TEXTS]
    for result in results:
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=2e-4)
    assert [one["index"] for one in results] == sorted(range(len(TEXTS)), key=lambda i: -scores[i])


def test_a_text_is_embedded_as_its_last_token_with_the_tokenizer_s_own_end(
    hosted: Hosted, client: httpx.Client
) -> None:
    for model in ("embed", "foundation"):
        data = _answer(client, "/v1/embeddings", model=model, input=TEXTS)["data"]
        for text, one in zip(TEXTS, data, strict=True):
            vector = np.asarray(one["embedding"], np.float32)
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
            if model == "embed":
                assert close(vector, hosted.oracle("embed", text))


def test_tokens_are_tagged(hosted: Hosted, client: httpx.Client) -> None:
    (prediction,) = _answer(
        client, "/v1/predict", model="tags", inputs=TEXTS[0], parameters={"ignore_labels": []}
    )["predictions"]
    scores = [_softmax(row).max() for row in hosted.oracle("tags", TEXTS[0])]
    assert [one["score"] for one in prediction] == pytest.approx(scores[: len(prediction)], abs=1e-4)


def test_a_bundle_s_golden_outputs_are_replayed_behind_its_instruction(
    hosted: Hosted, client: httpx.Client
) -> None:
    for name in ("mood", "embed"):
        published = upload(client, f"{name}-golden", hosted.golden(name, TEXTS, PREFIX))
        assert published.status_code == 201, published.text
        assert published.json()["verification"]["golden"] == "passed"
        refused = upload(client, f"{name}-wrong", hosted.golden(name, TEXTS, PREFIX, wrong=0.01))
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "rejected_golden")
    answer = _answer(client, "/v1/embeddings", model="embed-golden", input=TEXTS[0])
    assert close(
        np.asarray(answer["data"][0]["embedding"], np.float32), hosted.oracle("embed", PREFIX + TEXTS[0])
    )
    assert client.get("/v1/adapters/mood-wrong").status_code == 404


def test_one_copy_of_the_weights_serves_both_engines(hosted: Hosted) -> None:
    generator, encoder = hosted.server.app.state.server.foundations.first.engines
    assert encoder.runner._trunk is generator.runner.trunk


@pytest.mark.parametrize(
    ("route", "body", "named"),
    [
        (
            "/v1/chat/completions",
            {"model": "mood", "messages": [{"role": "user", "content": "x"}]},
            "/v1/predict",
        ),
        ("/v1/completions", {"model": "embed@1", "prompt": "x"}, "/v1/embeddings"),
        ("/v1/completions", {"model": "rank", "prompt": "x"}, "/v1/rerank"),
        ("/v1/predict", {"model": "speak", "inputs": "x"}, "/v1/chat/completions"),
        ("/v1/predict", {"model": "foundation", "inputs": "x"}, "/v1/chat/completions"),
        ("/v1/embeddings", {"model": "speak", "input": "x"}, "/v1/chat/completions"),
        ("/v1/embeddings", {"model": "mood", "input": "x"}, "feature-extraction adapter"),
        ("/v1/rerank", {"model": "foundation", "query": "x", "documents": ["y"]}, "text-ranking adapter"),
    ],
)
def test_a_model_on_the_wrong_route_is_refused_with_the_right_one(
    client: httpx.Client, route: str, body: dict[str, Any], named: str
) -> None:
    answer = client.post(route, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_task"), answer.text
    assert named in answer.json()["error"]["message"]


def test_one_failed_model_of_a_call_leaves_the_others_their_answers(client: httpx.Client) -> None:
    models = ["speak", "mood", "nobody", "topic"]
    results = _answer(client, "/v1/predict", models=models, inputs="ok")["results"]
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == ["wrong_task", None, "unknown_adapter", None]


def test_a_config_s_labels_that_do_not_fit_the_head_are_left_out(hosted: Hosted, client: httpx.Client) -> None:
    data = _with_config(hosted.saved["topic"].zip(), LABELS)
    assert upload(client, "plain", data).status_code == 201
    (best,) = _answer(client, "/v1/predict", model="plain", inputs="ok")["predictions"]
    assert best["label"] in ("LABEL_0", "LABEL_1")


def test_a_pinned_head_stays_in_its_slot_and_a_deleted_one_is_gone(hosted: Hosted, client: httpx.Client) -> None:
    _, encoder = hosted.server.app.state.server.foundations.first.engines
    mood = _answer(client, "/v1/predict", model="mood", inputs="ok")["digest"]
    assert mood in encoder.slots.pinned
    assert upload(client, "gone", hosted.golden("topic", TEXTS)).status_code == 201
    digest = _answer(client, "/v1/predict", model="gone", inputs="ok")["digest"]
    assert encoder.residency(digest) == "slot"
    assert client.delete("/v1/adapters/gone").status_code == 204
    assert client.post("/v1/predict", json={"model": "gone", "inputs": "ok"}).status_code == 404
    assert digest not in encoder.cache


def test_the_foundation_states_its_tasks_and_the_metrics_both_engines(client: httpx.Client) -> None:
    models = {model["id"]: model["tasks"] for model in client.get("/v1/models").json()["data"]}
    assert models["foundation"] == ["text-generation", "feature-extraction"]
    assert models["mood"] == ["text-classification"]
    metrics = client.get("/metrics").text
    assert 'rootstock_slots_limit{foundation="foundation"} 4.0' in metrics
