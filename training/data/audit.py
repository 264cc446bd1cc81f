"""Audits labelled data: finds its faults before anything is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rootstock.training.data.example import normalised
from rootstock.training.errors import extra

Severity = Literal["error", "warning", "note"]

# From this cosine of their embeddings on, two texts count as near duplicates.
NEAR = 0.98
# Above this ratio of the commonest label to the rarest, accuracy hides the rare one.
_RATIO = 10.0
# A label with fewer rows can hardly be in all three parts.
_FEWEST = 8
# The rows of one block of similarities.
_BLOCK = 512


class AuditRow(NamedTuple):
    """A labelled input and its place; `split` is empty for data that is not split yet.

    `text` is the text, or the name of an image or recording. Those have the `digest` of their content, by which
    equal ones are found.
    """

    text: str
    label: str
    file: str
    line: int
    split: str = ""
    digest: str = ""

    @property
    def key(self) -> str:
        """The key under which equal inputs are found."""
        return self.digest or normalised(self.text)

    @property
    def place(self) -> str:
        """The input's place in messages."""
        return self.file if self.digest else f"{self.file}, line {self.line}"


@dataclass(frozen=True)
class Finding:
    """A fault of a `kind` at `file` and `line` (0 for the data as a whole); the message is for people.

    An "error" makes figures wrong or training fail, a "warning" may, and a "note" is worth reading.
    """

    kind: str
    severity: Severity
    file: str
    line: int
    message: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(vars(self))


def audit(
    rows: Sequence[AuditRow],
    embeddings: npt.NDArray[np.floating[Any]] | None = None,
    probabilities: npt.NDArray[np.floating[Any]] | None = None,
    labels: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
    max_length: int | None = None,
) -> list[Finding]:
    """Return all findings on `rows`, errors first.

    `embeddings` (rows, width) serve to find near duplicates. `probabilities` (rows, labels) of models that did
    not see the row, with their `labels`, serve to find labels that are probably wrong. `lengths` in tokens and
    `max_length` serve to find texts that are cut off.

    Raise MissingExtra if `probabilities` are given and cleanlab is not installed.
    """
    findings = [*_texts(rows, lengths, max_length), *_duplicates(rows), *_balance(rows)]
    if embeddings is not None:
        findings += _near_duplicates(rows, embeddings)
    if probabilities is not None:
        findings += _label_noise(rows, probabilities, labels)
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda f: order.index(f.severity))


def _texts(rows: Sequence[AuditRow], lengths: Sequence[int] | None, max_length: int | None) -> Iterator[Finding]:
    for i, row in enumerate(rows):
        if not row.text.strip():
            yield Finding("empty", "error", row.file, row.line, "the text is empty")
        elif lengths is not None and max_length is not None and lengths[i] > max_length:
            message = f"{lengths[i]} tokens; the part beyond training.max_length, {max_length}, is cut off"
            yield Finding("long", "warning", row.file, row.line, message)


def _duplicates(rows: Sequence[AuditRow]) -> Iterator[Finding]:
    """Yield a finding for each row that repeats a text, compared with the text's first row."""
    first: dict[str, AuditRow] = {}
    for row in rows:
        if key := row.key:
            earlier = first.setdefault(key, row)
            if earlier is not row:
                yield _pair(row, earlier, "same content as" if row.digest else "same text as")


def _near_duplicates(rows: Sequence[AuditRow], embeddings: npt.NDArray[np.floating[Any]]) -> Iterator[Finding]:
    """Yield a finding for each row whose text is close to, but not the same as, that of an earlier row.

    The row is compared with the closest of those, or with the closest of another split or label if there is one.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = (embeddings / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    keys = np.unique([row.key for row in rows], return_inverse=True)[1]
    split, label = (np.unique([row[i] for row in rows], return_inverse=True)[1] for i in (4, 1))
    for begin in range(0, len(rows), _BLOCK):
        end = min(begin + _BLOCK, len(rows))
        cosines = units[begin:end] @ units[:end].T
        # Only earlier rows count, and exact duplicates have a finding already.
        cosines[np.arange(end) >= np.arange(begin, end)[:, None]] = -1
        cosines[keys[begin:end, None] == keys[:end]] = -1
        graver = (split[begin:end, None] != split[:end]) * 4.0 + (label[begin:end, None] != label[:end]) * 2.0
        for i, j in enumerate(np.where(cosines >= NEAR, cosines + graver, cosines).argmax(1)):
            if cosines[i, j] >= NEAR:
                row = rows[begin + i]
                likeness = (
                    f"nearly the same {'content' if row.digest else 'text'} (cosine {cosines[i, j]:.3f}) as"
                )
                yield _pair(row, rows[j], likeness, "near_")


def _pair(row: AuditRow, earlier: AuditRow, likeness: str, prefix: str = "") -> Finding:
    where = f"{likeness} {earlier.place}"
    if row.label != earlier.label:
        kind, severity = f"{prefix}conflict", "warning" if prefix else "error"
        message = f"{where}, with another label: {row.label!r} and {earlier.label!r}"
    elif row.split != earlier.split:
        kind, severity = f"{prefix}leak", "warning" if prefix else "error"
        message = f"{where}, which is in {earlier.split}; this row is in {row.split}"
    else:
        kind, severity, message = f"{prefix}duplicate", "note" if prefix else "warning", where
    return Finding(kind, severity, row.file, row.line, message)  # type: ignore[arg-type]


def _balance(rows: Sequence[AuditRow]) -> Iterator[Finding]:
    counts = Counter(row.label for row in rows)
    if not rows:
        return
    file = rows[0].file
    if len(counts) == 1:
        yield Finding("one_label", "error", file, 0, f"every row has the label {next(iter(counts))!r}")
        return
    for label, count in sorted(counts.items()):
        if count < _FEWEST:
            yield Finding(
                "rare_label", "warning", file, 0, f"label {label!r} has {count} rows; it needs {_FEWEST}"
            )
    (most, many), (least, few) = counts.most_common(1)[0], counts.most_common()[-1]
    if many / few > _RATIO:
        message = f"label {most!r} has {many} rows and {least!r} {few}: {many / few:.0f} to 1"
        yield Finding("imbalance", "warning", file, 0, message)
    yield from _unseen(rows)


def _unseen(rows: Sequence[AuditRow]) -> Iterator[Finding]:
    """Yield a finding for each label of another split that no training row has."""
    by_split: dict[str, dict[str, AuditRow]] = defaultdict(dict)
    for row in rows:
        by_split[row.split].setdefault(row.label, row)
    train = by_split.get("train")
    for split, firsts in by_split.items() if train else ():
        for label in sorted(set(firsts) - set(train or ())):
            row = firsts[label]
            message = f"label {label!r} is in {split} and in no training row"
            yield Finding("unseen_label", "error", row.file, row.line, message)


def _label_noise(
    rows: Sequence[AuditRow], probabilities: npt.NDArray[np.floating[Any]], labels: Sequence[str]
) -> Iterator[Finding]:
    """Yield the probable label errors of confident learning, the likeliest first (Northcutt et al., 2021)."""
    with extra("checks for label noise"):
        from cleanlab.filter import find_label_issues
    ids = {label: i for i, label in enumerate(labels)}
    label_ids = np.array([ids[row.label] for row in rows])
    # One process: starting a pool takes longer than checking these rows.
    suspects = find_label_issues(label_ids, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    for i in suspects:
        likely = int(probabilities[i].argmax())
        message = (
            f"label {rows[i].label!r} is probably wrong ({probabilities[i, label_ids[i]]:.0%}): "
            f"{labels[likely]!r} is likelier ({probabilities[i, likely]:.0%})"
        )
        yield Finding("label_noise", "note", rows[i].file, rows[i].line, message)
