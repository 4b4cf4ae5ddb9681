"""Fixed points of length, slope and correlation in deep networks with the same activation and spread in all layers."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from descentlab.analysis.theory.averages import homogeneous_slopes, moments, pair_moments
from descentlab.nn.activations import Activation

SHORTEST, LONGEST = 1e-9, 1e9  # lengths beyond which the search for a fixed point answers 0 and infinity
STRIDE = 2.0**0.5  # factor from one length of that search to the next
ROUNDING = 1e-12  # a factor this close to 1 is 1


@dataclass(frozen=True)
class MeanField:
    """The maps from layer to layer of wide networks with the same activation and spread in all layers.

    Attributes:
        activation: phi.
        sw2: n_in times the variance of a weight.
        sb2: variance of a bias.

    Raises:
        ValueError: for an sw2 or sb2 that is negative or not finite.
    """

    activation: Activation
    sw2: float
    sb2: float = 0.0

    def __post_init__(self) -> None:
        for key in ("sw2", "sb2"):
            if not 0 <= getattr(self, key) < np.inf:
                raise ValueError(f"{key}={getattr(self, key)}: must be a finite number at or above 0")

    def length(self, q: float) -> float:
        """The next layer's length, q' = sw2 E[phi^2] + sb2 (Poole et al. 2016)."""
        return self.sw2 * moments(self.activation, float(q)).square + self.sb2

    def length_slope(self, q: float) -> float:
        """dq'/dq, the factor per layer on a small difference in length (Schoenholz et al. 2017)."""
        return self.sw2 * moments(self.activation, float(q)).growth

    def chi(self, q: float) -> float:
        """sw2 E[phi'^2], the factor per layer on E|delta|^2 and on the squared distance of two near inputs."""
        return self.sw2 * moments(self.activation, float(q)).slope

    def correlation(self, c: float, q: float) -> float:
        """The next layer's correlation, (sw2 E[phi(z1) phi(z2)] + sb2) / q', of two inputs (Poole et al. 2016).

        Args:
            c: correlation of z1 and z2 in this layer, -1 to 1.
            q: length of both, finite and above 0.
        """
        overlap = q * pair_moments(self.activation, float(q), float(np.arccos(c)))[0]
        return (self.sw2 * overlap + self.sb2) / self.length(q)

    def correlation_slope(self, c: float, q: float) -> float:
        """sw2 E[phi'(z1) phi'(z2)]: dc'/dc at a fixed point q of the length, chi at c = 1. Arguments as above."""
        return self.sw2 * pair_moments(self.activation, float(q), float(np.arccos(c)))[1]

    def fixed_point(self, start: float = 1.0) -> "FixedPoint":
        """The limits of length and correlation with depth (Poole et al. 2016; Schoenholz et al. 2017).

        Args:
            start: the first layer's length, as for `settled_length`.
        """
        q = self.settled_length(start)
        chi = self.chi(q)
        c = self._settled_correlation(q) if chi > 1.0 + ROUNDING else 1.0
        return FixedPoint(q, chi, c, self.length_slope(q), self.correlation_slope(c, q) if c < 1.0 else chi)

    def settled_length(self, start: float = 1.0) -> float:
        """The length that networks of growing depth approach; infinity where it grows without bound.

        A saturating phi has one limit for all starts. If the map is marginal (ReLU at sw2 = 2, identity at sw2 = 1,
        both without biases), every length is a fixed point and the result is the start; biases make it infinite. With
        several fixed points (GELU, SiLU) the result is the first one in the direction in which the start moves, which
        is the limit as long as the map never decreases.

        Args:
            start: the first layer's length, above 0.

        Raises:
            ValueError: for a start that is not a finite number above 0.
        """
        if not 0 < start < np.inf:
            raise ValueError(f"start={start}: must be a finite number above 0")
        if homogeneous_slopes(self.activation) is not None:
            slope = self.length_slope(start)
            if abs(slope - 1.0) < ROUNDING:
                return float(start) if self.sb2 == 0.0 else np.inf
            return self.sb2 / (1.0 - slope) if slope < 1.0 else np.inf
        change = self.length(start) - start
        if abs(change) < ROUNDING * start:
            return float(start)
        grows, near = change > 0.0, float(start)
        while SHORTEST < near < LONGEST:
            far = near * STRIDE if grows else near / STRIDE
            if (self.length(far) > far) != grows:
                return float(brentq(lambda q: self.length(q) - q, near, far, xtol=ROUNDING * near, rtol=ROUNDING))
            near = far
        return np.inf if grows else 0.0

    def _settled_correlation(self, q: float) -> float:
        if not 0.0 < q < np.inf:
            return np.nan

        def excess(angle: float) -> float:
            return self.correlation(np.cos(angle), q) - np.cos(angle)

        if excess(0.5 * np.pi) < ROUNDING:
            return 0.0
        for angle in (1e-1, 1e-2, 1e-3, 1e-4):  # c = 1 is a fixed point too, which the bracket has to leave out
            if excess(angle) < 0.0:
                return float(np.cos(brentq(excess, angle, 0.5 * np.pi, xtol=1e-10)))
        return 1.0


@dataclass(frozen=True)
class FixedPoint:
    """The limit of a mean field with depth, and the number of layers to get there.

    A depth is the number of layers in which a quantity falls by a factor e, -1 / log of its slope (Schoenholz et al.
    2017). It is infinite on the critical line and negative if the quantity grows.

    Attributes:
        q: length; infinite if it grows without bound.
        chi: the slope map at q, below 1 in the ordered phase and above 1 in the chaotic one.
        c: correlation of two inputs: 1 unless chi > 1; NaN where chi > 1 and q is infinite or 0.
        length_slope: dq'/dq at q.
        correlation_slope: sw2 E[phi'(z1) phi'(z2)] at (c, q), which is chi where c = 1.
    """

    q: float
    chi: float
    c: float
    length_slope: float
    correlation_slope: float

    @property
    def length_depth(self) -> float:
        """xi_q, the depth of a difference in length."""
        return _depth(self.length_slope)

    @property
    def correlation_depth(self) -> float:
        """xi_c, the depth of the correlation of two inputs; networks train up to about 6 xi_c layers.

        With sb2 = 0 and q = 0 their distance falls at this rate, while the angle between them may stay the same.
        """
        return _depth(self.correlation_slope)

    @property
    def gradient_depth(self) -> float:
        """-1 / log chi, the depth of E|delta|^2 towards the input."""
        return _depth(self.chi)


def _depth(slope: float) -> float:
    if abs(slope - 1.0) < ROUNDING:
        return np.inf
    return float(-1.0 / np.log(slope)) if slope > 0.0 else 0.0
