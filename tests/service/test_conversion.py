"""Adapters of kinds that are served as LoRA: converted beside the server, measured, refused where they differ."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load, save
from tokenizers import Tokenizer
from typer.testing import CliRunner

from rootstock.adapters.bundle import Limits, open_bundle, pack, unpack
from rootstock.adapters.bundle.archive import CARD, CONFIG, WEIGHTS
from rootstock.adapters.bundle.kinds.methods import CONVERTED
from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.convert.conversion import MAX_DIFFERENCE, Conversion, convert
from rootstock.adapters.convert.inputs import TEXTS
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec, Rejected
from rootstock.service.conversion import Converter
from tests.attacks.forge import good_files, plain_files, tiny_bert
from tests.live_server import RunningServer, upload
from tests.parity.oracle import move
from tests.peft_adapters import CLASSES, PeftAdapter, peft_model, peft_outputs, save_adapter
from tests.reference_graft import grafted

INPUTS = [[2, 6, 7, 8, 3], [2, 14, 3], [2, 9, 25, 38, 6, 10, 10, 12, 3]]
# What a kind needs to fit a layer of width 32.
OPTIONS: dict[str, dict[str, Any]] = {
    "BOFT": {"boft_block_size": 8}, "C3A": {"block_size": 16}, "FOURIERFT": {"n_frequency": 50}, "MISS": {"r": 8},
    "OFT": {"oft_block_size": 8}, "RANDLORA": {"r": 4}, "ROAD": {"group_size": 16}, "VERA": {"r": 8},
    "VBLORA": {"num_vectors": 8, "vector_length": 16, "topk": 2}, "WAVEFT": {"n_frequency": 50},
}  # fmt: skip
LOHA = {"kind": "LOHA", "r": 2}
FULL = 32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FoundationFiles:
    return tiny_bert(tmp_path_factory.mktemp("tiny"), initializer_range=0.2, num_hidden_layers=1)


@pytest.fixture(scope="module")
def tiny_spec(tiny: FoundationFiles) -> FoundationSpec:
    return describe(tiny)


@pytest.fixture(scope="module")
def loha(tiny: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    return save_adapter(tiny.folder, tmp_path_factory.mktemp("loha"), "SEQ_CLS", 3, **LOHA)


def outputs(model: Any, inputs: list[list[int]]) -> np.ndarray:
    with torch.no_grad():
        given = [model(input_ids=torch.tensor([ids])).to_tuple() for ids in inputs]
    return np.concatenate([tensor.numpy().ravel() for tensors in given for tensor in tensors])


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def served(files: FoundationFiles, spec: FoundationSpec, made: Conversion) -> Any:
    """The bare model with what the server makes of the conversion."""
    base = FoundationWeights(files.folder, spec.model_type)
    return grafted(files.folder, spec, open_bundle(made.data, Limits(), spec).adapter(spec, FULL, base))


def changed(saved: PeftAdapter, tensors: dict[str, np.ndarray] | None = None, **config: Any) -> bytes:
    """The adapter's zip with other tensors, or keys of its config set."""
    files = unpack(saved.zip(), Limits())
    files[CONFIG] = json.dumps({**json.loads(files[CONFIG]), **config}).encode()
    return pack(files if tensors is None else {**files, WEIGHTS: save(tensors)})


@pytest.mark.parametrize("kind", CONVERTED)
def test_each_kind_that_converts_is_served_as_peft_computes_it(
    tiny: FoundationFiles, tiny_spec: FoundationSpec, tmp_path: Path, kind: str
) -> None:
    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, kind=kind, **OPTIONS.get(kind, {}))
    made = convert(saved.zip(), tiny, FULL)
    assert made.kind == kind
    expected = outputs(peft_model(tiny.folder, saved), INPUTS)
    assert difference(outputs(served(tiny, tiny_spec, made), INPUTS), expected) < 1e-3


# LoRAs on changed base weights, for which PEFT's answer after loading is the oracle.
ON_CHANGED_BASES: dict[str, dict[str, Any]] = {
    "pissa": {"init_lora_weights": "pissa", "target_modules": ["query", "output.dense"]},
    "olora": {"init_lora_weights": "OLoRA", "use_rslora": True, "rank_pattern": {"query": 3}},
    "kasa": {"kasa_config": {"beta": 0.1}, "bias": "lora_only"},
}


@pytest.mark.parametrize("name", ON_CHANGED_BASES)
def test_a_lora_on_changed_base_weights_is_served_as_peft_computes_it(
    tiny: FoundationFiles, tiny_spec: FoundationSpec, tmp_path: Path, name: str
) -> None:
    options = {"r": 4, "target_modules": ["query", "value"], **ON_CHANGED_BASES[name]}
    torch.manual_seed(1)
    base = CLASSES["SEQ_CLS"].from_pretrained(tiny.folder, num_labels=3)
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", **options))
    move(model)
    model.save_pretrained(tmp_path)
    saved = PeftAdapter(tmp_path, "SEQ_CLS", 3)
    made = convert(saved.zip(), tiny, FULL)
    assert made.kind.startswith("LORA with ")
    # The trained change, and the part of the base that it replaces.
    assert made.rank == 8
    expected = outputs(peft_model(tiny.folder, saved), INPUTS)
    assert difference(outputs(served(tiny, tiny_spec, made), INPUTS), expected) < 1e-4
    with pytest.raises(Rejected, match="allow a rank above 2"):
        convert(saved.zip(), tiny, 2)


@pytest.mark.parametrize(
    ("task_type", "config"),
    [
        ("TOKEN_CLS", LOHA),
        ("FEATURE_EXTRACTION", {**LOHA, "target_modules": ["query", "output.dense"]}),
        ("SEQ_CLS", {**LOHA, "modules_to_save": ["classifier", "pooler"]}),
        ("SEQ_CLS", {"kind": "BEFT", "target_modules": ["key", "pooler.dense"]}),
    ],
)
def test_other_tasks_and_a_pooler_saved_whole_convert(
    tiny: FoundationFiles, tiny_spec: FoundationSpec, tmp_path: Path, task_type: str, config: dict[str, Any]
) -> None:
    saved = save_adapter(tiny.folder, tmp_path, task_type, 3, **config)
    made = convert(saved.zip(), tiny, 8)
    expected = outputs(peft_model(tiny.folder, saved), INPUTS)
    assert difference(outputs(served(tiny, tiny_spec, made), INPUTS), expected) < 1e-3


def test_the_difference_is_the_one_between_peft_s_two_models(
    tiny: FoundationFiles, loha: PeftAdapter, tmp_path: Path
) -> None:
    made = convert(loha.zip(), tiny, 2)
    for name, content in unpack(made.data, Limits()).items():
        (tmp_path / name).write_bytes(content)
    base = CLASSES["SEQ_CLS"].from_pretrained(tiny.folder, num_labels=3, attn_implementation="eager")
    tokenizer = Tokenizer.from_file(str(tiny.folder / "tokenizer.json"))
    inputs = [tokenizer.encode(text).ids[:64] for text in TEXTS]
    lora = outputs(PeftModel.from_pretrained(base, tmp_path).eval(), inputs)
    measured = difference(lora, outputs(peft_model(tiny.folder, loha), inputs))
    assert made.rank == 2
    assert 1e-5 < measured < MAX_DIFFERENCE
    assert made.max_difference == pytest.approx(measured, rel=0.05)


def test_a_lora_that_differs_too_much_is_refused_with_both_values(tiny: FoundationFiles, tmp_path: Path) -> None:
    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, kind="OFT", **OPTIONS["OFT"])
    with pytest.raises(Rejected, match=r"rank 1 this OFT differs by 0\.\d+ .* at most 0\.01: .* above 1,"):
        convert(saved.zip(), tiny, 1)


def test_the_same_upload_converts_to_the_same_bytes(tiny: FoundationFiles, loha: PeftAdapter) -> None:
    assert convert(loha.zip(), tiny, FULL).data == convert(loha.zip(), tiny, FULL).data


def test_the_lora_has_the_rank_that_the_change_has(tiny: FoundationFiles, loha: PeftAdapter) -> None:
    """The elementwise product of two products of rank 2 has rank 4."""
    assert convert(loha.zip(), tiny, FULL).rank == 4


def test_a_task_that_the_config_does_not_name_can_be_given(tiny: FoundationFiles, loha: PeftAdapter) -> None:
    nameless = changed(loha, task_type=None)
    with pytest.raises(Rejected, match="task_type: None names no task"):
        convert(nameless, tiny, FULL)
    assert convert(nameless, tiny, FULL, "text-classification").rank > 1


def test_names_of_other_code_and_places_are_not_followed(tiny: FoundationFiles, loha: PeftAdapter) -> None:
    mapping = {"base_model_class": "Antigravity", "parent_library": "antigravity"}
    place = "https://127.0.0.1:1/x"
    made = convert(changed(loha, auto_mapping=mapping, base_model_name_or_path=place, revision="y"), tiny, FULL)
    assert made.data == convert(changed(loha, base_model_name_or_path=place), tiny, FULL).data
    assert unpack(made.data, Limits())[WEIGHTS] == unpack(convert(loha.zip(), tiny, FULL).data, Limits())[WEIGHTS]
    assert "antigravity" not in sys.modules


def tensors_of(saved: PeftAdapter) -> dict[str, np.ndarray]:
    return load(unpack(saved.zip(), Limits())[WEIGHTS])


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"
HEAD = "base_model.model.classifier"


@pytest.mark.parametrize(
    ("name", "tensor", "check", "said"),
    [
        (f"{QUERY}.hada_w1_a", None, "sites", "missing"),
        (f"{HEAD}.weight", None, "sites", "is missing"),
        (f"{QUERY}.odd", np.zeros(2, np.float32), "sites", "maps to no module"),
        (
            "base_model.model.bert.pooler.dense.weight",
            np.zeros((32, 32), np.float32),
            "sites",
            "maps to no module",
        ),
        (f"{QUERY}.hada_w1_a", np.zeros((3, 3), np.float32), "conversion", "size mismatch"),
        (f"{QUERY}.hada_w1_a", np.full((32, 2), np.nan, np.float32), "finite", "nan"),
        (f"{HEAD}.weight", np.zeros((10**9, 0), np.float32), "sites", "1000000000"),
        (f"{HEAD}.bias", np.zeros(4, np.float32), "sites", "[4]"),
        (f"{QUERY}.hada_w1_a", np.zeros((32, 2), np.int64), "safetensors", "I64"),
    ],
)
def test_tensors_that_are_not_the_adapter_s_are_refused(
    tiny: FoundationFiles, loha: PeftAdapter, name: str, tensor: np.ndarray | None, check: str, said: str
) -> None:
    tensors = tensors_of(loha)
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(Rejected) as caught:
        convert(changed(loha, tensors), tiny, FULL)
    assert caught.value.check == check
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("config", "check"),
    [
        ({"r": "many"}, "conversion"), ({"target_modules": ["nothing"]}, "conversion"), ({"r": 3}, "conversion"),
        ({"peft_type": "HRA"}, "sites"),
        ({"peft_type": "LORA"}, "schema"), ({"peft_type": None}, "schema"), ({"peft_type": "P_TUNING"}, "schema"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "schema"), ({"target_modules": "(a+)+$"}, "schema"),
        ({"rank_pattern": {"(?i:[\x00-\uffff])": 2}}, "schema"),
    ],
)  # fmt: skip
def test_configs_that_peft_cannot_make_of_it_are_refused(
    tiny: FoundationFiles, loha: PeftAdapter, config: dict[str, Any], check: str
) -> None:
    with pytest.raises(Rejected) as caught:
        convert(changed(loha, **config), tiny, FULL)
    assert caught.value.check == check


def test_what_lora_cannot_stand_for_is_refused_by_name(tiny: FoundationFiles, tmp_path: Path) -> None:
    saved = save_adapter(tiny.folder, tmp_path, "SEQ_CLS", 3, **LOHA, modules_to_save=["classifier", "LayerNorm"])
    with pytest.raises(Rejected, match=r"conversion: bert\.embeddings\.LayerNorm\.weight"):
        convert(saved.zip(), tiny, FULL)


def test_a_bundle_and_a_pickle_are_refused_before_anything_is_loaded(
    tiny: FoundationFiles, tiny_spec: FoundationSpec, loha: PeftAdapter
) -> None:
    files = unpack(loha.zip(), Limits())
    bundle = good_files(tiny_spec, plain_files(files[WEIGHTS], files[CONFIG]))
    with pytest.raises(Rejected, match="bundle; convert the plain PEFT folder"):
        convert(pack(bundle), tiny, FULL)
    with pytest.raises(Rejected, match="pickled weights are never read"):
        convert(pack({**files, "adapter_model.bin": b"x"}), tiny, FULL)


def test_the_process_that_converts_cannot_unpickle_nor_take_all_memory(tiny: FoundationFiles) -> None:
    program = f"""
import io, torch
from rootstock.adapters.convert.conversion import _confine
from rootstock.adapters.foundation.location import locate
_confine(locate({str(tiny.folder)!r}))
for attempt in (lambda: torch.load(io.BytesIO(b"x")), lambda: torch.ones(2**33)):
    try:
        attempt()
    except RuntimeError as error:
        print("refused", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("refused") == 2
    assert "never read" in done.stdout
    assert "can't allocate" in done.stdout


def refused(converter: Converter, data: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        asyncio.run(converter.convert(data, "LOHA", None))
    return caught.value


def test_a_conversion_that_crashes_is_a_refusal(tmp_path: Path, loha: PeftAdapter) -> None:
    error = refused(Converter(str(tmp_path / "gone"), FULL), loha.zip())
    assert (error.check, "exit code 2" in error.message) == ("conversion", True)


def test_a_conversion_that_hangs_is_killed_and_refused(tiny: FoundationFiles, loha: PeftAdapter) -> None:
    error = refused(Converter(str(tiny.folder), FULL, seconds=0.2), loha.zip())
    assert (error.check, "longer than 0.2 s" in error.message) == ("conversion", True)


def test_a_conversion_that_computes_for_too_long_is_refused_as_one_that_takes_too_long(
    loha: PeftAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system ends it, as it does where the server cannot. Here the interpreter itself takes the time."""
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 9))\nwhile True: pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    error = refused(Converter("default", FULL, seconds=100), loha.zip())
    assert (error.check, "longer than 100 s" in error.message) == ("conversion", True)


def test_a_conversion_is_told_how_long_it_may_compute(tmp_path: Path) -> None:
    limits = "import resource; print(resource.getrlimit(resource.RLIMIT_CPU)[0])"
    asked = ["gone.zip", "out.zip", "--foundation", str(tmp_path), "--rank", "1", "--seconds", "7"]
    program = f"from rootstock.adapters.convert.conversion import main; main({asked}); {limits}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "7\n"


def test_a_server_without_peft_says_where_to_convert(loha: PeftAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "peft" else name)
    error = refused(Converter("default", FULL), loha.zip())
    assert (error.check, error.where) == ("schema", "adapter_config.json: peft_type")
    assert "lacks torch and peft" in error.message
    assert "rootstock adapters convert FOLDER OUT.zip" in error.message


def test_a_server_takes_such_an_upload_and_its_record_says_so(
    serve: Callable[..., RunningServer], foundation: FoundationFiles, tmp_path: Path
) -> None:
    saved = save_adapter(foundation.folder, tmp_path / "good", "SEQ_CLS", 5, **LOHA)
    rotated = save_adapter(foundation.folder, tmp_path / "bad", "SEQ_CLS", 5, kind="OFT", oft_block_size=8)
    texts = ["Where is my parcel?", "ok"]
    with serve().client() as client:
        assert {"LORA", "IA3", "ADALORA", "head-only", "LOHA"} <= set(
            client.get("/v1/limits").json()["adapter_kinds"]
        )
        answer = upload(client, "loha", saved.zip(), labels='["a", "b", "c"]')
        assert answer.status_code == 201, answer.text
        record = answer.json()["verification"]["converted"]
        assert record == {"from": "LOHA", "rank": 4, "max_difference": record["max_difference"]}
        assert 0 <= record["max_difference"] < 1e-4
        [version] = client.get("/v1/adapters/loha").json()["versions"]
        assert version["verification"]["converted"] == record
        body = {"model": "loha", "inputs": texts, "parameters": {"function_to_apply": "none", "top_k": None}}
        predictions = client.post("/v1/predict", json=body).json()["predictions"]
        refusal = upload(client, "oft", rotated.zip())
        assert refusal.status_code == 422
        assert "conversion" in refusal.text
        assert "at most 0.01" in refusal.json()["error"]["message"]
        assert client.get("/v1/adapters/oft").status_code == 404
    for prediction, raw in zip(predictions, peft_outputs(foundation.folder, saved, texts), strict=True):
        scores = [next(p["score"] for p in prediction if p["label"] == label) for label in "abc"]
        assert np.abs(np.array(scores) - raw).max() <= 1e-4 + 1e-2 * np.abs(raw).max()


def test_the_command_writes_the_lora_and_says_by_how_much_it_differs(
    tiny: FoundationFiles, loha: PeftAdapter, tmp_path: Path
) -> None:
    out = tmp_path / "lora.zip"
    arguments = ["convert", str(loha.folder), str(out), "--foundation", str(tiny.folder), "--rank", "8", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["from"], told["file"]) == ("LOHA", str(out))
    assert set(unpack(out.read_bytes(), Limits())) == {CONFIG, WEIGHTS}
    assert CARD not in unpack(out.read_bytes(), Limits())


def test_the_command_fails_in_one_line_and_writes_nothing(
    tiny: FoundationFiles, loha: PeftAdapter, tmp_path: Path
) -> None:
    out = tmp_path / "lora.zip"
    refused_lora = save_adapter(tiny.folder, tmp_path / "lora", "SEQ_CLS", 3)
    for folder, foundation, code, said in (
        (refused_lora.folder, str(tiny.folder), 1, "served as it is"),
        (loha.folder, "nowhere", 2, "no folder"),
    ):
        done = CliRunner().invoke(app, ["convert", str(folder), str(out), "--foundation", foundation])
        assert done.exit_code == code
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not out.exists()
