"""Every figure that the course notebook prints, recomputed, and what its code really does.

Claims:
    * Layers [10, 5, 5, 3] drawn from RandomState(42) start with the weights that the notebook prints.
    * Its first network [784, 128, 64, 10] answers to the first image with the ten numbers that it prints.
    * It says that it runs batch descent with alpha = 300 and prints 25 test accuracies. Its `parameters.copy()` is
      shallow and its update in place, so every sample's gradient is applied at once: what it runs is descent sample by
      sample in file order at 300 / 250 = 1.2, from the second network out of the generator. That gives the 25 figures.
    * True batch descent at alpha = 300 from the same start learns nothing; at 20, given 400 epochs, it arrives where
      the notebook does.

Method: the runs of conf/experiment/notebook.yaml on the notebook's own 250 training and 50 test images; everything from
seed 42. Fifty test images leave a standard error of .057 around an accuracy of .80: differences of a few images between
the curves mean nothing.

Cost: a few seconds. Data: MNIST_preprocessed.csv in the folder that DESCENTLAB_MNIST names, else MNIST's first 300
training images.

Departures from the notebook: none.
"""

import sys

import numpy as np
import pandas as pd

from descentlab import figures
from descentlab.config import resolving as config
from descentlab.config.composing import compose
from descentlab.nn.initializers import draw, notebook
from descentlab.nn.trainer import train
from descentlab.studies.study import Part, Study, main

PRINTED_WEIGHTS = {  # of layers [10, 5, 5, 3]
    "W1[0, :3]": (0.22213732, -0.06183368, 0.28965512),
    "b1": (0.14493476, -0.17221403, -0.30272872, 0.27354995, 0.461077),
    "W2[0]": (0.41648113, -0.37530949, -0.13828398, 0.14814551, 0.43627704),
}
PRINTED_ANSWER = (  # of the first network [784, 128, 64, 10] to row 0
    *(0.39847348, 0.63079802, 0.79832892, 0.93056447, 0.67941405),
    *(0.67578969, 0.05318435, 0.37468117, 0.12677036, 0.6419338),
)
PRINTED_ACCURACY = (  # after each of 25 epochs
    *(0.16, 0.18, 0.36, 0.54, 0.64, 0.64, 0.64, 0.68, 0.68, 0.70, 0.70, 0.70, 0.70),
    *(0.70, 0.76, 0.76, 0.78, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80),
)
TEST_IMAGES = 50

ARMS = {
    "what the notebook runs: one sample a step, 1.2": [],
    "what it says: batch, 300": ["descent=batch", "learning_rate=300"],
    "a sane batch run: 20, 400 epochs": ["descent=batch", "learning_rate=20", "epochs=400", "log_every=5"],
}
PARTS = {"notebook": Part(list(ARMS.values()))}


def report(study: Study) -> None:
    """Printed against computed figures, and the three runs side by side."""
    study.table("printed", printed_table(study.curves("notebook", ["test/accuracy"])))
    curves = study.curves("notebook", ["train/loss", "test/accuracy"])
    names = dict(zip(curves["cell"].unique(), ARMS, strict=True))
    curves = curves.assign(run=curves["cell"].map(names))
    study.table("runs", runs_table(curves))
    title = "The notebook's network on its 250 training images, seed 42"
    study.figure("runs", figures.accuracies(curves, TEST_IMAGES, by="run", title=title))
    study.figure("losses", figures.learning_curves(curves, ["train/loss"], by="run", title=title))


def computed_weights() -> dict[str, np.ndarray]:
    """The figures of PRINTED_WEIGHTS."""
    (w1, b1), (w2, _), _ = draw([notebook()] * 3, [10, 5, 5, 3], seed=42)
    return {"W1[0, :3]": w1[0, :3], "b1": b1, "W2[0]": w2[0]}


def computed_answer() -> np.ndarray:
    """The figures of PRINTED_ANSWER."""
    x, y = config.check(compose([], "notebook")[0]).splits["train"]
    shape = {"hidden": (128, 64), "activation": "sigmoid", "output": "sigmoid", "loss": "mean_squared_error"}
    untrained = train(x, y, **shape, initializer=notebook(), learning_rate=1.0, epochs=0, seed=42)
    return untrained.predict(x[:1])[0, 0]


def printed_table(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Every printed figure beside the computed one, and whether they agree to the digits printed."""
    own = accuracies[accuracies["cell"] == accuracies["cell"].iloc[0]].sort_values("epoch")
    computed = computed_weights() | {"answer to image 0": computed_answer()}
    computed["accuracy after epoch"] = own[own["epoch"] > 0]["value"].to_numpy()
    expected = {**PRINTED_WEIGHTS, "answer to image 0": PRINTED_ANSWER, "accuracy after epoch": PRINTED_ACCURACY}
    rows = []
    for name, figures_printed in expected.items():
        for place, (left, right) in enumerate(zip(figures_printed, computed[name], strict=True)):
            agrees = abs(left - right) <= (1e-9 if "accuracy" in name else 1e-8)
            rows.append({"figure": name, "place": place, "printed": left, "computed": right, "agree": agrees})
    return pd.DataFrame(rows)


def runs_table(curves: pd.DataFrame) -> pd.DataFrame:
    """The end of each run: updates, training loss, test accuracy and its standard error with 50 images."""
    rows = []
    for run, part in curves.groupby("run", sort=False):
        last = part[part["epoch"] == part["epoch"].max()].set_index("metric")["value"]
        accuracy = last["test/accuracy"]
        rows.append(
            {
                "run": run,
                "epochs": part["epoch"].max(),
                "updates": part["step"].max(),
                "train_loss": last["train/loss"],
                "test_accuracy": accuracy,
                "standard_error": np.sqrt(accuracy * (1 - accuracy) / TEST_IMAGES),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    sys.exit(main("notebook", __doc__, PARTS, report))
