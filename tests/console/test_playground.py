"""The console tries each task, compares adapters, and shows programs that make the same call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families

from tests.bounds import HANG
from tests.console.browsing import Visit
from tests.live_server import RunningServer

TEXT = "Ada Lovelace 🙂 sent it from London."


def answer_to(page: Page) -> Any:
    """Run the form and return the region of the answer once it is there."""
    page.get_by_role("button", name="Run").click()
    region = page.get_by_role("region", name="Answer", exact=True)
    expect(region.locator("article.outcome").first).to_be_visible()
    return region


def test_scores_are_bars_best_first_as_the_route_answers(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    page = visit().open("/#/playground?model=review-sentiment")
    page.get_by_label("Text", exact=True).fill(TEXT)
    bars = answer_to(page).locator(".bars li")
    body = {"model": "review-sentiment", "inputs": TEXT, "parameters": {"top_k": None}}
    (expected,) = client.post("/v1/predict", json=body).json()["predictions"]
    assert bars.locator(".label").all_inner_texts() == [one["label"] for one in expected]
    assert bars.locator(".value").all_inner_texts() == [f"{100 * one['score']:.1f} %" for one in expected]


def test_entities_are_marked_where_they_are_also_behind_a_character_of_two_units(
    visit: Callable[..., Visit], client: httpx.Client
) -> None:
    page = visit().open("/#/playground?model=entities")
    page.get_by_label("Text", exact=True).fill(TEXT)
    marks = answer_to(page).locator("mark")
    body = {"model": "entities", "inputs": TEXT, "parameters": {"aggregation_strategy": "simple"}}
    (expected,) = client.post("/v1/predict", json=body).json()["predictions"]
    assert any("London" in TEXT[one["start"] : one["end"]] for one in expected)
    texts = [mark.evaluate("mark => mark.firstChild.textContent") for mark in marks.all()]
    assert texts == [TEXT[one["start"] : one["end"]] for one in expected]


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("ranker", ".bars li"),
        ("topics", ".bars li"),
        ("reader", "mark"),
        ("embedder", "td.heat"),
        ("foundation", "td.heat"),
    ],
)
def test_each_task_shows_its_answer(visit: Callable[..., Visit], model: str, shown: str) -> None:
    page = visit().open(f"/#/playground?model={model}")
    expect(answer_to(page).locator(shown).first).to_be_visible()


def test_a_fan_out_shows_adapters_side_by_side_and_the_error_of_one(visit: Callable[..., Visit]) -> None:
    here = visit()
    page = here.open("/#/playground?model=review-sentiment")
    page.get_by_role("button", name="Compare with another model").click()
    page.get_by_label("Compared model").fill("mood@1")
    page.get_by_label("Compared model").press("Tab")
    page.get_by_role("button", name="Compare with another model").click()
    page.get_by_label("Compared model").last.fill("nobody")
    page.get_by_label("Compared model").last.press("Tab")
    region = answer_to(page)
    outcomes = region.locator("article.outcome")
    expect(outcomes).to_have_count(3)
    expect(outcomes.nth(0)).to_contain_text("positive")
    expect(outcomes.nth(1)).to_contain_text("<img src=x")
    expect(outcomes.nth(2).get_by_role("alert")).to_contain_text("nobody")
    assert "model=mood%401" in page.url
    expect(page.locator(".snippet")).to_contain_text('"models":["review-sentiment","mood@1","nobody"]')
    # The page asks for the task of each model.
    here.expect_refusals()


@pytest.mark.parametrize(
    ("first", "second"), [("review-sentiment", "entities"), ("entities", "review-sentiment")]
)
def test_a_fan_out_over_two_tasks_sends_no_parameter_of_one_task(
    visit: Callable[..., Visit], first: str, second: str
) -> None:
    page = visit().open(f"/#/playground?model={first}&model={second}")
    page.get_by_label("Text", exact=True).fill(TEXT)
    region = answer_to(page)
    expect(region.get_by_role("alert")).to_have_count(0)
    expect(region.locator("article.outcome").nth(0).locator(".bars li, mark").first).to_be_visible()
    expect(region.locator("article.outcome").nth(1)).to_contain_text("so its answer is not comparable")
    expect(page.locator(".snippet")).not_to_contain_text("parameters")


def test_a_name_with_an_at_sign_suggests_aliases_and_versions(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/playground?model=review-sentiment")
    expect(page.locator("#models option[value=mood]")).to_have_count(1)
    page.get_by_label("Model", exact=True).fill("mood@")
    expect(page.locator("#models option[value='mood@live']")).to_have_count(1)
    values = page.locator("#models option").evaluate_all("options => options.map(option => option.value)")
    assert values[-2:] == ["mood@2", "mood@1"]


@pytest.mark.parametrize("model", ["review-sentiment", "embedder", "ranker"])
def test_a_long_text_is_cut_on_demand(visit: Callable[..., Visit], model: str) -> None:
    page = visit().open(f"/#/playground?model={model}")
    page.locator("textarea").fill("word " * 2000)
    page.get_by_label("Cut long texts").check()
    answer_to(page)
    expect(page.locator(".snippet")).to_contain_text('"truncation":true')
    page.get_by_role("button", name="Python", exact=True).click()
    expect(page.locator(".snippet")).to_contain_text("truncation=True")


def test_an_input_that_is_refused_shows_the_server_s_message(visit: Callable[..., Visit]) -> None:
    here = visit()
    page = here.open("/#/playground?model=review-sentiment")
    page.get_by_label("Text", exact=True).fill("word " * 2000)
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("input_too_long")
    here.expect_refusals()


def test_a_chat_streams_its_answer(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/playground?model=tiny-chat")
    page.get_by_text("Options").click()
    page.get_by_label("Longest answer in tokens").fill("12")
    page.get_by_label("Message").fill("héllo")
    page.keyboard.press("Enter")
    turns = page.locator(".turn")
    expect(turns).to_have_count(2)
    expect(turns.last).to_contain_text("first text after")
    expect(turns.last).to_contain_text("+ 12 tokens")
    expect(page.locator(".snippet")).to_contain_text('"stream":true')


def test_an_answer_that_does_not_come_is_stopped_on_demand(visit: Callable[..., Visit]) -> None:
    page = visit().open("/#/playground?model=tiny-chat")
    # The call reaches no server, so that it waits until the user stops it.
    page.route("**/v1/chat/completions", lambda _: None)
    page.get_by_label("Message").fill("hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".turn").last).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_conversation_that_is_cleared_during_an_answer_sends_none_of_it_again(
    visit: Callable[..., Visit],
) -> None:
    page = visit().open("/#/playground?model=tiny-chat")
    page.locator(".chat").wait_for(state="attached")
    # The page itself clears the conversation at the first text, before the answer can end.
    page.evaluate(
        """() => new MutationObserver((_, watch) => {
            if (!document.querySelector(".turn.assistant p:nth-child(2)")?.textContent) return;
            watch.disconnect();
            [...document.querySelectorAll("button")].find((one) => one.textContent === "Clear").click();
        }).observe(document.querySelector(".chat"), { childList: true, subtree: true })"""
    )
    page.get_by_label("Message").fill("first")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_label("Message").fill("second")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Send").click()
    assert sent.value.post_data_json["messages"] == [{"role": "user", "content": "second"}]
    expect(page.locator(".turn").last).to_contain_text("tokens")


def run(command: list[str], **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def result(text: str) -> Any:
    """Return what does not change between two equal calls: the predictions with four digits."""
    return json.loads(text, parse_float=lambda number: round(float(number), 4))["predictions"]


def test_the_three_programs_make_the_call_that_was_made(
    visit: Callable[..., Visit], client: httpx.Client, tmp_path: Path
) -> None:
    text = 'It\'s "fine" – $HOME `x` \\n 🙂'
    page = visit().open("/#/playground?model=review-sentiment")
    page.get_by_label("Text", exact=True).fill(text)
    answer_to(page)
    body = {"model": "review-sentiment", "inputs": text, "parameters": {"top_k": None}}
    expected = result(client.post("/v1/predict", json=body).text)
    programs = {}
    for language in ("curl", "Python", "JavaScript"):
        page.get_by_role("button", name=language, exact=True).click()
        expect(page.get_by_role("button", name=language, exact=True)).to_have_attribute("aria-pressed", "true")
        programs[language] = page.locator(".snippet code").text_content() or ""

    assert result(run(["bash", "-c", programs["curl"].replace("curl ", "curl -s ", 1)])) == expected
    shown = run([sys.executable, "-c", programs["Python"]], env={**os.environ, "PYTHONUTF8": "1"})
    best = max(client.post("/v1/predict", json=body).json()["predictions"][0], key=lambda one: one["score"])
    assert shown.startswith("ClassificationResult(")
    assert f"label={best['label']!r}, score={best['score']:.4}" in shown
    node = shutil.which("node")
    if node is None:
        # The page's own engine runs it where node is absent.
        code = programs["JavaScript"].replace("console.log(", "return (")
        output = page.evaluate(f"(async () => {{ {code} }})()")
    else:
        (tmp_path / "call.mjs").write_text(programs["JavaScript"])
        output = run([node, str(tmp_path / "call.mjs")])
    assert result(output) == expected


def test_the_programs_of_a_stream_print_its_text(visit: Callable[..., Visit], client: httpx.Client) -> None:
    page = visit().open("/#/playground?model=tiny-chat")
    page.get_by_text("Options").click()
    page.get_by_label("Longest answer in tokens").fill("8")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Message").fill("héllo")
    page.keyboard.press("Enter")
    expect(page.locator(".turn").last).to_contain_text("tokens")
    text = page.locator(".turn").last.locator("p").nth(1).text_content()
    page.get_by_role("button", name="Python", exact=True).click()
    program = page.locator(".snippet code").text_content() or ""
    assert (
        run([sys.executable, "-c", program], env={**os.environ, "PYTHONUTF8": "1"}).strip()
        == (text or "").strip()
    )
    page.get_by_role("button", name="curl", exact=True).click()
    events = run(
        ["bash", "-c", (page.locator(".snippet code").text_content() or "").replace("curl ", "curl -s ", 1)]
    )
    assert events.rstrip().endswith("data: [DONE]")


def test_the_console_reads_the_metrics_as_prometheus_s_own_parser_does(
    console: Page, client: httpx.Client, server: RunningServer
) -> None:
    text = client.get("/metrics").text + 'odd{a="x\\"y\\\\z\\n{}, ",b=""} +Inf\nempty_nan NaN\n'
    found = console.evaluate(
        """async (text) => {
            const { parse } = await import("./console/assets/metrics.js");
            const lines = [];
            for (const [name, samples] of parse(text))
                for (const { labels, value } of samples) lines.push([name, labels, String(value)]);
            return lines;
        }""",
        text,
    )
    expected = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len(found) == len(expected)

    def key(name: str, labels: dict[str, str], value: float) -> Any:
        return name, tuple(sorted(labels.items())), str(value)

    ours = sorted(key(name, labels, float(value.replace("Infinity", "inf"))) for name, labels, value in found)
    assert ours == sorted(key(one.name, one.labels, float(one.value)) for one in expected)
