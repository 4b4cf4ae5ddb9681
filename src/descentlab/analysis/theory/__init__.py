"""Theory of wide networks at their random start, and of a linear network while it learns.

Mean field (Poole et al. 2016; Schoenholz et al. 2017): in a layer whose weights have variance sw2 / n_in and whose
biases have variance sb2, every z is Gaussian of variance q, the length, once n_in is large. With g ~ N(0, 1)

    q'  = sw2 E[phi(sqrt(q) g)^2] + sb2     the next layer's length; the first layer's is sw2 |x|^2 / n_0 + sb2
    chi = sw2 E[phi'(sqrt(q) g)^2]          E|delta[l]|^2 = chi E|delta[l+1]|^2: phi' at layer l, sw2 of layer l + 1

so that log10 of the gradient norm falls by -1/2 log10 chi per layer towards the input. Since sw2 is n_in Var(w), this
holds for unequal widths too.

These are means over random draws: compare them with the root mean square of |delta| over networks. The mean of
log10 |delta| falls faster. If phi is linear on either side of 0, the difference at width n is (3 k - 1) / (4 n ln 10)
per layer for a single input, k = E[phi'^4] / E[phi'^2]^2, and less for a mean over inputs. For ReLU that is .0027
decade at width 200 and .017 at 32 (compare Hanin & Nica 2020).
"""

from descentlab.analysis.theory.averages import Moments, moments
from descentlab.analysis.theory.laws import born_dead_probability, saxe_mode
from descentlab.analysis.theory.mean_field import FixedPoint, MeanField
from descentlab.analysis.theory.propagation import Propagation, Spread, layer_spreads, propagate, spread

__all__ = [
    "FixedPoint",
    "MeanField",
    "Moments",
    "Propagation",
    "Spread",
    "born_dead_probability",
    "layer_spreads",
    "moments",
    "propagate",
    "saxe_mode",
    "spread",
]
