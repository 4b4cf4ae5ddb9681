"""The grid of the main job the conventional way: one Hydra job per seed, a PyTorch loop, a call to MLflow per epoch.

    python benchmarks/conventional.py -m activation=relu,tanh descent=batch,stochastic seed=0,1 epochs=20

Options are the project's own, rates those of conf/experiment/grid.yaml; initial weights and sample orders are the
project's too, so that both ways see the same numbers. CONVENTIONAL_STORE names the store, and
CONVENTIONAL_TRAINER=project puts the project's trainer, one seed at a time, in the place of PyTorch.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import hydra
import mlflow
import numpy as np
from omegaconf import DictConfig, OmegaConf

from descentlab.config.cells import cells
from descentlab.config.composing import listed_arms
from descentlab.config.resolving import resolve
from descentlab.nn.initializers import ORDER_STREAM, draw, stream

ROOT = Path(__file__).resolve().parents[1]


def rate_of(activation: str, loss: str, descent: str) -> float:
    """The learning rate that validation chose for an arm of the grid."""
    arm = [f"activation={activation}", f"loss={loss}", f"descent={descent}"]
    rates = [words[3] for words in listed_arms("grid") if words[:3] == arm]
    return float(rates[0].partition("=")[2])


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One job: one configuration with one seed."""
    print(f"job {time.perf_counter():.6f} {time.process_time():.6f}", file=sys.stderr, flush=True)
    cfg.learning_rate = rate_of(cfg.activation.name, cfg.loss.name, cfg.descent.name)
    cell = resolve(OmegaConf.to_container(cfg))
    (made,) = cells([cell])
    with mlflow.start_run(run_name=f"{cell.name}-s{cell.seed}"):
        mlflow.log_params({key: value for key, value in _flat(cell.as_dict()).items()})
        mlflow.log_text(json.dumps(cell.as_dict(), indent=2), "config.json")
        trainer = with_the_project if os.environ.get("CONVENTIONAL_TRAINER") == "project" else with_torch
        initial, final = trainer(made.recipe, made.dataset.splits)
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder) / "initial.npz", **initial)
            np.savez(Path(folder) / "final.npz", **final)
            mlflow.log_artifacts(folder)


def with_torch(recipe, splits) -> tuple[dict, dict]:
    """Train one network and log all its metrics after every logged epoch; returns initial and final weights."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    kinds = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.01)}
    softmax = recipe.loss.name == "categorical_cross_entropy"
    data = {name: (torch.tensor(x), torch.tensor(y)) for name, (x, y) in splits.items()}
    inputs, targets = data["train"]
    labels = {name: y.argmax(dim=1) for name, (_, y) in data.items()}

    def loss(z, y, reduction="mean"):
        if softmax:
            return functional.cross_entropy(z, y.argmax(dim=1), reduction=reduction)
        return 0.5 * functional.mse_loss(torch.sigmoid(z), y, reduction=reduction)

    rules = [recipe.initializer] * (len(recipe.layers) - 2) + [recipe.output_initializer]
    modules: list[nn.Module] = []
    for W, b in draw(rules, recipe.layers, recipe.seed):
        linear = nn.Linear(W.shape[1], W.shape[0], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W))
            linear.bias.copy_(torch.from_numpy(b))
        modules += [linear, kinds[recipe.activation.name]()]
    model = nn.Sequential(*modules[:-1])
    linears = [module for module in model if isinstance(module, nn.Linear)]
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate)

    def log(epoch: int) -> None:
        metrics = {}
        with torch.no_grad():
            for name, (x, y) in data.items():
                z = model(x)
                metrics[f"{name}/loss"] = loss(z, y).item()
                metrics[f"{name}/accuracy"] = (z.argmax(dim=1) == labels[name]).double().mean().item()
        a, z_of = inputs, []
        for module in model:
            a = module(a)
            if isinstance(module, nn.Linear):
                a.retain_grad()
                z_of.append(a)
        model.zero_grad()
        total = loss(a, targets, "sum") / (1 if softmax else targets.shape[1])
        total.backward()
        for layer, (module, z) in enumerate(zip(linears, z_of, strict=True), start=1):
            metrics[f"delta_norm/layer_{layer}"] = z.grad.norm(dim=1).mean().item()
            metrics[f"gradient_norm/layer_{layer}"] = module.weight.grad.norm().item() / len(inputs)
            metrics[f"weight_norm/layer_{layer}"] = module.weight.norm().item()
        mlflow.log_metrics(metrics, step=epoch)

    def weights() -> dict:
        named = enumerate(linears, start=1)
        return {
            key: value.detach().numpy().copy()
            for layer, module in named
            for key, value in ((f"W{layer}", module.weight), (f"b{layer}", module.bias))
        }

    initial = weights()
    logged = set(recipe.logged_epochs())
    log(0)
    generator = stream(recipe.seed, ORDER_STREAM)
    steps = recipe.descent.steps(len(inputs))
    for epoch in range(1, recipe.epochs + 1):
        order = torch.arange(len(inputs))
        if recipe.descent.shuffled:
            order = torch.from_numpy(recipe.descent.order(generator, len(inputs)))
        for start, stop in steps:
            rows = order[start:stop]
            optimizer.zero_grad()
            loss(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()
        if epoch in logged:
            log(epoch)
    return initial, weights()


def with_the_project(recipe, splits) -> tuple[dict, dict]:
    """The same with the project's trainer."""
    from descentlab.nn.trainer import train_recipe

    def log(record) -> None:
        mlflow.log_metrics({name: float(values[0]) for name, values in record.metrics.items()}, step=record.epoch)

    training = train_recipe(recipe, splits, on_record=log)
    named = [("W", training.initial.W), ("b", training.initial.b), ("W", training.final.W), ("b", training.final.b)]
    arrays = [{f"{key}{i}": array[0] for i, array in enumerate(layers, start=1)} for key, layers in named]
    return arrays[0] | arrays[1], arrays[2] | arrays[3]


def _flat(values: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


if __name__ == "__main__":
    if os.environ.get("CONVENTIONAL_TRAINER") != "project":
        import torch  # noqa: F401, here, where it counts as starting up
    mlflow.set_tracking_uri(os.environ["CONVENTIONAL_STORE"])
    mlflow.set_experiment("conventional")
    main()
    print(f"end {time.perf_counter():.6f} {time.process_time():.6f}", file=sys.stderr, flush=True)
