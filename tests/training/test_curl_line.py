"""A run that publishes ends with a request that the adapter's task takes."""

from __future__ import annotations

import pytest

from rootstock.training.cli.app import _curl


@pytest.mark.parametrize(
    ("task", "request_line"),
    [
        ("text-classification", 'predict -H \'Content-Type: application/json\' -d \'{"model": "mood", "inputs"'),
        ("text-generation", 'chat/completions -H \'Content-Type: application/json\' -d \'{"model": "mood"'),
        ("image-classification", "predict -F image=@FILE -F model=mood"),
        ("audio-classification", "predict -F audio=@FILE -F model=mood"),
    ],
)
def test_the_line_sends_what_the_task_reads(task: str, request_line: str) -> None:
    assert _curl("http://server", "mood", task).startswith(f"curl -s http://server/v1/{request_line}")
