"""The notebook about the client is kept without outputs, and runs from its first cell to its last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.bounds import HANG
from tests.e2e.test_serve import serving

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "python-client.ipynb"


def test_the_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.slow
def test_the_notebook_runs(new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with serving(new_home(), "uvicorn") as (_, client):
        monkeypatch.setenv("ROOTSTOCK_URL", str(client.base_url))
        # The kernel is a process with this one's environment.
        NotebookClient(notebook, timeout=HANG, kernel_name="python3").execute()
    shown = "".join(
        output.get("text", "") or output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "'review-sentiment', 'text-classification', 1" in shown
    assert "accuracy: 1.0" in shown
    assert shown.rstrip().endswith("2 passed {'live': 2}\nrefund_request\nnegative")
