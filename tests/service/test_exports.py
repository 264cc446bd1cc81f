"""The export cache: an export is used only if it is whole, an int8 one only if what it changes was accepted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from rootstock.adapters.bundle import Bundle, Limits, open_bundle
from rootstock.adapters.bundle.archive import GOLDEN
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, locate
from rootstock.adapters.home.bulk_import import import_bundles
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.spec import Adapter, FoundationSpec
from rootstock.adapters.store.folder import FolderStore
from rootstock.service.cli import foundation as commands
from rootstock.service.composition.demo_adapters import DEMO
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.encode.modalities.text import Tokenizer, pad
from rootstock.service.engine.runners.onnx.export import int8 as onnx_int8
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.exports import int8_check as drift
from rootstock.service.exports.cache import export_path, find_export, int8_candidate, is_whole, path_of
from rootstock.service.exports.int8_check import SENTENCES, PrecisionChange, measure
from rootstock.service.settings import Settings
from rootstock.service.tolerance import TOLERANCES, Tolerance
from tests.bounds import HANG
from tests.live_server import RunningServer
from tests.parity.foundations import add_masked_lm, make_tiny
from tests.parity.matrix import ARCHITECTURES
from tests.serve_process import ROOTSTOCK, free_port

NAMES = ["entities", "review-sentiment", "support-intents"]


def test_the_foundation_is_shown_with_the_folder_that_transformers_can_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOTSTOCK_HOME", str(tmp_path / "home"))
    make_tiny(ARCHITECTURES["bert"], tmp_path / "small")
    shown = CliRunner().invoke(commands.foundation, ["show", "--foundation", "small"])
    assert shown.exit_code == 0, shown.output
    (folder,) = [line.split(maxsplit=1)[1] for line in shown.stdout.splitlines() if line.startswith("folder ")]
    assert AutoModel.from_pretrained(folder).config.model_type == "bert"
    document = json.loads(
        CliRunner().invoke(commands.foundation, ["show", "--foundation", "small", "--json"]).stdout
    )
    assert document["folder"] == folder == str(tmp_path / "small")


@pytest.mark.parametrize("file", ["weights.bin", "foundation.json", "tokenizer.json", "trunk-default.onnx"])
def test_an_export_with_a_truncated_or_missing_file_is_not_whole(
    export_folder: Path, tmp_path: Path, file: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(export_folder, copy)
    assert is_whole(copy)
    (copy / file).write_bytes((copy / file).read_bytes()[:1000])
    assert not is_whole(copy)
    (copy / file).unlink()
    assert not is_whole(copy)


def test_checkpoints_with_one_trunk_and_other_heads_have_exports_of_their_own(tmp_path: Path) -> None:
    """The fingerprint is that of the trunk: by it alone one would fill masks with the other's head."""
    trunk = make_tiny(ARCHITECTURES["bert"], tmp_path / "trunk")
    AutoModel.from_pretrained(trunk.folder).save_pretrained(trunk.folder)
    folders = [shutil.copytree(trunk.folder, tmp_path / name) for name in ("bare", "one", "same", "other")]
    for folder, seed in zip(folders[1:], (1, 1, 2), strict=True):
        add_masked_lm(folder, seed)
    files = [locate(str(folder)) for folder in folders]
    assert len({describe(one).fingerprint for one in files}) == 1
    bare, one, same, other = (path_of(each, tmp_path) for each in files)
    assert one == same
    assert len({bare, one, other}) == 3
    assert bare == export_path(tmp_path, describe(files[0]).fingerprint)
    assert path_of(files[1], tmp_path, "int8") not in (one, path_of(files[3], tmp_path, "int8"))


@pytest.fixture
def home(export_folder: Path, spec: FoundationSpec, tmp_path: Path) -> Path:
    """A home with the fp32 export and a cache of its own."""
    fp32 = export_path(tmp_path, spec.fingerprint)
    fp32.parent.mkdir(parents=True)
    fp32.symlink_to(export_folder, target_is_directory=True)
    return tmp_path


@pytest.fixture
def demo_home(home: Path, spec: FoundationSpec) -> Path:
    """A home with the demo adapters."""
    list(import_bundles(sorted(DEMO.glob("*.zip")), home, spec, Limits()))
    return home


def test_an_export_made_ahead_is_used_and_one_that_is_not_whole_is_passed_over(
    home: Path, export_folder: Path, spec: FoundationSpec, foundation: FoundationFiles, tmp_path: Path
) -> None:
    ahead = tmp_path / "ahead"
    made = export_path(ahead, spec.fingerprint)
    shutil.copytree(export_folder, made)
    assert find_export("default", foundation, (ahead, tmp_path / "new"), "fp32") == made
    assert not (tmp_path / "new").exists()
    (made / "tokenizer.json").write_text("{}")
    assert find_export("default", foundation, (ahead, home), "fp32") == export_path(home, spec.fingerprint)
    with pytest.raises(FoundationError, match=f"{ahead} and {home} hold no int8 export"):
        find_export("default", foundation, (ahead, home), "int8")


def test_a_relative_folder_of_exports_is_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(home=Path("home"), exports=Path("ahead"))
    assert settings.export_folders == (tmp_path / "ahead", tmp_path / "home")


def demo(name: str, spec: FoundationSpec) -> tuple[Bundle, Adapter]:
    bundle = open_bundle((DEMO / f"{name}.zip").read_bytes(), Limits(), spec)
    return bundle, bundle.adapter(spec, 64)


def replayed(runner: OnnxRunner, tokenizer: Tokenizer, adapter: Adapter, texts: list[str]) -> list[np.ndarray]:
    """The raw outputs for each text alone."""
    runner.place(0, runner.stage(adapter))
    rows = [tokenizer.encode(text, adapter.preprocessing, truncate=True) for text in texts]
    return [runner.run(pad([row], [0], tokenizer.pad_id))[0] for row in rows]


@pytest.mark.slow
def test_the_drift_is_what_the_two_exports_differ_by(
    demo_home: Path, export_folder: Path, int8_folder: Path, spec: FoundationSpec, foundation: FoundationFiles
) -> None:
    drift = measure(export_folder, int8_folder, demo_home, foundation.folder, Limits(), 1)
    theirs = AutoTokenizer.from_pretrained(foundation.folder)
    runners = [OnnxRunner(folder, 1, 1) for folder in (export_folder, int8_folder)]
    ours = Tokenizer(export_folder / "tokenizer.json")
    assert [row.adapter for row in drift.rows] == ["foundation", *(f"{name}@1" for name in NAMES)]
    same, labels, widest = 0, 0, 0.0
    for row, name in zip(drift.rows[1:], NAMES, strict=True):
        bundle, adapter = demo(name, spec)
        golden = bundle.golden()
        assert golden is not None
        texts = [text for text in golden.inputs if isinstance(text, str)]
        fp32, int8 = (replayed(runner, ours, adapter, texts) for runner in runners)
        if name == "entities":
            masks = [np.array(theirs(t, return_special_tokens_mask=True)["special_tokens_mask"]) for t in texts]
            fp32, int8 = ([o[m == 0] for o, m in zip(those, masks, strict=True)] for those in (fp32, int8))
        a, b = (np.concatenate([np.atleast_2d(output) for output in those]) for those in (fp32, int8))
        assert row.max_difference == pytest.approx(np.abs(a - b).max(), rel=1e-3)
        assert row.mean_difference == pytest.approx(np.abs(a - b).mean(), rel=1e-3)
        assert (row.inputs, row.labels) == (12, len(a))
        assert row.same == (a.argmax(1) == b.argmax(1)).sum()
        same, labels, widest = same + row.same, labels + row.labels, max(widest, row.max_difference)
    assert (drift.total.inputs, drift.total.same, drift.total.labels) == (36, same, labels)
    assert drift.total.max_difference == widest
    own = foundation_adapter(spec)
    a, b = (np.array(replayed(runner, ours, own, list(SENTENCES))) for runner in runners)
    assert drift.rows[0].cosine == pytest.approx((a * b).sum(1).min(), abs=1e-5)
    assert drift.refusals == []


def test_versions_that_no_alias_points_to_are_left_out_and_those_without_a_golden_set_are_named(
    demo_home: Path, export_folder: Path, spec: FoundationSpec, foundation: FoundationFiles
) -> None:
    registry = SqlRegistry(f"sqlite:///{demo_home / 'registry.db'}")
    bundle, _ = demo("entities", spec)
    registry.publish("twin", bundle.digest, task="token-classification", verification={}, size=1)
    registry.publish("idle", bundle.digest, task="token-classification", verification={}, size=1, activate=False)
    registry.set_alias("review-sentiment", "staging", 1)
    files = {name: data for name, data in bundle.files.items() if name != GOLDEN}
    manifest = replace(bundle.manifest, files={n: h for n, h in bundle.manifest.files.items() if n != GOLDEN})
    bare = Bundle(manifest, files)
    FolderStore(demo_home / "store").put(bare.digest, bare.to_zip())
    registry.publish("bare", bare.digest, task="token-classification", verification={}, size=1)
    registry.publish("lost", "sha256:" + "0" * 64, task="token-classification", verification={}, size=1)
    registry.close()
    drift = measure(export_folder, export_folder, demo_home, foundation.folder, Limits(), 1)
    assert [r.adapter for r in drift.rows[1:]] == [
        "entities@1, twin@1",
        "review-sentiment@1",
        "support-intents@1",
    ]
    assert drift.not_checked["bare@1"] == "no golden set"
    assert "the stored bundle sha256:000" in drift.not_checked["lost@1"]
    assert (drift.total.max_difference, drift.total.same) == (0.0, drift.total.labels)


def test_int8_is_refused_where_it_changes_too_much_and_kept_where_that_is_accepted(
    home: Path, int8_folder: Path, spec: FoundationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Making it takes seconds and gives the same each time.
    monkeypatch.setattr(onnx_int8, "quantise", lambda source, target: shutil.copytree(int8_folder, target))
    monkeypatch.setenv("ROOTSTOCK_HOME", str(home))
    int8 = export_path(home, spec.fingerprint, "int8")

    def export(*arguments: str) -> Any:
        return CliRunner().invoke(commands.foundation, ["export", "--int8", *arguments])

    with monkeypatch.context() as strict:
        strict.setitem(TOLERANCES, "int8", Tolerance(1e-3, 0.0, coarse=True))
        refused = export()
        assert refused.exit_code == 1
        assert "int8 changes too much: foundation: 8 of 8 inputs differ by more than 0.001 + 0" in refused.stderr
        assert "it is not kept; --accept-drift keeps it" in refused.stderr
        assert [path.name for path in int8.parent.iterdir()] == [export_path(home, spec.fingerprint).name]
        accepted = export("--accept-drift", "--json")
        assert accepted.exit_code == 0
        document = json.loads(accepted.stdout)
        assert (document["path"], len(document["refusals"])) == (str(int8), 1)
        assert is_whole(int8)
        again = export()
        assert (again.exit_code, is_whole(int8)) == (1, True)
        assert "the export accepted before stays" in again.stderr
    shutil.rmtree(int8)
    within = export()
    assert (within.exit_code, is_whole(int8)) == (0, True)
    assert "cosine" in within.stdout
    assert within.stdout.splitlines()[-1] == str(int8)


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ([(12, 11)], False),
        ([(12, 10)], True),
        ([(20, 18), (200, 200)], False),
        ([(20, 17), (200, 200)], True),
        ([(200, 196)], False),
        ([(200, 195)], True),
        ([(12, 11), (12, 11), (200, 200)], False),
        ([(12, 11), (12, 11), (12, 12)], True),
    ],
)
def test_of_the_top_labels_one_may_change_and_then_a_tenth_of_an_adapter_s_and_a_fiftieth_of_all(
    rows: list[tuple[int, int]], refused: bool
) -> None:
    own = drift.PrecisionRow("foundation", "feature-extraction", 8, 0.0, 0.0, 0, 0, 0, 1.0)
    made = [drift.PrecisionRow(str(i), "t", n, 0.1, 0.1, n, same, 0) for i, (n, same) in enumerate(rows)]
    assert bool(PrecisionChange([own, *made], {}).refusals) is refused
    assert PrecisionChange([replace(own, cosine=0.97), *made], {}).refusals


def test_int8_is_refused_for_a_foundation_that_reads_images(tmp_path: Path) -> None:
    spec = {"name": "vision", "modality": "image"}
    (tmp_path / "foundation.json").write_text(json.dumps({"spec": spec}))
    refusal = pytest.raises(FoundationError, match=r"vision reads image inputs, and int8 is only for .* text")
    with refusal, int8_candidate(tmp_path, tmp_path / "int8"):
        pass


def test_a_server_asked_for_int8_does_not_start_without_an_export_that_was_accepted(home: Path) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home), "ROOTSTOCK_PRECISION": "int8"}
    command = [ROOTSTOCK, "serve", "--server", "uvicorn", "--port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rootstock: ROOTSTOCK_PRECISION is int8, and {home} holds no int8 export of ")
    assert "rootstock foundation export --int8" in line


def test_an_int8_server_verifies_and_serves_the_demo_adapters(
    serve: Callable[..., RunningServer],
    export_folder: Path,
    int8_folder: Path,
    spec: FoundationSpec,
    tmp_path: Path,
) -> None:
    for precision, folder in (("fp32", export_folder), ("int8", int8_folder)):
        place = export_path(tmp_path, spec.fingerprint, precision)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(folder, target_is_directory=True)
    with serve(home=tmp_path, precision="int8", demo=True).client() as client:
        assert client.get("/v1/limits").json()["precision"] == "int8"
        for name in NAMES:
            (version,) = client.get(f"/v1/adapters/{name}").json()["versions"]
            verified = version["verification"]
            assert (verified["runner"], verified["precision"], verified["golden"]) == ("onnx", "int8", "passed")
            assert 1e-3 < verified["max_difference"] < 1

        def predict(model: str, text: str) -> Any:
            return client.post("/v1/predict", json={"model": model, "inputs": text}).json()["predictions"][0]

        assert predict("review-sentiment", "I love it, best purchase of the year.")["label"] == "positive"
        assert (
            predict("support-intents", "why was i charged 14.99 twice this month")["label"] == "billing_question"
        )
        assert {"PER", "LOC"} <= {
            e["entity"][2:] for e in predict("entities", "Angela Merkel was born in Hamburg.")
        }
