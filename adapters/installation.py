"""Checks that the packages of an extra are installed, before anything imports them."""

from __future__ import annotations

from importlib.util import find_spec

# For each extra, the packages that all its commands need. pyproject.toml names the distributions.
PACKAGES = {
    "serve": ("bentoml", "fastapi", "onnxruntime", "pydantic_settings", "structlog", "tokenizers", "uvicorn"),
    "ray": ("fastapi", "pydantic_settings", "ray", "structlog", "tokenizers", "uvicorn"),
    # These read a foundation's layers; an export needs onnx too.
    "layers": ("torch", "transformers"),
    # These convert the chat foundation's GGUF file.
    "chat": ("gguf", "torch", "transformers"),
    # This reads the vision foundation's ONNX file.
    "vision": ("onnx",),
    "torch": ("onnx", "peft", "tokenizers", "torch", "transformers"),
    # These read estimators of scikit-learn.
    "sklearn": ("joblib", "sklearn", "skops"),
    "train": ("jinja2", "peft", "pydantic", "scipy", "sklearn", "torch", "transformers", "yaml"),
}

_EXTRA_OF = {"layers": "torch", "vision": "torch"}


def lack(extra: str, purpose: str) -> str | None:
    """Return one line on the packages that `purpose` lacks and how to install them; None if none is missing."""
    names = [name for name in PACKAGES[extra] if find_spec(name) is None]
    if not names:
        return None
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    verb = "are" if names[1:] else "is"
    package = f"rootstock[{_EXTRA_OF.get(extra, extra)}]"
    return f"{purpose} needs {listed}, which {verb} not installed; run: pip install '{package}'"
