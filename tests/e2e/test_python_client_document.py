"""The examples of docs/python-client.md run as written, print what the page says, and have correct types."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings
from tests.live_server import RunningServer, run_server, upload
from tests.media import PNG
from tests.media_foundations import make_media_foundation
from tests.media_server import save_media_adapter, upload_media
from tests.peft_adapters import temporary_adapter
from tests.service.engine.generate.families import make_decoder

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "python-client.md"
# An example, and the output that follows it, if the page shows one.
EXAMPLE = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def examples() -> list[tuple[str, str | None]]:
    return [(code, printed or None) for code, printed in EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def documented(
    new_home: Callable[[], Path], foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with the demo adapters, a ranking one and one of images; a tiny decoder has the chat's name."""
    folder = tmp_path_factory.mktemp("foundations")
    tiny = make_decoder("llama", folder / "tiny-chat")
    vision = make_media_foundation("vit", folder / "vision").folder
    settings = Settings(
        home=new_home(),
        foundations=f"default,{tiny.folder},{vision}",
        served_names="chat=tiny-chat",
        log_level="error",
    )
    with run_server(settings) as running, running.client() as client:
        data = temporary_adapter(foundation.folder, "SEQ_CLS", 3, labels=1)
        assert upload(client, "relevance", data, task="text-ranking").status_code == 201
        signs = save_media_adapter("image", vision, folder / "signs")
        assert upload_media(client, "signs", signs, "vision").status_code == 201
        yield running


def test_the_examples_run_in_their_order_and_print_what_the_page_says(
    documented: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOTSTOCK_URL", documented.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand.png").write_bytes(PNG)
    namespace: dict[str, Any] = {"__name__": "example"}
    assert len(examples()) > 10
    try:
        for code, printed in examples():
            out = StringIO()
            with redirect_stdout(out):
                exec(compile(code.replace("http://127.0.0.1:3000", documented.url), str(PAGE), "exec"), namespace)
            if printed is not None:
                assert out.getvalue() == printed, code
    finally:
        namespace["client"].close()


def test_the_examples_have_correct_types(tmp_path: Path) -> None:
    program = tmp_path / "examples.py"
    program.write_text("\n".join(code for code, _ in examples()), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
