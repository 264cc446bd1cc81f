"""The documents run: README's examples, and every file and link that a document names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.e2e.test_serve import serving

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_s_ten_lines_run_as_written(new_home: Callable[[], Path], tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- test: shell -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    with serving(new_home(), "bentoml") as (_, client):
        url = str(client.base_url).rstrip("/")
        script = block[1].replace("localhost:3000", url.removeprefix("http://"))
        program = Path(sys.executable).parent / "rootstock"
        script = script.replace(".venv/bin/rootstock adapters", f"{program} adapters --url {url}")
        script = script.replace("mood.zip", str(tmp_path / "mood.zip"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(answers) == 5
        assert not [a for a in answers if '"error"' in a]
        assert '"negative"' in answers[0]
        assert '"positive"' in answers[0]
        assert '"version":1' in answers[3]
        assert '"version":2' in answers[4]
        live = client.post("/v1/predict", json={"model": "mood", "inputs": "Not bad at all."}).json()
        assert live["version"] == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    folders = ("adapters/", "service/", "training/", "tests/", "docs/", "loadtest/")
    named = {n for n in re.findall(r"`([\w./-]+\.(?:py|md|yaml|toml))`", text) if n.startswith(folders)}
    missing = sorted(n for n in named if not (ROOT / n).is_file())
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    missing += sorted(n for n in links if not (document.parent / n).exists())
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_row_of_a_table_is_in_the_table_that_a_reader_of_markdown_sees(document: Path) -> None:
    """A row after an empty line is a paragraph that begins with a bar."""
    tokens = MarkdownIt("commonmark").enable("table").parse(document.read_text())
    assert [token.content for token in tokens if token.type == "inline" and token.content.startswith("|")] == []


def test_bentoml_build_accepts_the_bentofile(tmp_path: Path) -> None:
    import os

    environment = {**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "true"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(tmp_path.glob("bentos/rootstock/*/src/service/bento.py"))
    assert len(built) == 1
