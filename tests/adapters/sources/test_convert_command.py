"""`rootstock adapters convert` on models of other libraries: what is written, printed and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner, Result

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from tests.tiny_models import TEXTS, save_setfit


def convert(path: Path, out: Path, tiny: FoundationFiles, *words: str) -> Result:
    return CliRunner().invoke(app, ["convert", str(path), str(out), "--foundation", str(tiny.folder), *words])


def test_a_whole_checkpoint_is_written_as_a_bundle_with_its_figures(
    tiny: FoundationFiles, tiny_spec: FoundationSpec, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "out.zip"
    texts.write_text("\n\n".join(TEXTS))
    result = convert(tuned(embeddings=0.001), out, tiny, "--rank", "3", "--texts", str(texts), "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    bundle = open_bundle(out.read_bytes(), Limits(), tiny_spec)
    assert (told["digest"], told["file"]) == (bundle.digest, str(out))
    assert (told["from"], told["rank"]) == ("whole checkpoint", 3)
    assert told["left_out"] == ["bert.embeddings.word_embeddings.weight"]
    golden = bundle.golden()
    assert golden is not None
    assert golden.inputs == tuple(TEXTS)


def test_a_model_beyond_the_limit_is_one_line_and_no_file(
    tiny: FoundationFiles, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    result = convert(tuned(), tmp_path / "out.zip", tiny, "--rank", "1", "--max-difference", "0.0001")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("rootstock adapters: as a LoRA of rank 1 the model's outputs differ by ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.zip").exists()


def test_a_setfit_model_on_the_foundation_itself_is_said_to_change_no_layer(
    tiny: FoundationFiles, tmp_path: Path
) -> None:
    folder = save_setfit(tiny.folder, tmp_path / "setfit")
    refused = convert(folder, tmp_path / "out.zip", tiny)
    assert refused.exit_code == 1
    assert "--trust-pickle" in refused.stderr
    result = convert(folder, tmp_path / "out.zip", tiny, "--trust-pickle")
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'out.zip'} holds a bundle",
        "made from a SetFit model; its layers are the foundation's",
    ]


def test_a_file_of_texts_without_a_text_is_refused(
    tiny: FoundationFiles, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n \n")
    result = convert(tuned(), tmp_path / "out.zip", tiny, "--texts", str(texts))
    assert result.exit_code == 2
    assert "holds no text; give one text a line" in result.stderr
