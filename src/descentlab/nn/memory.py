"""The buffers of a training step in memory, blocks of samples and chunks of restarts.

`program` is written for logical shapes, (R, B, n) and (R, n_out, n_in + 1). This file and `parameters` alone decide
what lies beside what. Every choice follows from layer sizes, batch size and dtype, never from R, because another
order of summation means other last bits, and a restart must not depend on the stack it is trained in.

* z and a are feature-major, (n, B) in memory, but for a lone hidden layer, which stands between the batch-major inputs
  and the rest. With the layout of the weights this keeps products out of BLAS's slow A B^T form.
* Tiny networks lie restart-last, (n, B, R), and all R matrices are multiplied at once.
* z of the output layer is (K, R, B) in memory, so that reductions over the K outputs add whole rows of restarts.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import Activation
from descentlab.nn.network import Network
from descentlab.nn.parameters import Parameters, parameter_count, tiny

BLOCK_SAMPLES = 448  # samples a block: larger blocks fall out of the cache, smaller ones pay more calls
CHUNK_BYTES = 1_500_000  # parameters, gradients and buffers of the restarts that are trained together
WIDE = 8000  # parameters from which a gradient beside them costs more than one call of BLAS per restart and layer
REDUCED = 10_000  # numbers in a result up to which tiny products are formed at once and then added up
FEW = 5  # terms that are added up sooner one by one than by a reduction
THREAD_WORK = 250_000  # multiplications a step that pay for a thread: with fewer, threads wait for Python's lock

Call = Callable[[], object]  # an operation on given arrays, bound once and then done in every step: views cost time


def product(a: ndarray, b: ndarray, out: ndarray) -> list[Call]:
    """The calls that leave the stacked matrix product a b in `out`: BLAS's.

    Args:
        a: (R, m, k), or (m, k) shared.
        b: (R, k, n).
        out: (R, m, n).
    """
    return [partial(np.matmul, a, b, out)]


def product_number_by_number(a: ndarray, b: ndarray, out: ndarray) -> list[Call]:
    """`product` for tiny matrices of many restarts: one term of the sums after the other, for all restarts at once."""
    if out.strides[-2] < out.strides[-1]:  # go through memory in its order
        a, b, out = b.mT, a.mT, out.mT
    left = a.T[:, :, None] if a.ndim == 3 else a.T[:, :, None, None]  # (k, m, 1, R)
    right = b.transpose(1, 2, 0)[:, None] if b.ndim == 3 else b[:, None, :, None]  # (k, 1, n, R)
    total = out.transpose(1, 2, 0)  # (m, n, R)
    calls: list[Call]
    if 1 < len(left) and total.size < REDUCED:  # fewer calls, the same order of summation
        terms = np.empty((len(left), *total.shape), total.dtype)
        calls = [partial(np.multiply, left, right, terms)]
        if total.size > 1 and len(left) > FEW:
            return [*calls, partial(np.add.reduce, terms, 0, None, total)]
        calls.append(partial(np.add, terms[0], terms[1], total))
        return calls + [partial(np.add, total, term, total) for term in terms[2:]]
    term = np.empty_like(total)
    calls = [partial(np.multiply, left[0], right[0], total)]
    for x, y in zip(left[1:], right[1:], strict=True):
        calls += [partial(np.multiply, x, y, term), partial(np.add, total, term, total)]
    return calls


def chunks(
    restarts: int, layers: Sequence[int], samples: int, dtype: str, workers: int, least: int = THREAD_WORK
) -> list[slice]:
    """Cut a stack of restarts into chunks that fit the cache, and that keep every worker busy where that pays.

    Args:
        restarts: R.
        layers: the sizes n_0 .. n_L.
        samples: of one step.
        dtype: "float64" or "float32".
        workers: that will take the chunks.
        least: multiplications a step that a worker must be given.
    """
    block = min(samples, BLOCK_SAMPLES)
    numbers = 2 * parameter_count(layers) + block * (sum(layers) + 3 * max(layers[1:]))
    room = CHUNK_BYTES * (3 if tiny(layers) else 1)  # a stack that streams through the cache wants few calls
    count = -(-restarts * numbers * np.dtype(dtype).itemsize // room)
    worthwhile = restarts * samples * parameter_count(layers) // least
    busy = max(1, min(workers, worthwhile))
    count = min(restarts, -(-count // busy) * busy)
    edges = [restarts * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def output_buffer(layers: Sequence[int], restarts: int, samples: int, dtype: str) -> ndarray:
    """Room for something of the output layer, (R, B, K), in its memory order."""
    outputs = layers[-1]
    if tiny(layers):
        return np.zeros((outputs, samples, restarts), dtype=dtype).T
    if samples == 1:  # (K, R) would add up K numbers in another order where R is 1
        return np.zeros((restarts, 1, outputs), dtype=dtype)
    return np.zeros((outputs, restarts, samples), dtype=dtype).transpose(1, 2, 0)


def subtracts_in_place(layers: Sequence[int], samples: int) -> bool:
    """Whether `subtract_product` beats a gradient that is formed first and subtracted then."""
    return parameter_count(layers) >= WIDE and len(Workspace.blocks(samples)) == 1


def subtract_product(theta: ndarray, delta: ndarray, a: ndarray) -> Iterator[Call]:
    """The calls that do theta[r] -= delta[r]^T a[r] within BLAS, which reads and writes theta once.

    Args:
        theta: (R, n_out, n_in + 1), a layer of Parameters.
        delta: (R, B, n_out).
        a: (R, B, n_in + 1), or (B, n_in + 1) shared.
    """
    from scipy.linalg.blas import dgemm, sgemm  # late: it is slow to load, and small networks never need it

    gemm = dgemm if theta.dtype == np.float64 else sgemm
    for row, (into, left) in enumerate(zip(theta, delta, strict=True)):
        right = a[row] if a.ndim == 3 else a
        if not into.flags.f_contiguous:  # BLAS's order; any other would be copied, and the copy changed
            into, left, right = into.T, right, left
        yield partial(gemm, -1.0, left.T, right.T, trans_b=True, beta=1.0, c=into, overwrite_c=True)


class Trace:
    """The buffers of one forward and backward pass for R restarts and B samples.

    Hidden layers carry one more column, set to one in `a` and unused elsewhere, so that the next layer's biases and
    this layer's element-wise work both run over contiguous memory.

    Attributes:
        z, a, delta, slope: per hidden layer (R, B, n_l + 1). z is a where the slope is computed from the value.
        z_units, delta_units: the same without that column, (R, B, n_l).
        elements: per hidden layer z, a, delta and slope as element-wise functions go over them, contiguous.
        ones: the columns of ones that such a function overwrites.
        z_output: (R, B, K).
        product: `product(a, b, out)`, the calls that multiply matrices of this trace.
    """

    def __init__(
        self, layers: Sequence[int], activation: Activation, restarts: int, samples: int, dtype: str, kept: bool
    ) -> None:
        """Allocate the buffers once; where delta and slope need not be kept, layers share theirs, and the cache."""

        def buffers(kind: str, kept: int | None = None) -> list[ndarray]:
            size = max(((n + 1) * restarts * samples for n in layers[1:-1]), default=0)
            room = [np.zeros(size, dtype=kind) for _ in range(kept or 0)]
            made = []
            for layer, n in enumerate(layers[1:-1]):
                count = restarts * samples * (n + 1)
                flat = room[layer % kept][:count] if kept else np.zeros(count, dtype=kind)
                if tiny(layers):
                    made.append(flat.reshape(n + 1, samples, restarts).T)
                elif len(layers) > 3:
                    made.append(flat.reshape(restarts, n + 1, samples).mT)
                else:
                    made.append(flat.reshape(restarts, samples, n + 1))
            return made

        self.a = buffers(dtype)
        self.z = self.a if activation.slope_from_value else buffers(dtype)
        self.delta = buffers(dtype, None if kept else 2)
        self.slope = buffers("bool" if activation.slope_is_mask else dtype, None if kept else 1)
        self.z_units, self.delta_units = [[buffer[..., :-1] for buffer in kind] for kind in (self.z, self.delta)]
        self.z_output = output_buffer(layers, restarts, samples, dtype)
        self.product = product_number_by_number if tiny(layers) else product
        self.ones = [a[..., -1] for a in self.a]
        shown = slice(None)
        if tiny(layers):  # the ones lie behind the units, and stay
            shown = slice(-1)
            for ones in self.ones:
                ones[...] = 1.0
            self.ones = []
        z, a, delta, slope = [[one[..., shown] for one in kind] for kind in (self.z, self.a, self.delta, self.slope)]
        self.elements = list(zip(a if self.z is self.a else z, a, delta, slope, strict=True))
        if samples == 1:
            self._pairs = [
                (np.zeros((restarts, 2, n_out), dtype=dtype), np.zeros((restarts, 2, n_in + 1), dtype=dtype))
                for n_in, n_out in pairwise(layers)
            ]

    def outer(self, layer: int, delta: ndarray, a: ndarray, out: ndarray) -> Iterator[Call]:
        """The calls that leave delta^T a (R, n_out, n_in + 1) in `out`, for delta (R, B, n_out), a (R, B, n_in + 1)."""
        if delta.shape[-2] == 1:  # with a second sample of zeros BLAS is four times as fast as a broadcast
            left, right = self._pairs[layer]
            yield from (partial(np.copyto, left[:, :1], delta), partial(np.copyto, right[:, :1], a))
            delta, a = left, right
        yield from self.product(delta.mT, a, out)


class Workspace:
    """All buffers that one thread needs to train or measure networks of one shape; allocated once, then reused."""

    def __init__(self, network: Network, dtype: str) -> None:
        """Make an empty workspace; buffers appear when first asked for."""
        self.layers = network.layers
        self.activation = network.activation
        self.dtype = dtype
        self._traces: dict[tuple[int, int, bool], Trace] = {}
        self._gradients: dict[tuple[str, int], Parameters] = {}
        self._batches: dict[tuple[int, int | None], tuple[ndarray, ndarray]] = {}

    def trace(self, restarts: int, samples: int, kept: bool = False) -> Trace:
        """The trace for this many restarts and samples; `kept` if delta and slope of all layers are to be looked at."""
        key = (restarts, samples, kept)
        if key not in self._traces:
            self._traces[key] = Trace(self.layers, self.activation, restarts, samples, self.dtype, kept)
        return self._traces[key]

    def gradient(self, restarts: int, name: str = "total") -> Parameters:
        """A buffer in the shape of the parameters; one per name."""
        key = (name, restarts)
        if key not in self._gradients:
            self._gradients[key] = Parameters.empty(self.layers, restarts, self.dtype)
        return self._gradients[key]

    def batch(self, samples: int, restarts: int | None = None) -> tuple[ndarray, ndarray]:
        """Room for a batch of inputs (R, B, n_0 + 1) and targets (R, B, K); (B, ...) where all restarts share it."""
        key = (samples, restarts)
        if key not in self._batches:
            order: Literal["F", "C"] = "F" if tiny(self.layers) else "C"
            inputs = np.empty((restarts or 1, samples, self.layers[0] + 1), self.dtype, order=order)
            targets = output_buffer(self.layers, restarts or 1, samples, self.dtype)
            self._batches[key] = (inputs, targets) if restarts else (inputs[0], targets[0])
        return self._batches[key]

    def gather(self, inputs: ndarray, targets: ndarray, rows: ndarray | slice) -> None:
        """Fill `batch` with rows (R, B), or with rows that all restarts share, of the tables (N, n_0 + 1), (N, K)."""
        if isinstance(rows, slice):
            x, y = self.batch(rows.stop - rows.start)
            np.copyto(x, inputs[rows])
            np.copyto(y, targets[rows])
            return
        x, y = self.batch(rows.shape[1], len(rows))
        if tiny(self.layers):
            inputs.T.take(rows.T, axis=1, out=x.T, mode="clip")
            targets.T.take(rows.T, axis=1, out=y.T, mode="clip")
            return
        rows = np.ascontiguousarray(rows)
        inputs.take(rows, axis=0, out=x, mode="clip")  # the default mode checks bounds and costs 2.5 times as much
        if y.flags.c_contiguous:
            targets.take(rows, axis=0, out=y, mode="clip")
        else:
            targets.T.take(rows, axis=1, out=y.transpose(2, 0, 1), mode="clip")

    @staticmethod
    @lru_cache
    def blocks(samples: int) -> list[tuple[int, int]]:
        """[start, stop) ranges that cut a batch into even blocks that fit the cache."""
        count = max(1, round(samples / BLOCK_SAMPLES))
        return list(pairwise(samples * i // count for i in range(count + 1)))
