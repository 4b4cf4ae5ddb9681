"""Certificates: what the end of a descent is.

They work for any function given as `value_and_gradient(theta) -> (float, (P,))` and
`hessian_vector_product(theta, v) -> (P,)` on flat float64 vectors. `polish` follows the end of training to |g| < 1e-8
and 1e-10 of the slope scale of `landscape`, and then two decades at a time until the direction of the path is clear. No
outcome depends on the unit of the loss or of the parameters, if `level_tolerance` is given in the unit of the loss.

The outcomes, with the Hessian's eigenvalues compared to the largest in size:

    strict minimum   the smallest eigenvalue is above 1e-6 of the largest and keeps its size as the gradient vanishes,
                     and no random step of a thousandth of the length finds a lower loss
    flat minimum     no negative eigenvalue, some zero modes, and no descent along them. A mode whose curvature vanishes
                     with the gradient (a minimum of fourth order) is a zero mode
    saddle           a negative eigenvalue, or a descent along a zero mode (maxima and monkey saddles included)
    at infinity      in every further window of two decades of |g| the point moves along zero modes, and its steps do
                     not shrink: the infimum is not attained (cross-entropy on separable data, sigmoid XOR)
    non-smooth       the gradient jumps here: a ReLU sample on its kink, |x| at 0
    unfinished       none of these: the gradient does not vanish, the point still moves, or a lower loss is near. Also
                     if the loss fell to another level during the polish: training had then not ended

Where the Hessian jumps (max(x, 0)^2 at 0), the certificate calls it one-sided and uses both sides: a zero mode on one
side makes the minimum flat.

The method does not see:

    * negative curvature whose slope over a thousandth of the length is within rounding: below about 2e-12 of the
      largest eigenvalue;
    * saddles of fourth order and higher for the same reason: -c y^4 beside x^2 / 2, with a length of 1 and c below
      1e-7;
    * saddles that descend along no straight line, such as Peano's (y - x^2) (y - 2 x^2);
    * an infimum that is attained only beyond the last window, at |g| below 1e-14 of the slope scale;
    * above 2000 parameters, eigenvalues other than the 4 lowest and the highest. Eigenvalues come from Lanczos, Newton
      steps from LSMR, and a valley is not followed further, so a way to infinity can be called a flat minimum.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy import ndarray

from descentlab.analysis import spectrum
from descentlab.analysis.landscape import HessianVectorProduct, Landscape, Point, ValueAndGradient
from descentlab.analysis.polish import TOLERANCES, Path, Polish
from descentlab.nn.blas import BlasLimit
from descentlab.nn.workers import cores

Outcome = Literal["strict minimum", "flat minimum", "saddle", "at infinity", "non-smooth", "unfinished"]

LONE_THREAD = 500  # parameters up to which BLAS gets one thread
FEW = 200  # ends below which starting processes costs more than it saves

_LONE = BlasLimit(1)  # NumPy's and SciPy's libraries are loaded by now


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
        growth: of the parameters' component along the way, over the window from 1e-8 to 1e-10, as a share; negative
            where the component shrinks.
        smallest, largest: eigenvalues of the Hessian at the polished point, those of one side where it jumps.
        negative_modes, zero_modes: how many eigenvalues are negative, and how many are zero modes.
        counted: false above 2000 parameters, where the modes are those among the 4 lowest and the highest.
        symmetry_modes: how many of the zero modes the known symmetries explain.
        kinks: how many kinks the polished point stands on, as the caller counts them.
        one_sided: whether the Hessian jumps at the polished point.
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
    one_sided: bool
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
            "at infinity": f"at infinity (grows by {self.growth:.0%} over two decades of the gradient, and goes on)",
            "non-smooth": f"non-smooth ({self.kinks} kinks, {self.lower_nearby:.0%} of perturbations lower the loss)",
            "unfinished": f"unfinished (|g| / |H g| = {self.flatness:.3g})",
        }[self.polished]
        if self.one_sided:
            found += ", one-sided Hessian"
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
    level_tolerance: float | None = None,
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
        level_tolerance: a fall of the loss by more than this is a change of level, in the loss's own unit: XOR's levels
            lie .02 apart under the halved squared error. None is .01, or 1 % of the loss where that is above 1.
        iterations: of L-BFGS for each tolerance.
        stacked: whether `value_and_gradient` takes (M, P) as well and returns (M,) and (M, P), which saves calls where
            many places around a point are looked at.

    Returns:
        The Certificate.

    Raises:
        ValueError: for a start where loss or gradient is not finite.
    """
    land = Landscape(value_and_gradient, hessian_vector_product, hessian, stacked)
    polish = Polish(land, iterations)
    small = np.size(start) <= LONE_THREAD  # a second thread costs small problems several times their time
    with _LONE if small else contextlib.nullcontext(), np.errstate(over="ignore", invalid="ignore", under="ignore"):
        begin = land.at(np.array(start, dtype=np.float64))
        if not begin.finite:
            raise ValueError("start: loss and gradient must be finite")
        return _certificate(land, polish, polish.follow(begin), kinks, symmetry_modes, level_tolerance)


def certificates(
    certify_one: Callable[[ndarray], Certificate], ends: ndarray, processes: int | None = None
) -> list[Certificate]:
    """Certify many ends, in several processes where that pays: one certificate is mostly Python.

    Args:
        certify_one: `certify_one(theta) -> Certificate`, as `curvature.Objective.certificate`.
        ends: (R, P).
        processes: how many; None is one per core from 200 ends on, else one. No certificate depends on it.

    Returns:
        One Certificate per end.
    """
    from joblib import Parallel, delayed  # its processes take a second to start

    processes = processes or (cores() if len(ends) >= FEW else 1)
    if processes == 1:
        return [certify_one(theta) for theta in ends]
    blocks = np.array_split(np.asarray(ends), min(len(ends), 8 * processes))

    def certify_block(block: ndarray) -> list[Certificate]:
        return [certify_one(theta) for theta in block]

    done = Parallel(n_jobs=processes)(delayed(certify_block)(block) for block in blocks)
    return [certificate for block in done for certificate in block]


def _certificate(
    land: Landscape,
    polish: Polish,
    path: Path,
    kinks: Callable[[ndarray], int] | None,
    symmetry_modes: int | Callable[[ndarray], int],
    level_tolerance: float | None,
) -> Certificate:
    begin, last = path.start, path.last
    standing = int(kinks(last.theta)) if kinks else 0
    polished: Outcome | None
    if standing or land.gradient_jumps(last, TOLERANCES[0] * land.slope):
        polished = "non-smooth"
    else:
        polished = _outcome_of_path(path)
    sides: list[Point] = []
    if polished is None:
        last = polish.finish(last)
        sides = land.other_sides(last)
    values, modes = land.spectrum(last)
    # Where the Hessian jumps, an earlier point may lie on another side: its curvature says nothing about this one's.
    soft = spectrum.zero_modes(values) if sides else land.soft(path.before, last)
    lower = land.lower_nearby(last)
    if polished is None:
        polished = _outcome_of_point(land, last, values, modes, soft, sides, lower)
    symmetric = symmetry_modes(last.theta) if callable(symmetry_modes) else symmetry_modes
    return Certificate(
        outcome="unfinished" if _level_changes(begin, last, level_tolerance) else polished,
        polished=polished,
        point=last.theta,
        loss_start=begin.value,
        loss=last.value,
        gradient_start=begin.norm,
        gradient_norm=last.norm,
        flatness_start=land.flatness(begin),
        flatness=land.flatness(last),
        distance=last.distance(begin),
        growth=path.growth,
        smallest=float(values[0]),
        largest=float(values[-1]),
        negative_modes=int(((values < 0) & ~soft).sum()),
        zero_modes=int(soft.sum()),
        counted=len(last.theta) <= spectrum.DENSE_LIMIT,
        symmetry_modes=int(symmetric),
        kinks=standing,
        one_sided=bool(sides),
        lower_nearby=lower,
    )


def _outcome_of_path(path: Path) -> Outcome | None:
    """At infinity, unfinished, or None where the path has come to a stationary point."""
    if path.endless:
        return "at infinity"
    return None if path.reached and path.settled else "unfinished"


def _outcome_of_point(
    land: Landscape, point: Point, values: ndarray, modes: ndarray, soft: ndarray, sides: list[Point], lower: float
) -> Outcome:
    """What a stationary point is, from its spectrum, from the other sides of a jump, and from looking around."""
    flat = bool(soft.any())
    if ((values < 0) & ~soft).any() or land.descends(point, modes[:, soft] if flat else modes[:, :1]):
        return "saddle"
    for side in sides:
        values, modes = land.spectrum(side)
        weak = spectrum.zero_modes(values) | (values < 0)
        if weak.any():
            flat = True
            if land.descends(point, modes[:, weak]):
                return "saddle"
    if flat:
        return "flat minimum"
    return "strict minimum" if lower == 0 else "unfinished"


def _level_changes(before: Point, after: Point, tolerance: float | None) -> bool:
    least = 0.01 * max(1.0, abs(before.value)) if tolerance is None else tolerance
    return before.value - after.value > least
