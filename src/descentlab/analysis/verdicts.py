"""Claims that are declared before a run, and what the run says of them: supported, not supported, undecided.

A claim names its test, and the test has two sides: p is small where the data speak for the claim, p_against where they
speak for its opposite. Both are corrected by Holm over the claim's family. The claim is supported where the first is
at or below alpha, not supported where the second is, undecided where neither is: too few seeds are no refutation.

    test            the claim, of values a (and b, its pair at the same seed)          p-values
    greater, less   the location of a - b, or of a alone, lies above, or below, the    Wilcoxon's test, two-sided
                    margin (the median of means of two differences)
    equivalent      the mean of a - b, or of a, lies within +-margin of 0              two one-sided t tests
    rate_above,     a, which is true or false, is true at a rate above, or below,      exact binomial, two-sided
    rate_below      the margin
    more_often      a is true more often than b, both being true or false              Fisher's exact test, two-sided
    within          one published value lies between the quantiles (1 -+ margin) / 2   its rank among simulated values
                    of simulated ones; outside, and it is not supported only where
                    its rank says so after Holm

A claim may stand for several cases (arms, depths), each with a row of its own and all of them in the family. The
declaration says how many, so that the family's size is fixed before the run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from descentlab.analysis.statistics import (
    Better,
    Interval,
    check_family,
    equivalence,
    fisher_tails,
    holm,
    paired_difference,
    rate_difference,
    rate_tails,
    wilson,
)

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
SCORES = {SUPPORTED: 1, UNDECIDED: 0, NOT_SUPPORTED: -1}
KINDS = {  # test of a claim -> the test of statistics.smallest_p behind it, and what it is called in a table
    "greater": ("wilcoxon", "Wilcoxon signed-rank"),
    "less": ("wilcoxon", "Wilcoxon signed-rank"),
    "equivalent": ("t", "TOST"),
    "rate_above": ("binomial", "exact binomial"),
    "rate_below": ("binomial", "exact binomial"),
    "more_often": ("fisher", "Fisher's exact"),
    "within": ("rank", "rank among simulated"),
}
MARGINS = {"more_often": 0.0, "greater": 0.0, "less": 0.0, "rate_above": 0.5, "rate_below": 0.5, "within": 0.9}


@dataclass(frozen=True)
class Claim:
    """What an experiment sets out to show, as declared before it runs.

    Attributes:
        id: short name, the key of its values and of its metric.
        statement: the claim in words.
        family: claims whose errors are controlled together.
        metric: what is compared, with its unit.
        test: key of KINDS.
        margin: in the metric's unit; a share for `within`. `equivalent` has no default.
        alpha: familywise error rate of its family.
        n: values behind every case: seeds, pairs, groups or blocks of them.
        cases: how many rows it stands for.
        better: which end of the metric a diverged restart ranks at; by default the one that speaks against the claim
            where a diverges.
        conditional_on: what the verdict holds for: split, task, width, ...
        restarts: restarts of every cell that give n values; by default n, and 0 where values do not come from restarts.
        step: distance of neighbouring values where a - b is counted (1 for epochs), 0 where it is not. A margin of
            `greater` or `less` lies between such values: at one of them, "at least" and "more than" differ.
    """

    id: str
    statement: str
    family: str
    metric: str
    test: str
    margin: float
    alpha: float
    n: int
    cases: int
    better: Better
    conditional_on: str
    restarts: int
    step: float


@dataclass(frozen=True)
class Verdict:
    """A row of the verdict table.

    Attributes:
        claim, statement, family, metric, margin, alpha, conditional_on: as declared.
        case: which of the claim's cases; "" where there is one.
        n: values behind it; `diverged` of them are not finite.
        test: its name.
        estimate, low, high: what the test is about, with an interval of coverage `confidence`. `greater` and `less`:
            the Hodges-Lehmann estimate of a - b; the interval excludes the margin exactly where p or p_against is at
            or below alpha. `equivalent`: the mean with Student's interval, which lies within +-margin exactly where p
            is at or below alpha. Rates: Wilson's or Newcombe's interval, which can differ from the exact test close to
            the margin. `within`: the published value and the quantiles it should lie between.
        confidence: 1 - alpha, but 1 - 2 alpha for an equivalence test, which that interval decides.
        p, p_holm: for the claim; p_against, p_against_holm: for its opposite.
        verdict: supported, not supported or undecided.
    """

    claim: str
    case: str
    statement: str
    family: str
    metric: str
    test: str
    margin: float
    alpha: float
    n: int
    diverged: int
    estimate: float
    low: float
    high: float
    confidence: float
    p: float
    p_holm: float
    p_against: float
    p_against_holm: float
    conditional_on: str
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values by column."""
        return asdict(self)


Values = ArrayLike | tuple[ArrayLike, ArrayLike]  # a, or (a, b) at the same seeds; (simulated, published) for `within`


def declared(raw: Any) -> list[Claim]:
    """Claims from the plain values of a file.

    Args:
        raw: {"alpha": .05, "claims": [{"id": ..., ...}, ...]}; an alpha of a claim's own comes before the common one,
            which all claims of a family have to share.

    Raises:
        ValueError: for whatever is wrong with it, in one line.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("claims"), list) or set(raw) - {"alpha", "claims"}:
        raise ValueError("claims: must hold alpha and claims, a list")
    claims = [_declared(item, raw.get("alpha", 0.05)) for item in raw["claims"]]
    for claim in claims:
        if sum(other.id == claim.id for other in claims) > 1:
            raise ValueError(f"id={claim.id}: is declared twice")
        if any(other.family == claim.family and other.alpha != claim.alpha for other in claims):
            raise ValueError(f"alpha={claim.alpha}: claims of the family {claim.family} must share one")
    return claims


def _declared(item: Any, alpha: float) -> Claim:
    known = [field.name for field in fields(Claim)]
    if not isinstance(item, Mapping):
        raise ValueError(f"claims: {item} must be a mapping of {', '.join(known)}")
    name = item.get("id", "a claim")
    test = item.get("test")
    if test not in KINDS:
        raise ValueError(f"{name}: test={test}: not one of {', '.join(KINDS)}")
    defaults = {"alpha": alpha, "cases": 1, "margin": MARGINS.get(test), "conditional_on": ""}
    defaults |= {"restarts": item.get("n"), "step": 0.0}
    values = {**defaults, "better": "lower" if test == "less" else "higher", **item}
    for key in known:
        if values.get(key) is None:
            raise ValueError(f"{name}: {key} is missing")
    for key in values:
        if key not in known:
            raise ValueError(f"{name}: {key}={values[key]}: unknown key; not one of {', '.join(known)}")
    if values["better"] not in ("lower", "higher"):
        raise ValueError(f"{name}: better={values['better']}: must be lower or higher")
    for key, low, high in (
        ("n", 2, math.inf),
        ("cases", 1, math.inf),
        ("alpha", 0, 1),
        ("margin", -math.inf, math.inf),
        ("restarts", 0, math.inf),
        ("step", 0, math.inf),
    ):
        number = values[key]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= high:
            raise ValueError(f"{name}: {key}={number}: must be a number from {low} to {high}")
    if test == "equivalent" and not values["margin"] > 0:
        raise ValueError(f"{name}: margin={values['margin']}: must be above 0")
    if test == "more_often" and values["margin"]:
        raise ValueError(f"{name}: margin={values['margin']}: test=more_often has none")
    if test in ("rate_above", "rate_below", "within") and not 0 < values["margin"] < 1:
        raise ValueError(f"{name}: margin={values['margin']}: must lie between 0 and 1")
    if values["step"]:
        _check_step(name, test, values["margin"], values["step"])
    return Claim(**values)


def _check_step(name: str, test: str, margin: float, step: float) -> None:
    """Refuse a margin at which counted values could lie."""
    if test not in ("greater", "less"):
        raise ValueError(f"{name}: step={step}: goes with test=greater and test=less only")
    if abs(margin / step - round(margin / step)) < 1e-6:
        lower, upper = margin - step / 2, margin + step / 2
        at_least, more = (lower, upper) if test == "greater" else (upper, lower)
        raise ValueError(
            f"{name}: margin={margin}: is a value that a step of {step:g} can give; declare margin={at_least:g} "
            f"to include it or margin={more:g} to exclude it"
        )


def check(claims: Sequence[Claim], at_most: float = math.inf) -> None:
    """Refuse families of which no outcome could support a claim.

    Args:
        claims: all of a study.
        at_most: restarts of a cell, where a run has fewer than declared.

    Raises:
        ValueError: a claim that could not be supported after Holm's correction; says how many values suffice.
    """
    for claim in claims:
        size = sum(other.cases for other in claims if other.family == claim.family)
        n = claim.n
        if at_most < claim.restarts:
            n = int(claim.n * at_most / claim.restarts)
        rate = 1 - claim.margin if claim.test == "rate_below" else claim.margin
        try:
            check_family(n, size, claim.alpha, KINDS[claim.test][0], rate)
        except ValueError as error:
            groups = f"; {claim.n} values take {claim.restarts} restarts" if claim.restarts not in (0, claim.n) else ""
            raise ValueError(f"{claim.id}: {error}{groups}") from error


def judge(claims: Sequence[Claim], values: Mapping[str, Values | Mapping[str, Values] | None]) -> list[Verdict]:
    """Test every claim on what was measured.

    Args:
        claims: as declared.
        values: claim id -> (n,) values a, or (a, b) at the same seeds, or a mapping of cases to these. A restart that
            diverged is NaN or infinite: it ranks worst in `greater`, `less` and `within`, fails a rate, and leaves an
            equivalence undecided. For `within`: (simulated (n,), published). None for a claim that was not measured
            this time: it stays in its family and is undecided, with n = 0.

    Returns:
        One row per claim and case, claims in the order declared; one for a claim that was not measured. With fewer
        values than declared, as in a study's quick form, a row is undecided.

    Raises:
        ValueError: values for a claim that is not declared, none for one that is, or another number of cases.
    """
    names = [claim.id for claim in claims]
    for name in values:
        if name not in names:
            raise ValueError(f"{name}: is not a declared claim; not one of {', '.join(names)}")
    rows: list[tuple[Claim, str, _Evidence]] = []
    missing: dict[str, int] = {}  # family -> cases that were not measured, beyond the one that has a row
    for claim in claims:
        if claim.id not in values:
            raise ValueError(f"{claim.id}: is declared and has no values")
        given = values[claim.id]
        if given is None:
            rows.append((claim, "", _NOTHING))
            missing[claim.family] = missing.get(claim.family, 0) + claim.cases - 1
            continue
        cases = given if isinstance(given, Mapping) else {"": given}
        if len(cases) != claim.cases:
            raise ValueError(f"{claim.id}: has {len(cases)} cases, and {claim.cases} are declared")
        rows += [(claim, str(case), _weigh(claim, one)) for case, one in cases.items()]
    judged: list[Verdict | None] = [None] * len(rows)
    for family in dict.fromkeys(claim.family for claim in claims):
        places = [place for place, row in enumerate(rows) if row[0].family == family]
        absent = [1.0] * missing.get(family, 0)
        for_it = _holm([rows[place][2].p for place in places] + absent)
        against = _holm([rows[place][2].p_against for place in places] + absent)
        for place, p, q in zip(places, for_it, against, strict=False):  # the absent ones come last
            judged[place] = _verdict(*rows[place], p, q)
    return [row for row in judged if row is not None]


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction that leaves NaN, the p of a claim without one, where it is."""
    p = np.array(p_values)
    p[~np.isnan(p)] = holm(p[~np.isnan(p)])
    return p.tolist()


def scores(rows: Sequence[Verdict]) -> dict[str, int]:
    """One number per claim, so that a flip shows: 1 supported, 0 undecided, -1 not; the least of its cases."""
    least: dict[str, int] = {}
    for row in rows:
        least[row.claim] = min(least.get(row.claim, 1), SCORES[row.verdict])
    return least


@dataclass(frozen=True)
class _Evidence:
    """What one case's values say, before Holm."""

    n: int
    diverged: int
    interval: Interval
    p: float
    p_against: float
    inside: bool = False  # the published value, of simulated ones


_NOTHING = _Evidence(0, 0, Interval(math.nan, math.nan, math.nan, 0), 1.0, 1.0)


def _weigh(claim: Claim, values: Values) -> _Evidence:
    if claim.test == "within":
        return _weigh_published(claim, values)
    first, second = values if isinstance(values, tuple) else (values, None)
    a = np.asarray(first, dtype=float)
    if a.ndim != 1 or not a.size:
        raise ValueError(f"{claim.id}: values of shape {a.shape} must be one per seed")
    if claim.test in ("rate_above", "rate_below"):
        return _weigh_rate(claim, a)
    if claim.test == "more_often":
        return _weigh_rates(claim, a, np.asarray(second, dtype=float))
    b = np.zeros_like(a) if second is None else np.asarray(second, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"{claim.id}: needs one value each per seed, not shapes {a.shape} and {b.shape}")
    lost = int((~np.isfinite(a) | ~np.isfinite(b)).sum())
    confidence = _confidence(claim)
    if claim.test == "equivalent":
        if lost or a.size < 2:
            return _Evidence(a.size, lost, Interval(math.nan, math.nan, math.nan, a.size - lost), 1.0, 1.0)
        found = equivalence(a - b, claim.margin, claim.alpha)
        return _Evidence(a.size, 0, found.mean, found.p_within, found.p_beyond)
    pairs = paired_difference(a, b, claim.better, confidence, claim.margin)
    tails = (pairs.p_greater, pairs.p_less) if claim.test == "greater" else (pairs.p_less, pairs.p_greater)
    return _Evidence(a.size, lost, pairs.difference, min(1.0, 2 * tails[0]), min(1.0, 2 * tails[1]))


def _weigh_rate(claim: Claim, a: ndarray) -> _Evidence:
    lost = ~np.isfinite(a)
    if not np.isin(a[~lost], (0, 1)).all():
        raise ValueError(f"{claim.id}: test={claim.test} takes values that are true or false")
    fails = claim.test == "rate_below"  # a diverged restart speaks against the claim
    successes = int(np.where(lost, fails, a == 1).sum())
    above, below = rate_tails(successes, a.size, claim.margin)
    tails = (below, above) if fails else (above, below)
    interval = wilson(successes, a.size, _confidence(claim))
    return _Evidence(a.size, int(lost.sum()), interval, min(1.0, 2 * tails[0]), min(1.0, 2 * tails[1]))


def _weigh_rates(claim: Claim, a: ndarray, b: ndarray) -> _Evidence:
    lost = ~np.isfinite(a), ~np.isfinite(b)
    if b.ndim != 1 or not b.size:
        raise ValueError(f"{claim.id}: test={claim.test} takes two lists of values, a and b")
    if not (np.isin(a[~lost[0]], (0, 1)).all() and np.isin(b[~lost[1]], (0, 1)).all()):
        raise ValueError(f"{claim.id}: test={claim.test} takes values that are true or false")
    counts = (int((a == 1).sum()), int(((b == 1) | lost[1]).sum())), (a.size, b.size)  # what diverged speaks against
    more, less = fisher_tails(*counts)
    interval = rate_difference(*counts, _confidence(claim))
    diverged = int(lost[0].sum() + lost[1].sum())
    return _Evidence(interval.n, diverged, interval, min(1.0, 2 * more), min(1.0, 2 * less))


def _weigh_published(claim: Claim, values: Values) -> _Evidence:
    if not isinstance(values, tuple):
        raise ValueError(f"{claim.id}: test=within takes (simulated, published)")
    simulated, published = np.array(values[0], dtype=float), float(np.asarray(values[1]))
    if simulated.ndim != 1 or not simulated.size or math.isnan(published):
        raise ValueError(f"{claim.id}: test=within takes a list of simulated values and a published number")
    lost = ~np.isfinite(simulated)
    simulated[lost] = -math.inf if claim.better == "higher" else math.inf
    n, shares = simulated.size, [(1 - claim.margin) / 2, (1 + claim.margin) / 2]
    low, high = np.quantile(simulated, shares, method="inverted_cdf" if lost.any() else "linear").tolist()
    rank = 1 + min(int((simulated <= published).sum()), int((simulated >= published).sum()))
    p_against = min(1.0, 2 * rank / (n + 1))
    interval = Interval(published, low, high, n)
    return _Evidence(n, int(lost.sum()), interval, math.nan, p_against, low <= published <= high)


def _verdict(claim: Claim, case: str, evidence: _Evidence, p_holm: float, p_against_holm: float) -> Verdict:
    holds = evidence.inside if claim.test == "within" else p_holm <= claim.alpha
    verdict = SUPPORTED if holds else NOT_SUPPORTED if p_against_holm <= claim.alpha else UNDECIDED
    return Verdict(
        claim=claim.id,
        case=case,
        statement=claim.statement,
        family=claim.family,
        metric=claim.metric,
        test=KINDS[claim.test][1],
        margin=claim.margin,
        alpha=claim.alpha,
        n=evidence.n,
        diverged=evidence.diverged,
        estimate=evidence.interval.estimate,
        low=evidence.interval.low,
        high=evidence.interval.high,
        confidence=claim.margin if claim.test == "within" else _confidence(claim),
        p=evidence.p,
        p_holm=p_holm,
        p_against=evidence.p_against,
        p_against_holm=p_against_holm,
        conditional_on=claim.conditional_on,
        verdict=verdict if evidence.n >= claim.n else UNDECIDED,
    )


def _confidence(claim: Claim) -> float:
    return 1 - (2 if claim.test == "equivalent" else 1) * claim.alpha
