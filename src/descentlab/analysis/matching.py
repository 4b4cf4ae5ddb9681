"""Networks up to their symmetries, and the loss on the lines and planes between them.

A symmetry changes the parameters of a network and keeps its output for every input. The known ones:

    permutation   hidden units of a layer change places                  any activation
    flip          a unit's (w, b, v) become (-w, -b, -v), v being its    phi - phi(0) odd: tanh, softsign, identity and
                  outgoing weights; the next biases gain 2 phi(0) v      sigmoid, whose phi(0) is 1/2
    rescaling     (w, b, v) become (c w, c b, v / c), c > 0              phi(c z) = c phi(z): ReLU, leaky ReLU, identity
    shift         all outputs' weights and biases gain the same row      softmax output

For tanh with one hidden layer there are no others, except in networks that a smaller one could replace (Sussmann 1992).
Two symmetries are not removed: those that hold on one data set only (a unit that is dead on all samples), and mixing
the units of identity layers.

Where units can be flipped, this file uses the biases b[l+1] + phi(0) sum_j W[l+1]_j. With them a flip only changes
signs, and the squared distance between two networks is a sum over units.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from descentlab.nn.activations import Activation
from descentlab.nn.blas import BlasLimit
from descentlab.nn.initializers import STATISTICS_STREAM, stream
from descentlab.nn.memory import Workspace, chunks
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters, input_table, target_table
from descentlab.nn.program import forward
from descentlab.nn.workers import cores

ROUNDING = 1e-13  # of the logarithm of a scale: a unit closer to balance than this is balanced
SWEEPS = 1000  # most passes over the layers; both loops converge long before
POINTS = 25  # on a path, both ends included

_LONE = BlasLimit(1)


def canonical(network: Network, parameters: Parameters) -> Parameters:
    """Replace each network by one representative of all networks that the known symmetries relate to it.

    The outputs' common shift of softmax is removed: its weights and biases sum to 0. A unit that can be rescaled is
    balanced, |(w, b)| = |v|, which has the least norm; a unit without input or without effect becomes 0. Units that
    can be flipped point to the same side as a fixed direction. Units are sorted along this direction; units with
    identical incoming weights keep their order.

    Args:
        network: shape and functions.
        parameters: of R networks.

    Returns:
        A copy with the same outputs; the result for restart r depends on restart r only.
    """
    form = _reduced(network, parameters)
    for layer, following in pairwise(form.theta):
        along = layer @ stream(layer.shape[-1], STATISTICS_STREAM).standard_normal(layer.shape[-1])  # (R, n_l)
        sign = np.where(along < 0, -1.0, 1.0) if _flips(network.activation) else np.ones_like(along)
        order = np.argsort(-sign * along, axis=-1, kind="stable")
        _rearrange(layer, following, order, np.take_along_axis(sign, order, axis=-1))
    return _restored(network, form)


def matched(network: Network, a: Parameters, b: Parameters, seed: int = 0) -> tuple[Parameters, Parameters]:
    """Match the hidden units of the two networks of each pair.

    Shift and rescaling are removed from both as in `canonical`. Then the units of b are permuted and flipped to
    minimise the squared distance between the two, with the biases described above. With one hidden layer this is a
    linear assignment, which is solved exactly. With more, one layer is assigned at a time, the others fixed, until no
    layer changes: weight matching by coordinate ascent (Ainsworth et al. 2023). It starts once from the given order and
    once from an assignment layer by layer from the input; the closer result is returned.

    Args:
        network: shape and functions.
        a: of R networks.
        b: of R networks; pair r is a[r], b[r].
        seed: of the order in which layers are assigned.

    Returns:
        Copies of both, with the same outputs as before.

    Raises:
        ValueError: if parameters are not finite, or a and b differ in number.
    """
    if len(a) != len(b) or not (np.isfinite(a.flat).all() and np.isfinite(b.flat).all()):
        raise ValueError(f"{len(a)} and {len(b)} networks: must be pairs of finite networks")
    fixed, moved = _reduced(network, a), _reduced(network, b)
    _match(network, fixed, moved, seed)
    return _restored(network, fixed), _restored(network, moved)


def distinct(network: Network, parameters: Parameters, tolerance: float = 1e-4) -> ndarray:
    """Number the networks that differ by more than symmetries, so that equal minima are counted once.

    Args:
        network: shape and functions.
        parameters: of R networks; polish the ends of training first (`minima.certify`).
        tolerance: two networks are the same if their distance after matching is at most this share of the norm.

    Returns:
        (R,) int: numbers from 0 in order of first appearance; -1 where parameters are not finite.
    """
    kinds = np.full(len(parameters), -1)
    finite = np.flatnonzero(np.isfinite(parameters.flat).all(axis=1))
    forms = _reduced(network, canonical(network, parameters[finite]))
    norms = np.linalg.norm(forms.flat, axis=1)  # symmetries keep the norm, so few pairs have to be matched
    first = np.empty(0, dtype=int)  # of each kind
    for here, restart in enumerate(finite):
        kinds[restart] = len(first)
        near = np.flatnonzero(np.abs(norms[first] - norms[here]) <= tolerance * norms[here])
        if len(near):
            known, others = forms[first[near]], forms[np.full(len(near), here)]
            _match(network, known, others, seed=0)
            apart = np.linalg.norm(known.flat - others.flat, axis=1)
            if apart.min() <= tolerance * norms[here]:
                kinds[restart] = near[apart.argmin()]
        if kinds[restart] == len(first):
            first = np.append(first, here)
    return kinds


# --- paths and planes --------------------------------------------------------------------------------------------


def path_losses(
    network: Network, a: Parameters, b: Parameters, inputs: ndarray, targets: ndarray, points: int = POINTS
) -> ndarray:
    """The loss on the straight line from each a to its b.

    Args:
        network: shape, functions and loss.
        a: of R networks.
        b: of as many.
        inputs: (N, n_0).
        targets: (N, K).
        points: evenly spaced, both ends included.

    Returns:
        (R, points), the mean over samples at (1 - t) a + t b.
    """

    def between(rows: ndarray) -> ndarray:
        pair, t = rows // points, (rows % points / (points - 1))[:, None]
        return (1.0 - t) * a.flat[pair] + t * b.flat[pair]

    return _losses(network, len(a) * points, between, inputs, targets).reshape(len(a), points)


def barriers(losses: ArrayLike) -> ndarray:
    """The height of the loss above the chord between the ends: max_t L(t) - ((1 - t) L(0) + t L(1)), at least 0.

    Args:
        losses: (..., points), as from `path_losses`.

    Returns:
        (...), in the loss's unit (Frankle et al. 2020; Entezari et al. 2022).
    """
    along = np.asarray(losses, dtype=np.float64)
    t = np.linspace(0.0, 1.0, along.shape[-1])
    return (along - ((1.0 - t) * along[..., :1] + t * along[..., -1:])).max(axis=-1).clip(0.0)


@dataclass(frozen=True)
class Plane:
    """The parameters origin + x across + y up; each of the three is (P,)."""

    origin: ndarray
    across: ndarray
    up: ndarray


def random_plane(parameters: Parameters, seed: int = 0) -> Plane:
    """A plane around one network along two random directions, normalised unit by unit (Li et al. 2018).

    Args:
        parameters: of one network.
        seed: of the directions.

    Returns:
        The plane. In each direction, the row of a unit has the norm of that unit's weights; biases do not change.
    """
    draw, directions = stream(seed, STATISTICS_STREAM), []
    for _ in range(2):
        direction = Parameters(parameters.layers, np.zeros_like(parameters.flat))
        for weights, along in zip(parameters.W, direction.W, strict=True):
            drawn = draw.standard_normal(weights.shape)
            along[...] = drawn * (np.linalg.norm(weights, axis=-1) / np.linalg.norm(drawn, axis=-1))[..., None]
        directions.append(direction.flat[0])
    return Plane(parameters.flat[0].copy(), *directions)


def plane_through(ends: Parameters) -> tuple[Plane, ndarray]:
    """The plane through three networks, with orthonormal directions (Garipov et al. 2018).

    Args:
        ends: parameters of three networks that do not lie on one line.

    Returns:
        The plane, with the first network as origin, and the coordinates of the three networks on it, (3, 2).
    """
    origin, second, third = ends.flat.astype(np.float64)
    q, r = np.linalg.qr(np.stack([second - origin, third - origin], axis=1))
    sign = np.where(np.diag(r) < 0, -1.0, 1.0)
    return Plane(origin, *(sign * q).T), np.concatenate([[[0.0, 0.0]], (sign[:, None] * r).T])


def plane_losses(
    network: Network, plane: Plane, x: ArrayLike, y: ArrayLike, inputs: ndarray, targets: ndarray
) -> ndarray:
    """The loss on a plane.

    Args:
        network: shape, functions and loss.
        plane: the plane.
        x: positions along `across`.
        y: positions along `up`.
        inputs: (N, n_0).
        targets: (N, K).

    Returns:
        (len(y), len(x)), the mean over samples.
    """
    columns, lines = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)

    def on_plane(rows: ndarray) -> ndarray:
        right, above = columns[rows % len(columns), None], lines[rows // len(columns), None]
        return plane.origin + right * plane.across + above * plane.up

    losses = _losses(network, len(lines) * len(columns), on_plane, inputs, targets)
    return losses.reshape(len(lines), len(columns))


def _losses(
    network: Network, count: int, build: Callable[[ndarray], ndarray], inputs: ndarray, targets: ndarray
) -> ndarray:
    """Mean losses (count,) of the networks build(numbers) (n, P), in chunks that fit the cache."""
    x, y = input_table(inputs, "float64"), target_table(targets, "float64")
    threads = cores()
    losses = np.zeros(count)

    def measure(part: slice) -> None:
        parameters = Parameters(network.layers, build(np.arange(part.start, part.stop)))
        workspace = Workspace(network, "float64")
        for start, stop in workspace.blocks(len(x)):
            trace = workspace.trace(len(parameters), stop - start)
            z = forward(network, parameters, x[start:stop], trace)
            losses[part] += network.form.value(z, y[start:stop]).sum(axis=-1) / len(x)

    with _LONE, ThreadPoolExecutor(threads) as pool:
        list(pool.map(measure, chunks(count, network.layers, len(x), "float64", threads)))
    return losses


# --- symmetries --------------------------------------------------------------------------------------------------


def _values(phi: Activation) -> ndarray:
    z = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    return phi(z)


def _flips(phi: Activation) -> bool:
    ends = _values(phi)
    return bool(np.allclose(ends + ends[::-1], 2 * ends[2], rtol=1e-12, atol=1e-12))


def _rescales(phi: Activation) -> bool:
    ends = _values(phi)
    return bool(ends[0] == 2 * ends[1] and ends[4] == 2 * ends[3])


def _count_biases_from(middle: float, parameters: Parameters) -> None:
    for weights, bias in zip(parameters.W[1:], parameters.b[1:], strict=True):
        bias += middle * weights.sum(axis=-1)


def _reduced(network: Network, parameters: Parameters) -> Parameters:
    """A balanced copy in float64 without shift; where units can be flipped, with the biases described above."""
    form = Parameters(network.layers, parameters.flat.astype(np.float64))
    if _flips(network.activation):
        _count_biases_from(_values(network.activation)[2], form)
    if network.output == "softmax":
        form.theta[-1] -= form.theta[-1].mean(axis=1, keepdims=True)
    if _rescales(network.activation):
        _balance(form.theta)
    return form


def _restored(network: Network, form: Parameters) -> Parameters:
    """The same networks with ordinary biases, in place."""
    if _flips(network.activation):
        _count_biases_from(-_values(network.activation)[2], form)
    return form


def _balance(theta: list[ndarray]) -> None:
    """Rescale units until |(w, b)| = |v|: one pass with one hidden layer, several with more."""
    moving = np.ones((len(theta[0]), 1), dtype=bool)
    for _ in range(SWEEPS if len(theta) > 2 else 1):
        furthest = np.zeros_like(moving, dtype=float)
        for layer, following in pairwise(theta):
            into, out = np.linalg.norm(layer, axis=-1), np.linalg.norm(following[..., :-1], axis=-2)  # (R, n_l)
            works = (into > 0) & (out > 0)
            scale = np.sqrt(np.where(works, out, 1.0)) / np.sqrt(np.where(works, into, 1.0))
            furthest = np.maximum(furthest, np.abs(np.log(scale)).max(axis=-1, keepdims=True))
            scale[~np.broadcast_to(moving, scale.shape)] = 1.0  # a balanced network does not change with its neighbours
            layer *= np.where(works, scale, 0.0)[..., None]
            following[..., :-1] *= np.where(works, 1.0 / scale, 0.0)[:, None]
        moving &= furthest > ROUNDING
        if not moving.any():
            return


def _rearrange(layer: ndarray, following: ndarray, order: ndarray, sign: ndarray) -> None:
    """Permute the hidden units of a layer by order (R, n_l), then multiply each by its sign (R, n_l); in place."""
    layer[...] = sign[..., None] * np.take_along_axis(layer, order[..., None], axis=1)
    following[..., :-1] = sign[:, None] * np.take_along_axis(following[..., :-1], order[:, None], axis=2)


# --- assignment --------------------------------------------------------------------------------------------------


def _match(network: Network, fixed: Parameters, moved: Parameters, seed: int) -> None:
    """Permute and flip the units of `moved` to match `fixed`, in place; both come from `_reduced`."""
    hidden, flips, always = len(fixed.theta) - 1, _flips(network.activation), np.full(len(fixed), -np.inf)
    if hidden == 1:
        _assign(fixed.theta, moved.theta, 0, flips, always)
    elif hidden > 1:
        started = moved.copy()
        for layer in range(hidden):
            _assign(fixed.theta, started.theta, layer, flips, always, outgoing=False)
        for candidate in (moved, started):
            _ascend(fixed.theta, candidate.theta, flips, seed)
        apart = [np.square(fixed.flat - candidate.flat).sum(axis=1) for candidate in (moved, started)]
        nearer = apart[1] < apart[0]
        moved.flat[nearer] = started.flat[nearer]


def _assign(
    fixed: list[ndarray], moved: list[ndarray], layer: int, flips: bool, at_least: ndarray, outgoing: bool = True
) -> bool:
    """Match the units of one hidden layer, with the other layers fixed.

    Args:
        fixed: theta per layer, (R, n_out, n_in + 1).
        moved: likewise.
        layer: index of the hidden layer, from 0.
        flips: whether signs may change.
        at_least: (R,); a pair changes only if its inner product gains more than this.
        outgoing: whether the outgoing weights count as well.

    Returns:
        Whether any pair changed.
    """
    alike = fixed[layer] @ moved[layer].mT  # (R, n_l, n_l)
    if outgoing:
        alike += fixed[layer + 1][..., :-1].mT @ moved[layer + 1][..., :-1]
    worth = np.abs(alike) if flips else alike
    places = np.arange(alike.shape[-1])
    order = np.array([linear_sum_assignment(pair, maximize=True)[1] for pair in worth])
    gain = worth[np.arange(len(worth))[:, None], places, order].sum(axis=1) - alike[:, places, places].sum(axis=1)
    order[gain <= at_least] = places
    turned = flips & (alike[np.arange(len(worth))[:, None], places, order] < 0) & (gain > at_least)[:, None]
    _rearrange(moved[layer], moved[layer + 1], order, np.where(turned, -1.0, 1.0))
    return bool((gain > at_least).any())


def _ascend(fixed: list[ndarray], moved: list[ndarray], flips: bool, seed: int) -> None:
    """Assign the layers one by one, in random order, until no pair changes."""
    draw = stream(seed, STATISTICS_STREAM)
    least = ROUNDING * sum(np.square(layer).sum(axis=(1, 2)) for layer in fixed)  # (R,)
    for _ in range(SWEEPS):
        if not any([_assign(fixed, moved, layer, flips, least) for layer in draw.permutation(len(fixed) - 1)]):
            return
