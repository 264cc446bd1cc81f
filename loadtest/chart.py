"""A picture of a report: every pair's ratio, the median with its interval, and the target."""

from __future__ import annotations

from pathlib import Path

from loadtest.report import Report


def draw(report: Report, path: Path) -> bool:
    """Write the PNG; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(
        len(report.rows), 1, figsize=(8, 2.2 * len(report.rows)), squeeze=False, layout="constrained"
    )
    for row, axes in zip(report.rows, all_axes[:, 0], strict=True):
        ratios = [pair.ratio for pair in row.pairs]
        interval = row.interval
        axes.plot(range(1, len(ratios) + 1), ratios, "o", markersize=3, color="tab:blue", label="pairs")
        axes.axhline(interval.median, color="tab:blue", label="median")
        axes.axhspan(interval.low, interval.high, color="tab:blue", alpha=0.2, label="95 % interval")
        if row.target is not None:
            axes.axhline(row.target, color="tab:red", linestyle="--", label="target")
        axes.set_title(f"row {row.number}: {row.title}", fontsize=9)
        axes.set_ylabel("ratio")
        axes.margins(y=0.2)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    all_axes[-1, 0].set_xlabel("pair")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
