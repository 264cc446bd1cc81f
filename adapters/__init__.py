"""Adapters: their specs, references and bundles, the foundation they run on, and the registry and store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootstock.adapters.bundle import Bundle


def head(
    coef: Any,
    intercept: Any,
    labels: Sequence[Any],
    output: Path | str | None = None,
    *,
    foundation: str = "default",
    problem_type: str | None = None,
    texts: Sequence[str] | None = None,
) -> Bundle:
    """Return the bundle of a linear model on the foundation's embeddings, with golden outputs.

    `coef` has shape (outputs, hidden) and `intercept` (outputs,), as in scikit-learn: one row for each label, or
    one row that scores the second of two labels. The features are the vectors that `/v1/embeddings` gives for
    `foundation`, a setting as for `rootstock serve`. The scores are a softmax. With the `problem_type`
    `multi_label_classification` they are a sigmoid for each label, and with `regression` the outputs themselves.
    `texts` are inputs for the golden set. With `output`, the bundle is written to this path as a zip, which
    `rootstock adapters push` takes.

    Raise SourceError if the shapes do not fit, and FoundationError if torch or the foundation is missing.

    Example: `head(model.coef_, model.intercept_, model.classes_, "intents.zip")`
    """
    from rootstock.adapters.foundation.location import locate
    from rootstock.adapters.home.offline import describe_in
    from rootstock.adapters.sources.output_layer import output_layer
    from rootstock.adapters.sources.source import Source
    from rootstock.adapters.sources.source_bundle import SourceOptions, bundle_of

    layer = output_layer(coef, intercept, labels, problem_type)
    files = locate(foundation)
    source = Source("linear head", layer=layer, labels=layer.labels, problem_type=layer.problem_type)
    options = SourceOptions() if texts is None else SourceOptions(texts=texts)
    bundle = bundle_of(source, files, describe_in(None, files), options=options).bundle
    if output is not None:
        Path(output).write_bytes(bundle.to_zip())
    return bundle
