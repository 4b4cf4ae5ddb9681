"""Second derivatives of a network's loss over a data set: Hessian-vector products, the Hessian, its eigenvalues.

With d. for the derivative along a direction (V, c) of the weights and biases, forward over reverse (Pearlmutter 1994):

    z[l]       = W[l] a[l-1] + b[l]                 dz[l]       = W[l] da[l-1] + V[l] a[l-1] + c[l]
    a[l]       = phi(z[l])                          da[l]       = phi'(z[l]) dz[l]
    delta[L]   = error(z[L], y)                     ddelta[L]   = error_derivative(z[L], y, dz[L])
    back       = W[l+1]^T delta[l+1]                dback       = W[l+1]^T ddelta[l+1] + V[l+1]^T delta[l+1]
    delta[l]   = phi'(z[l]) back                    ddelta[l]   = phi'(z[l]) dback + phi''(z[l]) dz[l] back
    dC/dW[l]   = delta[l] a[l-1]^T                  (H v)[l]    = ddelta[l] a[l-1]^T + delta[l] da[l-1]^T

Products are exact for smooth activations. For the others (elu, softsign, selu, the ReLU family) they hold almost
everywhere: where a sample stands on the kink of a unit, they are those of one side, and `Objective.smooth` is false.
All arithmetic is float64.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

from descentlab.analysis.minima import Certificate, certify
from descentlab.analysis.spectrum import DENSE_LIMIT, extreme_eigenvalues
from descentlab.nn.network import Network, forward
from descentlab.nn.parameters import Parameters, parameter_count

BLOCK_NUMBERS = 2_000_000  # activations in memory at a time, all layers together
KINK_DISTANCE = 1e-6  # of z from 0, relative to |theta| |a|: a sample closer than this stands on the kink
KINK_JUMP = 1e-8  # of the gradient: a smaller jump does not keep the gradient from vanishing


class Objective:
    """The loss of networks of one shape on one data set, as a function of their flat parameters theta.

        C(theta) = 1/N sum_i C_i(theta) + weight_decay / 2 sum W^2        (biases are not decayed)

    Batch descent follows this function. Where a method takes theta, it accepts (P,) for one network or (R, P) for a
    stack, in the order of `nn.parameters.Parameters`; the result has an axis R in the second case only.

    Args:
        network: shape and functions.
        inputs: (N, n_0).
        targets: (N, K).
        weight_decay: at or above 0, as in training.

    Raises:
        ValueError: if the activation has no second derivative, or arrays do not fit the network.
    """

    def __init__(self, network: Network, inputs: ndarray, targets: ndarray, weight_decay: float = 0.0) -> None:
        phi = network.activation
        if phi.curvature is None:
            raise ValueError(f"activation={phi.name}: has no curvature, which second derivatives need")
        self.network = network
        self.inputs = np.asarray(inputs, dtype=np.float64)
        self.targets = np.asarray(targets, dtype=np.float64)
        shapes = (len(self.inputs), network.layers[0]), (len(self.inputs), network.layers[-1])
        if (self.inputs.shape, self.targets.shape) != shapes:
            raise ValueError(f"layers={network.layers}: inputs {inputs.shape}, targets {targets.shape} do not fit")
        self.weight_decay = weight_decay
        self.size = parameter_count(network.layers)
        self._phi, self._curvature = phi, phi.curvature
        self._decay = weight_decay * self._see(np.zeros((1, self.size))).weight_mask  # (P,)

    @property
    def smooth(self) -> bool:
        """Whether second derivatives are exact everywhere; if false, almost everywhere (elu, selu, softsign, ReLUs)."""
        return self._phi.smooth

    def value_and_gradient(self, theta: ndarray) -> tuple[ndarray, ndarray]:
        """C and its gradient.

        Args:
            theta: (P,) or (R, P).

        Returns:
            C, a number or (R,), and dC/dtheta in the shape of theta.
        """
        flat = np.atleast_2d(np.asarray(theta, dtype=np.float64))
        value, gradient = 0.5 * (flat * flat * self._decay).sum(axis=-1), flat * self._decay
        parameters, part = self._see(flat), self._see(np.empty_like(flat))
        weights, part_W, part_b = parameters.W, part.W, part.b
        for x, y in self._blocks(len(flat)):
            zs, activations = forward(self.network, parameters.W, parameters.b, x)
            value += self.network.form.value(zs[-1], y).sum(axis=-1) / len(self.inputs)
            delta = self.network.form.error(zs[-1], y) / len(self.inputs)
            for layer in reversed(range(len(zs))):
                np.matmul(delta.mT, activations[layer], out=part_W[layer])
                np.sum(delta, axis=-2, out=part_b[layer])
                if layer:
                    delta = (delta @ weights[layer]) * self._phi.derivative(zs[layer - 1], activations[layer])
            gradient += part.flat
        return (value[0], gradient[0]) if np.ndim(theta) == 1 else (value, gradient)

    def hessian_vector_product(self, theta: ndarray, direction: ndarray) -> ndarray:
        """The Hessian times a direction (Pearlmutter 1994), at about twice the cost of a gradient.

        Args:
            theta: (P,) or (R, P).
            direction: (P,), or (M, P): one per network, or M directions at a single theta.

        Returns:
            H v in the shape of direction.
        """
        flat = np.atleast_2d(np.asarray(theta, dtype=np.float64))
        along = np.atleast_2d(np.asarray(direction, dtype=np.float64))
        product = along * self._decay
        parameters, tangent, part = self._see(flat), self._see(along), self._see(np.empty_like(product))
        for x, y in self._blocks(len(product)):
            self._product(parameters, tangent, x, y, part)
            product += part.flat / len(self.inputs)
        return product[0] if np.ndim(direction) == 1 else product

    def hessian(self, theta: ndarray) -> ndarray:
        """The whole Hessian of one network.

        Args:
            theta: (P,).

        Returns:
            (P, P), symmetric.

        Raises:
            ValueError: above 2000 parameters; use `extreme_eigenvalues` there.
        """
        if self.size > DENSE_LIMIT:
            raise ValueError(
                f"layers={self.network.layers}: {self.size} parameters, the Hessian stops at {DENSE_LIMIT}"
            )
        rows = self.hessian_vector_product(theta, np.eye(self.size))
        return 0.5 * (rows + rows.T)

    def extreme_eigenvalues(self, theta: ndarray, count: int = 1) -> tuple[ndarray, ndarray]:
        """The lowest and the highest eigenvalues of one network's Hessian: dense up to 2000 parameters, then Lanczos.

        Args:
            theta: (P,).
            count: how many at either end.

        Returns:
            lowest (count,) and highest (count,), both ascending.
        """
        dense = self.hessian(theta) if self.size <= DENSE_LIMIT else None
        return extreme_eigenvalues(lambda v: self.hessian_vector_product(theta, v), self.size, count, dense)

    def sharpness(self, theta: ndarray) -> float:
        """The largest eigenvalue of one network's Hessian (theta (P,)); gradient descent is stable below 2 / rate."""
        return float(self.extreme_eigenvalues(theta)[1][-1])

    def kinks(self, theta: ndarray) -> int:
        """Count the kinks on which one network stands: pairs of a sample and a unit whose z is 0 where phi' jumps.

        A pair counts only if the gradient jumps there: not if the unit has no effect on the output, nor if the sample
        has no error left. The count is 0 for activations with a continuous slope (elu with alpha 1, softsign).

        Args:
            theta: (P,).
        """
        if self._phi.smoothness > 0:
            return 0
        parameters = self._see(np.asarray(theta, dtype=np.float64)[None])
        count = 0
        for x, y in self._blocks(1):
            zs, activations = forward(self.network, parameters.W, parameters.b, x)
            delta = self.network.form.error(zs[-1], y) / len(self.inputs)
            for layer in reversed(range(1, len(zs))):
                z, a = zs[layer - 1], np.sqrt(1.0 + np.square(activations[layer - 1]).sum(axis=-1, keepdims=True))
                back = delta @ parameters.W[layer]
                scale = np.linalg.norm(parameters.theta[layer - 1], axis=-1)[:, None] * a
                count += int(((np.abs(z) <= KINK_DISTANCE * scale) & (np.abs(back) * a > KINK_JUMP)).sum())
                delta = back * self._phi.derivative(z, activations[layer])
        return count

    def symmetries(self, theta: ndarray) -> ndarray:
        """The directions of one network's known continuous symmetries; C does not change along them.

        They are: rescaling a hidden unit (ReLU family; not under weight decay); mixing and shifting hidden units
        (identity; rotating and shifting under weight decay); a common shift of softmax's z (of its biases only under
        weight decay); and all weights into and out of a unit that is dead on all samples. Where the gradient vanishes,
        these directions are zero modes of the Hessian.

        Args:
            theta: (P,).

        Returns:
            An orthonormal basis, (modes, P).
        """
        tangents = [tangent.ravel() for tangent in self._tangents(np.asarray(theta, dtype=np.float64))]
        lengths = [float(np.linalg.norm(tangent)) for tangent in tangents]
        unit = [tangent / length for tangent, length in zip(tangents, lengths, strict=True) if length > 0]
        if not unit:
            return np.empty((0, self.size))
        _, strengths, basis = np.linalg.svd(np.array(unit), full_matrices=False)
        return basis[strengths > 1e-9]

    def certificate(self, theta: ndarray, level_tolerance: float | None = None) -> Certificate:
        """Certify the end theta (P,) of one network's training, by `minima.certify` with the kinks and symmetries here.

        Args:
            theta: (P,).
            level_tolerance: a fall of C by more than this during the polish is a change of level; None as there.
        """
        return certify(
            self.value_and_gradient,
            self.hessian_vector_product,
            theta,
            hessian=self.hessian if self.size <= DENSE_LIMIT else None,
            kinks=self.kinks,
            symmetry_modes=lambda point: len(self.symmetries(point)),
            level_tolerance=level_tolerance,
            stacked=True,
        )

    def _tangents(self, theta: ndarray) -> Iterator[ndarray]:
        parameters, decayed = self._see(theta[None]), self.weight_decay > 0
        ends = self._phi(np.array([-2.0, -1.0, 1.0, 2.0]))
        homogeneous = ends[0] == 2 * ends[1] and ends[3] == 2 * ends[2]
        linear = homogeneous and ends[0] == -ends[3]
        zs, activations = forward(self.network, parameters.W, parameters.b, self.inputs)

        def blank() -> tuple[Parameters, list[ndarray]]:
            tangent = self._see(np.zeros((1, self.size)))
            return tangent, [layer[0] for layer in tangent.theta]

        theta_l = [layer[0] for layer in parameters.theta]
        for layer, units in enumerate(self.network.layers[1:-1]):
            z, a = zs[layer], activations[layer + 1]
            dead = ((a == 0) & (self._phi.derivative(z, a) == 0)).all(axis=(0, 1))  # (units,)
            for j in range(units):
                for i in range(units) if linear else (j,):
                    if homogeneous and not (decayed and i >= j):
                        tangent, t = blank()
                        t[layer][i] += theta_l[layer][j]
                        t[layer + 1][:, j] -= theta_l[layer + 1][:, i]
                        if decayed:  # the antisymmetric part keeps the norm of the weights
                            t[layer][j] -= theta_l[layer][i]
                            t[layer + 1][:, i] += theta_l[layer + 1][:, j]
                        yield tangent.flat
                if linear:
                    tangent, t = blank()
                    t[layer][j, -1] = 1.0
                    t[layer + 1][:, -1] = -theta_l[layer + 1][:, j]
                    yield tangent.flat
                if dead[j]:
                    fan_in, fan_out = theta_l[layer].shape[1], len(theta_l[layer + 1])
                    for k in (fan_in - 1,) if decayed else range(fan_in):
                        tangent, t = blank()
                        t[layer][j, k] = 1.0
                        yield tangent.flat
                    for k in () if decayed else range(fan_out):
                        tangent, t = blank()
                        t[layer + 1][k, j] = 1.0
                        yield tangent.flat
        if self.network.output == "softmax":
            columns = theta_l[-1].shape[1]
            for k in (columns - 1,) if decayed else range(columns):
                tangent, t = blank()
                t[-1][:, k] = 1.0
                yield tangent.flat

    def _see(self, flat: ndarray) -> Parameters:
        return Parameters(self.network.layers, flat)

    def _blocks(self, rows: int) -> Iterator[tuple[ndarray, ndarray]]:
        step = max(1, BLOCK_NUMBERS // (rows * sum(self.network.layers)))
        for start in range(0, len(self.inputs), step):
            yield self.inputs[start : start + step], self.targets[start : start + step]

    def _product(self, parameters: Parameters, tangent: Parameters, x: ndarray, y: ndarray, part: Parameters) -> None:
        """H v of the sum over a block of samples, without the decay, into part."""
        form = self.network.form
        zs, activations = forward(self.network, parameters.W, parameters.b, x)
        slopes = [self._phi.derivative(z, a) for z, a in zip(zs[:-1], activations[1:-1], strict=True)]
        weights, tangent_W, part_W, part_b = parameters.W, tangent.W, part.W, part.b
        dzs: list[ndarray] = []
        das: list[ndarray] = []  # of the hidden layers: the inputs do not move
        for layer, (V, c) in enumerate(zip(tangent_W, tangent.b, strict=True)):
            dz = activations[layer] @ V.mT + c[:, None]  # (R, B, n_out)
            if layer:
                das.append(slopes[layer - 1] * dzs[-1])
                dz += das[-1] @ weights[layer].mT
            dzs.append(dz)
        ddelta = form.error_derivative(zs[-1], y, dzs[-1])
        delta = form.error(zs[-1], y)
        for layer in reversed(range(len(zs))):
            np.matmul(ddelta.mT, activations[layer], out=part_W[layer])
            np.sum(ddelta, axis=-2, out=part_b[layer])
            if layer:
                part_W[layer] += delta.mT @ das[layer - 1]
                back = delta @ weights[layer]
                dback = ddelta @ weights[layer] + delta @ tangent_W[layer]
                z, a, slope = zs[layer - 1], activations[layer], slopes[layer - 1]
                bend = self._curvature(z, a, np.empty_like(z)) * dzs[layer - 1]
                delta, ddelta = back * slope, dback * slope + back * bend
