"""/v1/adapters: versions, aliases, rollback, paging, download, delete."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from rootstock.adapters.bundle import Golden, Limits, open_bundle, pack, write_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter, close, zip_folder


@pytest.fixture
def client(serve: Callable[..., RunningServer]) -> Iterator[httpx.Client]:
    with serve().client() as client:
        yield client


def test_versions_aliases_and_rollback_move_what_a_name_means(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    first = upload(client, "mood", peft_saved["first"].zip())
    assert first.status_code == 201
    second = upload(client, "mood", peft_saved["second"].zip())
    assert (first.json()["version"], second.json()["version"]) == (1, 2)

    def version_of(reference: str) -> int:
        answer = client.post("/v1/predict", json={"model": reference, "inputs": "x"})
        assert answer.status_code == 200, answer.text
        version: int = answer.json()["version"]
        return version

    assert (version_of("mood"), version_of("mood@1")) == (2, 1)
    moved = client.put("/v1/adapters/mood/aliases/prod", json={"version": 1})
    assert moved.json() == {"name": "mood", "alias": "prod", "version": 1, "digest": first.json()["digest"]}
    assert version_of("mood@prod") == 1
    assert client.post("/v1/adapters/mood/rollback").json()["version"] == 1
    assert version_of("mood") == 1
    again = client.post("/v1/adapters/mood/rollback")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "no_previous_version")


def test_the_same_content_is_200_with_the_old_number_and_moves_live(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    upload(client, "mood", peft_saved["first"].zip())
    upload(client, "mood", peft_saved["second"].zip())
    again = upload(client, "mood", peft_saved["first"].zip())
    assert (again.status_code, again.json()["version"]) == (200, 1)
    assert client.get("/v1/adapters/mood").json()["live"] == 1


def test_an_upload_that_is_not_activated_leaves_the_bare_name_without_a_version(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    assert upload(client, "mood", peft_saved["first"].zip(), activate="false").status_code == 201
    answer = client.post("/v1/predict", json={"model": "mood", "inputs": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_live_version")
    assert client.post("/v1/predict", json={"model": "mood@1", "inputs": "x"}).status_code == 200


def test_the_list_is_paged_by_name_and_says_where_each_adapter_is(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    for name in ("c", "a", "b"):
        upload(client, name, peft_saved["first"].zip())
    page = client.get("/v1/adapters", params={"limit": 2}).json()
    assert [a["name"] for a in page["adapters"]] == ["a", "b"]
    rest = client.get("/v1/adapters", params={"limit": 2, "after": page["next"]}).json()
    assert [a["name"] for a in rest["adapters"]] == ["c"]
    assert rest["next"] is None
    client.post("/v1/predict", json={"model": "a", "inputs": "x"})
    assert client.get("/v1/adapters").json()["adapters"][0]["residency"] == "slot"


def test_a_downloaded_bundle_is_the_published_one_and_can_be_published_again(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    published = upload(client, "mood", peft_saved["first"].zip()).json()
    answer = client.get("/v1/adapters/mood/versions/1/bundle")
    assert answer.headers["content-type"] == "application/zip"
    assert "bundle.json" in zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    again = upload(client, "copy", answer.content)
    assert (again.status_code, again.json()["digest"]) == (201, published["digest"])


def test_a_version_that_an_alias_points_to_is_deleted_only_by_force(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    upload(client, "mood", peft_saved["first"].zip())
    upload(client, "mood", peft_saved["second"].zip())
    assert client.delete("/v1/adapters/mood/versions/1").status_code == 204
    assert client.post("/v1/predict", json={"model": "mood@1", "inputs": "x"}).status_code == 404
    refused = client.delete("/v1/adapters/mood/versions/2")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "version_in_use")
    assert client.delete("/v1/adapters/mood/versions/2", params={"force": "true"}).status_code == 204
    assert client.post("/v1/predict", json={"model": "mood", "inputs": "x"}).status_code == 404


def test_a_deleted_adapter_is_gone_and_its_numbers_are_not_used_again(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    upload(client, "mood", peft_saved["first"].zip())
    assert client.delete("/v1/adapters/mood").status_code == 204
    assert client.get("/v1/adapters/mood").status_code == 404
    assert client.get("/v1/adapters").json()["adapters"] == []
    assert upload(client, "mood", peft_saved["first"].zip()).json()["version"] == 2


def test_two_names_share_content_and_deleting_one_leaves_the_other(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    upload(client, "one", peft_saved["first"].zip())
    upload(client, "two", peft_saved["first"].zip())
    assert client.delete("/v1/adapters/one").status_code == 204
    assert client.post("/v1/predict", json={"model": "two", "inputs": "x"}).status_code == 200
    assert client.get("/v1/adapters/two/versions/1/bundle").status_code == 200


def test_golden_outputs_are_replayed_and_a_mismatch_names_both_values(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter], spec: FoundationSpec
) -> None:
    plain = open_bundle(peft_saved["first"].zip(), Limits(), spec)
    texts = ("Where is my parcel?", "ok")
    upload(client, "plain", peft_saved["first"].zip())
    logits = client.post(
        "/v1/predict",
        json={
            "model": "plain",
            "inputs": list(texts),
            "parameters": {"function_to_apply": "none", "top_k": None},
        },
    ).json()["predictions"]
    outputs = [[next(s["score"] for s in p if s["label"] == f"LABEL_{i}") for i in range(3)] for p in logits]

    def with_golden(shift: float) -> bytes:
        import numpy as np

        values = tuple(np.asarray(o, np.float32) + np.float32(shift) for o in outputs)
        return write_bundle(plain.manifest, {**plain.files, GOLDEN: Golden(texts, values).to_bytes()}).to_zip()

    right = upload(client, "golden", with_golden(0.0))
    assert right.status_code == 201, right.text
    verification = right.json()["verification"]
    assert (verification["golden"], verification["inputs"]) == ("passed", 2)
    assert verification["runner"] == "onnx"
    assert verification["precision"] == "fp32"
    wrong = upload(client, "golden", with_golden(0.01))
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "rejected_golden")
    assert "golden.json: outputs[0]" in wrong.json()["error"]["param"]
    assert "expected" in wrong.json()["error"]["message"]
    assert client.get("/v1/adapters/golden").json()["live"] == 1


def test_a_plain_folder_of_another_base_is_422_unless_the_form_names_the_foundation(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter], spec: FoundationSpec
) -> None:
    with zipfile.ZipFile(io.BytesIO(peft_saved["first"].zip())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["adapter_config.json"]) | {"base_model_name_or_path": "google-bert/other"}
    data = pack({**files, "adapter_config.json": json.dumps(config).encode()})
    with serve().client() as client:
        refused = upload(client, "a", data)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "rejected_foundation")
        for said in ("'google-bert/other'", spec.name, "the form field `foundation`"):
            assert said in refused.json()["error"]["message"]
        assert client.get("/v1/adapters/a").status_code == 404
        assert upload(client, "a", data, foundation="somebody/else").status_code == 422
        for i, named in enumerate(("foundation", "default", spec.name)):
            assert upload(client, f"a-{i}", data, foundation=named).status_code == 201
        verified = upload(client, "b", peft_saved["first"].zip()).json()["verification"]
        assert (verified["golden"], verified["max_difference"]) == ("none", None)
        assert "base_model_name_or_path, " in verified["warnings"][0]
        assert verified["warnings"][0].endswith("no outputs")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_folder_of_sentence_transformers_embeds_as_its_own_library_does(
    serve: Callable[..., RunningServer], foundation: FoundationFiles, spec: FoundationSpec, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    texts = ["Where is my parcel?", "ok", "The new headphones sound dull."]
    with serve().client() as client:
        for mode in ("mean", "cls"):
            model = SentenceTransformer(str(foundation.folder), device="cpu")
            model.add_adapter(LoraConfig(r=8))
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, 0, 0.02)
            if mode == "cls":
                model[1].pooling_mode = "cls"
                del model[2]
                model.max_seq_length = 30
            model.save_pretrained(str(tmp_path / mode))
            answer = upload(client, mode, zip_folder(tmp_path / mode, "saved/"))
            assert answer.status_code == 201, answer.text
            assert answer.json()["task"] == "feature-extraction"
            assert "tokenizer.json" in answer.json()["verification"]["ignored"]
            given = client.post("/v1/embeddings", json={"model": mode, "input": texts})
            ours = np.array([row["embedding"] for row in given.json()["data"]])
            assert close(ours, model.encode(texts))
            manifest = open_bundle(zip_folder(tmp_path / mode), Limits(), spec).manifest
            assert manifest.preprocessing.max_length == model.max_seq_length


def test_everything_published_is_there_after_a_restart(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    settings = Settings(home=new_home(), demo=False, log_level="error")
    with run_server(settings) as first, first.client() as client:
        published = upload(client, "mood", peft_saved["first"].zip()).json()
    with run_server(settings) as second, second.client() as client:
        answer = client.post("/v1/predict", json={"model": "mood", "inputs": "x"})
        assert (answer.status_code, answer.json()["digest"]) == (200, published["digest"])
