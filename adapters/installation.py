"""The packages that the distribution's extras bring, looked for before they are imported."""

from __future__ import annotations

from importlib.util import find_spec

# Of each extra, the packages without which none of its commands works. pyproject.toml names the distributions.
PACKAGES = {
    "serve": ("bentoml", "fastapi", "onnxruntime", "pydantic_settings", "structlog", "tokenizers", "uvicorn"),
    # To read a foundation's layers; an export takes onnx too.
    "layers": ("torch", "transformers"),
    "torch": ("onnx", "peft", "tokenizers", "torch", "transformers"),
    "train": ("jinja2", "peft", "pydantic", "scipy", "sklearn", "torch", "transformers", "yaml"),
}

_EXTRA_OF = {"layers": "torch"}


def lack(extra: str, purpose: str) -> str | None:
    """Return what `purpose` lacks and how to install it, in one line; None where every package is there."""
    names = [name for name in PACKAGES[extra] if find_spec(name) is None]
    if not names:
        return None
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
    verb = "are" if names[1:] else "is"
    package = f"rootstock[{_EXTRA_OF.get(extra, extra)}]"
    return f"{purpose} needs {listed}, which {verb} not installed; run: pip install '{package}'"
