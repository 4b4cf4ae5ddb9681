"""Backpropagation for one network in plain NumPy: forward, backward, and a loop that learns XOR.

A network is a list of (W, b), one pair per layer: W has shape (n_out, n_in), b (n_out,). A sample x goes forward by
    z[l] = W[l] a[l-1] + b[l],    a[l] = phi(z[l]),    a[0] = x,
and its loss C comes back by the chain rule, with delta[l] = dC/dz[l] and * element by element:
    delta[l-1] = (W[l]^T delta[l]) * phi'(z[l-1]),    dC/dW[l] = delta[l] a[l-1]^T,    dC/db[l] = delta[l].
"""

from itertools import pairwise

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


ACTIVATIONS = {  # phi and its slope phi'
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
}


def draw(layers, rng):
    return [(rng.standard_normal((n_out, n_in)) / np.sqrt(n_in), np.zeros(n_out)) for n_in, n_out in pairwise(layers)]


def forward(network, x, phi):
    z, a = [], [x]
    for W, b in network:
        z.append(W @ a[-1] + b)
        a.append(phi(z[-1]))
    a[-1] = sigmoid(z[-1])  # the last layer answers with a probability, whatever the hidden ones use
    return z, a


def backward(network, z, a, y, slope):
    delta = a[-1] - y  # what is left of C = -sum y log a + (1 - y) log(1 - a) behind a sigmoid
    gradient = []
    for layer in reversed(range(len(network))):
        gradient.insert(0, (np.outer(delta, a[layer]), delta))  # a[layer] is this layer's input
        if layer:
            delta = (network[layer][0].T @ delta) * slope(z[layer - 1])
    return gradient


def mean_gradient(network, X, Y, activation):
    phi, slope = ACTIVATIONS[activation]
    mean = [(np.zeros_like(W), np.zeros_like(b)) for W, b in network]
    for x, y in zip(X, Y, strict=True):
        for total, part in zip(mean, backward(network, *forward(network, x, phi), y, slope), strict=True):
            total[0][...] += part[0] / len(X)
            total[1][...] += part[1] / len(X)
    return mean


if __name__ == "__main__":
    X, Y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0], [1], [1], [0]])
    network = draw([2, 4, 1], np.random.default_rng(0))
    for epoch in range(401):
        answers = [forward(network, x, np.tanh)[1][-1][0] for x in X]
        if epoch % 100 == 0:
            print(f"epoch {epoch:3d}  answers to 00 01 10 11:", *(f"{answer:.3f}" for answer in answers))
        for (W, b), (dW, db) in zip(network, mean_gradient(network, X, Y, "tanh"), strict=True):
            W -= 0.5 * dW
            b -= 0.5 * db
