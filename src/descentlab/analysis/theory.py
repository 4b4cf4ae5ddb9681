"""What theory predicts for wide networks at their random start, and for a linear network while it learns.

Mean field (Poole et al. 2016; Schoenholz et al. 2017): in a layer whose weights have variance sw2 / n_in and whose
biases have variance sb2, every z is Gaussian of variance q, the length, once n_in is large. With g ~ N(0, 1)

    q'  = sw2 E[phi(sqrt(q) g)^2] + sb2     the next layer's length; the first one's is sw2 |x|^2 / n_0 + sb2
    chi = sw2 E[phi'(sqrt(q) g)^2]          E|delta[l]|^2 = chi E|delta[l+1]|^2: phi' at layer l, sw2 of layer l + 1

so that log10 of the gradient norm falls by -1/2 log10 chi per layer towards the input. Since sw2 is n_in Var(w), this
holds for unequal widths too.

These are means over random draws, to be held against the root mean square of |delta| over nets. The mean of
log10 |delta| falls faster: where phi is linear on either side of 0, at width n, by (3 k - 1) / (4 n ln 10) per layer
for a single input, k = E[phi'^4] / E[phi'^2]^2, and by less for a mean over inputs. For ReLU that is .0027 decade at
width 200 and .017 at 32 (compare Hanin & Nica 2020).

The averages are exact where phi is linear on either side of 0, which is measured on phi and not read off its name,
and adaptive quadrature elsewhere. Gauss-Hermite is avoided: a node on ReLU's kink gets E[phi'^2] wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.integrate import cubature
from scipy.optimize import brentq

from descentlab.nn.activations import Activation
from descentlab.nn.initializers import Initializer

REACH = 12.0  # standard deviations that are integrated over: what lies beyond weighs 1e-32
PRECISION = 1e-11  # relative, of the integrals
SHORTEST, LONGEST = 1e-9, 1e9  # lengths beyond which the search for a fixed point answers 0 and infinity
STRIDE = 2.0**0.5  # factor from one length of that search to the next
ROUNDING = 1e-12  # a factor this close to 1 is 1


class Moments(NamedTuple):
    """Averages over z = sqrt(q) g, g ~ N(0, 1).

    Attributes:
        square: E[phi(z)^2].
        slope: E[phi'(z)^2].
        growth: the derivative of E[phi(z)^2] by q: E[phi phi' g] / sqrt(q), which a kink does not disturb.
    """

    square: float
    slope: float
    growth: float


@lru_cache(maxsize=10_000)
def moments(activation: Activation, q: float) -> Moments:
    """The averages that the length and slope maps are made of.

    Args:
        activation: phi.
        q: variance of z, at or above 0; infinity gives the limits.
    """
    sides = _ray_slopes(activation)
    if sides is None and q in (0.0, np.inf):
        at_zero = float(_evaluate(activation, np.zeros(1))[0][0])
        if q == 0.0 and at_zero != 0.0:
            return Moments(at_zero**2, *moments(activation, 1e-8)[1:])
        sides = _slopes(activation, 1e-9 if q == 0.0 else 1e4)
    if sides is not None:
        half = 0.5 * (sides[0] ** 2 + sides[1] ** 2)
        return Moments(half * q if half else 0.0, half, half)
    root, scale = _scales(activation, q)

    def integrand(nodes: ndarray) -> ndarray:  # g and -g in one, so that what cancels does so before it is summed
        g = nodes[:, 0]
        (above, slope_above), (below, slope_below) = (_evaluate(activation, z) for z in (root * g, -root * g))
        squares = (above**2 + below**2) / scale**2
        growth = (above * slope_above - below * slope_below) * g / scale
        values = np.stack([squares, slope_above**2 + slope_below**2, growth], axis=-1)  # (nodes, 3)
        return values * (np.exp(-0.5 * g * g) / np.sqrt(2.0 * np.pi))[:, None]

    parts = [_integral(integrand, [low], [high]) for low, high in _panels(root)]
    square, slope, growth = np.sum(parts, axis=0)
    return Moments(float(square) * scale**2, float(slope), float(growth) * scale / root)


def _evaluate(activation: Activation, z: ndarray) -> tuple[ndarray, ndarray]:
    """phi(z) and phi'(z) as new float64 arrays; z is left alone."""
    value = activation(z)
    slope = activation.derivative(z, value)
    return value, slope.astype(z.dtype)


def _slopes(activation: Activation, distance: float) -> tuple[float, float]:
    """Slopes phi' at a distance to the right and to the left of 0."""
    right, left = _evaluate(activation, np.array([distance, -distance]))[1]
    return float(right), float(left)


@lru_cache(maxsize=100)
def _ray_slopes(activation: Activation) -> tuple[float, float] | None:
    """Slopes right and left of 0 where phi is linear on either side of it (homogeneous), None elsewhere."""
    distance = np.geomspace(1e-6, 1e3, 46)
    z = np.concatenate([distance, -distance])
    right, left = _slopes(activation, 1.0)
    expected = np.where(z > 0, right, left)
    value, slope = _evaluate(activation, z)
    linear = np.allclose(value, expected * z, rtol=1e-13, atol=0.0) and np.allclose(slope, expected, rtol=1e-13, atol=0)
    return (right, left) if linear else None


def _scales(activation: Activation, q: float) -> tuple[float, float]:
    """The sizes of z and of phi(z), by which integrands are brought to the order of 1."""
    root = float(np.sqrt(q))
    return root, float(np.abs(_evaluate(activation, np.array([-root, root]))[0]).max()) or 1.0


def _panels(root: float) -> list[tuple[float, float]]:
    """The range of |g| cut at |z| = 1/4, 1, 4, ..., lest a bend of phi near 0 fall between the first nodes."""
    cuts = 4.0 ** np.arange(-1, 40) / root
    return list(pairwise([0.0, *cuts[cuts < REACH].tolist(), REACH]))


def _integral(integrand: Callable[[ndarray], ndarray], low: list[float], high: list[float]) -> ndarray:
    result = cubature(integrand, low, high, rtol=PRECISION, atol=1e-2 * PRECISION)
    if result.status != "converged":
        raise ArithmeticError(f"quadrature over {low} to {high} stopped at an error of {result.error.max():.1e}")
    return result.estimate


def _pair_moments(activation: Activation, q: float, angle: float) -> tuple[float, float]:
    """E[phi(z1) phi(z2)] / q and E[phi'(z1) phi'(z2)] for z of variance q and correlation cos(angle).

    In polar coordinates of the plane the kinks at z1 = 0 and z2 = 0 are straight lines through the origin, between
    which the integrand is smooth; half the plane is enough, as exchanging z1 and z2 mirrors it. Where phi is linear
    on either side of 0 this is the arc-cosine kernel (Cho & Saul 2009).
    """
    sides = _ray_slopes(activation)
    if sides is not None:
        right, left = sides
        same, cross = right**2 + left**2, 2.0 * right * left
        aligned = np.sin(angle) + (np.pi - angle) * np.cos(angle)
        opposed = np.sin(angle) - angle * np.cos(angle)
        return (
            float(same * aligned - cross * opposed) / (2.0 * np.pi),
            float(same * (np.pi - angle) + cross * angle) / (2.0 * np.pi),
        )
    root, scale = _scales(activation, q)

    def integrand(nodes: ndarray) -> ndarray:
        radius, direction = nodes[:, 0], nodes[:, 1]
        first, slope_first = _evaluate(activation, root * radius * np.cos(direction))
        second, slope_second = _evaluate(activation, root * radius * np.cos(direction - angle))
        values = np.stack([first * second / scale**2, slope_first * slope_second], axis=-1)  # (nodes, 2)
        return values * (radius * np.exp(-0.5 * radius * radius) / np.pi)[:, None]

    edges = [0.5 * angle, 0.5 * np.pi, 0.5 * np.pi + angle, 0.5 * angle + np.pi]
    cells = product(_panels(root), pairwise(edges))
    total = np.sum([_integral(integrand, [near, low], [far, high]) for (near, far), (low, high) in cells], axis=0)
    return float(total[0]) * scale**2 / q, float(total[1])


@dataclass(frozen=True)
class MeanField:
    """The maps from layer to layer of wide networks with one activation and one spread throughout.

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
        """dq'/dq, by which a small difference in length shrinks per layer (Schoenholz et al. 2017)."""
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
        overlap = q * _pair_moments(self.activation, float(q), float(np.arccos(c)))[0]
        return (self.sw2 * overlap + self.sb2) / self.length(q)

    def correlation_slope(self, c: float, q: float) -> float:
        """sw2 E[phi'(z1) phi'(z2)]: dc'/dc at a fixed point q of the length, chi at c = 1. Arguments as above."""
        return self.sw2 * _pair_moments(self.activation, float(q), float(np.arccos(c)))[1]

    def fixed_point(self, start: float = 1.0) -> "FixedPoint":
        """Where length and correlation settle with depth (Poole et al. 2016; Schoenholz et al. 2017).

        Args:
            start: the first layer's length, as for `settled_length`.
        """
        q = self.settled_length(start)
        chi = self.chi(q)
        c = self._settled_correlation(q) if chi > 1.0 + ROUNDING else 1.0
        return FixedPoint(q, chi, c, self.length_slope(q), self.correlation_slope(c, q) if c < 1.0 else chi)

    def settled_length(self, start: float = 1.0) -> float:
        """The length that networks of growing depth approach; infinity where it grows without bound.

        A saturating phi has one, whatever the start. Where the map is marginal (ReLU at sw2 = 2, identity at sw2 = 1,
        both without biases) every length stays what it is and the answer is the start itself; biases make it
        infinite. Where there are several fixed points (GELU, SiLU) the answer is the next one in the direction in
        which the start moves, which is the limit as long as the map never decreases.

        Args:
            start: the first layer's length, above 0.

        Raises:
            ValueError: for a start that is not a finite number above 0.
        """
        if not 0 < start < np.inf:
            raise ValueError(f"start={start}: must be a finite number above 0")
        if _ray_slopes(self.activation) is not None:
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
    """Where a mean field settles, and over how many layers.

    A depth is the number of layers over which a factor e is lost, -1 / log of a slope (Schoenholz et al. 2017):
    infinite on the critical line, negative where the quantity grows.

    Attributes:
        q: length; infinite where it grows without bound.
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
        """xi_q, over which the length forgets where it came from."""
        return _depth(self.length_slope)

    @property
    def correlation_depth(self) -> float:
        """xi_c, over which the correlation of two inputs settles: nets train up to about 6 xi_c layers.

        With sb2 = 0 and q = 0 it is their distance that falls at this rate; the angle between them may stand still.
        """
        return _depth(self.correlation_slope)

    @property
    def gradient_depth(self) -> float:
        """-1 / log chi, over which E|delta|^2 falls by e towards the input."""
        return _depth(self.chi)


def _depth(slope: float) -> float:
    if abs(slope - 1.0) < ROUNDING:
        return np.inf
    return float(-1.0 / np.log(slope)) if slope > 0.0 else 0.0


class Spread(NamedTuple):
    """How widely a layer is drawn: sw2 = n_in Var(weight) and sb2 = Var(bias)."""

    sw2: float
    sb2: float


class _UnitDraws:
    """A generator whose draws have mean square 1 exactly: what a rule makes of them is its spread, not an estimate."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def standard_normal(self, size: tuple[int, ...]) -> ndarray:
        values = self._generator.standard_normal(size)
        return values / np.sqrt(np.square(values).mean())

    def uniform(self, low: float, high: float, size: tuple[int, ...]) -> ndarray:
        values = self._generator.uniform(-1.0, 1.0, size)
        return 0.5 * (low + high) + (high - low) * values / np.sqrt(12.0 * np.square(values).mean())


@lru_cache(maxsize=1000)
def spread(initializer: Initializer, n_in: int, n_out: int) -> Spread:
    """The spread a rule gives to a layer, read off the rule itself.

    Args:
        initializer: any rule of nn.initializers.
        n_in: inputs of the layer.
        n_out: its units.
    """
    if initializer.legacy_draw:  # the notebook's own order of draws, N(0, 1 / n_out) for weights and biases
        return Spread(n_in / n_out, 1.0 / n_out)
    weights = initializer.weights(_UnitDraws(), n_out, n_in)
    return Spread(n_in * float(np.square(weights).mean()), initializer.bias_spread**2)


def layer_spreads(initializers: Sequence[Initializer], layers: Sequence[int]) -> list[Spread]:
    """The spread of every layer: one rule per layer, sizes n_0 .. n_L."""
    return [spread(rule, n_in, n_out) for rule, (n_in, n_out) in zip(initializers, pairwise(layers), strict=True)]


@dataclass(frozen=True)
class Propagation:
    """A mean field at finite depth, layer by layer; layer 1 touches the input.

    Attributes:
        length: (L,), q of layers 1 .. L.
        chi: (L - 1,), E|delta[l]|^2 / E|delta[l+1]|^2 for l = 1 .. L - 1.
        input_square: (L,), mean square of a unit of a[l-1], the input of layers 1 .. L.
    """

    length: ndarray
    chi: ndarray
    input_square: ndarray

    @property
    def decades_lost(self) -> ndarray:
        """-1/2 log10 chi, decades of |delta| lost on the way from layer l + 1 to layer l: (L - 1,)."""
        with np.errstate(divide="ignore"):
            return -0.5 * np.log10(self.chi)

    @property
    def log10_delta(self) -> ndarray:
        """log10 of the root mean square of |delta[l]| / |delta[L]|: (L,), 0 in the output layer."""
        return np.append(-np.cumsum(self.decades_lost[::-1])[::-1], 0.0)

    def log10_gradient(self, layers: Sequence[int]) -> ndarray:
        """log10 of the root mean square of one sample's |dC/dW[l]| / |delta[L]|, Frobenius norm: (L,).

        dC/dW[l] is the outer product of delta[l] and a[l-1], so that activations which shrink with depth can hide a
        delta that vanishes.

        Args:
            layers: the sizes n_0 .. n_L.
        """
        with np.errstate(divide="ignore"):
            return self.log10_delta + 0.5 * np.log10(np.asarray(layers[:-1]) * self.input_square)


def propagate(activation: Activation, spreads: Sequence[tuple[float, float]], input_square: float) -> Propagation:
    """Follow length and slope from an actual input through every layer, far from any fixed point or not.

    Where length_slope > 1 differences in length grow from layer to layer, and finite width shows: under He's spread
    at depth 20, GELU nets of width 200 miss the mean field by .013 decade per layer, those of width 1000 by none.

    Args:
        activation: of the hidden layers; what the output layer does to delta[L] is left to the loss.
        spreads: (sw2, sb2) of layers 1 .. L, as `layer_spreads` gives them.
        input_square: |x|^2 / n_0 of the input.
    """
    squares, lengths, chi = [float(input_square)], list[float](), list[float]()
    for layer, (sw2, sb2) in enumerate(spreads):
        if layer:
            at = moments(activation, lengths[-1])
            squares.append(at.square)
            chi.append(sw2 * at.slope)
        lengths.append(sw2 * squares[-1] + sb2)
    return Propagation(np.array(lengths), np.array(chi), np.array(squares))


def born_dead_probability(widths: Sequence[int]) -> float:
    """The chance that a ReLU net answers one non-zero input with a constant: 1 - prod_l (1 - 2^-N_l).

    Exact for continuous symmetric weights and zero biases, because a unit of a layer that is reached is off with
    chance 1/2, whatever the others do (Lu et al. 2019; Rister & Rubin 2020). A net that is dead on a whole interval
    of inputs is dead on each of them, so that for the interval this is an upper bound.

    Args:
        widths: N_l of the hidden layers.
    """
    return float(-np.expm1(np.log1p(-np.exp2(-np.asarray(widths, dtype=float))).sum()))


def saxe_mode(time: ArrayLike, strength: ArrayLike, start: ArrayLike, time_constant: float) -> ndarray:
    """Strength of one mode of a linear network with one hidden layer, u(t) = s e^{2st/T} / (e^{2st/T} - 1 + s / u0).

    The solution of T du/dt = 2 u (s - u): balanced layers, whitened inputs, gradient flow (Saxe, McClelland & Ganguli
    2013). T is 1 / learning_rate in updates for half the squared error summed over outputs, K / learning_rate for the
    mean over K outputs.

    Args:
        time: t, in the unit of the time constant.
        strength: s > 0, a singular value of the correlation of targets with inputs.
        start: u0 > 0, the mode's strength at t = 0.
        time_constant: T > 0.
    """
    s, u0 = np.asarray(strength, dtype=float), np.asarray(start, dtype=float)
    return s / (1.0 + (s / u0 - 1.0) * np.exp(-2.0 * s * np.asarray(time, dtype=float) / time_constant))
