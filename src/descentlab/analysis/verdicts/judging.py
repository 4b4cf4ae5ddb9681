"""Verdicts: whether the values of a run support the claims that were declared for it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from descentlab.analysis.statistics import holm
from descentlab.analysis.verdicts.claims import KINDS, Claim
from descentlab.analysis.verdicts.evidence import NOTHING, Evidence, Values, confidence, weigh

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
NOT_CONTRADICTED = "not contradicted"  # by simulations among which a published value is an ordinary one
SCORES = {SUPPORTED: 1.0, NOT_CONTRADICTED: 0.5, UNDECIDED: 0.0, NOT_SUPPORTED: -1.0}


@dataclass(frozen=True)
class Verdict:
    """A row of the verdict table.

    Attributes:
        claim, statement, family, metric, margin, alpha, conditional_on: as declared.
        case: name of the case; "" for a claim with one.
        n: values that were tested; `diverged` of them are not finite.
        test: name of the test.
        estimate, low, high: the estimate that belongs to the test, with an interval of coverage `confidence`.
            `greater` and `less`: the Hodges-Lehmann estimate of a - b; the interval excludes the margin exactly where
            p or p_against is at or below alpha. `equivalent`: the mean with Student's interval, which lies within
            +-margin exactly where p is at or below alpha. Rates: Wilson's or Newcombe's interval, which can differ
            from the exact test close to the margin. `within`: the published value and the quantiles it should lie
            between.
        confidence: 1 - alpha, but 1 - 2 alpha for an equivalence test, which that interval decides.
        p, p_holm: for the claim; p_against, p_against_holm: for its opposite.
        verdict: supported, not contradicted, undecided or not supported.
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


def judge(claims: Sequence[Claim], values: Mapping[str, Values | Mapping[str, Values] | None]) -> list[Verdict]:
    """Test every claim on measured values.

    Args:
        claims: as declared.
        values: claim id -> (n,) values a, or (a, b) at the same seeds, or a mapping of cases to these. A restart that
            diverged is NaN or infinite: it ranks worst in `greater`, `less` and `within`, fails a rate, and leaves an
            equivalence undecided. For `within`: (simulated (n,), published). None for a claim without measurements
            in this run: it stays in its family and is undecided, with n = 0.

    Returns:
        One row per claim and case, claims in the order declared; one row for a claim without measurements. A row with
        fewer values than declared, as in a study's quick form, is undecided.

    Raises:
        ValueError: values for a claim that is not declared, none for one that is, or another number of cases.
    """
    names = [claim.id for claim in claims]
    for name in values:
        if name not in names:
            raise ValueError(f"{name}: is not a declared claim; not one of {', '.join(names)}")
    rows: list[tuple[Claim, str, Evidence]] = []
    missing: dict[str, int] = {}  # family -> cases without measurements, beyond the one that has a row
    for claim in claims:
        if claim.id not in values:
            raise ValueError(f"{claim.id}: is declared and has no values")
        given = values[claim.id]
        if given is None:
            rows.append((claim, "", NOTHING))
            missing[claim.family] = missing.get(claim.family, 0) + claim.cases - 1
            continue
        cases = given if isinstance(given, Mapping) else {"": given}
        if len(cases) != claim.cases:
            raise ValueError(f"{claim.id}: has {len(cases)} cases, and {claim.cases} are declared")
        rows += [(claim, str(case), weigh(claim, one)) for case, one in cases.items()]
    judged: list[Verdict | None] = [None] * len(rows)
    for family in dict.fromkeys(claim.family for claim in claims):
        places = [place for place, row in enumerate(rows) if row[0].family == family]
        absent = [1.0] * missing.get(family, 0)
        for_it = _holm([rows[place][2].p for place in places] + absent)
        against = _holm([rows[place][2].p_against for place in places] + absent)
        for place, p, q in zip(places, for_it, against, strict=False):  # the absent cases come last
            judged[place] = _verdict(*rows[place], p, q)
    return [row for row in judged if row is not None]


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction that leaves NaN, the p of a `within` claim, in its place."""
    p = np.array(p_values)
    p[~np.isnan(p)] = holm(p[~np.isnan(p)])
    return p.tolist()


def scores(rows: Sequence[Verdict]) -> dict[str, float]:
    """One number per claim, the least of its cases: 1 supported, .5 not contradicted, 0 undecided, -1 not supported."""
    least: dict[str, float] = {}
    for row in rows:
        least[row.claim] = min(least.get(row.claim, 1), SCORES[row.verdict])
    return least


def _verdict(claim: Claim, case: str, evidence: Evidence, p_holm: float, p_against_holm: float) -> Verdict:
    holds = evidence.inside if claim.test == "within" else p_holm <= claim.alpha
    best = NOT_CONTRADICTED if claim.test == "within" else SUPPORTED
    verdict = best if holds else NOT_SUPPORTED if p_against_holm <= claim.alpha else UNDECIDED
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
        confidence=claim.margin if claim.test == "within" else confidence(claim),
        p=evidence.p,
        p_holm=p_holm,
        p_against=evidence.p_against,
        p_against_holm=p_against_holm,
        conditional_on=claim.conditional_on,
        verdict=verdict if evidence.n >= claim.n else UNDECIDED,
    )
