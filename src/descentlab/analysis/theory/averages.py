"""Averages of an activation over Gaussian z, from which mean-field theory builds its maps.

The averages are closed forms if phi is linear on either side of 0 (tested on values of phi, not by its name), and
adaptive quadrature otherwise. Gauss-Hermite quadrature is avoided: a node on ReLU's kink gets E[phi'^2] wrong.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from scipy.integrate import cubature

from descentlab.nn.activations import Activation

REACH = 12.0  # range of integration in standard deviations; the tails beyond weigh 1e-32
PRECISION = 1e-11  # relative, of the integrals


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
    """The averages in the length and slope maps.

    Args:
        activation: phi.
        q: variance of z, at or above 0; infinity gives the limits.

    Raises:
        ArithmeticError: a quadrature that does not converge.
    """
    sides = homogeneous_slopes(activation)
    if sides is None and q in (0.0, np.inf):
        at_zero = float(_evaluate(activation, np.zeros(1))[0][0])
        if q == 0.0 and at_zero != 0.0:
            return Moments(at_zero**2, *moments(activation, 1e-8)[1:])
        sides = _slopes(activation, 1e-9 if q == 0.0 else 1e4)
    if sides is not None:
        half = 0.5 * (sides[0] ** 2 + sides[1] ** 2)
        return Moments(half * q if half else 0.0, half, half)
    root, scale = _scales(activation, q)

    def integrand(nodes: ndarray) -> ndarray:  # g and -g together, so that they cancel before the sum
        g = nodes[:, 0]
        (above, slope_above), (below, slope_below) = (_evaluate(activation, z) for z in (root * g, -root * g))
        squares = (above**2 + below**2) / scale**2
        growth = (above * slope_above - below * slope_below) * g / scale
        values = np.stack([squares, slope_above**2 + slope_below**2, growth], axis=-1)  # (nodes, 3)
        return values * (np.exp(-0.5 * g * g) / np.sqrt(2.0 * np.pi))[:, None]

    parts = [_integral(integrand, [low], [high]) for low, high in _panels(root)]
    square, slope, growth = np.sum(parts, axis=0)
    return Moments(float(square) * scale**2, float(slope), float(growth) * scale / root)


def pair_moments(activation: Activation, q: float, angle: float) -> tuple[float, float]:
    """E[phi(z1) phi(z2)] / q and E[phi'(z1) phi'(z2)] for z of variance q and correlation cos(angle).

    In polar coordinates the kinks at z1 = 0 and z2 = 0 are rays from the origin, and the integrand is smooth between
    them. Half the plane is enough, because exchanging z1 and z2 mirrors it. If phi is linear on either side of 0, this
    is the arc-cosine kernel (Cho & Saul 2009).

    Args:
        activation: phi.
        q: variance of z1 and z2, finite and above 0.
        angle: 0 to pi; its cosine is the correlation of z1 and z2.

    Raises:
        ArithmeticError: a quadrature that does not converge.
    """
    sides = homogeneous_slopes(activation)
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


@lru_cache(maxsize=100)
def homogeneous_slopes(activation: Activation) -> tuple[float, float] | None:
    """Slopes right and left of 0 if phi is linear on either side (homogeneous), else None."""
    distance = np.geomspace(1e-6, 1e3, 46)
    z = np.concatenate([distance, -distance])
    right, left = _slopes(activation, 1.0)
    expected = np.where(z > 0, right, left)
    value, slope = _evaluate(activation, z)
    linear = np.allclose(value, expected * z, rtol=1e-13, atol=0.0) and np.allclose(slope, expected, rtol=1e-13, atol=0)
    return (right, left) if linear else None


def _evaluate(activation: Activation, z: ndarray) -> tuple[ndarray, ndarray]:
    """phi(z) and phi'(z) as new float64 arrays."""
    value = activation(z)
    slope = activation.derivative(z, value)
    return value, slope.astype(z.dtype)


def _slopes(activation: Activation, distance: float) -> tuple[float, float]:
    """Slopes phi' at a distance to the right and to the left of 0."""
    right, left = _evaluate(activation, np.array([distance, -distance]))[1]
    return float(right), float(left)


def _scales(activation: Activation, q: float) -> tuple[float, float]:
    """Sizes of z and phi(z), to scale integrands to the order of 1."""
    root = float(np.sqrt(q))
    return root, float(np.abs(_evaluate(activation, np.array([-root, root]))[0]).max()) or 1.0


def _panels(root: float) -> list[tuple[float, float]]:
    """The range of |g|, cut at |z| = 1/4, 1, 4, ..., so that nodes lie close to a bend of phi near 0."""
    cuts = 4.0 ** np.arange(-1, 40) / root
    return list(pairwise([0.0, *cuts[cuts < REACH].tolist(), REACH]))


def _integral(integrand: Callable[[ndarray], ndarray], low: list[float], high: list[float]) -> ndarray:
    result = cubature(integrand, low, high, rtol=PRECISION, atol=1e-2 * PRECISION)
    if result.status != "converged":
        raise ArithmeticError(f"quadrature over {low} to {high} stopped at an error of {result.error.max():.1e}")
    return result.estimate
