"""The faults' table for docs/operations.md, from a run's JUnit file: `make faults` makes both."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

_PROPERTIES = ("fault", "lost", "seconds")


def table(report: Path) -> str:
    """A Markdown table of what the fault tests recorded."""
    lines = ["| fault | lost | answered again, or ended, after |", "| --- | --- | --- |"]
    for case in ElementTree.parse(report).iter("testcase"):
        properties = {one.get("name"): one.get("value") or "" for one in case.iter("property")}
        if all(name in properties for name in _PROPERTIES):
            seconds = float(properties["seconds"])
            lines.append(
                f"| {properties['fault']} | {properties['lost']} | "
                f"{f'{seconds:.2f} s' if seconds else 'at once'} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
