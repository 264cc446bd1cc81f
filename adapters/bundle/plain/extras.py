"""The files that other programs write beside an adapter, which a bundle leaves out.

Those in which sentence-transformers describes a model are left out too, after they are read (`descriptions`).
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# Folders, by the first part of a path.
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
    "tokenizer.model", "chat_template.jinja", "chat_template.json",
    # transformers' Trainer; what it pickles is never opened
    "training_args.bin", "trainer_state.json", "*_results.json", "optimizer.pt", "optimizer.bin", "scheduler.pt",
    "scaler.pt", "rng_state*.pth", "latest", "zero_to_fp32.py",
    # sentence-transformers
    "modules.json", "config_sentence_transformers.json", "sentence_*_config.json",
)  # fmt: skip
_DESCRIPTIONS = (
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json",
)  # fmt: skip
_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")
_WHOLE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json", "*.gguf", "*.onnx")


def extra_of(path: str) -> str | None:
    """Return the known extra that a path in an adapter's folder belongs to, or None where it is none.

    That is the path itself, or the folder that holds it, with a slash: a checkpoint is one extra.
    """
    first, slash, _ = path.partition("/")
    # Hidden files such as .gitattributes.
    if first.startswith(".") and first != ".":
        return first + slash
    patterns = FOLDERS if slash else FILES
    return first + slash if any(fnmatchcase(first, pattern) for pattern in patterns) else None


def system_file(path: str) -> str | None:
    """Return what an operating system adds to any folder, at any depth, where the path is such; else None."""
    last = path.rpartition("/")[2]
    if path.startswith("__MACOSX/"):
        return "__MACOSX/"
    return last if last in _SYSTEM or last.startswith("._") else None


def is_description(path: str) -> bool:
    """Return whether sentence-transformers describes in this extra how a text becomes a vector."""
    return path in _DESCRIPTIONS or (path.count("/") == 1 and fnmatchcase(path, "[0-9]_*/config.json"))


def why_unknown(name: str) -> str:
    """Return why a file is no part of an adapter, and the remedy where the file tells it."""
    if any(fnmatchcase(name, pattern) for pattern in _WHOLE):
        return "the weights of a whole model, not of an adapter; save the PEFT model with save_pretrained"
    if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt")):
        return "pickled weights are never read; save as safetensors"
    return "unknown"
