"""Audits labelled data: finds its faults before anything is trained on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rootstock.training.data.example import OUTSIDE, normalised
from rootstock.training.data.label_noise import Probabilities, doubtful_labels, doubtful_tags
from rootstock.training.data.near_copies import NearCopyIndex

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
    equal ones are found. A sentence has `words` and their `tags`, and all of these as its `label`. A text that
    may have any number of labels has them in `several`. One with a number has that as its `label`, and no labels.
    """

    text: str
    label: str
    file: str
    line: int
    split: str = ""
    digest: str = ""
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    several: tuple[str, ...] | None = None

    @property
    def counted(self) -> set[str]:
        """The labels that count in the balance of the data: the labels, or the entity types of a sentence."""
        if self.several is not None:
            return set(self.several)
        return {tag[2:] for tag in self.tags if tag != OUTSIDE} if self.tags else {self.label}

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
    probabilities: Sequence[Probabilities] | Probabilities | None = None,
    labels: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
    max_length: int | None = None,
) -> list[Finding]:
    """Return all findings on `rows`, errors first.

    Near duplicates are found by their letters and, with `embeddings` (rows, width), by those too.
    `probabilities` (rows, labels) of models that did not see the row, with their `labels`, serve to find labels
    that are probably wrong; of sentences they are (words, labels). `lengths` in tokens and `max_length` serve to
    find texts that are cut off.

    Raise MissingExtra without datasketch, and with `probabilities` without cleanlab.
    """
    findings = [*_texts(rows, lengths, max_length), *_duplicates(rows), *_balance(rows), *_like_labels(rows)]
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


class _Likeness(NamedTuple):
    """An earlier row that is nearly the same, how grave that is, and the words for it."""

    position: int
    gravity: float
    words: str


def _near_duplicates(
    rows: Sequence[AuditRow], embeddings: npt.NDArray[np.floating[Any]] | None
) -> Iterator[Finding]:
    """Yield a finding for each row whose text is close to, but not the same as, that of an earlier row.

    The row is compared with the closest of those, or with the closest of another split or label if there is one.
    """
    found: dict[int, _Likeness] = {}
    by_embeddings = () if embeddings is None else _like_embeddings(rows, embeddings)
    for number, likeness in chain(_like_letters(rows), by_embeddings):
        earlier = found.setdefault(number, likeness)
        if int(likeness.gravity) > int(earlier.gravity):
            found[number] = likeness
    for number in sorted(found):
        row = rows[number]
        words = f"nearly the same {'content' if row.digest else 'text'} ({found[number].words}) as"
        yield _pair(row, rows[found[number].position], words, "near_")


def _like_letters(rows: Sequence[AuditRow]) -> Iterator[tuple[int, _Likeness]]:
    """Yield the gravest near copy of each text, by the sequences of letters."""
    if not rows or rows[0].digest:
        return
    index = NearCopyIndex()
    for number, row in enumerate(rows):
        copies = [
            _Likeness(position, _gravity(row, rows[position]) + likeness, f"likeness {likeness:.2f}")
            for position, likeness in index.add(row.text)
        ]
        if copies:
            yield number, max(copies, key=lambda one: one.gravity)


def _gravity(row: AuditRow, other: AuditRow) -> int:
    """Return more for a row of another split, and for one of another label."""
    return 4 * (row.split != other.split) + 2 * (row.label != other.label and not row.tags)


def _like_embeddings(
    rows: Sequence[AuditRow], embeddings: npt.NDArray[np.floating[Any]]
) -> Iterator[tuple[int, _Likeness]]:
    """Yield the gravest near copy of each row, by the cosine of the embeddings."""
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
        # Half of a cosine stays below 1, so that it never counts as graver.
        gravity = np.where(cosines >= NEAR, cosines / 2 + graver, -1)
        for i, j in enumerate(gravity.argmax(1)):
            if cosines[i, j] >= NEAR:
                yield begin + i, _Likeness(int(j), float(gravity[i, j]), f"cosine {cosines[i, j]:.3f}")


def _pair(row: AuditRow, earlier: AuditRow, likeness: str, prefix: str = "") -> Finding:
    where = f"{likeness} {earlier.place}"
    # The tags of two sentences that are not the same differ without a fault.
    if row.label != earlier.label and not (prefix and row.tags):
        kind, severity = f"{prefix}conflict", "warning" if prefix else "error"
        message = f"{where}, with another label: {row.label!r} and {earlier.label!r}"
    elif row.split != earlier.split:
        kind, severity = f"{prefix}leak", "warning" if prefix else "error"
        message = f"{where}, which is in {earlier.split}; this row is in {row.split}"
    else:
        kind, severity, message = f"{prefix}duplicate", "note" if prefix else "warning", where
    return Finding(kind, severity, row.file, row.line, message)  # type: ignore[arg-type]


def _balance(rows: Sequence[AuditRow]) -> Iterator[Finding]:
    counts = Counter(label for row in rows for label in row.counted)
    # Numbers have no labels.
    if not rows or (rows[0].several is not None and not counts):
        return
    file = rows[0].file
    if len(counts) == 1 and not rows[0].tags:
        yield Finding("one_label", "error", file, 0, f"every row has the label {next(iter(counts))!r}")
        return
    if not counts:
        yield Finding("one_label", "error", file, 0, "no sentence has an entity")
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


def _like_labels(rows: Sequence[AuditRow]) -> Iterator[Finding]:
    """Yield a finding for each label that differs from another only by case, spacing or Unicode form."""
    first: dict[str, dict[str, AuditRow]] = defaultdict(dict)
    for row in rows:
        for label in row.counted:
            first[normalised(label.replace("_", " ").replace("-", " "))].setdefault(label, row)
    for forms in first.values():
        (label, _), *others = forms.items()
        for other, row in others:
            message = f"label {other!r} is perhaps another spelling of {label!r}; write both in one form"
            yield Finding("like_label", "warning", row.file, row.line, message)


def _unseen(rows: Sequence[AuditRow]) -> Iterator[Finding]:
    """Yield a finding for each label of another split that no training row has."""
    by_split: dict[str, dict[str, AuditRow]] = defaultdict(dict)
    for row in rows:
        for label in row.counted:
            by_split[row.split].setdefault(label, row)
    train = by_split.get("train")
    for split, firsts in by_split.items() if train else ():
        for label in sorted(set(firsts) - set(train or ())):
            row = firsts[label]
            message = f"label {label!r} is in {split} and in no training row"
            yield Finding("unseen_label", "error", row.file, row.line, message)


def _label_noise(
    rows: Sequence[AuditRow], probabilities: Sequence[Probabilities] | Probabilities, labels: Sequence[str]
) -> Iterator[Finding]:
    """Yield the labels that are probably wrong, the likeliest first."""
    ids = {label: i for i, label in enumerate(labels)}
    if not rows[0].tags:
        doubts = doubtful_labels([ids[row.label] for row in rows], np.asarray(probabilities))
    else:
        doubts = doubtful_tags([[ids[tag] for tag in row.tags] for row in rows], list(probabilities))
    for doubt in doubts:
        row = rows[doubt.row]
        subject = "label" if doubt.word is None else f"the tag of {row.words[doubt.word]!r},"
        message = (
            f"{subject} {labels[doubt.given]!r} is probably wrong ({doubt.given_probability:.0%}): "
            f"{labels[doubt.likely]!r} is likelier ({doubt.likely_probability:.0%})"
        )
        yield Finding("label_noise", "note", row.file, row.line, message)
