"""Opens the runner of one foundation: for one pass over its inputs, or for generated text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.runner_choice import runs_on_torch
from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from rootstock.adapters.foundation.location import FoundationFiles
    from rootstock.service.engine.encode.batch import Encoder
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder

_MIB = 2**20


class OpenedRunner(NamedTuple):
    """A runner, the description of its foundation, and the folder with what reads its inputs.

    `texts` is the runner of the foundation's tower for texts, if it has one.
    """

    encoder: Encoder
    spec: FoundationSpec
    folder: Path
    texts: OpenedRunner | None = None


# Opens the runner of one foundation, from its setting, its files and the server's settings.
OpenRunner = Callable[[str, "FoundationFiles", Settings], OpenedRunner]


def open_runner(setting: str, files: FoundationFiles, settings: Settings) -> OpenedRunner:
    """Open the runner that the settings ask for: torch, or ONNX Runtime on the foundation's export."""
    if runs_on_torch(settings):
        from rootstock.adapters.foundation.architecture import describe
        from rootstock.service.engine.runners.torch.runner import TorchRunner

        spec = describe(files)
        limits = settings.slots, settings.runner_threads
        runner = OpenedRunner(TorchRunner(files.folder, spec, *limits), spec, files.folder)
        if spec.text_tower is None:
            return runner
        tower = spec.text_tower.trunk
        texts = OpenedRunner(TorchRunner(files.folder, tower, *limits), tower, files.folder)
        return runner._replace(texts=texts)
    from rootstock.adapters.foundation.location import with_files
    from rootstock.service.engine.runners.onnx.runner import OnnxRunner
    from rootstock.service.engine.runners.onnx.sessions import TEXT_FOLDER
    from rootstock.service.exports.cache import find_export

    folder = find_export(setting, files, settings.export_folders, _precision(files, settings))
    cache_bytes = settings.trunk_cache_mb * _MIB // len(settings.hosted)
    onnx = OnnxRunner(folder, settings.slots, settings.runner_threads, cache_bytes)
    # The export may come from another folder with the same fingerprint.
    onnx.spec = with_files(onnx.spec, files)
    opened = OpenedRunner(onnx, onnx.spec, folder)
    if onnx.spec.text_tower is None:
        return opened
    of_texts = OnnxRunner(folder / TEXT_FOLDER, settings.slots, settings.runner_threads, cache_bytes)
    return opened._replace(texts=OpenedRunner(of_texts, of_texts.spec, folder / TEXT_FOLDER))


def _precision(files: FoundationFiles, settings: Settings) -> str:
    """Return the precision of a foundation on ONNX Runtime. The log has the reason for a choice."""
    if settings.precision != "auto":
        return settings.precision
    from rootstock.service.exports.precision_choice import choose_precision

    folders, threads = settings.export_folders, settings.runner_threads
    choice = choose_precision(files, folders, settings.home_folder, settings.bundle_limits, threads)
    structlog.get_logger().info(
        "precision", foundation=files.name, precision=choice.precision, reason=choice.reason
    )
    return choice.precision


def open_decoder(files: FoundationFiles, settings: Settings) -> TorchDecoder | Seq2SeqDecoder:
    """Open the decoder of a foundation that generates text.

    Raise FoundationError if torch is not installed, or if the passes do not compute what transformers does.
    """
    from rootstock.adapters.foundation.architecture import describe
    from rootstock.adapters.foundation.location import FoundationError

    spec = describe(files)
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.decoder.self_check import WrongPasses
    from rootstock.service.engine.runners.seq2seq.decoder import Seq2SeqDecoder

    limits = settings.slots, settings.generation_cache_tokens, settings.runner_threads
    try:
        if spec.seq2seq_lm is not None:
            return Seq2SeqDecoder(files.folder, spec, *limits)
        return TorchDecoder(files.folder, spec, *limits, precision=settings.generation_precision)
    except WrongPasses as error:
        raise FoundationError(f"{files.folder}: {error}") from None


def open_heads_beside(
    decoder: TorchDecoder | Seq2SeqDecoder, spec: FoundationSpec, files: FoundationFiles
) -> OpenedRunner | None:
    """Return a runner for inputs of one pass on the modules of a decoder, with as many slots again.

    An encoder–decoder model has none.
    """
    from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
    from rootstock.service.engine.runners.decoder.packed_encoder import PackedEncoder

    if not isinstance(decoder, TorchDecoder):
        return None
    return OpenedRunner(PackedEncoder(decoder.trunk, decoder.slots, decoder.cores), spec, files.folder)
