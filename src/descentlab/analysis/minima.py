"""Where a descent has ended: polish in float64, then a certificate that names what was found.

For any function given as `value_and_gradient(theta) -> (float, (P,))` and `hessian_vector_product(theta, v) -> (P,)`
on flat float64 vectors. The polish runs L-BFGS (Liu & Nocedal 1989) and then Newton steps that are judged by the
gradient, because near a minimum the loss is flat to its last digit long before the gradient vanishes. A step solves

    min_s |H s + g|^2 + mu^2 |s|^2,    s = -(H^2 + mu^2)^-1 H g,    mu proportional to |g|,

so it goes to the nearest stationary point, saddles included, and stays put along zero modes (Levenberg-Marquardt for
a singular Jacobian: Yamashita & Fukushima 2001; Fan & Yuan 2005). It runs to |g| < 1e-8 and on to |g| < 1e-10.

The outcomes, with H's eigenvalues compared to the largest in size:

    strict minimum   the smallest eigenvalue is above 1e-6 of the largest
    flat minimum     no negative eigenvalue, some zero modes, and no descent along them
    saddle           a negative eigenvalue, or a descent along a zero mode (maxima and monkey saddles included)
    at infinity      the gradient keeps falling while max|w| grows by more than 5 % between the two tolerances: an
                     infimum that is not attained (cross-entropy on separable data, sigmoid XOR)
    non-smooth       the gradient jumps here: a ReLU sample on its kink, |x| at 0
    unfinished       none of these: the gradient does not vanish or the point still moves; or the loss fell to another
                     level while polishing, in which case training had not ended, whatever the polished point is

A point that still moves by 2 % of its largest weight between the tolerances, or that lies in a valley (zero modes), is
followed for up to four decades more before it is called a minimum, since some ways to infinity are slow. (In a valley
only up to 2000 parameters; above, eigenvalues come from Lanczos and Newton steps from LSMR.)
"""

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh, lsmr

from descentlab.nn.blas import BlasLimit

ValueAndGradient = Callable[[ndarray], tuple[float | ndarray, ndarray]]
HessianVectorProduct = Callable[[ndarray, ndarray], ndarray]
Outcome = Literal["strict minimum", "flat minimum", "saddle", "at infinity", "non-smooth", "unfinished"]

TOLERANCES = (1e-8, 1e-10)  # of |g|
ZERO_MODE = 1e-6  # eigenvalues below this share of the largest are zero modes
GROWTH = 0.05  # of max|w| between the tolerances: more is on its way to infinity
DENSE_LIMIT = 2000  # parameters; above, Lanczos finds eigenvalues and LSMR the Newton steps
LANCZOS_MODES = 4  # lowest eigenvalues asked for above the dense limit
LANCZOS_TOLERANCE = 1e-7  # of the lowest, against the spread of all: well below what makes a zero mode
LONE_THREAD = 500  # parameters up to which BLAS gets one thread
MEMORY = 20  # pairs of steps and gradient changes that L-BFGS keeps
STEP = 0.05  # longest step of L-BFGS in any coordinate, against the largest weight or 1
FAR = 1e12  # a weight at which L-BFGS gives up: the function has no lower bound
NEWTON_TRIES = 8  # dampings, each 30 times the last, before Newton's method gives up
RISE = 1e-6  # of the loss, that Newton steps may cost: more leads to another place
SETTLED = 0.02  # against the largest weight or 1: what moves further between the tolerances has not arrived
EXTENSIONS = 2  # times two decades more, for what has not settled, and for valleys, which may go on to infinity
MIXTURES = 20  # random combinations of zero modes to look along
FEW = 200  # ends below which starting processes costs more than it saves
PROBES = 8  # random directions in which a jump of the gradient is looked for

_LONE = BlasLimit(1)  # NumPy's and SciPy's libraries are loaded by now


def extreme_eigenvalues(
    product: Callable[[ndarray], ndarray], size: int, count: int = 1, dense: ndarray | None = None
) -> tuple[ndarray, ndarray]:
    """The lowest and the highest eigenvalues of a symmetric matrix.

    Args:
        product: `product(v) -> (P,)`, the matrix times v (P,); looked at where `dense` is None.
        size: P.
        count: how many at either end; at most P.
        dense: (P, P), the matrix itself where it is at hand. Without it Lanczos iterates (ARPACK), and needs
            count < P.

    Returns:
        lowest (count,) and highest (count,), both ascending; by Lanczos good to 1e-7 of the spread between them.
    """
    if dense is not None:
        values = np.linalg.eigvalsh(dense)
        return values[:count], values[-count:]
    values, _ = _lanczos(LinearOperator((size, size), matvec=product, dtype=np.float64), count, count)
    return values[:count], values[-count:]


def _lanczos(operator: LinearOperator, lowest: int, highest: int) -> tuple[ndarray, ndarray]:
    """Eigenvalues at both ends, ascending, and their eigenvectors as columns."""
    size = operator.shape[0]
    start = np.random.default_rng(0).standard_normal(size)  # ARPACK's own would differ from run to run
    high, high_modes = eigsh(operator, highest, which="LA", v0=start, tol=1e-10)
    top = high.max()
    # ARPACK's tolerance is relative to the eigenvalue sought, and near a minimum the lowest is next to nothing
    flipped = LinearOperator((size, size), matvec=lambda v: top * v - operator.matvec(v), dtype=np.float64)
    space = min(size, max(60, 4 * lowest))
    below, low_modes = eigsh(flipped, lowest, which="LA", v0=start, ncv=space, tol=LANCZOS_TOLERANCE, maxiter=500)
    order, reverse = high.argsort(), (-below).argsort()
    values = np.concatenate([top - below[reverse], high[order]])
    return values, np.hstack([low_modes[:, reverse], high_modes[:, order]])


@dataclass(frozen=True)
class Certificate:
    """What the end of a descent is.

    Attributes:
        outcome: of the end of training: that of the polished point, but unfinished where the loss level changed.
        polished: of the polished point.
        point: (P,), the polished parameters.
        loss_start, loss: before and after the polish.
        gradient_start, gradient_norm: |g|, Euclidean, before and after.
        flatness_start, flatness: |g| / |H g| before and after, a length; large where the gradient lies in the
            Hessian's kernel: a gradient-flat region that poses as a minimum (Frye et al. 2021). NaN where g = 0.
        distance: |polished - start|, Euclidean.
        growth: of max|w| between the two tolerances, as a share.
        smallest, largest: eigenvalues of the Hessian at the polished point, those of one side where it is non-smooth.
        negative_modes, zero_modes: how many eigenvalues are below -1e-6, or within 1e-6, of the largest in size.
        counted: false above 2000 parameters, where the modes are those among the 4 lowest and the highest.
        symmetry_modes: how many of the zero modes the known symmetries explain.
        kinks: how many kinks the polished point stands on, as the caller counts them.
        lower_nearby: share of small random perturbations of the polished point that lower the loss.
    """

    outcome: Outcome
    polished: Outcome
    point: ndarray = field(repr=False)
    loss_start: float
    loss: float
    gradient_start: float
    gradient_norm: float
    flatness_start: float
    flatness: float
    distance: float
    growth: float
    smallest: float
    largest: float
    negative_modes: int
    zero_modes: int
    counted: bool
    symmetry_modes: int
    kinks: int
    lower_nearby: float

    @property
    def drop(self) -> float:
        """How far the loss fell while polishing."""
        return self.loss_start - self.loss

    def as_dict(self) -> dict[str, Any]:
        """Plain values by attribute, without the point."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "point"}

    @property
    def summary(self) -> str:
        """The certificate in one line."""
        least = "" if self.counted else "at least "
        found = {
            "strict minimum": f"strict minimum (eigenvalues {self.smallest:.3g} to {self.largest:.3g})",
            "flat minimum": f"flat minimum ({least}{self.zero_modes} zero modes, {self.symmetry_modes} by symmetry)",
            "saddle": f"saddle ({least}{self.negative_modes} negative, {least}{self.zero_modes} zero modes)",
            "at infinity": f"at infinity (max|w| grows {self.growth:.0%} between the tolerances)",
            "non-smooth": f"non-smooth ({self.kinks} kinks, {self.lower_nearby:.0%} of perturbations lower the loss)",
            "unfinished": f"unfinished (|g| / |H g| = {self.flatness:.3g})",
        }[self.polished]
        if self.outcome != self.polished:
            found = f"unfinished: the loss fell from {self.loss_start:.6g}, and the polish ended on: {found}"
        return f"{found}; loss {self.loss:.6g}, |g| {self.gradient_norm:.1e}, distance {self.distance:.3g}"


def certify(
    value_and_gradient: ValueAndGradient,
    hessian_vector_product: HessianVectorProduct,
    start: ndarray,
    *,
    hessian: Callable[[ndarray], ndarray] | None = None,
    kinks: Callable[[ndarray], int] | None = None,
    symmetry_modes: int | Callable[[ndarray], int] = 0,
    level_tolerance: float = 0.01,
    iterations: int = 5000,
    stacked: bool = False,
) -> Certificate:
    """Polish an end of training and name what it is; the same arguments give the same certificate.

    Args:
        value_and_gradient: `value_and_gradient(theta) -> (loss, (P,))`.
        hessian_vector_product: `hessian_vector_product(theta, v) -> (P,)`.
        start: (P,), where training ended.
        hessian: `hessian(theta) -> (P, P)` where there is a faster way to it than P products.
        kinks: `kinks(theta)`, how many kinks theta stands on; a jump of the gradient is noticed without it, too.
        symmetry_modes: how many zero modes the known symmetries make at the polished point: a number, or a function
            of theta.
        level_tolerance: a fall of the loss by more than this, times the loss where that is above 1, is a change of
            level. In the loss's own units: XOR's levels lie .02 apart under the halved squared error.
        iterations: of L-BFGS for each tolerance.
        stacked: whether `value_and_gradient` takes (M, P) as well and returns (M,) and (M, P), which saves calls where
            many places around a point are looked at.

    Returns:
        The Certificate.

    Raises:
        ValueError: for a start where loss or gradient is not finite.
    """
    search = _Search(value_and_gradient, hessian_vector_product, hessian, iterations, stacked)
    small = np.size(start) <= LONE_THREAD  # a second thread costs small problems several times their time
    with _LONE if small else contextlib.nullcontext(), np.errstate(over="ignore", invalid="ignore", under="ignore"):
        begin = search.evaluate(np.array(start, dtype=np.float64))
        if not begin.finite:
            raise ValueError("start: loss and gradient must be finite")
        first = last = search.reach(begin, TOLERANCES[0])
        settled = False
        for _ in range(1 + EXTENSIONS if first.norm < TOLERANCES[0] else 0):
            # two decades, from however far below the first tolerance
            before, last = last, search.reach(last, min(TOLERANCES[1], last.norm * TOLERANCES[1] / TOLERANCES[0]))
            settled = last.distance(before) <= SETTLED * last.scale
            if _level_changed(before, last, level_tolerance):
                first = last  # what was left was a plateau
            elif last.grown(first) > GROWTH or (settled and not search.in_valley(last)):
                break
        return _certificate(search, begin, first, last, settled, kinks, symmetry_modes, level_tolerance)


def certificates(
    certify_one: Callable[[ndarray], Certificate], ends: ndarray, processes: int | None = None
) -> list[Certificate]:
    """Certify many ends, in processes of their own where that pays: one certificate is mostly Python.

    Args:
        certify_one: `certify_one(theta) -> Certificate`, as `curvature.Objective.certificate`.
        ends: (R, P).
        processes: how many; None is one per core for FEW ends and more, else none. No certificate depends on it.

    Returns:
        One Certificate per end.
    """
    from joblib import Parallel, cpu_count, delayed  # its processes take a second to start

    processes = processes or (cpu_count() if len(ends) >= FEW else 1)
    if processes == 1:
        return [certify_one(theta) for theta in ends]
    blocks = np.array_split(np.asarray(ends), min(len(ends), 8 * processes))

    def certify_block(block: ndarray) -> list[Certificate]:
        return [certify_one(theta) for theta in block]

    done = Parallel(n_jobs=processes)(delayed(certify_block)(block) for block in blocks)
    return [certificate for block in done for certificate in block]


def _certificate(
    search: "_Search",
    begin: "_Point",
    first: "_Point",
    last: "_Point",
    settled: bool,
    kinks: Callable[[ndarray], int] | None,
    symmetry_modes: int | Callable[[ndarray], int],
    level_tolerance: float,
) -> Certificate:
    standing = int(kinks(last.theta)) if kinks else 0
    growth = last.grown(first)
    descended = last.value <= first.value  # uphill, an infimum is not what lies at infinity
    values, modes = search.spectrum(last)
    zero = _zero(values)
    negative = (values < 0) & ~zero
    polished: Outcome
    if standing or search.jumps(last):
        polished = "non-smooth"
    elif first.norm < TOLERANCES[0] and last.norm < first.norm and descended and growth > GROWTH:
        polished = "at infinity"
    elif last.norm >= TOLERANCES[1] or not settled:
        polished = "unfinished"
    elif negative.any() or search.descends(last, modes[:, zero] if zero.any() else modes[:, :1]):
        polished = "saddle"
    else:
        polished = "flat minimum" if zero.any() else "strict minimum"
    symmetric = symmetry_modes(last.theta) if callable(symmetry_modes) else symmetry_modes
    return Certificate(
        outcome="unfinished" if _level_changed(begin, last, level_tolerance) else polished,
        polished=polished,
        point=last.theta,
        loss_start=begin.value,
        loss=last.value,
        gradient_start=begin.norm,
        gradient_norm=last.norm,
        flatness_start=search.flatness(begin),
        flatness=search.flatness(last),
        distance=last.distance(begin),
        growth=growth,
        smallest=float(values[0]),
        largest=float(values[-1]),
        negative_modes=int(negative.sum()),
        zero_modes=int(zero.sum()),
        counted=len(last.theta) <= DENSE_LIMIT,
        symmetry_modes=int(symmetric),
        kinks=standing,
        lower_nearby=search.lower_nearby(last),
    )


def _level_changed(before: "_Point", after: "_Point", tolerance: float) -> bool:
    return before.value - after.value > tolerance * max(1.0, abs(before.value))


def _zero(eigenvalues: ndarray) -> ndarray:
    return np.abs(eigenvalues) <= ZERO_MODE * np.abs(eigenvalues).max()


@dataclass(frozen=True, eq=False)
class _Point:
    """A place, and what the function says there."""

    theta: ndarray
    value: float
    gradient: ndarray

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.value) and np.isfinite(self.gradient).all())

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.gradient))

    @property
    def size(self) -> float:
        return float(np.abs(self.theta).max())

    @property
    def scale(self) -> float:
        """What a short step is short against."""
        return max(1.0, self.size)

    def grown(self, since: "_Point") -> float:
        return self.size / max(since.size, 1e-3) - 1.0

    def distance(self, other: "_Point") -> float:
        return float(np.linalg.norm(self.theta - other.theta))


class _Search:
    """A function, and the ways of moving and looking around on it."""

    def __init__(
        self,
        value_and_gradient: ValueAndGradient,
        product: HessianVectorProduct,
        hessian: Callable[[ndarray], ndarray] | None,
        iterations: int,
        stacked: bool,
    ) -> None:
        self._function = value_and_gradient
        self._product = product
        self._hessian = hessian
        self._iterations = iterations
        self._stacked = stacked
        self._spectra: dict[_Point, tuple[ndarray, ndarray]] = {}

    def evaluate(self, theta: ndarray) -> _Point:
        value, gradient = self._function(theta)
        return _Point(theta, float(value), np.array(gradient, dtype=np.float64))

    def around(self, point: _Point, steps: ndarray) -> tuple[ndarray, ndarray]:
        """Changes of value (M,) and of gradient (M, P) over steps (M, P) from a point."""
        places = point.theta + steps
        if self._stacked and len(point.theta) <= DENSE_LIMIT:
            found = [self._function(places)]
        else:
            found = [self._function(place) for place in places]
        values, gradients = zip(*found, strict=True)
        return np.ravel(values) - point.value, np.reshape(gradients, places.shape) - point.gradient

    def flatness(self, point: _Point) -> float:
        turned = np.linalg.norm(self._product(point.theta, point.gradient))
        return float(point.norm / turned) if turned > 0 else np.nan

    def reach(self, point: _Point, tolerance: float) -> _Point:
        """Polish to |g| < tolerance, or as far as it goes."""
        before = np.inf
        while 0.0 < point.norm < 0.5 * before and point.norm >= tolerance:
            before = point.norm
            point = self._lbfgs(point, tolerance)
            point = self._newton(point, tolerance)
        return point if point.norm < tolerance else self._fall_into_kink(point)

    def _lbfgs(self, point: _Point, tolerance: float) -> _Point:
        """L-BFGS in short steps: a long one can leave the basin, or pass over the way to infinity."""
        pairs: deque[tuple[ndarray, ndarray]] = deque(maxlen=MEMORY)
        lowest, idle = point, 0
        for _ in range(self._iterations):
            if point.norm < tolerance or point.norm == 0.0 or point.size > FAR or idle == MEMORY:
                break
            direction = self._quasi_newton(point, pairs)
            before, found = point, self._line_search(point, direction)
            if found is None and not pairs:
                break
            if found is None:
                pairs.clear()  # once more, straight downhill
                continue
            point = self._land(before, found, tolerance)
            step, change = point.theta - before.theta, point.gradient - before.gradient
            if step @ change > 0:
                pairs.append((step, change))
            fell = lowest.value - point.value > 4.0 * np.finfo(float).eps * abs(point.value)
            if fell or point.norm < 0.9 * lowest.norm:
                lowest, idle = point, 0
            else:
                idle += 1
        return point

    def _quasi_newton(self, point: _Point, pairs: deque[tuple[ndarray, ndarray]]) -> ndarray:
        """The two-loop recursion (Nocedal & Wright 2006, 7.4); without pairs, as far as the curvature asks."""
        direction = -point.gradient
        if not pairs:
            turned = float(np.linalg.norm(self._product(point.theta, point.gradient)))
            return direction * (point.norm / turned if turned > 0 else point.scale / point.norm)
        weights = []
        for step, change in reversed(pairs):
            weights.append((step @ direction) / (step @ change))
            direction = direction - weights[-1] * change
        step, change = pairs[-1]
        direction = direction * ((step @ change) / (change @ change))
        for (step, change), weight in zip(pairs, reversed(weights), strict=True):
            direction = direction + (weight - (change @ direction) / (step @ change)) * step
        return direction

    def _line_search(self, point: _Point, direction: ndarray) -> _Point | None:
        """A weak Wolfe step by bisection, which kinks do not disturb (Lewis & Overton 2013); None where it fails."""
        slope = float(point.gradient @ direction)
        longest = STEP * point.scale / max(float(np.abs(direction).max()), np.finfo(float).tiny)
        low, high, t = 0.0, np.inf, min(1.0, longest)
        best = None
        for _ in range(40 if slope < 0 else 0):
            trial = self.evaluate(point.theta + t * direction)
            if not trial.finite or trial.value > point.value + 1e-4 * t * slope:
                high = t
            else:
                low, best = t, trial
                if trial.gradient @ direction >= 0.9 * slope or t == longest:
                    break
            t = 0.5 * (low + high) if high < np.inf else min(2.0 * t, longest)
        return best

    def _newton(self, point: _Point, tolerance: float, steps: int = 100) -> _Point:
        ceiling = point.value + RISE * max(1.0, abs(point.value))
        damping = 1.0  # mu / |g|
        for _ in range(steps):
            if point.norm < tolerance:
                break
            solve = self._damped(point)
            for _ in range(NEWTON_TRIES if len(point.theta) <= DENSE_LIMIT else 3):
                trial = self.evaluate(point.theta + solve(damping * point.norm))
                if trial.finite and trial.norm < 0.99 * point.norm and trial.value <= ceiling:
                    break
                damping *= 30.0
            else:
                break
            point, damping = self._land(point, trial, tolerance), max(0.1 * damping, 1e-4)
        return point

    def _land(self, before: _Point, after: _Point, tolerance: float) -> _Point:
        """The end of a step, drawn back to where |g| is just below the tolerance.

        A long last step would hide how the weights grow between one tolerance and the next.
        """
        above, below = before, after
        for _ in range(60):
            if not below.norm < 0.1 * tolerance:
                return below
            middle = self.evaluate(0.5 * (above.theta + below.theta))
            above, below = (above, middle) if middle.norm < tolerance else (middle, below)
        return after  # the gradient jumps in between

    def _fall_into_kink(self, point: _Point) -> _Point:
        """The bottom of the line straight downhill, if it is close and a kink; the point itself otherwise."""
        downhill = -point.gradient / max(point.norm, np.finfo(float).tiny)
        down, up = 0.0, np.inf
        for t in point.scale * np.logspace(-9, -2, 8):
            if self.evaluate(point.theta + t * downhill).gradient @ downhill >= 0:
                up = t
                break
            down = t
        if up == np.inf:
            return point
        while up - down > 4.0 * np.finfo(float).eps * point.scale:
            middle = 0.5 * (down + up)
            rises = self.evaluate(point.theta + middle * downhill).gradient @ downhill >= 0
            down, up = (down, middle) if rises else (middle, up)
        bottom, beyond = (self.evaluate(point.theta + t * downhill) for t in (down, up))
        jump = (beyond.gradient - bottom.gradient) @ downhill
        return bottom if jump > 0.1 * point.norm and bottom.value <= point.value else point

    def _damped(self, point: _Point) -> Callable[[float], ndarray]:
        """The function mu -> -(H^2 + mu^2)^-1 H g."""
        if len(point.theta) > DENSE_LIMIT:
            turn = self._operator(point)
            return lambda mu: lsmr(turn, -point.gradient, damp=mu, atol=1e-9, btol=1e-9, maxiter=200)[0]
        values, modes = self.spectrum(point)
        along = modes.T @ point.gradient
        return lambda mu: -modes @ (values * along / (values * values + mu * mu))

    def _dense(self, point: _Point) -> ndarray:
        if self._hessian is not None:
            return self._hessian(point.theta)
        rows = np.array([self._product(point.theta, v) for v in np.eye(len(point.theta))])
        return 0.5 * (rows + rows.T)

    def _operator(self, point: _Point) -> LinearOperator:
        def product(v: ndarray) -> ndarray:
            return self._product(point.theta, np.ravel(v))

        return LinearOperator((len(point.theta),) * 2, matvec=product, rmatvec=product, dtype=np.float64)

    def spectrum(self, point: _Point) -> tuple[ndarray, ndarray]:
        """Eigenvalues, ascending, and eigenvectors as columns; above DENSE_LIMIT the lowest few and the highest."""
        if point not in self._spectra:
            dense = len(point.theta) <= DENSE_LIMIT
            self._spectra = {  # of the latest point only
                point: eigh(self._dense(point)) if dense else _lanczos(self._operator(point), LANCZOS_MODES, 1)
            }
        return self._spectra[point]

    def in_valley(self, point: _Point) -> bool:
        """Whether there are zero modes; not asked above DENSE_LIMIT, where each further decade costs minutes."""
        return len(point.theta) <= DENSE_LIMIT and bool(_zero(self.spectrum(point)[0]).any())

    def noise(self, point: _Point) -> float:
        """How far values nearby scatter by rounding alone."""
        steps = np.random.default_rng(0).uniform(-1, 1, (16, len(point.theta))) * 1e-12 * point.scale
        spread = np.abs(self.around(point, steps)[0]).max()
        return float(8.0 * (spread + np.finfo(float).eps * abs(point.value)))

    def descends(self, point: _Point, modes: ndarray) -> bool:
        """Whether the loss falls along some mode, or mixture of modes, before it has risen: a descent of third order.

        What is left of the gradient can make the loss fall by |g| t over a step t and proves nothing.
        """
        noise = self.noise(point)
        mixtures = np.random.default_rng(1).standard_normal((modes.shape[1], MIXTURES if modes.shape[1] > 1 else 0))
        directions = np.hstack([modes, modes @ mixtures])
        lengths = point.scale * np.array([1e-6, 1e-5, 1e-4, 1e-3])
        for direction in (directions / np.linalg.norm(directions, axis=0)).T:
            steps = np.concatenate([-lengths, lengths])[:, None] * direction
            for changes in np.split(self.around(point, steps)[0], 2):
                falls, rises = changes < -noise - 2.0 * point.norm * lengths, changes > noise
                if falls.any() and not rises[: falls.argmax()].any():
                    return True
        return False

    def jumps(self, point: _Point) -> bool:
        """Whether the gradient jumps at this point: over a thousandth of a step it changes nearly as much."""
        rng = np.random.default_rng(2)
        directions = np.vstack([point.gradient, rng.standard_normal((PROBES, len(point.theta)))])
        directions /= np.maximum(np.linalg.norm(directions, axis=1), np.finfo(float).tiny)[:, None]
        both = point.scale * np.vstack([-directions, directions])
        changes = self.around(point, np.vstack([1e-6 * both, 1e-9 * both]))[1]
        far, near = np.split(np.linalg.norm(changes, axis=1), 2)
        return bool((near > np.maximum(0.1 * far, TOLERANCES[0])).any())

    def lower_nearby(self, point: _Point) -> float:
        """Share of random steps of length 1e-3 that lower the loss by more than rounding and the gradient's rest."""
        t = 1e-3 * point.scale
        steps = np.random.default_rng(3).standard_normal((100, len(point.theta)))
        steps *= t / np.linalg.norm(steps, axis=1)[:, None]
        changes = self.around(point, steps)[0]
        return float((changes < -self.noise(point) - 0.01 * np.abs(changes).max()).mean())
