"""The client sends a file, in whatever form its caller has it, as the base64 of its bytes under its modality."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from rootstock.adapters.client.async_client import AsyncClient
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import Misused
from rootstock.adapters.media import AudioFile, ImageFile
from tests.adapters.stand_in import StandIn, serving
from tests.media import PNG, WAV


def encoded(modality: str, data: bytes) -> dict[str, Any]:
    return {modality: {"b64": base64.b64encode(data).decode()}}


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def server(running: StandIn) -> StandIn:
    running.reset()
    return running


@pytest.fixture
def client(server: StandIn) -> Iterator[Client]:
    with Client(server.url, retries=0) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in (
        ("a.png", PNG),
        ("a.wav", WAV),
        ("without a suffix", PNG),
        ("wrong.flac", b"?"),
        ("a", b"?"),
    ):
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_a_file_is_sent_under_its_modality(server: StandIn, client: Client, folder: Path) -> None:
    sent = [
        (folder / "a.png", encoded("image", PNG)),
        (folder / "a.wav", encoded("audio", WAV)),
        (folder / "without a suffix", encoded("image", PNG)),
        (folder / "wrong.flac", encoded("audio", b"?")),
        (PNG, encoded("image", PNG)),
        (bytearray(WAV), encoded("audio", WAV)),
        (ImageFile(b"?"), encoded("image", b"?")),
        (AudioFile(PNG), encoded("audio", PNG)),
        ({"image": folder / "a"}, encoded("image", b"?")),
        ({"audio": b"?"}, encoded("audio", b"?")),
        ({"image": "https://images.example/a.png"}, {"image": "https://images.example/a.png"}),
        ({"text": "x", "text_pair": "y"}, {"text": "x", "text_pair": "y"}),
        ("a.png", "a.png"),
    ]
    for given, _ in sent:
        client.predict("a", given)
    client.predict("a", [given for given, _ in sent])
    client.fan_out(["a", "b"], folder / "a.png")
    wanted = [body for _, body in sent]
    assert [seen.json["inputs"] for seen in server.seen] == [*wanted, wanted, encoded("image", PNG)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "F", "I"])
def test_an_image_of_pillow_is_sent_as_a_png_file(server: StandIn, client: Client, mode: str) -> None:
    image = Image.new(mode, (5, 3))
    client.predict("a", image)
    sent = base64.b64decode(server.seen[0].json["inputs"]["image"]["b64"])
    with Image.open(io.BytesIO(sent)) as read:
        assert (read.format, read.size) == ("PNG", image.size)
        assert read.convert("RGB").tobytes() == image.convert("RGB").tobytes()


def test_a_photo_of_pillow_is_sent_upright_as_the_pipelines_of_transformers_read_it(
    server: StandIn, client: Client
) -> None:
    from transformers.image_utils import load_image

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(file, "JPEG", exif=exif)
    client.predict("model", Image.open(file))
    sent = base64.b64decode(server.seen[0].json["inputs"]["image"]["b64"])
    upright = load_image(Image.open(file))
    assert upright.size == (30, 40)
    assert load_image(Image.open(io.BytesIO(sent))).tobytes() == upright.tobytes()


def test_files_are_embedded_in_the_form_of_jina(server: StandIn, client: Client, folder: Path) -> None:
    assert client.embed("a", folder / "a.png").shape == (2,)
    assert client.embed("a", [PNG, folder / "a.wav"]).shape == (2, 2)
    assert client.embed("a", ["x", PNG]).shape == (2, 2)
    assert client.embed("a", PNG).shape == (2,)
    image = encoded("image", PNG)
    assert [seen.json["input"] for seen in server.seen] == [
        [image],
        [image, encoded("audio", WAV)],
        [{"text": "x"}, image],
        [image],
    ]


def test_many_files_are_read_when_they_are_sent(server: StandIn, client: Client, folder: Path) -> None:
    paths = (folder / "a.png" for _ in range(5))
    assert len(list(client.predict_many("a", paths, batch=2))) == 5
    with pytest.raises(Misused, match="not many inputs"):
        list(client.predict_many("a", folder / "a.png"))


async def ask(url: str, given: Any) -> None:
    async with AsyncClient(url, retries=0) as client:
        await client.predict("a", given)


def test_the_asynchronous_client_sends_files_too(server: StandIn, folder: Path) -> None:
    asyncio.run(ask(server.url, folder / "a.png"))
    assert server.seen[0].json["inputs"] == encoded("image", PNG)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Path("no such file.png"), "'no such file.png' cannot be read: No such file"),
        (Path("/"), "cannot be read"),
        (b"?", "neither its name nor its first bytes"),
    ],
)
def test_a_file_that_cannot_be_sent_is_misuse(server: StandIn, client: Client, given: Any, words: str) -> None:
    with pytest.raises(Misused, match=words):
        client.predict("a", given)
    with pytest.raises(Misused, match=words):
        client.embed("a", [given])
    assert server.seen == []


def test_a_path_in_a_pipeline_of_images_is_a_string_as_in_transformers(
    server: StandIn, client: Client, folder: Path
) -> None:
    classify = client.pipeline("a", "image-classification")
    classify([str(folder / "a.png"), "https://images.example/a.png", PNG])
    assert server.seen[-1].json["inputs"] == [
        encoded("image", PNG),
        {"image": "https://images.example/a.png"},
        encoded("image", PNG),
    ]
