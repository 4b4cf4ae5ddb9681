"""`descentlab check`: hand-derived slopes and gradients compared with differences of values."""

from collections.abc import Sequence
from itertools import product

from descentlab.config.composing import compose
from descentlab.nn import gradient_check
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.losses import LOSSES
from descentlab.values import InputError, shown


def check(words: Sequence[str]) -> int:
    """Compare the derivatives of the activation and loss that the words name, or of all.

    Args:
        words: activation=, its numbers, loss= and output=.

    Returns:
        The exit status: 1 where a derivative is wrong.
    """
    named = {word.partition("=")[0].partition(".")[0] for word in words}
    for word in words:
        if word.partition("=")[0].partition(".")[0] not in ("activation", "loss", "output"):
            raise InputError(f"{shown(word)}: check takes activation=, its numbers, loss= and output=")
    (cell,) = compose([*words, "data=digits", "tracking=none"], sweep=False)
    one = ACTIVATIONS[cell.activation.name](**cell.activation.numbers)
    activations = [one] if "activation" in named else [factory() for factory in ACTIVATIONS.values()]
    losses = [LOSSES[cell.loss.name]] if named & {"loss", "output"} else list(LOSSES.values())
    outcomes = [comparison for activation in activations for comparison in gradient_check.check_slope(activation)]
    for activation, loss in product(activations, losses):
        for output in [cell.output] if "output" in named else loss.forms:
            for depth in gradient_check.DEPTHS:
                outcomes += gradient_check.check_gradient(activation, loss, output, depth)
    wrong = [outcome for outcome in outcomes if not outcome.agrees]
    for outcome in wrong:
        numbers = f"derived {outcome.derived:.9g}, difference {outcome.difference:.9g}"
        print(f"disagrees: {outcome.what}: {numbers}, relative error {outcome.error:.2g}")
    worst = max(outcome.error for outcome in outcomes)
    print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} derivatives agree; largest relative error {worst:.2g}")
    return 1 if wrong else 0
