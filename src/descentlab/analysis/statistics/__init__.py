"""Statistics of restarts: intervals, paired tests, success rates, the best of k, modes.

Every function takes one value per restart. An interval over restarts holds for the split of the data that they share.
Functions that draw random numbers take a seed, and repeat exactly.

A diverged restart is a value that is not finite. Intervals of a mean refuse such values: leave them out and report
their number. Comparisons and the best of k rank them worst.
"""

from descentlab.analysis.statistics.arms import ArmComparison, compare_arms, probability_of_improvement
from descentlab.analysis.statistics.best_of import best_of_k, best_of_k_interval, select_best_of_k
from descentlab.analysis.statistics.bootstrap import bootstrap_interval, interquartile_mean
from descentlab.analysis.statistics.comparisons import (
    Equivalence,
    PairedDifference,
    equivalence,
    fisher_tails,
    paired_difference,
    rate_difference,
    rate_tails,
)
from descentlab.analysis.statistics.families import check_family, holm, smallest_p
from descentlab.analysis.statistics.intervals import (
    Means,
    correlation_interval,
    mean_interval,
    mean_intervals,
    metric_bounds,
    quantile_interval,
    reliability,
    spread_interval,
    wilson,
)
from descentlab.analysis.statistics.modes import Dip, dip_test
from descentlab.analysis.statistics.samples import Better, Interval

__all__ = [
    "ArmComparison",
    "Better",
    "Dip",
    "Equivalence",
    "Interval",
    "Means",
    "PairedDifference",
    "best_of_k",
    "best_of_k_interval",
    "bootstrap_interval",
    "check_family",
    "compare_arms",
    "correlation_interval",
    "dip_test",
    "equivalence",
    "fisher_tails",
    "holm",
    "interquartile_mean",
    "mean_interval",
    "mean_intervals",
    "metric_bounds",
    "paired_difference",
    "probability_of_improvement",
    "quantile_interval",
    "rate_difference",
    "rate_tails",
    "reliability",
    "select_best_of_k",
    "smallest_p",
    "spread_interval",
    "wilson",
]
