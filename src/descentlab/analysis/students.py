"""The population loss of ReLU students of orthonormal ReLU teachers, in closed form.

The students compute sum_i relu(w_i x), the teachers sum_j relu(v_j x) with orthonormal v_j, and x is standard normal
in n dimensions. Half the expected squared difference (Safran & Shamir 2018) is

    C = 1/2 sum_ij f(w_i, w_j) - sum_ij f(w_i, v_j) + 1/2 sum_ij f(v_i, v_j)
    f(w, v) = E relu(w x) relu(v x) = |w| |v| (sin t + (pi - t) cos t) / (2 pi),    t the angle between them

(Cho & Saul 2009). With u = w / |w|, p = v / |v|, and N = p - cos t u, M = u - cos t p, both of length sin t,

    df/dw        = (|v| sin t u + (pi - t) v) / (2 pi)
    along dw     = |v| / (2 pi |w|) [ sin t (dw - u (u dw)) + N (N dw) / sin t ]
    along dv     = 1 / (2 pi) [ (pi - t) dv + N (M dv) / sin t + sin t u (p dv) ]

The last two are changes of df/dw; their terms divided by sin t go to 0 with sin t. From six teachers on, C has minima
that are not global. C attains all its minima, so the ends of descent can be certified.
"""

import numpy as np
from numpy import ndarray


class Students:
    """C as a function of the flat weights theta (k n,) of k students; the n teachers are the axes.

    Wherever a method takes theta it may be (P,) or a stack (R, P), P = k n; results have an axis R or not accordingly.

    Args:
        students: k.
        teachers: n, the number of inputs as well.
    """

    def __init__(self, students: int, teachers: int) -> None:
        self.students, self.teachers = students, teachers
        self.size = students * teachers
        self._axes = np.eye(teachers)
        angles = np.where(self._axes == 1, np.pi, 1.0)  # sin t + (pi - t) cos t
        self._constant = 0.5 * angles.sum() / (2 * np.pi)

    def value_and_gradient(self, theta: ndarray) -> tuple[ndarray, ndarray]:
        """C, a number or (R,), and its gradient in the shape of theta."""
        w = np.reshape(theta, (-1, self.students, self.teachers))
        own, taught = _Pairs(w, w), _Pairs(w, self._axes)
        value = 0.5 * own.value().sum(axis=(1, 2)) - taught.value().sum(axis=(1, 2)) + self._constant
        gradient = (own.slope() - taught.slope()).reshape(np.shape(theta))
        return (value[0], gradient) if np.ndim(theta) == 1 else (value, gradient)

    def hessian_vector_product(self, theta: ndarray, direction: ndarray) -> ndarray:
        """The Hessian times a direction.

        Args:
            theta: (P,) or (R, P).
            direction: (P,), or (M, P): one per theta, or M directions at a single one.

        Returns:
            H v in the shape of direction.
        """
        w = np.reshape(theta, (-1, self.students, self.teachers))
        d = np.reshape(direction, (-1, self.students, self.teachers))
        own, taught = _Pairs(w, w), _Pairs(w, self._axes)
        product = own.bend(d) + own.bend_with(d) - taught.bend(d)
        return product.reshape(np.shape(direction))

    def hessian(self, theta: ndarray) -> ndarray:
        """The whole Hessian at one theta (P,): (P, P), symmetric."""
        rows = self.hessian_vector_product(theta, np.eye(self.size))
        return 0.5 * (rows + rows.T)


class _Pairs:
    """Pairs of w (R, k, n) with v (R, m, n) or (m, n): their angles, and f with its derivatives."""

    def __init__(self, w: ndarray, v: ndarray) -> None:
        self.v = v
        self.w_norm = np.linalg.norm(w, axis=-1)[..., None]  # (R, k, 1)
        self.v_norm = np.linalg.norm(v, axis=-1)[..., None, :]  # (R, 1, m)
        self.u, self.p = w / self.w_norm, v / self.v_norm.mT
        self.cos = self.u @ self.p.mT  # (R, k, m)
        self.sin = np.sqrt(np.maximum(1.0 - self.cos * self.cos, 0.0))
        self.rest = np.arctan2(self.sin, -self.cos)  # pi - t, from sin, so that errors of both cancel

    def value(self) -> ndarray:
        return self.w_norm * self.v_norm * (self.sin + self.rest * self.cos) / (2 * np.pi)

    def slope(self) -> ndarray:
        """The sum over v of df/dw, (R, k, n)."""
        radial = (self.sin * self.v_norm).sum(axis=-1, keepdims=True)
        return (radial * self.u + self.rest @ self.v) / (2 * np.pi)

    def bend(self, d: ndarray) -> ndarray:
        """The change of `slope` as the w move along d (R, k, n): (R, k, n)."""
        along = (self.u * d).sum(axis=-1, keepdims=True)  # u dw
        pull = self.v_norm / (2 * np.pi * self.w_norm)
        across = pull * self._over_sin(d @ self.p.mT - self.cos * along)
        turned = (pull * self.sin).sum(axis=-1, keepdims=True) * (d - along * self.u)
        return turned + across @ self.p - (across * self.cos).sum(axis=-1, keepdims=True) * self.u

    def bend_with(self, d: ndarray) -> ndarray:
        """The change of `slope` as the v move along d (R, m, n): (R, k, n)."""
        along = (self.p * d).sum(axis=-1)[..., None, :]  # p dv, (R, 1, m)
        across = self._over_sin(self.u @ d.mT - self.cos * along)
        radial = (self.sin * along - across * self.cos).sum(axis=-1, keepdims=True)
        return (self.rest @ d + across @ self.p + radial * self.u) / (2 * np.pi)

    def _over_sin(self, values: ndarray) -> ndarray:
        return np.divide(values, self.sin, out=np.zeros_like(values), where=self.sin > 0)
