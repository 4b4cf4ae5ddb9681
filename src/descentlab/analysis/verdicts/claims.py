"""Claims: what an experiment sets out to show, declared before it runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from descentlab.analysis.statistics import Better, check_family

KINDS = {  # test of a claim -> the test of statistics.smallest_p behind it, and its name in a table
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
    """One claim of an experiment.

    Attributes:
        id: short name, the key of its values and of its metric.
        statement: the claim in words.
        family: name that claims share whose errors are controlled together.
        metric: the measured quantity, with its unit.
        test: key of KINDS.
        margin: in the unit of the metric; a share for `within`. `equivalent` has no default.
        alpha: familywise error rate of the family.
        n: values behind every case: seeds, pairs, groups or blocks of them. The first n decide.
        cases: number of rows in the table of verdicts.
        better: the good end of the metric; a diverged restart ranks at the other one. By default a diverged restart in
            a speaks against the claim.
        conditional_on: conditions of the verdict: split, task, width, ...
        restarts: restarts of every cell that give n values; n by default, 0 if the values do not come in the order of
            seeds (measurements without a cell, ends pooled over cells). Then n is the least number of values.
        step: distance between neighbouring values of a count (1 for epochs), 0 for a quantity that is not counted. A
            margin of `greater` or `less` must lie between such values.
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


def declared(raw: Any) -> list[Claim]:
    """Read claims from the plain values of a file.

    Args:
        raw: {"alpha": .05, "claims": [{"id": ..., ...}, ...]}. An alpha of a claim replaces the common one; all claims
            of a family share one.

    Raises:
        ValueError: a claim that is incomplete or means nothing; the message is one line.
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
    name, test = item.get("id", "a claim"), item.get("test")
    if test not in KINDS:
        raise ValueError(f"{name}: test={test}: not one of {', '.join(KINDS)}")
    defaults = {"alpha": alpha, "cases": 1, "margin": MARGINS.get(test), "conditional_on": ""}
    defaults |= {"better": "lower" if test == "less" else "higher", "restarts": item.get("n"), "step": 0.0}
    values = {**defaults, **item}
    for key in known:
        if values.get(key) is None:
            raise ValueError(f"{name}: {key} is missing")
    for key in values:
        if key not in known:
            raise ValueError(f"{name}: {key}={values[key]}: unknown key; not one of {', '.join(known)}")
    if values["better"] not in ("lower", "higher"):
        raise ValueError(f"{name}: better={values['better']}: must be lower or higher")
    _check_numbers(name, values)
    _check_margin(name, test, values["margin"], values["step"])
    return Claim(**values)


def _check_numbers(name: str, values: Mapping[str, Any]) -> None:
    """Refuse numbers outside their range."""
    for key, low, high in (
        ("n", 2, math.inf),
        ("cases", 1, math.inf),
        ("restarts", 0, math.inf),
        ("alpha", 0, 1),
        ("margin", -math.inf, math.inf),
        ("step", 0, math.inf),
    ):
        number = values[key]
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= high:
            raise ValueError(f"{name}: {key}={number}: must be a number from {low} to {high}")
        if key in ("n", "cases", "restarts") and not isinstance(number, int):
            raise ValueError(f"{name}: {key}={number}: must be a whole number")


def _check_margin(name: str, test: str, margin: float, step: float) -> None:
    """Refuse a margin that the test does not have, or that a count can be equal to."""
    if test == "equivalent" and not margin > 0:
        raise ValueError(f"{name}: margin={margin}: must be above 0")
    if test == "more_often" and margin:
        raise ValueError(f"{name}: margin={margin}: test=more_often has none")
    if test in ("rate_above", "rate_below", "within") and not 0 < margin < 1:
        raise ValueError(f"{name}: margin={margin}: must lie between 0 and 1")
    if not step:
        return
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
    """Refuse claims that no outcome could support.

    Args:
        claims: all claims of a study.
        at_most: restarts of a cell in this run, if they are fewer than declared.

    Raises:
        ValueError: a claim that could not be supported after Holm's correction; the message says how many values
            suffice.
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
