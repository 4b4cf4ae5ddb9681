"""How initial weights and biases are drawn: spread rules and their streams.

A layer has n_in inputs and n_out units. The spread of a rule is the standard deviation of its weights, whatever the
shape of the distribution: lecun sqrt(1/n_in) (LeCun et al. 1998), glorot sqrt(2/(n_in + n_out)) (Glorot & Bengio
2010), he sqrt(2/n_in) (He et al. 2015). Uniform forms are U(-s sqrt(3), s sqrt(3)) for the spread s.

Weights and biases have a stream each, so that arms which differ in their biases share their weights, and all normal
rules scale the same standard draws.

To add a rule, enter a factory below (@INITIALIZERS.enter) and add conf/initializer/<name>.yaml. Its weights come from
the generator that it is given and from nothing else; how many numbers it draws may depend on n_out and n_in alone,
since the layers of a network share one stream. `analysis.theory` knows the spread of a rule exactly where it calls
standard_normal(size) and uniform(low, high, size) only, and estimates it elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy import ndarray

from descentlab.nn.activations import ACTIVATIONS, Activation
from descentlab.nn.registry import Named, Registry

INITIALIZERS = Registry("initializer")
WEIGHT_STREAM, ORDER_STREAM, STATISTICS_STREAM, BIAS_STREAM = range(4)


def stream(seed: int, purpose: int) -> np.random.Generator:
    """The random stream of one restart for one purpose (WEIGHT_STREAM, ORDER_STREAM, ...), apart from all others."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose,))))


@dataclass(frozen=True)
class Initializer(Named):
    """How one layer is drawn.

    Attributes:
        name: its key in INITIALIZERS.
        weights: `weights(generator, n_out, n_in) -> (n_out, n_in)` float64.
        bias_spread: standard deviation of the normal biases; 0 for zero biases.
        legacy_draw: 0 for the streams above; k >= 1 for the k-th network out of NumPy's legacy RandomState(seed), where
            biases follow each W and `weights` is not called.
    """

    name: str
    weights: Callable[..., ndarray]
    bias_spread: float = 0.0
    legacy_draw: int = 0


def draw(rules: Sequence[Initializer], layers: Sequence[int], seed: int) -> list[tuple[ndarray, ndarray]]:
    """Draw one network.

    Args:
        rules: one Initializer per layer, L of them.
        layers: the sizes n_0 .. n_L.
        seed: of this restart, 0 <= seed < 2**32.

    Returns:
        [(W, b)] per layer: (n_l, n_{l-1}) and (n_l,), float64.

    Raises:
        ValueError: where a rule that draws whole networks stands beside another.
    """
    if len({rule.legacy_draw for rule in rules}) > 1:
        names = f"initializer={rules[0].name}, output_initializer={rules[-1].name}"
        raise ValueError(f"{names}: notebook draws all layers; valid: the same notebook draw for both, or for neither")
    if rules[0].legacy_draw:
        return _draw_legacy(rules[0].legacy_draw, layers, seed)
    weights, biases = stream(seed, WEIGHT_STREAM), stream(seed, BIAS_STREAM)
    network = []
    for rule, n_in, n_out in zip(rules, layers[:-1], layers[1:], strict=True):
        standard = biases.standard_normal(n_out)  # drawn even for zero biases: layers must not disturb each other
        b = rule.bias_spread * standard if rule.bias_spread else np.zeros(n_out)
        network.append((rule.weights(weights, n_out, n_in), b))
    return network


def _draw_legacy(count: int, layers: Sequence[int], seed: int) -> list[tuple[ndarray, ndarray]]:
    legacy = np.random.RandomState(seed)  # the notebook's stream is the legacy one
    for _ in range(count):
        network = [
            (legacy.randn(n_out, n_in) * np.sqrt(1.0 / n_out), legacy.randn(n_out) * np.sqrt(1.0 / n_out))
            for n_in, n_out in pairwise(layers)
        ]
    return network


def _check_spread(key: str, spread: float, lowest: str = "at or above") -> None:
    if not (0 <= spread < np.inf) or (lowest == "above" and spread == 0):
        raise ValueError(f"initializer.{key}={spread}: must be a finite number {lowest} 0")


@INITIALIZERS.enter
def notebook(draw: int = 1) -> Initializer:
    """N(0, 1/n_out) weights and biases from RandomState(seed).randn in the order W1, b1, W2, b2, ...

    Args:
        draw: which network out of the stream, from 1.

    Raises:
        ValueError: for a draw below 1.
    """
    if draw < 1:
        raise ValueError(f"initializer.draw={draw}: must be a whole number from 1")
    return Initializer("notebook", lambda *_: np.empty(0), legacy_draw=draw)


def _scaled(name: str, spread: Callable[[int, int], float], uniform: bool) -> Callable[..., Initializer]:
    def factory(bias_spread: float = 0.0) -> Initializer:
        _check_spread("bias_spread", bias_spread)

        def weights(generator: np.random.Generator, n_out: int, n_in: int) -> ndarray:
            if uniform:
                return generator.uniform(-1.0, 1.0, (n_out, n_in)) * (np.sqrt(3.0) * spread(n_in, n_out))
            return generator.standard_normal((n_out, n_in)) * spread(n_in, n_out)

        return Initializer(name, weights, bias_spread)

    factory.__name__ = name
    factory.__doc__ = f"Weights by the {name} rule, biases N(0, bias_spread^2)."
    return factory


@INITIALIZERS.enter
def normal(spread: float = 1.0, bias_spread: float = 0.0) -> Initializer:
    """Weights N(0, spread^2), whatever the layer's size."""
    _check_spread("spread", spread)
    _check_spread("bias_spread", bias_spread)
    return Initializer("normal", lambda g, n_out, n_in: spread * g.standard_normal((n_out, n_in)), bias_spread)


@INITIALIZERS.enter
def uniform(spread: float = 1.0, bias_spread: float = 0.0) -> Initializer:
    """Weights of standard deviation `spread`, uniform: U(-spread sqrt(3), spread sqrt(3))."""
    _check_spread("spread", spread)
    _check_spread("bias_spread", bias_spread)
    width = np.sqrt(3.0) * spread
    return Initializer("uniform", lambda g, n_out, n_in: width * g.uniform(-1.0, 1.0, (n_out, n_in)), bias_spread)


@INITIALIZERS.enter
def orthogonal(gain: float = 1.0, bias_spread: float = 0.0) -> Initializer:
    """Rows or columns orthonormal, times gain, uniform over such matrices (Saxe, McClelland & Ganguli 2014)."""
    _check_spread("gain", gain, "above")
    _check_spread("bias_spread", bias_spread)

    def weights(generator: np.random.Generator, n_out: int, n_in: int) -> ndarray:
        normal = generator.standard_normal((max(n_out, n_in), min(n_out, n_in)))
        q, r = np.linalg.qr(normal)
        q *= np.sign(np.diag(r))  # without this the draw is not uniform (Mezzadri 2007)
        return gain * (q if n_out >= n_in else q.T)

    return Initializer("orthogonal", weights, bias_spread)


@INITIALIZERS.enter
def zeros(bias_spread: float = 0.0) -> Initializer:
    """All weights 0: every hidden unit stays a copy of its neighbours."""
    _check_spread("bias_spread", bias_spread)
    return Initializer("zeros", lambda g, n_out, n_in: np.zeros((n_out, n_in)), bias_spread)


_SPREADS: dict[str, Callable[[int, int], float]] = {
    "lecun": lambda n_in, n_out: np.sqrt(1.0 / n_in),
    "glorot": lambda n_in, n_out: np.sqrt(2.0 / (n_in + n_out)),
    "he": lambda n_in, n_out: np.sqrt(2.0 / n_in),
}
for _rule, _spread in _SPREADS.items():
    for _shape in ("normal", "uniform"):
        INITIALIZERS.enter(_scaled(f"{_rule}_{_shape}", _spread, _shape == "uniform"))


def default_initializer(activation: str | Activation) -> str:
    """The rule that belongs to a hidden activation, by name or as an object; output layers take glorot_uniform."""
    return (ACTIVATIONS[activation]() if isinstance(activation, str) else activation).initializer
