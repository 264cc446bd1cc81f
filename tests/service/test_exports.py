"""The export cache: an export is used only if it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.exports import is_whole


@pytest.mark.parametrize("file", ["weights.bin", "foundation.json", "tokenizer.json", "trunk-default.onnx"])
def test_an_export_with_a_truncated_or_missing_file_is_not_whole(
    export_folder: Path, tmp_path: Path, file: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(export_folder, copy)
    assert is_whole(copy)
    (copy / file).write_bytes((copy / file).read_bytes()[:1000])
    assert not is_whole(copy)
    (copy / file).unlink()
    assert not is_whole(copy)
