"""The playground sends an image or a recording that is chosen or dropped, and shows it beside the answer."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.bounds import HANG
from tests.console.browsing import Visit, skip_without_chromium
from tests.live_server import RunningServer
from tests.media import WAV, png
from tests.media_server import run_media_server

IMAGE = png(320, 200)
DROP = """([bytes, name]) => {
    const data = new DataTransfer();
    const content = Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0));
    data.items.add(new File([content], name, { type: "audio/wav" }));
    document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    skip_without_chromium()
    with run_media_server(new_home(), tmp_path_factory.mktemp("media")) as media:
        yield media.running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "it's a hand.png").write_bytes(IMAGE)
    (tmp_path / "one.wav").write_bytes(WAV)
    return tmp_path


def run_form(page: Page) -> list[str]:
    """Run the form and return the labels of the answer."""
    page.get_by_role("button", name="Run").click()
    region = page.get_by_role("region", name="Answer", exact=True)
    expect(region.locator("article.outcome").first).to_be_visible()
    return region.locator(".bars .label").all_inner_texts()


def labels(client: httpx.Client, model: str, modality: str, data: bytes) -> list[str]:
    body = {"model": model, "inputs": {modality: {"b64": base64.b64encode(data).decode()}}}
    answer = client.post("/v1/predict", json={**body, "parameters": {"top_k": None}})
    return [one["label"] for one in answer.json()["predictions"][0]]


def test_a_chosen_image_is_shown_and_classified(
    visit: Callable[..., Visit], client: httpx.Client, folder: Path
) -> None:
    page = visit().open("/#/playground?model=signs")
    page.locator("input[type=file]").set_input_files(folder / "it's a hand.png")
    preview = page.locator(".preview img")
    expect(preview).to_be_visible()
    assert preview.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [320, 200]
    expect(page.locator(".preview")).to_contain_text("it's a hand.png")
    assert run_form(page) == labels(client, "signs", "image", IMAGE)


def test_a_dropped_recording_is_classified(visit: Callable[..., Visit], client: httpx.Client) -> None:
    page = visit().open("/#/playground?model=digits")
    page.locator(".drop").wait_for()
    page.evaluate(DROP, [base64.b64encode(WAV).decode(), "one.wav"])
    expect(page.locator(".preview audio")).to_be_visible()
    assert run_form(page) == labels(client, "digits", "audio", WAV)


def test_a_vector_is_shown_by_its_length(visit: Callable[..., Visit], folder: Path) -> None:
    page = visit().open("/#/playground?model=vision")
    page.locator("input[type=file]").set_input_files(folder / "it's a hand.png")
    run_form(page)
    expect(page.get_by_role("region", name="Answer", exact=True)).to_contain_text("A vector of 16 numbers")


def test_a_file_that_is_no_image_gets_the_server_s_message(visit: Callable[..., Visit], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    begun = visit()
    page = begun.open("/#/playground?model=signs")
    page.locator("input[type=file]").set_input_files(tmp_path / "a.png")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("not an image that can be read")
    begun.expect_refusals()


def test_the_programs_send_the_file_by_its_name(
    visit: Callable[..., Visit], client: httpx.Client, folder: Path
) -> None:
    page = visit().open("/#/playground?model=signs")
    page.locator("input[type=file]").set_input_files(folder / "it's a hand.png")
    best = run_form(page)[0]
    programs = {}
    for language in ("curl", "Python", "JavaScript"):
        page.get_by_role("button", name=language, exact=True).click()
        programs[language] = page.locator(".snippet code").text_content() or ""
        assert len(programs[language]) < 1000
    calls = [
        ["bash", "-c", programs["curl"].replace("curl ", "curl -s ", 1)],
        [sys.executable, "-c", programs["Python"]],
    ]
    if (node := shutil.which("node")) is not None:
        (folder / "call.mjs").write_text(programs["JavaScript"])
        calls.append([node, "call.mjs"])
    for call in calls:
        done = subprocess.run(
            call,
            cwd=folder,
            env={**os.environ, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert best in done.stdout
