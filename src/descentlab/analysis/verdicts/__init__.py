"""Claims that are declared before a run, and the verdicts of the run on them.

A claim names its test, and the test has two sides: p is small if the data speak for the claim, p_against if they speak
for its opposite. Holm's correction runs over the claim's family on either side. The claim is supported if p is at or
below alpha, not supported if p_against is, and undecided otherwise: too few seeds are no refutation.

    test            the claim, of values a (and b, its pair at the same seed)          p-values
    greater, less   the location of a - b, or of a alone, lies above, or below, the    Wilcoxon's test, two-sided
                    margin (location: the median of means of two differences)
    equivalent      the mean of a - b, or of a, lies within +-margin of 0              two one-sided t tests
    rate_above,     a, which is true or false, is true at a rate above, or below,      exact binomial, two-sided
    rate_below      the margin
    more_often      a is true more often than b, both being true or false              Fisher's exact test, two-sided
    within          one published value lies between the quantiles (1 -+ margin) / 2   its rank among simulated values
                    of simulated ones

`within` cannot support a claim. A published value between the quantiles is "not contradicted"; one outside is not
supported if its rank says so after Holm's correction, and undecided otherwise.

A claim may stand for several cases (arms, depths). Each has a row of its own, and all of them count in the family. The
declaration gives their number, so that the size of the family is fixed before the run. It also gives n, and the first
n values decide: more seeds than declared change no verdict.
"""

from descentlab.analysis.verdicts.claims import Claim, check, declared
from descentlab.analysis.verdicts.evidence import Values
from descentlab.analysis.verdicts.judging import SCORES, Verdict, judge, scores

__all__ = ["SCORES", "Claim", "Values", "Verdict", "check", "declared", "judge", "scores"]
