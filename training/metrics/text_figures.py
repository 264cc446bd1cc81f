"""Figures of generated texts against references: exact match, ROUGE, BLEU, JSON, and perplexity.

Each figure comes from counts of every prompt, which can be summed over resampled prompts (see `counts`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from rootstock.training.errors import extra
from rootstock.training.metrics.counts import Counts, Score
from rootstock.training.metrics.intervals import interval, wilson_interval
from rootstock.training.metrics.paired_test import Comparison, gain_interval, paired_bootstrap

ROUGE = ("rouge1", "rouge2", "rougeL")
PERPLEXITY, VALID_JSON, FIELDS = "perplexity", "valid_json", "field_accuracy"
# Figures of prompts that are right or wrong.
_SHARES = ("exact_match", VALID_JSON)
# The greatest value of a figure, if it is not 1; None without one.
_MOST = {PERPLEXITY: None, "bleu": 100.0}
_ORDERS = 4
# By name: the counts of every prompt.
TextCounts = Mapping[str, Counts]


def text_counts(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    likelihoods: Sequence[tuple[float, int]] | None = None,
) -> dict[str, Counts]:
    """Return the counts of answers, each against all references of its prompt; the best one counts.

    `likelihoods` are the negative log-likelihood of a prompt's first reference and the number of its tokens.
    Figures of JSON are there if every reference is JSON, and those of fields if every reference is an object.
    """
    hits = [answer in refs for answer, refs in zip(answers, references, strict=True)]
    counts = {"exact_match": _of_one(hits)}
    if likelihoods is not None:
        counts[PERPLEXITY] = np.array(likelihoods, np.float64)
    counts |= _rouge(answers, references)
    counts["bleu"] = _bleu_counts(answers, references)
    return counts | _json_counts(answers, references)


def figures(counts: TextCounts) -> dict[str, Any]:
    """Return the figures of all prompts. BLEU is in sacrebleu's points, from 0 to 100; shares are from 0 to 1."""
    values = {name: float(score_of(name)(one.sum(0))) for name, one in counts.items()}
    rows = len(next(iter(counts.values())))
    return {"rows": rows, **{name: round(value, 4) for name, value in values.items()}}


def intervals(counts: TextCounts, seed: int = 0) -> dict[str, list[float]]:
    """Return the 95 % interval of each figure: Wilson's of a share of prompts, over resampled prompts of others.

    A perplexity that is the same on all resampled prompts has none.
    """
    bounds: dict[str, list[float]] = {}
    for name, one in counts.items():
        if name in _SHARES:
            bounds[name] = wilson_interval(float(_share(one.sum(0))), len(one))
        elif (found := interval(one, score_of(name), seed=seed, most=_MOST.get(name, 1.0))) is not None:
            bounds[name] = found
    return bounds


def compare_texts(before: TextCounts, after: TextCounts, metric: str) -> tuple[Comparison, list[float]]:
    """Test by pairs whether `after` is better than `before`, and return the interval of the gain too.

    A gain is above 0 if `after` is better: for the perplexity it is the drop.
    """
    score = score_of(metric)
    better: Score = (lambda sums: -score(sums)) if metric == PERPLEXITY else score
    first, second = before[metric], after[metric]
    return paired_bootstrap(first, second, better), gain_interval(
        first, second, better, most=_MOST.get(metric, 1.0)
    )


def score_of(metric: str) -> Score:
    """Return the function from sums of counts to a figure."""
    return _SCORES.get(metric, _share)


def _share(sums: Counts) -> Any:
    above, below = sums[..., 0], sums[..., 1]
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _perplexity(sums: Counts) -> Any:
    return np.exp(np.minimum(_share(sums), 700.0))


def _bleu(sums: Counts) -> Any:
    """Return corpus BLEU of sums: hits and totals by n-gram order, lengths of answers and of references."""
    from sacrebleu.metrics.bleu import BLEU

    def one(row: Counts) -> float:
        hits, totals = (row[at : at + _ORDERS].round().astype(int).tolist() for at in (0, _ORDERS))
        ours, theirs = int(row[-2]), int(row[-1])
        return float(BLEU.compute_bleu(hits, totals, ours, theirs).score)

    return np.apply_along_axis(one, -1, sums)


_SCORES: Mapping[str, Score] = {PERPLEXITY: _perplexity, "bleu": _bleu}


def _of_one(values: Sequence[float]) -> Counts:
    """Return (rows, 2): the value of each row, and 1."""
    return np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)


def _rouge(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Counts]:
    with extra("figures of generated texts"):
        from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE))
    scores = [scorer.score_multi(list(r), answer) for answer, r in zip(answers, references, strict=True)]
    return {name: _of_one([score[name].fmeasure for score in scores]) for name in ROUGE}


def _bleu_counts(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
    with extra("figures of generated texts"):
        from sacrebleu.metrics.bleu import BLEU

    # The order is effective only for the score of one sentence, which is not used.
    bleu = BLEU(effective_order=True)
    rows = []
    for answer, refs in zip(answers, references, strict=True):
        one = bleu.sentence_score(answer, list(refs))
        rows.append([*one.counts, *one.totals, one.sys_len, one.ref_len])
    return np.array(rows, np.float64)


def json_figures(references: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the names of the figures of JSON that these references allow."""
    wanted = [_parsed_or(reference, _Unparsed) for refs in references for reference in refs]
    if _Unparsed in wanted:
        return ()
    return (VALID_JSON, FIELDS) if all(isinstance(value, dict) for value in wanted) else (VALID_JSON,)


def _json_counts(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Counts]:
    names = json_figures(references)
    if not names:
        return {}
    given = [_parsed_or(answer, _Unparsed) for answer in answers]
    counts = {VALID_JSON: _of_one([value is not _Unparsed for value in given])}
    if FIELDS in names:
        wanted = [[_parsed(reference) for reference in refs] for refs in references]
        rows = [_fields(value, values) for value, values in zip(given, wanted, strict=True)]
        counts[FIELDS] = np.array(rows, np.float64)
    return counts


class _Unparsed:
    """The value of a text that is not JSON."""


def _fields(given: Any, wanted: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return the right fields and all fields, against the reference that fits best.

    A field that only one of the two has counts as wrong.
    """
    fields = given if isinstance(given, dict) else {}
    pairs = [
        (
            sum(key in fields and _same(fields[key], value[key]) for key in value),
            len(value.keys() | fields.keys()),
        )
        for value in wanted
    ]
    return max(pairs, key=lambda pair: pair[0] / pair[1] if pair[1] else 1.0)


def _same(first: Any, second: Any) -> bool:
    """Return whether two JSON values are equal; Python takes true for 1."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _parsed_or(text: str, other: Any) -> Any:
    try:
        return _parsed(text)
    except ValueError:
        return other


def _parsed(text: str) -> Any:
    """Return the JSON value of a text. Raise ValueError for a text that is none, and for one nested too deep."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
