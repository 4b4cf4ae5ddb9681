"""A function with its derivatives, its scales, and the probes that look around a point.

A function has no unit of its own: a loss may be multiplied by 1e6 and parameters measured in thousandths. So every
tolerance is relative to two scales, which `Landscape.measure` takes from the points it is given:

    length   the largest parameter in size, and a tenth of sqrt(|C| / curvature)
    slope    curvature * length, and |g| at the start

curvature is the largest eigenvalue of the Hessian in size. Both scales only grow, so that a function whose
curvature vanishes on the way to infinity does not take its tolerance along.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator

from descentlab.analysis import spectrum

ValueAndGradient = Callable[[ndarray], tuple[float | ndarray, ndarray]]
HessianVectorProduct = Callable[[ndarray, ndarray], ndarray]

LANCZOS_MODES = 4  # lowest eigenvalues asked for above the dense limit
POWER_STEPS = 8  # of the power iteration that estimates the curvature
SPECTRA = 2  # latest points whose spectra are stored
EPSILON = float(np.finfo(float).eps)
TINY = float(np.finfo(float).tiny)

# probes; steps are relative to the length
NOISE_STEP = 1e-12
DESCENT_STEPS = (1e-6, 1e-5, 1e-4, 1e-3)
MIXTURES = 20  # random combinations of zero modes to look along
DIRECTIONS = 8  # random directions in which a jump is looked for
JUMP = 0.1  # a change over a thousandth of a step that is this share of the change over the step is a jump
GRADIENT_STEPS = (1e-6, 1e-9)  # over which the gradient may jump
HESSIAN_STEPS = (1e-4, 1e-7)
SIDES = 4  # directions of a jumping Hessian whose two sides are looked at
NEARBY = 1e-3  # length of the random steps that look for a lower loss
NEARBY_STEPS = 100


@dataclass(frozen=True, eq=False)
class Point:
    """A place theta (P,) with the value and gradient (P,) of the function there."""

    theta: ndarray
    value: float
    gradient: ndarray

    @property
    def finite(self) -> bool:
        """Whether value and gradient are finite."""
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())

    @property
    def norm(self) -> float:
        """|g|, Euclidean."""
        return float(np.linalg.norm(self.gradient))

    @property
    def size(self) -> float:
        """The largest parameter in size."""
        return float(np.abs(self.theta).max())

    def distance(self, other: "Point") -> float:
        """|theta - theta'|, Euclidean."""
        return float(np.linalg.norm(self.theta - other.theta))


class Landscape:
    """A function of theta (P,), and ways to look at it.

    Args:
        value_and_gradient: `value_and_gradient(theta) -> (C, (P,))`.
        product: `product(theta, v) -> (P,)`, the Hessian times v.
        hessian: `hessian(theta) -> (P, P)` where there is a faster way to it than P products.
        stacked: whether `value_and_gradient` also takes (M, P).
    """

    def __init__(
        self,
        value_and_gradient: ValueAndGradient,
        product: HessianVectorProduct,
        hessian: Callable[[ndarray], ndarray] | None = None,
        stacked: bool = False,
    ) -> None:
        self._function, self._product, self._hessian, self._stacked = value_and_gradient, product, hessian, stacked
        self._spectra: dict[Point, tuple[ndarray, ndarray]] = {}
        self.length = self.slope = 0.0

    def at(self, theta: ndarray) -> Point:
        """The point at theta."""
        value, gradient = self._function(theta)
        return Point(theta, float(value), np.array(gradient, dtype=np.float64))

    def measure(self, point: Point) -> None:
        """Enlarge the scales to those of a point."""
        curvature = self._curvature(point)
        reach = 0.1 * np.sqrt(abs(point.value) / curvature) if curvature > 0 else 0.0
        first = self.length == 0
        self.length = max(self.length, point.size, reach) or 1.0
        self.slope = max(self.slope, curvature * self.length, point.norm if first else 0.0)

    def _curvature(self, point: Point) -> float:
        """The largest eigenvalue in size, estimated by power iteration; 0 where the Hessian is 0 or not finite."""
        if point in self._spectra:
            return float(np.abs(self._spectra[point][0]).max())
        dense = self._hessian(point.theta) if self._hessian else None
        v = np.random.default_rng(4).standard_normal(len(point.theta))
        largest = 0.0
        for _ in range(POWER_STEPS):
            v = v / np.linalg.norm(v)
            v = self.product(point, v) if dense is None else dense @ v
            length = float(np.linalg.norm(v))
            if not 0 < length < np.inf:
                break
            largest = max(largest, length)
        return largest

    def around(self, point: Point, steps: ndarray) -> tuple[ndarray, ndarray]:
        """Changes of the value (M,) and of the gradient (M, P) over steps (M, P) from a point."""
        places = point.theta + steps
        if self._stacked and len(point.theta) <= spectrum.DENSE_LIMIT:
            found = [self._function(places)]
        else:
            found = [self._function(place) for place in places]
        values, gradients = zip(*found, strict=True)
        return np.ravel(values) - point.value, np.reshape(gradients, places.shape) - point.gradient

    def product(self, point: Point, v: ndarray) -> ndarray:
        """The Hessian at a point times v (P,)."""
        return self._product(point.theta, v)

    def flatness(self, point: Point) -> float:
        """|g| / |H g|, a length; NaN where H g is 0."""
        turned = np.linalg.norm(self.product(point, point.gradient))
        return float(point.norm / turned) if turned > 0 else np.nan

    def dense(self, point: Point) -> ndarray:
        """The Hessian at a point, (P, P)."""
        if self._hessian is not None:
            return self._hessian(point.theta)
        rows = np.array([self.product(point, v) for v in np.eye(len(point.theta))])
        return 0.5 * (rows + rows.T)

    def operator(self, point: Point) -> LinearOperator:
        """The Hessian at a point as an operator."""

        def product(v: ndarray) -> ndarray:
            return self.product(point, np.ravel(v))

        return LinearOperator((len(point.theta),) * 2, matvec=product, rmatvec=product, dtype=np.float64)

    def spectrum(self, point: Point) -> tuple[ndarray, ndarray]:
        """Eigenvalues, ascending, and eigenvectors as columns; above DENSE_LIMIT the lowest few and the highest."""
        if point not in self._spectra:
            small = len(point.theta) <= spectrum.DENSE_LIMIT
            found = eigh(self.dense(point)) if small else spectrum.lanczos(self.operator(point), LANCZOS_MODES, 1)
            while len(self._spectra) >= SPECTRA:
                del self._spectra[next(iter(self._spectra))]
            self._spectra[point] = found
        return self._spectra[point]

    def soft(self, before: Point, point: Point) -> ndarray:
        """Which modes of a point's spectrum carry no curvature, (modes,) bool.

        Those are the zero modes, and the modes whose curvature vanishes with the gradient: at a minimum of order p it
        goes with |g|^((p - 2) / (p - 1)), on the way to infinity with |g| and faster; at least with its root.
        """
        values, modes = self.spectrum(point)
        if point.norm == before.norm:
            return spectrum.zero_modes(values)
        if len(point.theta) <= spectrum.DENSE_LIMIT:
            earlier, basis = self.spectrum(before)
            turned = basis @ (earlier[:, None] * (basis.T @ modes))
        else:
            turned = np.array([self.product(before, mode) for mode in modes.T]).T
        fall = max(point.norm, 10.0 * EPSILON * self.slope) / before.norm
        left = min(0.5, 2.0 * np.sqrt(fall))
        return spectrum.zero_modes(values) | (np.abs(values) < left * np.abs((turned * modes).sum(axis=0)))

    # --- probes ---

    def noise(self, point: Point) -> float:
        """How far values nearby scatter by rounding alone."""
        steps = np.random.default_rng(0).uniform(-1, 1, (16, len(point.theta))) * NOISE_STEP * self.length
        spread = np.abs(self.around(point, steps)[0]).max()
        return float(8.0 * (spread + EPSILON * abs(point.value)))

    def descends(self, point: Point, modes: ndarray) -> bool:
        """Whether the loss falls along some mode, or mixture of modes (columns), before it has risen.

        The slope along a direction shows it, which rounding hides less than the value. What is left of the gradient is
        a slope too and proves nothing.
        """
        noise = self.gradient_noise(point)
        mixtures = np.random.default_rng(1).standard_normal((modes.shape[1], MIXTURES if modes.shape[1] > 1 else 0))
        directions = np.hstack([modes, modes @ mixtures])
        lengths = self.length * np.array(DESCENT_STEPS)
        for direction in (directions / np.linalg.norm(directions, axis=0)).T:
            steps = np.concatenate([-lengths, lengths])[:, None] * direction
            back, forth = np.split(self.around(point, steps)[1] @ direction, 2)
            for slopes in (-back, forth):  # away from the point
                falls, rises = slopes < -noise - 2.0 * point.norm, slopes > noise
                if falls.any() and not rises[: falls.argmax()].any():
                    return True
        return False

    def gradient_noise(self, point: Point) -> float:
        """How far gradients nearby scatter by rounding alone: steps there and back cancel but for that."""
        steps = np.random.default_rng(0).uniform(-1, 1, (8, len(point.theta))) * NOISE_STEP * self.length
        changes = self.around(point, np.concatenate([steps, -steps]))[1]
        scatter = np.linalg.norm(changes[:8] + changes[8:], axis=1).max()
        return float(8.0 * (scatter + EPSILON * self.slope))

    def lower_nearby(self, point: Point) -> float:
        """Share of random steps of length 1e-3 that lower the loss by more than rounding and the gradient's rest."""
        steps = np.random.default_rng(3).standard_normal((NEARBY_STEPS, len(point.theta)))
        steps *= NEARBY * self.length / np.linalg.norm(steps, axis=1)[:, None]
        changes = self.around(point, steps)[0]
        return float((changes < -self.noise(point) - 0.01 * np.abs(changes).max()).mean())

    def gradient_jumps(self, point: Point, tolerance: float) -> bool:
        """Whether the gradient jumps here by more than a tolerance."""
        far, near = (self._changes(point, step) for step in GRADIENT_STEPS)
        far, near = (np.linalg.norm(changes, axis=-1) for changes in (far, near))
        return bool((near > np.maximum(JUMP * far, tolerance)).any())

    def other_sides(self, point: Point) -> list[Point]:
        """Points close by at which the Hessian differs, where it jumps at this point; none where it does not.

        The change of the gradient over a step and over the opposite step would be opposite if the Hessian were one.
        """
        far, near = (
            np.linalg.norm(self._changes(point, step).sum(axis=0), axis=-1) / (step * self.length)
            for step in HESSIAN_STEPS
        )
        least = spectrum.ZERO_MODE * max(self._curvature(point), TINY)
        rounding = 8.0 * EPSILON * self.slope / (HESSIAN_STEPS[1] * self.length)
        jumping = near > np.maximum(JUMP * far, least + rounding)
        steps = HESSIAN_STEPS[1] * self.length * self._directions(point)[jumping][:SIDES]
        return [self.at(point.theta + step) for step in np.concatenate([steps, -steps])]

    def _changes(self, point: Point, step: float) -> ndarray:
        """Changes of the gradient over a step along the probes' directions and back along them, (2, M, P)."""
        steps = step * self.length * self._directions(point)
        return self.around(point, np.concatenate([steps, -steps]))[1].reshape(2, *steps.shape)

    def _directions(self, point: Point) -> ndarray:
        random = np.random.default_rng(2).standard_normal((DIRECTIONS, len(point.theta)))
        directions = np.vstack([point.gradient, random])
        return directions / np.maximum(np.linalg.norm(directions, axis=1), TINY)[:, None]
