"""Lists the known extras: files that other programs write beside an adapter, and that a bundle leaves out.

sentence-transformers describes a model in some of them, config.json may name labels, and two may hold a chat
template. Those are read first and then left out too (`descriptions`).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from rootstock.adapters.chat_template import TEMPLATE
from rootstock.adapters.embedding_files import MODULES, PROMPTS, SENTENCE, TOKENIZER

# Patterns of folders, for the first part of a path.
FOLDERS = (
    # transformers' Trainer
    "checkpoint-*", "checkpoints", "global_step*", "logs", "runs",
    # tokenizers
    "additional_chat_templates",
    # sentence-transformers
    "eval", "[0-9]_*",
)  # fmt: skip
FILES = (
    # save_pretrained of a model and of a tokenizer
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "bpe.codes", "sentencepiece.bpe.model", "spiece.model", "spm.model",
    "tokenizer.model", TEMPLATE, "chat_template.json",
    # transformers' Trainer; its pickles are never opened
    "training_args.bin", "trainer_state.json", "*_results.json", "optimizer.pt", "optimizer.bin", "scheduler.pt",
    "scaler.pt", "rng_state*.pth", "latest", "zero_to_fp32.py",
    # sentence-transformers
    MODULES, PROMPTS, "sentence_*_config.json",
)  # fmt: skip
# transformers' config of a model, which may name the labels.
MODEL = "config.json"
_DESCRIPTIONS = (MODULES, PROMPTS, TOKENIZER, TEMPLATE, MODEL, *SENTENCE)
_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")
_WHOLE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "*.gguf", "*.onnx")


def extra_of(path: str) -> str | None:
    """Return the known extra that a path in an adapter's folder belongs to, or None if there is none.

    The extra is the path itself, or the top folder of the path with a slash: a whole checkpoint is one extra.
    """
    first, slash, _ = path.partition("/")
    # Hidden files such as .gitattributes.
    if first.startswith(".") and first != ".":
        return first + slash
    patterns = FOLDERS if slash else FILES
    return first + slash if any(fnmatchcase(first, pattern) for pattern in patterns) else None


def system_file(path: str) -> str | None:
    """Return the name of the file or folder, at any depth, that an operating system added; else None."""
    last = path.rpartition("/")[2]
    if path.startswith("__MACOSX/"):
        return "__MACOSX/"
    return last if last in _SYSTEM or last.startswith("._") else None


def may_be_read(path: str) -> bool:
    """Return whether a server may read this extra: a description, or a tokenizer that may add tokens."""
    return is_description(path) or path == "tokenizer.json"


def is_description(path: str) -> bool:
    """Return whether this extra may name labels, hold a chat template or describe a model's embeddings."""
    return path in _DESCRIPTIONS or (path.count("/") == 1 and fnmatchcase(path, "[0-9]_*/config.json"))


def why_unknown(name: str) -> str:
    """Return why a file is not part of an adapter, with the remedy if its name suggests one."""
    if any(fnmatchcase(name, pattern) for pattern in _WHOLE):
        return (
            "the weights of a whole model, not of an adapter; save the PEFT model with save_pretrained, or "
            "make a bundle of the model: rootstock adapters convert FOLDER OUT.zip"
        )
    if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")):
        return "pickled weights are never read; save as safetensors"
    return "unknown"
