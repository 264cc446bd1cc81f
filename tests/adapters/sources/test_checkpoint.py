"""Whole checkpoints with default labels, and with files that are not those of save_pretrained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.errors import SourceError
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.sources.kinds import open_source
from rootstock.adapters.sources.source_bundle import SourceBundle


def restate(file: Path, **values: Any) -> None:
    """Change some values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def index(folder: Path, weight_map: Any) -> None:
    """Name the weights in an index, as save_pretrained does for several files."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("auto", [AutoModelForSequenceClassification, AutoModelForTokenClassification])
def test_a_checkpoint_with_two_default_labels_states_none_and_has_the_outputs_of_its_weights(
    tiny: FoundationFiles, tmp_path: Path, convert: Callable[..., SourceBundle], auto: Any
) -> None:
    folder = tmp_path / "binary"
    auto.from_pretrained(tiny.folder, num_labels=2).save_pretrained(folder)
    assert "id2label" not in json.loads((folder / "config.json").read_text())
    assert convert(folder).bundle.manifest.labels == ("LABEL_0", "LABEL_1")
    given = convert(folder, PlainFields(labels=("neg", "pos")))
    assert given.bundle.manifest.labels == ("neg", "pos")
    with pytest.raises(SourceError, match="3 labels were given, and the model has 2 outputs"):
        convert(folder, PlainFields(labels=("a", "b", "c")))


def test_a_checkpoint_without_its_head_is_refused(
    tiny: FoundationFiles, tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned()
    (folder / "model.safetensors").write_bytes((tiny.folder / "model.safetensors").read_bytes())
    with pytest.raises(SourceError, match="holds no weights of the head of BertForSequenceClassification"):
        convert(folder)


def test_weights_in_several_files_are_read_by_their_index(
    tuned: Callable[..., Path], convert: Callable[..., SourceBundle]
) -> None:
    folder = tuned()
    names = open_source(folder, True, False).shapes
    index(folder, dict.fromkeys(names, "model-1.safetensors"))
    made = convert(folder)
    assert made.bundle.manifest.labels == ("people", "parcel", "music")
    assert "model-1.safetensors" not in made.ignored


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"a": "evil.bin"}, "names 'evil.bin'; only files that lie beside it and end in .safetensors are read"),
        ({"a": "../base/model.safetensors"}, "names '../base/model.safetensors'; only files"),
        ({"a": "/base/model.safetensors"}, "names '/base/model.safetensors'; only files"),
        ({"a": 1}, "holds no object weight_map of file names"),
        (["evil.bin"], "holds no object weight_map of file names"),
        (None, "holds no object weight_map of file names"),
        ("evil.bin", "holds no object weight_map of file names"),
        ({"a": "model-2.safetensors"}, "model-2.safetensors cannot be read"),
    ],
)
def test_an_index_names_only_safetensors_files_beside_it(
    tuned: Callable[..., Path], weight_map: Any, said: str
) -> None:
    folder = tuned()
    index(folder, weight_map)
    with pytest.raises(SourceError, match=said):
        open_source(folder, True, False)


def test_a_config_that_names_other_weights_is_refused(tuned: Callable[..., Path]) -> None:
    folder = tuned()
    restate(folder / "config.json", transformers_weights="other.safetensors.index.json")
    with pytest.raises(SourceError, match="names its weights in transformers_weights, which is not read"):
        open_source(folder, True, False)
