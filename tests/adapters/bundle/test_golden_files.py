"""Golden sets of images and audio: files in base64, of the task's modality and of a limited size."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.bundle import Golden
from rootstock.adapters.bundle.golden import MAX_FILE_BYTES, read_golden
from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Rejected
from rootstock.adapters.tasks import Modality

OUTPUT = np.float32([1, 2])


def one(value: Any) -> bytes:
    return json.dumps({"inputs": [value], "outputs": [[1.0, 2.0]]}).encode()


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.sampled_from(["image", "audio"]))
def test_a_file_reads_back_byte_for_byte(data: bytes, modality: Modality) -> None:
    file = ImageFile(data) if modality == "image" else AudioFile(data)
    written = Golden((file,), (OUTPUT,)).to_bytes()
    assert json.loads(written)["inputs"] == [{modality: {"b64": base64.standard_b64encode(data).decode()}}]
    assert read_golden(written, modality).inputs == (file,)


def test_a_file_of_the_limit_is_read_and_one_byte_more_is_refused() -> None:
    file = AudioFile(bytes(MAX_FILE_BYTES))
    assert read_golden(Golden((file,), (OUTPUT,)).to_bytes(), "audio").inputs == (file,)
    more = Golden((AudioFile(file.data + b"\0"),), (OUTPUT,)).to_bytes()
    with pytest.raises(Rejected, match=f"has {MAX_FILE_BYTES + 1} bytes and the limit is {MAX_FILE_BYTES}"):
        read_golden(more, "audio")


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
@pytest.mark.parametrize("kind", ["text", "image", "audio"])
def test_an_input_has_the_task_s_modality(modality: Modality, kind: str) -> None:
    value = {"text": "a text", "image": ImageFile(b"x"), "audio": AudioFile(b"x")}[kind]
    written = Golden((value,), (OUTPUT,)).to_bytes()
    if kind == modality:
        assert read_golden(written, modality).inputs == (value,)
    else:
        with pytest.raises(Rejected, match=rf"inputs\[0\]: not .*; the task takes {modality} inputs"):
            read_golden(written, modality)


@pytest.mark.parametrize(
    "value",
    [
        "aGk=", None, [], {}, {"image": "aGk="}, {"image": {"b64": 7}}, {"image": {"b64": None}}, {"image": {}},
        {"image": {"b64": "aGk=", "url": "x"}}, {"image": {"b64": "aGk="}, "text": "x"}, {"image": {"url": "x"}},
        {"image": ["aGk="]},
    ],
)  # fmt: skip
def test_an_input_of_another_form_is_refused(value: Any) -> None:
    with pytest.raises(Rejected, match="the task takes image inputs") as caught:
        read_golden(one(value), "image")
    assert (caught.value.check, caught.value.where) == ("schema", "golden.json: inputs[0]")


@pytest.mark.parametrize(
    "text", ["aGk", "aGk=\n", " aGk=", "aG=k", "aGl=", "====", "aGk=aGk=", "a-_=", "äGk=", "aGk==", "a", "\0"]
)
def test_only_base64_with_padding_is_read(text: str) -> None:
    with pytest.raises(Rejected, match="not base64 with padding"):
        read_golden(one({"image": {"b64": text}}), "image")


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(Rejected, match="the file is empty"):
        read_golden(one({"image": {"b64": ""}}), "image")
