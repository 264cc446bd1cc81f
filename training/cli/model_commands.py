"""`rootstock train` commands about finished adapters: evaluate, compare, explain, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rootstock.training.cli.options import BundlePath, Foundation, Json, failures, show_table, tell

DataPath = Annotated[
    Path,
    typer.Argument(help="Labelled rows: .csv, .jsonl, .parquet or .conll.", metavar="DATA", show_default=False),
]
TextColumn = Annotated[str, typer.Option(help="The column of the text.")]
LabelColumn = Annotated[str, typer.Option(help="The column of the label.")]


def evaluate(
    bundle: BundlePath,
    data: DataPath,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    foundation: Foundation = "default",
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Measure what this server answers; BUNDLE is then a reference."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure an adapter on labelled rows: accuracy and F1 by label, or F1 of whole entities by type.

    Example: `rootstock train evaluate runs/intents/intents.zip test.csv`

    Example: `rootstock train evaluate intents@3 test.csv --server http://127.0.0.1:3000`
    """
    with failures():
        figures = _figures(bundle, data, text_column, label_column, foundation, server)
    if as_json:
        tell(figures, True)
        return
    groups: dict[str, dict[str, Any]] = figures.get("labels") or figures["entities"]
    rows = [{"": name, **found} for name, found in groups.items()]
    show_table(f"{bundle.name}: {figures['rows']} rows", ["", "precision", "recall", "f1", "support"], rows)
    whole = {k: v for k, v in figures.items() if isinstance(v, float)}
    typer.echo(", ".join(f"{name} {value:.4f}" for name, value in whole.items()))


def _figures(
    bundle: Path, data: Path, text_column: str, label_column: str, foundation: str, server: str | None
) -> dict[str, Any]:
    if server is not None:
        from rootstock.adapters.client.client import Client
        from rootstock.training.study.server_scores import assess_served

        with Client(server) as client:
            return assess_served(client, str(bundle), data, text_column, label_column)
    from rootstock.training.network.predictor import open_predictor
    from rootstock.training.study.assessment import assess

    return assess(open_predictor(bundle, foundation), data, text_column, label_column)


def compare(
    first: BundlePath,
    second: BundlePath,
    data: DataPath,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Compare two adapters on the same labelled rows by a paired test.

    Example: `rootstock train compare old.zip new.zip test.csv`
    """
    with failures():
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.study.assessment import compare_adapters

        adapters = [open_predictor(path, foundation) for path in (first, second)]
        found = compare_adapters(adapters[0], adapters[1], data, text_column, label_column)
    paired = found["paired"]
    verdict = "better" if paired["difference"] > 0 else "worse" if paired["difference"] < 0 else "as good"
    tell(
        found,
        as_json,
        f"{first.name}: {found['first']:.4f}",
        f"{second.name}: {found['second']:.4f}, {verdict}: {paired['wins']} rows won, {paired['losses']} lost",
        f"p {paired['p_value']:.3g} ({paired['test']})",
    )


def explain(
    bundle: BundlePath,
    text: Annotated[str, typer.Argument(help="The text to explain.", metavar="TEXT", show_default=False)],
    label: Annotated[str | None, typer.Option(help="The label to explain; else the best one.")] = None,
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Show what each token of a text adds to a label's score, by integrated gradients.

    Example: `rootstock train explain runs/intents/intents.zip "where is my parcel"`
    """
    with failures():
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.study.attribution import attribute

        found = attribute(open_predictor(bundle, foundation), text, label)
    most = max((abs(value) for _, value in found.tokens), default=0.0) or 1.0
    lines = [
        f"{token:>16} {value:+7.3f} {('+' if value > 0 else '-') * round(24 * abs(value) / most)}"
        for token, value in found.tokens
    ]
    tell(found.to_json(), as_json, f"{found.label}: {found.probability:.3f}", *lines)


def export(
    bundle: BundlePath,
    out: Annotated[Path, typer.Argument(help="The file to write.", metavar="OUT.onnx", show_default=False)],
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Write foundation, adapter and head as one ONNX model: token ids in, logits out, for any runtime.

    Example: `rootstock train export runs/intents/intents.zip intents.onnx`
    """
    with failures():
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.onnx_export import write_onnx

        difference = write_onnx(open_predictor(bundle, foundation), out)
    told = {"file": str(out), "bytes": out.stat().st_size, "max_difference": difference}
    tell(told, as_json, f"{out}: {out.stat().st_size / 1e6:.1f} MB, golden outputs within {difference:.1e}")
