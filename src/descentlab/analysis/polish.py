"""From an end of training to the stationary point that it stands near, or along the way to infinity.

L-BFGS (Liu & Nocedal 1989) comes first, then Newton steps that are judged by the gradient, because near a minimum the
loss is flat to its last digit long before the gradient vanishes. A step solves

    min_s |H s + g|^2 + mu^2 |s|^2,    s = -(H^2 + mu^2)^-1 H g,    mu proportional to |g|,

so it goes to the nearest stationary point, saddles included, and does not move along zero modes (Levenberg-Marquardt
for a singular Jacobian: Yamashita & Fukushima 2001; Fan & Yuan 2005).

`Polish.follow` goes to |g| < 1e-8 first, solves the modes with curvature exactly, and then gives one point per window
of two decades of |g|. The steps from window to window tell an attained infimum from one at infinity: near a minimum of
any order they shrink by a constant factor, on the way to infinity they do not.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy import ndarray
from scipy.sparse.linalg import lsmr

from descentlab.analysis import spectrum
from descentlab.analysis.landscape import EPSILON, TINY, Landscape, Point

LOOSE = 1e-5  # of |g|, relative to the slope scale: up to here L-BFGS comes first
TOLERANCES = (1e-8, 1e-10)  # of |g|, relative to the slope scale
WINDOW = 1e-2  # by which |g| falls from one point of the path to the next
WINDOWS = 7  # at most
TELLING = 2  # windows that tell whether growth goes on
MOVES = 1e-4  # of the length: a step over a window that is shorter is none
KEEPS = 0.7  # by which steps shrink from window to window at most where growth goes on; .66 at a minimum of order 12
ALONG = 0.9  # share of the last step that lies in the span of the modes without curvature where growth goes on
SETTLED = 0.02  # of the length: a point that moves further over a window has not arrived
MEMORY = 20  # pairs of steps and gradient changes that L-BFGS stores
STEP = 0.05  # longest step of L-BFGS in any coordinate, against the length
FAR = 1e12  # lengths of the start at which L-BFGS gives up: the function has no lower bound
NEWTON_TRIES = 8  # dampings, each 30 times the last, before Newton's method gives up
RISE = 1e-6  # of the loss, that Newton steps may cost: more leads to another place
LAST_STEPS = 5  # of Newton's method, once the outcome no longer depends on the path


@dataclass(frozen=True)
class Path:
    """The polished points of an end of training.

    Attributes:
        start: the end of training.
        before, last: the last two points; `last` is the polished one.
        reached: whether |g| fell below both tolerances.
        settled: whether the last step was short against the length.
        growth: over the first window, of the component along the step, as a share of it.
        endless: whether growth goes on in every window.
    """

    start: Point
    before: Point
    last: Point
    reached: bool
    settled: bool
    growth: float
    endless: bool


class Polish:
    """Moves points of a landscape downhill and on to stationary points.

    Args:
        land: the function.
        iterations: of L-BFGS for each tolerance.
    """

    def __init__(self, land: Landscape, iterations: int) -> None:
        self._land, self._iterations = land, iterations

    def follow(self, start: Point) -> Path:
        """Polish an end of training until it is clear where the path leads."""
        land = self._land
        land.measure(start)
        entry = self._relax(self._reach(start, LOOSE * land.slope))
        entry = self._reach(entry, TOLERANCES[0] * land.slope, newton_first=True)
        land.measure(entry)
        points = [self._relax(entry)]
        for _ in range(WINDOWS):
            before = points[-1]
            if before.norm == 0.0 or before.norm > TOLERANCES[0] * land.slope or self._is_clear(entry, points):
                break
            target = min(WINDOW * before.norm, TOLERANCES[1] * land.slope)
            last = self._relax(self._reach(before, target, newton_first=True))
            if last.norm > target and self._has_vanished(before):
                break  # rounding: the last whole window is the end of the path
            points.append(last)
            if last.norm > target:
                break
            if not self._is_settled(before, last):
                land.measure(last)
        before, last = [entry, *points][-2:]
        return Path(
            start=start,
            before=before,
            last=last,
            reached=self._has_vanished(last),
            settled=self._is_settled(before, last),
            growth=_growth(points[0], points[1]) if len(points) > 1 else 0.0,
            endless=self._is_endless(points),
        )

    def finish(self, point: Point) -> Point:
        """The stationary point as exact as rounding allows: a few Newton steps more."""
        return self._newton(point, 0.0, LAST_STEPS)

    def _has_vanished(self, point: Point) -> bool:
        return point.norm <= TOLERANCES[1] * self._land.slope

    def _is_settled(self, before: Point, last: Point) -> bool:
        """Whether the last step was short, or a Newton step would add next to nothing to it.

        On the way to infinity a Newton step adds a good share of the last one. Curvature counts where it is above
        rounding, or stayed the same.
        """
        land, moved, short = self._land, last.distance(before), SETTLED * self._length(last)
        if moved <= short:
            return True
        along = (last.theta - before.theta) / moved
        earlier, curvature = (float(along @ land.product(point, along)) for point in (before, last))
        counts = curvature > 1e3 * EPSILON * land.slope / land.length or curvature > 0.5 * abs(earlier)
        return counts and abs(along @ last.gradient) <= min(SETTLED * moved, short) * curvature

    def _is_clear(self, entry: Point, points: list[Point]) -> bool:
        """Whether further windows would tell nothing."""
        before, last = [entry, *points][-2:]
        if len(points) > TELLING and self._is_endless(points):
            return True
        if not self._has_vanished(last) or not self._is_settled(before, last):
            return False
        dense = len(last.theta) <= spectrum.DENSE_LIMIT  # above, each further window costs minutes
        return len(points) > TELLING or not (dense and self._land.soft(before, last).any())

    def _is_endless(self, points: list[Point]) -> bool:
        """Whether every window moves the point on, downhill, by steps that do not shrink, and curvature vanishes.

        The last step has to lie in the span of the modes without curvature. On weak modes of an attained minimum steps
        may grow from mode to mode, but the curvature along them stays.
        """
        pairs = list(pairwise(points))
        if len(pairs) < TELLING:
            return False
        moved = [after.distance(before) for before, after in pairs]
        falls = all((after.theta - before.theta) @ before.gradient <= 0 for before, after in pairs)
        keeps = moved[-1] >= KEEPS ** (0.5 * (len(pairs) - 1)) * np.median(moved)
        if not (falls and keeps and min(moved) > MOVES * self._land.length):
            return False
        before, last = pairs[-1]
        step = last.theta - before.theta
        if len(step) <= spectrum.DENSE_LIMIT:
            modes = self._land.spectrum(last)[1][:, self._land.soft(before, last)]
            step = modes @ (modes.T @ step)
        earlier, curvature = (step @ self._land.product(point, step) for point in (before, last))
        return bool(np.linalg.norm(step) >= ALONG * moved[-1] and abs(curvature) <= 0.5 * abs(earlier))

    def _reach(self, point: Point, tolerance: float, newton_first: bool = False) -> Point:
        """Polish to |g| <= tolerance, or as far as it goes.

        In a valley L-BFGS runs ahead of the tolerance while the sides still hold the gradient up; Newton's method
        does not, and comes first once the valley is reached.
        """
        before = np.inf
        if newton_first and len(point.theta) <= spectrum.DENSE_LIMIT:
            point = self._newton(point, tolerance)
            if point.norm <= EPSILON * self._land.slope:
                return point  # rounding, mostly
        while point.norm < 0.5 * before and point.norm > tolerance:
            before = point.norm
            point = self._lbfgs(point, tolerance)
            point = self._newton(point, tolerance)
        return point if point.norm <= tolerance else self._fall_into_kink(point)

    # --- L-BFGS ---

    def _lbfgs(self, point: Point, tolerance: float) -> Point:
        """L-BFGS in short steps: a long one can leave the basin, or pass over the way to infinity."""
        pairs: deque[tuple[ndarray, ndarray]] = deque(maxlen=MEMORY)
        lowest, idle = point, 0
        for _ in range(self._iterations):
            if point.norm <= tolerance or point.size > FAR * self._land.length or idle == MEMORY:
                break
            direction = self._quasi_newton(point, pairs)
            before, found = point, self._line_search(point, direction)
            if found is None and not pairs:
                break
            if found is None:
                pairs.clear()  # once more, straight downhill
                continue
            point = self._land_on(before, found, tolerance)
            step, change = point.theta - before.theta, point.gradient - before.gradient
            if step @ change > 0:
                pairs.append((step, change))
            fell = lowest.value - point.value > 4.0 * EPSILON * abs(point.value)
            if fell or point.norm < 0.9 * lowest.norm:
                lowest, idle = point, 0
            else:
                idle += 1
        return point

    def _quasi_newton(self, point: Point, pairs: deque[tuple[ndarray, ndarray]]) -> ndarray:
        """The two-loop recursion (Nocedal & Wright 2006, 7.4); without pairs, as far as the curvature asks."""
        direction = -point.gradient
        if not pairs:
            turned = float(np.linalg.norm(self._land.product(point, point.gradient)))
            return direction * (point.norm / turned if turned > 0 else self._length(point) / point.norm)
        weights = []
        for step, change in reversed(pairs):
            weights.append((step @ direction) / (step @ change))
            direction = direction - weights[-1] * change
        step, change = pairs[-1]
        direction = direction * ((step @ change) / (change @ change))
        for (step, change), weight in zip(pairs, reversed(weights), strict=True):
            direction = direction + (weight - (change @ direction) / (step @ change)) * step
        return direction

    def _line_search(self, point: Point, direction: ndarray) -> Point | None:
        """A weak Wolfe step by bisection, which kinks do not disturb (Lewis & Overton 2013); None where it fails."""
        slope = float(point.gradient @ direction)
        longest = STEP * self._length(point) / max(float(np.abs(direction).max()), TINY)
        low, high, t = 0.0, np.inf, min(1.0, longest)
        best = None
        for _ in range(40 if slope < 0 else 0):
            trial = self._land.at(point.theta + t * direction)
            if not trial.finite or trial.value > point.value + 1e-4 * t * slope:
                high = t
            else:
                low, best = t, trial
                if trial.gradient @ direction >= 0.9 * slope or t == longest:
                    break
            t = 0.5 * (low + high) if high < np.inf else min(2.0 * t, longest)
        return best

    def _length(self, point: Point) -> float:
        return max(self._land.length, point.size)

    # --- Newton ---

    def _newton(self, point: Point, tolerance: float, steps: int = 100) -> Point:
        ceiling, damping = self._ceiling(point), self._damping()
        for _ in range(steps):
            if point.norm <= tolerance:
                break
            solve = self._damped(point)
            for _ in range(NEWTON_TRIES if len(point.theta) <= spectrum.DENSE_LIMIT else 3):
                trial = self._land.at(point.theta + solve(damping * point.norm))
                if trial.finite and trial.norm < 0.99 * point.norm and trial.value <= ceiling:
                    break
                damping *= 30.0
            else:
                break
            before, point = point, self._land_on(point, trial, tolerance)
            if 0.5 * before.norm < point.norm <= EPSILON * self._land.slope:
                break  # rounding
            damping = max(0.1 * damping, 1e-4 * self._damping())
        return point

    def _damping(self) -> float:
        """Mu / |g| of the first Newton step: 1 over the length."""
        return 1.0 / self._land.length

    def _damped(self, point: Point) -> Callable[[float], ndarray]:
        """The function mu -> -(H^2 + mu^2)^-1 H g."""
        if len(point.theta) > spectrum.DENSE_LIMIT:
            turn = self._land.operator(point)
            return lambda mu: lsmr(turn, -point.gradient, damp=mu, atol=1e-9, btol=1e-9, maxiter=200)[0]
        values, modes = self._land.spectrum(point)
        along = modes.T @ point.gradient
        return lambda mu: -modes @ (values * along / np.maximum(values * values + mu * mu, TINY))

    def _land_on(self, before: Point, after: Point, tolerance: float) -> Point:
        """The end of a step, drawn back to where |g| is just below the tolerance.

        A long last step would hide how the parameters grow between one tolerance and the next.
        """
        above, below = before, after
        for _ in range(60):
            if not below.norm < 0.1 * tolerance:
                return below
            middle = self._land.at(0.5 * (above.theta + below.theta))
            above, below = (above, middle) if middle.norm <= tolerance else (middle, below)
        return after  # the gradient jumps in between

    def _relax(self, point: Point) -> Point:
        """Newton steps along the modes with curvature alone, while their share of |g| falls tenfold.

        What is left of the gradient is that of a valley: it tells where the valley leads, and was hidden before.
        """
        if len(point.theta) > spectrum.DENSE_LIMIT:
            return point
        ceiling = self._ceiling(point)
        for _ in range(LAST_STEPS):
            values, modes = self._land.spectrum(point)
            stiff = ~spectrum.zero_modes(values)
            along = modes[:, stiff].T @ point.gradient
            trial = self._land.at(point.theta - modes[:, stiff] @ (along / values[stiff]))
            left = np.linalg.norm(modes[:, stiff].T @ trial.gradient)
            if not (trial.finite and left < 0.1 * np.linalg.norm(along) and trial.value <= ceiling):
                break
            point = trial
        return point

    def _ceiling(self, point: Point) -> float:
        """The highest loss to which Newton steps may lead."""
        return point.value + RISE * max(abs(point.value), 0.1 * self._land.slope * self._land.length)

    def _fall_into_kink(self, point: Point) -> Point:
        """The bottom of the line straight downhill, if it is close and a kink; the point itself otherwise."""
        land, scale = self._land, self._length(point)
        downhill = -point.gradient / max(point.norm, TINY)
        down, up = 0.0, np.inf
        for t in scale * np.logspace(-9, -2, 8):
            if land.at(point.theta + t * downhill).gradient @ downhill >= 0:
                up = t
                break
            down = t
        if up == np.inf:
            return point
        while up - down > 4.0 * EPSILON * scale:
            middle = 0.5 * (down + up)
            rises = land.at(point.theta + middle * downhill).gradient @ downhill >= 0
            down, up = (down, middle) if rises else (middle, up)
        bottom, beyond = (land.at(point.theta + t * downhill) for t in (down, up))
        jump = (beyond.gradient - bottom.gradient) @ downhill
        return bottom if jump > 0.1 * point.norm and bottom.value <= point.value else point


def _growth(before: Point, after: Point) -> float:
    moved = after.distance(before)
    if moved == 0:
        return 0.0
    along = (after.theta - before.theta) @ before.theta / moved
    return float(moved / along) if along != 0 else np.inf
