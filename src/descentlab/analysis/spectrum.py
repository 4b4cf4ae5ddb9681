"""Eigenvalues of a symmetric matrix that is given as a table or as its product with a vector."""

from collections.abc import Callable

import numpy as np
from numpy import ndarray
from scipy.sparse.linalg import LinearOperator, eigsh

DENSE_LIMIT = 2000  # rows; above, Lanczos finds a few eigenvalues
ZERO_MODE = 1e-6  # an eigenvalue below this share of the largest is a zero mode
LANCZOS_TOLERANCE = 1e-7  # of the lowest, against the spread of all: well below what makes a zero mode


def extreme_eigenvalues(
    product: Callable[[ndarray], ndarray], size: int, count: int = 1, dense: ndarray | None = None
) -> tuple[ndarray, ndarray]:
    """The lowest and the highest eigenvalues of a symmetric matrix.

    Args:
        product: `product(v) -> (P,)`, the matrix times v (P,); used where `dense` is None.
        size: P.
        count: how many at either end; at most P.
        dense: (P, P), the matrix itself where it is at hand. Without it Lanczos iterates (ARPACK), and needs
            count < P.

    Returns:
        lowest (count,) and highest (count,), both ascending; Lanczos is accurate to 1e-7 of the spread between them.
    """
    if dense is not None:
        values = np.linalg.eigvalsh(dense)
        return values[:count], values[-count:]
    values, _ = lanczos(LinearOperator((size, size), matvec=product, dtype=np.float64), count, count)
    return values[:count], values[-count:]


def lanczos(operator: LinearOperator, lowest: int, highest: int) -> tuple[ndarray, ndarray]:
    """Eigenvalues at both ends, ascending, and their eigenvectors as columns.

    Args:
        operator: the matrix, (P, P).
        lowest: how many at the lower end.
        highest: how many at the upper end.

    Returns:
        Eigenvalues (lowest + highest,) and eigenvectors (P, lowest + highest).
    """
    size = operator.shape[0]
    start = np.random.default_rng(0).standard_normal(size)  # ARPACK's own would differ from run to run
    high, high_modes = eigsh(operator, highest, which="LA", v0=start, tol=1e-10)
    top = high.max()
    # ARPACK's tolerance is relative to the eigenvalue sought, and near a minimum the lowest is close to 0
    flipped = LinearOperator((size, size), matvec=lambda v: top * v - operator.matvec(v), dtype=np.float64)
    space = min(size, max(60, 4 * lowest))
    below, low_modes = eigsh(flipped, lowest, which="LA", v0=start, ncv=space, tol=LANCZOS_TOLERANCE, maxiter=500)
    order, reverse = high.argsort(), (-below).argsort()
    values = np.concatenate([top - below[reverse], high[order]])
    return values, np.hstack([low_modes[:, reverse], high_modes[:, order]])


def zero_modes(eigenvalues: ndarray) -> ndarray:
    """Which eigenvalues (count,) are zero modes: within 1e-6 of the largest in size; (count,) bool."""
    return np.abs(eigenvalues) <= ZERO_MODE * np.abs(eigenvalues).max()
