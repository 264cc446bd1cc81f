"""The prompting of a bundle in its manifest, and its chat template in an import without a server."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.bundle import Bundle, Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import MANIFEST
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.chat_template import TEMPLATE
from rootstock.adapters.home.bulk_import import ImportedBundle, SkippedBundle, import_bundles
from rootstock.adapters.home.home import Home
from rootstock.adapters.home.offline import open_offline
from rootstock.adapters.spec import Prompting, Rejected
from tests.adapters.chat_templates import CHATML
from tests.peft_adapters import save_adapter
from tests.service.engine.generate.families import TinyDecoder, make_decoder

SLOW = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny-chat")


@pytest.fixture(scope="module")
def plain(tiny: TinyDecoder, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    saved = save_adapter(
        tiny.folder, tmp_path_factory.mktemp("saved") / "one", "CAUSAL_LM", 1, target_modules=["q_proj"]
    )
    return open_bundle(saved.zip(), Limits(), tiny.spec)


def with_prompting(plain: Bundle, system: str | None, template: str | None) -> Bundle:
    return write_bundle(replace(plain.manifest, prompting=Prompting(system, template)), plain.files)


@pytest.mark.parametrize("template", [None, CHATML, "", "{{ messages }} \r\n é 🎉"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_template_is_kept_by_a_round_trip(
    tiny: TinyDecoder, plain: Bundle, system: str | None, template: str | None
) -> None:
    bundle = with_prompting(plain, system, template)
    again = open_bundle(bundle.to_zip(), Limits(), tiny.spec)
    assert again.manifest.prompting == Prompting(system, template)
    assert again.adapter(tiny.spec, 64, tiny.weights).prompting == Prompting(system, template)
    assert again.digest == bundle.digest
    manifest = json.loads(zipfile.ZipFile(io.BytesIO(again.to_zip())).read(MANIFEST))
    # A bundle without a template keeps the digest that it has always had.
    assert ("chat_template" in manifest["prompting"]) is (template is not None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("x" * (2**16 + 1), "has 65537 characters and the limit is 65536; shorten it"),
        (None, "prompting.chat_template: None is not a string"),
        (["x"], "prompting.chat_template"),
    ],
)
def test_a_template_that_is_too_long_or_no_text_is_refused(plain: Bundle, template: Any, message: str) -> None:
    value = plain.manifest.to_json()
    value["prompting"]["chat_template"] = template
    with pytest.raises(Rejected) as refused:
        read_manifest(json.dumps(value).encode())
    assert refused.value.check == "schema"
    assert message in str(refused.value)


def test_an_import_keeps_a_template_and_skips_one_that_cannot_be_used(
    tiny: TinyDecoder, plain: Bundle, tmp_path: Path
) -> None:
    special = "{{ bos_token + messages[0].content + eos_token }}"
    for name, template in (("good", special), ("slow", SLOW)):
        (tmp_path / f"{name}.zip").write_bytes(with_prompting(plain, None, template).to_zip())
    paths = [tmp_path / "good.zip", tmp_path / "slow.zip"]
    home = tmp_path / "home"
    done = list(import_bundles(paths, home, tiny.spec, Limits(), tiny.weights))
    assert done[0] == ImportedBundle("good.zip", "good", 1, True)
    assert isinstance(done[1], SkippedBundle)
    assert done[1].reason.startswith("template: chat_template: it renders no chat")
    registry = Home(home).open_registry()
    assert registry.version("good", 1).verification["chat_template"] is True
    registry.close()
    open_offline(paths[0], str(tiny.folder), ())
    with pytest.raises(Rejected, match="longer than 1 s"):
        open_offline(paths[1], str(tiny.folder), ())


def test_an_import_of_a_folder_of_peft_takes_the_template_beside_the_adapter(
    tiny: TinyDecoder, tmp_path: Path
) -> None:
    saved = save_adapter(tiny.folder, tmp_path / "all" / "own", "CAUSAL_LM", 1, target_modules=["q_proj"])
    (saved.folder / TEMPLATE).write_text(CHATML, encoding="utf-8")
    home = tmp_path / "home"
    (done,) = import_bundles([saved.folder], home, tiny.spec, Limits(), tiny.weights)
    assert isinstance(done, ImportedBundle), done
    registry = Home(home).open_registry()
    stored = Home(home).open_store().get(registry.version("own", 1).digest)
    registry.close()
    assert open_bundle(stored, Limits(), tiny.spec).manifest.prompting == Prompting(None, CHATML)
