"""Hidden activations: value, slope and curvature.

Conventions: ReLU's slope at 0 is 0, leaky ReLU's is its negative slope: where slope or curvature jumps at 0, it is
the limit from the left. `value(z, out)` may be called with `out is z`. `slope(z, a, out)` writes phi'(z) and
`curvature(z, a, out)` phi''(z); where `slope_from_value` is true both look at `a` only, so that a caller can let the
value overwrite z. Everything is finite for |z| up to 1e4 in float32 and float64. A value has nearly all digits of its
dtype wherever it is not subnormal. A slope taken from the value cannot: where phi is level at a number other than 0,
the slope there is right to the rounding error of that number and then 0 (sigmoid and tanh in float32 from z = 17 and
9; sigmoid has all digits for z < 0).

To add an activation, enter a factory below (@ACTIVATIONS.enter) and add conf/activation/<name>.yaml. Its functions
work element by element on arrays of any shape and memory order, some elements of which belong to no unit, and write
the dtype of `out`. One without a `curvature` trains as any other; what asks for second derivatives (certified minima,
Hessians: analysis.curvature) refuses it in one line.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray
from scipy.special import ndtr

from descentlab.nn.registry import Named, Registry

ACTIVATIONS = Registry("activation")
SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717

# a ufunc takes an array of no dimensions in half the time that a Python number takes
_ONE, _TWO = ({kind: np.array(number, kind) for kind in "fd"} for number in (1.0, 2.0))


def quick(function: Callable[..., ndarray]) -> Callable[..., ndarray]:
    """A function for callers that ignore floating-point errors themselves, as the training loop does.

    It is `function.quick`, with the same bits, where there is one: np.errstate takes a microsecond a call.
    """
    return getattr(function, "quick", function)


@dataclass(frozen=True)
class Activation(Named):
    """A hidden activation phi.

    Attributes:
        name: its key in ACTIVATIONS.
        value: `value(z, out) -> out`, phi(z); `out` may be z.
        slope: `slope(z, a, out) -> out`, phi'(z); `out` has the dtype of z, or bool where `slope_is_mask`.
        slope_from_value: phi' is computed from a = phi(z) alone, so z need not be kept.
        slope_is_mask: phi' is 0 or 1 everywhere and is written as booleans, which multiply faster.
        initializer: the key of INITIALIZERS that initializer=auto stands for: glorot_uniform (Glorot & Bengio 2010),
            he_normal for ReLU and relatives that stop negative z (He et al. 2015), lecun_normal for selu (Klambauer et
            al. 2017).
        curvature: `curvature(z, a, out) -> out`, phi''(z) in the dtype of z, or None; training never asks for it.
        smoothness: how many derivatives of phi are continuous at 0, counted up to 2: 0 where phi' jumps (a kink, as
            ReLU's), 1 where phi'' does. Certified minima depend on it.
        numerics: version of the bits of value and slope in float64 and in float32. Raise it when they change: runs of
            another version are other runs.
    """

    name: str
    value: Callable[[ndarray, ndarray], ndarray]
    slope: Callable[[ndarray, ndarray, ndarray], ndarray]
    slope_from_value: bool = True
    slope_is_mask: bool = False
    initializer: str = "glorot_uniform"
    curvature: Callable[[ndarray, ndarray, ndarray], ndarray] | None = None
    smoothness: int = 2
    numerics: tuple[int, int] = (1, 1)

    @property
    def in_loop(self) -> Callable[[ndarray, ndarray], ndarray]:
        """What the training loop calls for phi(z)."""
        return quick(self.value)

    def __call__(self, z: ndarray) -> ndarray:
        """phi(z), a new array."""
        return self.value(z, np.empty_like(z))

    def derivative(self, z: ndarray, a: ndarray) -> ndarray:
        """phi'(z) for a = phi(z): a new array, bool where the slope is a mask."""
        return self.slope(z, a, np.empty_like(z, dtype=bool if self.slope_is_mask else z.dtype))

    @property
    def smooth(self) -> bool:
        """Whether phi'' is continuous, so that second derivatives mean something everywhere and not almost so."""
        return self.smoothness >= 2


def _no_curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
    out[...] = 0
    return out


def logistic(z: ndarray, out: ndarray) -> ndarray:
    """1 / (1 + exp(-z)), for any z, into `out`, which may be z."""
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the right answer, and clipping first costs another pass
        return quick_logistic(z, out)


def quick_logistic(z: ndarray, out: ndarray) -> ndarray:
    """The same for a caller that ignores overflow."""
    kind = z.dtype.char
    np.negative(z, out)
    if kind == "f":  # expm1 is faster than exp in single precision, and 2 + expm1(-z) never cancels
        np.expm1(out, out)
        np.add(out, _TWO[kind], out)
    else:
        np.exp(out, out)
        np.add(out, _ONE[kind], out)
    return np.divide(_ONE[kind], out, out)


logistic.quick = quick_logistic  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _zeros(shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> ndarray:
    """Zeros in the memory order of an array: the maximum with an array is three times as fast as with a number."""
    return np.zeros_like(np.lib.stride_tricks.as_strided(np.empty(0, dtype), shape, strides))


@ACTIVATIONS.enter
def identity() -> Activation:
    """The linear unit, phi(z) = z."""

    def value(z: ndarray, out: ndarray) -> ndarray:
        if out is not z:
            np.copyto(out, z)
        return out

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        out[...] = 1
        return out

    return Activation("identity", value, slope, slope_is_mask=True, curvature=_no_curvature)


@ACTIVATIONS.enter
def sigmoid() -> Activation:
    """phi(z) = 1 / (1 + exp(-z)), phi' = a (1 - a), phi'' = a (1 - a) (1 - 2a).

    In float32 the slope is exactly 0 for z above about 17, where a is 1.
    """

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.subtract(_ONE[a.dtype.char], a, out)
        return np.multiply(out, a, out)

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        slope(z, a, out)
        out *= 1.0 - 2.0 * a
        return out

    numerics = (1, 2)  # float32: was 1/2 + tanh(z/2) / 2
    return Activation("sigmoid", logistic, slope, curvature=curvature, numerics=numerics)


@ACTIVATIONS.enter
def tanh() -> Activation:
    """The hyperbolic tangent, phi' = 1 - a^2, phi'' = -2a (1 - a^2)."""

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.multiply(a, a, out)
        return np.subtract(_ONE[a.dtype.char], out, out)

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        slope(z, a, out)
        out *= -2.0 * a
        return out

    return Activation("tanh", lambda z, out: np.tanh(z, out=out), slope, curvature=curvature)


@ACTIVATIONS.enter
def relu() -> Activation:
    """phi(z) = max(z, 0), phi' = [z > 0] (Nair & Hinton 2010)."""
    return Activation(
        "relu",
        lambda z, out: np.maximum(z, _zeros(z.shape, z.strides, z.dtype), out=out),
        lambda z, a, out: np.greater(a, 0.0, out=out),
        slope_is_mask=True,
        initializer="he_normal",
        curvature=_no_curvature,
        smoothness=0,
    )


@ACTIVATIONS.enter
def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """phi(z) = z for z > 0, negative_slope z otherwise (Maas, Hannun & Ng 2013).

    Args:
        negative_slope: in [0, 1).

    Raises:
        ValueError: for a negative_slope outside [0, 1).
    """
    if not 0 <= negative_slope < 1:
        raise ValueError(f"activation.negative_slope={negative_slope}: must be in [0, 1)")

    def value(z: ndarray, out: ndarray) -> ndarray:
        return np.maximum(z, z * negative_slope, out=out)

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.greater(a, 0.0, out=out, casting="unsafe")
        out *= 1.0 - negative_slope
        out += negative_slope
        return out

    return Activation("leaky_relu", value, slope, initializer="he_normal", curvature=_no_curvature, smoothness=0)


@ACTIVATIONS.enter
def elu(alpha: float = 1.0) -> Activation:
    """phi(z) = z for z > 0, alpha (exp(z) - 1) otherwise (Clevert, Unterthiner & Hochreiter 2016).

    Args:
        alpha: above 0.

    Raises:
        ValueError: for an alpha that is not above 0.
    """
    if not 0 < alpha < np.inf:
        raise ValueError(f"activation.alpha={alpha}: must be a finite number above 0")
    value, slope, curvature = _exponential_linear(1.0, alpha)
    return Activation("elu", value, slope, initializer="he_normal", curvature=curvature, smoothness=int(alpha == 1))


@ACTIVATIONS.enter
def selu() -> Activation:
    """phi(z) = scale * elu(z, alpha) with the self-normalising constants (Klambauer et al. 2017)."""
    value, slope, curvature = _exponential_linear(SELU_SCALE, SELU_ALPHA)
    return Activation("selu", value, slope, initializer="lecun_normal", curvature=curvature, smoothness=0)


_Derivative = Callable[[ndarray, ndarray, ndarray], ndarray]


def _exponential_linear(
    scale: float, alpha: float
) -> tuple[Callable[[ndarray, ndarray], ndarray], _Derivative, _Derivative]:
    def value(z: ndarray, out: ndarray) -> ndarray:
        negative = np.expm1(np.minimum(z, 0.0))
        negative *= scale * alpha
        np.maximum(z, 0.0, out=out)
        out *= scale
        out += negative
        return out

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.add(a, scale * alpha, out=out)  # a + scale alpha = scale alpha exp(z) on the negative side
        np.copyto(out, scale, where=a > 0)
        return out

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.add(a, scale * alpha, out=out)
        np.copyto(out, 0.0, where=a > 0)
        return out

    return value, slope, curvature


@ACTIVATIONS.enter
def gelu() -> Activation:
    """phi(z) = z Phi(z) with the normal distribution function Phi, the erf form (Hendrycks & Gimpel 2016)."""

    def value(z: ndarray, out: ndarray) -> ndarray:
        return np.multiply(z, ndtr(z), out=out)

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        density = np.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))
        return np.add(ndtr(z), z * density, out=out, casting="same_kind")

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        density = np.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))
        return np.multiply(density, 2.0 - z * z, out=out, casting="same_kind")

    numerics = (2, 2)  # was z (1 + erf(z / sqrt(2))) / 2
    return Activation(
        "gelu", value, slope, slope_from_value=False, initializer="he_normal", curvature=curvature, numerics=numerics
    )


@ACTIVATIONS.enter
def silu() -> Activation:
    """phi(z) = z sigmoid(z), also called swish (Elfwing, Uchibe & Doya 2018)."""

    def value(z: ndarray, out: ndarray) -> ndarray:
        return np.multiply(z, logistic(z, np.empty_like(z)), out=out)

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        gate = logistic(z, np.empty_like(z))
        np.subtract(1.0, gate, out=out)
        out *= z
        out += 1.0
        return np.multiply(out, gate, out=out)

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        gate = logistic(z, np.empty_like(z))
        np.multiply(z, 1.0 - 2.0 * gate, out=out)
        out += 2.0
        out *= gate * (1.0 - gate)
        return out

    numerics = (1, 2)  # with the sigmoid's
    return Activation(
        "silu", value, slope, slope_from_value=False, initializer="he_normal", curvature=curvature, numerics=numerics
    )


@ACTIVATIONS.enter
def softplus() -> Activation:
    """phi(z) = log(1 + exp(z)), phi' = 1 - exp(-a), phi'' = (1 - exp(-a)) exp(-a) (Dugas et al. 2001)."""

    def value(z: ndarray, out: ndarray) -> ndarray:
        tail = np.log1p(np.exp(-np.abs(z)))
        np.maximum(z, 0.0, out=out)
        out += tail
        return out

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.negative(a, out=out)
        np.expm1(out, out=out)
        return np.negative(out, out=out)

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        slope(z, a, out)
        out *= np.exp(-a)
        return out

    return Activation("softplus", value, slope, curvature=curvature)


@ACTIVATIONS.enter
def softsign() -> Activation:
    """phi(z) = z / (1 + |z|), phi' = 1 / (1 + |z|)^2 (Bergstra et al. 2009)."""

    def value(z: ndarray, out: ndarray) -> ndarray:
        return np.divide(z, 1.0 + np.abs(z), out=out)

    def slope(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.abs(z, out=out)
        out += 1.0
        np.multiply(out, out, out=out)
        return np.reciprocal(out, out=out)

    def curvature(z: ndarray, a: ndarray, out: ndarray) -> ndarray:
        np.abs(z, out=out)
        out += 1.0
        np.power(out, -3, out=out)
        out *= np.where(z > 0, out.dtype.type(-2), out.dtype.type(2))
        return out

    return Activation("softsign", value, slope, slope_from_value=False, curvature=curvature, smoothness=1)
