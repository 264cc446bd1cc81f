"""A server with trusted keys takes what they have signed, by every route, and says who signed it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from rootstock.adapters.bundle import PlainFields, unpack
from rootstock.adapters.bundle.archive import MANIFEST, SIGNATURE, Limits, open_archive
from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.client.client import Client
from rootstock.adapters.signing.signed_zip import signed_zip
from rootstock.adapters.signing.signing_key import SigningKey
from rootstock.adapters.signing.trusted_keys import TrustedKeys
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

DEMO = Path(__file__).parents[3] / "service" / "demo"
BUNDLE = (DEMO / "review-sentiment.zip").read_bytes()
OTHER = (DEMO / "support-intents.zip").read_bytes()
LABELS = ["bad", "good"]


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def key_file(key: SigningKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release.pem"
    key.save(path)
    return path


@pytest.fixture
def strict(serve: Callable[..., RunningServer], key: SigningKey, tmp_path: Path) -> RunningServer:
    """Return a server that trusts the key as `release`."""
    return serve(trusted_keys=f"release={key.public}", adapter_folder=tmp_path)


@pytest.fixture
def client(strict: RunningServer) -> Iterator[httpx.Client]:
    with strict.client() as client:
        yield client


def signed(data: bytes, key: SigningKey, **fields: Any) -> bytes:
    return signed_zip(data, key, PlainFields(**fields))[0]


def signer_of(client: httpx.Client, name: str, version: int = 1) -> Any:
    answer = client.get(f"/v1/adapters/{name}/versions/{version}").json()
    return (answer["verification"].get("signature") or {}).get("signer")


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("rejected_signature", SIGNATURE)
    return str(error["message"])


def test_a_signed_bundle_is_published_served_and_downloaded_with_its_signature(
    client: httpx.Client, key: SigningKey
) -> None:
    data = signed(BUNDLE, key)
    published = upload(client, "mood", data)
    assert published.status_code == 201, published.text
    assert published.json()["verification"]["signature"]["signer"] == "release"
    assert signer_of(client, "mood") == "release"
    answer = client.post("/v1/predict", json={"model": "mood", "inputs": "Could not be happier."})
    assert answer.json()["predictions"][0]["label"] == "positive"
    got = client.get("/v1/adapters/mood/versions/1/bundle")
    trusted = TrustedKeys({"release": key.public})
    record = trusted.check(open_archive(got.content, Limits()), PlainFields())
    assert record is not None
    assert unpack(got.content, Limits()) == unpack(BUNDLE, Limits())
    assert upload(client, "copy", got.content).status_code == 201


def test_an_upload_that_no_trusted_key_signed_is_refused_and_changes_nothing(
    client: httpx.Client, key: SigningKey
) -> None:
    assert "has no signature" in refused(upload(client, "mood", BUNDLE))
    stranger = signed(BUNDLE, SigningKey.generate())
    assert "not in ROOTSTOCK_TRUSTED_KEYS" in refused(upload(client, "mood", stranger))
    of_another = open_archive(signed(OTHER, key), Limits()).signature
    swapped = {**unpack(BUNDLE, Limits()), SIGNATURE: of_another}
    from rootstock.adapters.bundle import pack

    assert "and the upload is the bundle" in refused(upload(client, "mood", pack(swapped)))
    assert client.get("/v1/adapters").json()["adapters"] == []
    assert client.get("/v1/adapters/mood").status_code == 404
    metrics = client.get("/metrics").text
    assert 'result="signature"' in metrics or "signature" in metrics


def test_a_plain_folder_is_signed_with_the_fields_of_its_form(
    client: httpx.Client, key: SigningKey, peft_saved: dict[str, PeftAdapter]
) -> None:
    data = peft_saved["first"].zip()
    count = peft_saved["first"].labels
    labels = tuple(f"label {i}" for i in range(count))
    signed_data = signed(data, key, labels=labels)
    assert "and the upload is the folder" in refused(upload(client, "mood", signed_data))
    backwards = json.dumps(labels[::-1])
    if count > 1:
        refused(upload(client, "mood", signed_data, labels=backwards))
    published = upload(client, "mood", signed_data, labels=json.dumps(labels))
    assert published.status_code == 201, published.text
    signature = published.json()["verification"]["signature"]
    assert (signature["of"], signature["signer"]) == ("folder", "release")
    assert signature["digest"] != published.json()["digest"]
    got = open_archive(client.get("/v1/adapters/mood/versions/1/bundle").content, Limits())
    assert MANIFEST in got.members
    assert got.signature is None, "nobody signed the bundle that the server made"


def test_a_path_of_the_server_needs_a_signature_too(
    client: httpx.Client, key: SigningKey, tmp_path: Path
) -> None:
    (tmp_path / "bare.zip").write_bytes(BUNDLE)
    (tmp_path / "signed.zip").write_bytes(signed(BUNDLE, key))
    folder = tmp_path / "folder"
    folder.mkdir()
    archive = open_archive(signed(BUNDLE, key), Limits())
    for name, content in {**archive.members, SIGNATURE: archive.signature or b""}.items():
        (folder / name).write_bytes(content)

    def load(path: str) -> httpx.Response:
        return client.post("/v1/load_lora_adapter", json={"lora_name": path.partition(".")[0], "lora_path": path})

    refused(load("bare.zip"))
    for path in ("signed.zip", "folder"):
        assert load(path).status_code == 200
    assert (signer_of(client, "signed"), signer_of(client, "folder")) == ("release", "release")


def test_two_signatures_of_one_bundle_stay_apart(serve: Callable[..., RunningServer], key: SigningKey) -> None:
    second = SigningKey.generate()
    with serve(trusted_keys=f"release={key.public},former={second.public}").client() as client:
        upload(client, "a", signed(BUNDLE, key))
        upload(client, "b", signed(BUNDLE, second))
        trusted = TrustedKeys({"release": key.public, "former": second.public})
        for name, signer in (("a", "release"), ("b", "former")):
            got = client.get(f"/v1/adapters/{name}/versions/1/bundle").content
            record = trusted.check(open_archive(got, Limits()), PlainFields())
            assert record is not None
            assert (record["signer"], signer_of(client, name)) == (signer, signer)


def test_a_version_gets_its_signature_by_another_upload(
    serve: Callable[..., RunningServer], key: SigningKey
) -> None:
    with serve().client() as client:
        assert upload(client, "mood", BUNDLE).status_code == 201
        assert signer_of(client, "mood") is None
        tag = client.head("/v1/adapters/mood/versions/1/bundle").headers["etag"]
        again = upload(client, "mood", signed(BUNDLE, key))
        assert (again.status_code, again.json()["version"]) == (200, 1)
        signed_now = client.get("/v1/adapters/mood/versions/1/bundle", headers={"If-None-Match": tag})
        assert signed_now.status_code == 200, "the zip is another one now"
        assert signed_now.headers["content-length"] == str(len(signed_now.content))
        known = {"If-None-Match": signed_now.headers["etag"]}
        assert client.get("/v1/adapters/mood/versions/1/bundle", headers=known).status_code == 304
        stored = client.get("/v1/adapters/mood/versions/1").json()["verification"]
        assert stored["signature"]["key"] == key.public
        assert stored["golden"] == "passed"
        events = client.get("/v1/adapters/mood/events").json()["events"]
        assert [event["what"] for event in events] == ["signed", "alias_set", "published"]
        assert upload(client, "mood", BUNDLE).status_code == 200
        got = client.get("/v1/adapters/mood/versions/1/bundle").content
        assert open_archive(got, Limits()).signature is not None, "an unsigned copy does not remove a signature"


def test_the_commands_make_a_key_sign_push_and_verify(
    strict: RunningServer, key_file: Path, tmp_path: Path
) -> None:
    run = CliRunner()

    def adapters(*words: str, code: int = 0) -> str:
        result = run.invoke(app, [*words], env={"ROOTSTOCK_URL": strict.url})
        assert result.exit_code == code, result.output
        return result.output

    made = json.loads(adapters("keygen", str(tmp_path / "own.pem"), "--json"))
    assert (tmp_path / "own.pem").stat().st_mode & 0o777 == 0o600
    assert "never overwritten" in adapters("keygen", str(tmp_path / "own.pem"), code=1)
    bundle = tmp_path / "mood.zip"
    bundle.write_bytes(BUNDLE)
    assert "has no signature" in adapters("push", str(bundle), code=1)
    assert "is signed by the key" in adapters("sign", str(bundle), "--key", str(tmp_path / "own.pem"))
    assert "not in ROOTSTOCK_TRUSTED_KEYS" in adapters("push", str(bundle), code=1)
    assert "signed by own" in adapters("verify", str(bundle), "--trusted-keys", f"own={made['public_key']}")
    public = SigningKey.load(key_file).public
    refusal = adapters("verify", str(bundle), "--trusted-keys", f"release={public}", code=1)
    assert "would be refused: signature" in refusal
    assert "signed by release" in adapters("push", str(bundle), "--sign-key", str(key_file))
    assert "release" in adapters("show", "mood")
    with Client(strict.url) as client:
        pulled = client.pull("mood", tmp_path / "pulled.zip")
    assert "signed by release" in adapters("verify", str(pulled.path), "--trusted-keys", f"release={public}")


def test_a_signed_folder_is_pushed_with_its_signature(
    strict: RunningServer, key_file: Path, tmp_path: Path, peft_saved: dict[str, PeftAdapter]
) -> None:
    import shutil

    folder = tmp_path / "peft"
    shutil.copytree(peft_saved["first"].folder, folder)
    words = ["sign", str(folder), "--key", str(key_file)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (folder / SIGNATURE).is_file()
    with Client(strict.url) as client:
        assert client.push(folder, "mood").verification["signature"]["signer"] == "release"


def test_an_import_into_a_home_needs_signatures_and_keeps_them(
    new_home: Callable[[], Path], key: SigningKey, tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    (tmp_path / "bare.zip").write_bytes(OTHER)
    (tmp_path / "mood.zip").write_bytes(signed(BUNDLE, key))
    home = new_home()
    words = ["import", str(tmp_path), "--home", str(home), "--json"]
    result = CliRunner().invoke(app, words, env={"ROOTSTOCK_TRUSTED_KEYS": f"release={key.public}"})
    report = json.loads(result.stdout)
    assert report["imported"] == 1
    assert [skipped["file"] for skipped in report["skipped"]] == ["bare.zip"]
    with serve(home=home).client() as client:
        assert signer_of(client, "mood") == "release"
        got = client.get("/v1/adapters/mood/versions/1/bundle").content
        assert open_archive(got, Limits()).signature is not None
