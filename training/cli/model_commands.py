"""`rootstock train` commands about finished adapters: evaluate, compare, explain, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootstock.training.cli.options import BundlePath, Foundation, Json, failures, progress, show, show_table

if TYPE_CHECKING:
    from rootstock.training.study.labelled_rows import RowColumns

DataPath = Annotated[
    Path,
    typer.Argument(
        help="The labelled rows: .csv, .jsonl, .parquet or .conll.", metavar="DATA", show_default=False
    ),
]
TextColumn = Annotated[str, typer.Option(help="The column of the text.")]
LabelColumn = Annotated[str, typer.Option(help="The column of the label, the labels, or the number.")]
LabelSeparator = Annotated[
    str | None,
    typer.Option(help="For several labels a row in one column: the text between them, such as '|'."),
]


def evaluate(
    bundle: BundlePath,
    data: DataPath,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    label_separator: LabelSeparator = None,
    foundation: Foundation = "default",
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Measure this server's answers; BUNDLE is then an adapter reference, such as intents@3.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="For generated text: the recipe whose templates make prompts of DATA. Default: DATA holds chats "
            "in a column `messages`."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure an adapter on labelled rows.

    The figures are accuracy and F1 by label, or F1 of whole entities by type. Of several labels a row they are
    F1 over all labels and by label; of numbers R², errors and the correlation of ranks. Of an adapter that
    generates text, measure perplexity, exact match, ROUGE, BLEU and, if the references are JSON, valid JSON and
    right fields.
    """
    with failures():
        from rootstock.training.study.labelled_rows import RowColumns, check_rows

        columns = RowColumns(text_column, label_column, label_separator)
        if server is None:
            check_rows(bundle, data, columns)
        figures = _text_figures(bundle, data, foundation, server, recipe)
        texts = figures is not None
        if figures is None:
            figures = _figures(bundle, data, columns, foundation, server)
    if as_json:
        show(figures, True)
        return
    if texts:
        _show_text_figures(bundle.name, figures)
        return
    if groups := figures.get("labels") or figures.get("entities"):
        rows = [{"": name, **rates} for name, rates in groups.items()]
        show_table(f"{bundle.name}: {figures['rows']} rows", ["", "precision", "recall", "f1", "support"], rows)
    else:
        typer.echo(f"{bundle.name}: {figures['rows']} rows")
    typer.echo(_figures_line(figures))
    if ordinal := figures.get("ordinal"):
        values = {name: value for name, value in ordinal.items() if isinstance(value, float)}
        typer.echo("as numbers: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))


def _figures_line(figures: dict[str, Any]) -> str:
    """Return the figures of all rows with their intervals."""
    from rootstock.training.metrics.values.number_figures import figure_text

    bounds = {
        name: " (95 % interval {} to {})".format(*(figure_text(name, bound, 4) for bound in one))
        for name, one in figures["intervals"].items()
    }
    whole = {name: value for name, value in figures.items() if isinstance(value, float)}
    return ", ".join(
        f"{name} {figure_text(name, value, 4)}{bounds.get(name, '')}" for name, value in whole.items()
    )


def _text_figures(
    bundle: Path, data: Path, foundation: str, server: str | None, recipe: Path | None
) -> dict[str, Any] | None:
    """Return the figures of an adapter that generates text; None for another adapter."""
    from rootstock.training.study.text_assessment import assess_text, assess_text_on_server, generates

    if server is not None:
        from rootstock.adapters.client.client import Client
        from rootstock.adapters.spec import GENERATION

        with Client(server) as client:
            task = client.show(str(bundle).partition("@")[0]).task
            if task not in GENERATION:
                return None
            return assess_text_on_server(client, str(bundle), task, data, recipe)
    if not generates(bundle):
        return None
    with progress(bundle.name) as report:
        return assess_text(bundle, foundation, data, recipe, report)


def _show_text_figures(name: str, figures: dict[str, Any]) -> None:
    rows = [
        {"": key, "value": value, "95 % interval": " to ".join(map(str, figures["intervals"].get(key, ())))}
        for key, value in figures.items()
        if isinstance(value, float)
    ]
    show_table(f"{name}: {figures['rows']} prompts", ["", "value", "95 % interval"], rows)


def _figures(
    bundle: Path, data: Path, columns: RowColumns, foundation: str, server: str | None
) -> dict[str, Any]:
    if server is not None:
        from rootstock.adapters.client.client import Client
        from rootstock.training.study.labelled_rows import named_columns
        from rootstock.training.study.server_scores import assess_on_server

        with Client(server) as client, named_columns(data, columns):
            return assess_on_server(client, str(bundle), data, columns)
    from rootstock.training.network.predictor import open_predictor
    from rootstock.training.study.assessment import assess

    return assess(open_predictor(bundle, foundation), data, columns)


def compare(
    first: BundlePath,
    second: BundlePath,
    data: DataPath,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    label_separator: LabelSeparator = None,
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Compare two adapters on the same rows by a paired test."""
    with failures():
        from rootstock.training.study.labelled_rows import RowColumns, check_rows

        columns = RowColumns(text_column, label_column, label_separator)
        for path in (first, second):
            check_rows(path, data, columns)
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.study.assessment import compare_adapters

        adapters = [open_predictor(path, foundation) for path in (first, second)]
        comparison = compare_adapters(adapters[0], adapters[1], data, columns)
    paired = comparison["paired"]
    verdict = "better" if paired["difference"] > 0 else "worse" if paired["difference"] < 0 else "as good"
    rows = f"{paired['wins']} rows won, {paired['losses']} lost"
    show(
        comparison,
        as_json,
        f"{first.name}: {comparison['first']:.4f}",
        f"{second.name}: {comparison['second']:.4f}, {verdict}: {rows}",
        f"p {paired['p_value']:.3g} ({paired['test']})",
    )


def explain(
    bundle: BundlePath,
    text: Annotated[str, typer.Argument(help="The text to explain.", metavar="TEXT", show_default=False)],
    label: Annotated[
        str | None, typer.Option(help="The label to explain. Default: the most probable one.")
    ] = None,
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Show how much each token adds to the score of a label.

    The method is integrated gradients.
    """
    with failures():
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.study.attribution import attribute

        attribution = attribute(open_predictor(bundle, foundation), text, label)
    most = max((abs(value) for _, value in attribution.tokens), default=0.0) or 1.0
    lines = [
        f"{token:>16} {value:+7.3f} {('+' if value > 0 else '-') * round(24 * abs(value) / most)}"
        for token, value in attribution.tokens
    ]
    show(attribution.to_json(), as_json, f"{attribution.label}: {attribution.probability:.3f}", *lines)


def export(
    bundle: BundlePath,
    out: Annotated[Path, typer.Argument(help="The file to write.", metavar="OUT.onnx", show_default=False)],
    foundation: Foundation = "default",
    as_json: Json = False,
) -> None:
    """Write foundation, adapter and head as one ONNX model.

    It maps token ids to logits, for any runtime.
    """
    with failures():
        from rootstock.training.network.predictor import open_predictor
        from rootstock.training.onnx_export import write_onnx

        difference = write_onnx(open_predictor(bundle, foundation), out)
    summary = {"file": str(out), "bytes": out.stat().st_size, "max_difference": difference}
    show(summary, as_json, f"{out}: {out.stat().st_size / 1e6:.1f} MB, golden outputs within {difference:.1e}")
