"""PyTorch as the trainer: `python examples/own_trainer.py data=iris activation=tanh restarts=3`, -m, replay, plan."""

import sys

import torch

from descentlab import cli
from descentlab.nn.initializers import ORDER_STREAM, stream
from descentlab.nn.recipe import Record, Training
from descentlab.values import InputError


def torch_trainer(recipe, splits, workers=1, on_epoch=None):
    given = (recipe.loss.name, recipe.update.name, recipe.weight_decay, recipe.learning_rate_decay)
    if given != ("categorical_cross_entropy", "gradient_descent", 0, 1) or not hasattr(torch, recipe.activation.name):
        raise InputError(
            "own_trainer: takes categorical_cross_entropy, gradient_descent, no decay, PyTorch activations"
        )
    x, y = (torch.from_numpy(part.astype(recipe.dtype)) for part in splits["train"])
    (seeds, rates), initial, final, records = recipe.stacked_axis(), recipe.draw(), recipe.draw(), []
    nets = [[torch.from_numpy(layer[row]).requires_grad_() for layer in final.theta] for row in range(len(final))]
    orders, steps = [stream(int(seed), ORDER_STREAM) for seed in seeds], recipe.descent.steps(len(x))
    for epoch in range(recipe.epochs + 1):
        for net, rate, order in zip(nets, rates, orders, strict=True) if epoch else ():
            rows = recipe.descent.order(order, len(x)) if recipe.descent.shuffled else range(len(x))
            for start, stop in steps:
                a = x[rows[start:stop]]
                for layer in net:  # its last column holds the biases
                    a = getattr(torch, recipe.activation.name)(z := a @ layer[:, :-1].T + layer[:, -1])
                loss = -(y[rows[start:stop]] * torch.log_softmax(z, 1)).sum(1).mean()
                for layer, slope in zip(net, torch.autograd.grad(loss, net), strict=True):
                    layer.data -= rate * slope  # in place, and so in `final`
        if epoch in recipe.logged_epochs():
            records += [Record(epoch, epoch * len(steps), recipe.measure(final, splits))]
            yield records[-1]
    return Training.of(recipe, records, initial, final)


if __name__ == "__main__":
    sys.exit(cli.main(trainer=torch_trainer))
