"""Recompute every figure that the course notebook prints, and show which descent its code runs.

Claims:
    * Layers [10, 5, 5, 3] drawn from RandomState(42) start with the weights and biases that the notebook prints.
    * Its first network [784, 128, 64, 10] gives the ten printed outputs for the first image.
    * The notebook says that it runs batch descent with alpha = 300 and prints 25 test accuracies, the last one .86. Its
      `parameters.copy()` is shallow and its update in place, so it applies every sample's gradient at once: it runs
      descent sample by sample in file order at 300 / 250 = 1.2, from the second network that the generator draws. This
      reproduces the 25 figures.
    * Another published run of the same listing ends at .80. It has the same weights after every epoch; only its 50
      test images differ.
    * True batch descent at alpha = 300 from the same start learns nothing; at 20 and with 400 epochs it reaches the
      accuracy of the notebook.

Method: the runs of conf/experiment/notebook.yaml use the notebook's images: MNIST's first 250 training images to train
and the first 50 of t10k to test; all draws have seed 42. conf/experiment/notebook_published.yaml tests on MNIST's
training rows 250-299 instead. With 50 test images an accuracy of .80 has a standard error of .057: differences of a few
images between the curves mean nothing.

Cost: a few seconds. Data: MNIST_preprocessed.csv in the folder that DESCENTLAB_MNIST names or in ./data, otherwise the
same rows of MNIST; the other published run needs MNIST. Without data the script compares the weights and names the
missing data.

Departures from the notebook: none.
"""

import sys

import numpy as np
import pandas as pd

from descentlab import figures, train
from descentlab.config.cells import Cell
from descentlab.nn.initializers import draw, notebook
from descentlab.studies.study import Part, Study, main

PRINTED_WEIGHTS = {  # of layers [10, 5, 5, 3]; the notebook's output ends within W2
    "W1": (
        *(0.22213732, -0.06183368, 0.28965512, 0.68111966, -0.10471657),
        *(-0.10470923, 0.70624544, 0.34320724, -0.20995533, 0.24264023),
        *(-0.20724669, -0.20828068, 0.10820882, -0.85564494, -0.77140671),
        *(-0.25146263, -0.45295185, 0.14053568, -0.40608071, -0.63160142),
        *(0.65545806, -0.10097023, 0.03019953, -0.63716676, -0.24345536),
        *(0.04960609, -0.51473998, 0.16801726, -0.26861379, -0.13044941),
        *(-0.26909138, 0.82836399, -0.00603614, -0.47302271, 0.36785327),
        *(-0.54597788, 0.09340664, -0.87639112, -0.59398286, 0.08803902),
        *(0.33025229, 0.07663823, -0.05171948, -0.13465767, -0.66121514),
        *(-0.32192412, -0.20600392, 0.47275943, 0.15367077, -0.78845553),
    ),
    "b1": (0.14493476, -0.17221403, -0.30272872, 0.27354995, 0.461077),
    "W2[:2]": (
        *(0.41648113, -0.37530949, -0.13828398, 0.14814551, 0.43627704),
        *(-0.21429323, -0.08302922, -0.49476804, -0.53495987, 0.36337259),
    ),
}
PRINTED_ANSWER = (  # of the first network [784, 128, 64, 10] to row 0
    *(0.39847348, 0.63079802, 0.79832892, 0.93056447, 0.67941405),
    *(0.67578969, 0.05318435, 0.37468117, 0.12677036, 0.6419338),
)
PRINTED_ACCURACY = {  # after each of 25 epochs, by part
    "notebook": (
        *(0.24, 0.28, 0.36, 0.60, 0.66, 0.70, 0.74, 0.72, 0.74, 0.74, 0.78, 0.76, 0.76),
        *(0.76, 0.78, 0.78, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.84, 0.86, 0.86),
    ),
    "notebook_published": (
        *(0.16, 0.18, 0.36, 0.54, 0.64, 0.64, 0.64, 0.68, 0.68, 0.70, 0.70, 0.70, 0.70),
        *(0.70, 0.76, 0.76, 0.78, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80, 0.80),
    ),
}
IMAGES = {"notebook": "t10k rows 0-49 (the notebook's)", "notebook_published": "training rows 250-299 (published)"}
TEST_IMAGES = 50

ARMS = {
    "what the notebook runs: one sample a step, 1.2": [],
    "what it says: batch, 300": ["descent=batch", "learning_rate=300"],
    "a sane batch run: 20, 400 epochs": ["descent=batch", "learning_rate=20", "epochs=400", "log_every=5"],
}
PARTS = {
    "notebook": Part(skip_without_data=True),
    "notebook_published": Part(skip_without_data=True),
}


def report(study: Study) -> None:
    """Printed against computed figures, one network on two test sets, and the three runs side by side."""
    parts = [part for part in PARTS if study.has(part)]
    tested = {part: study.curves(part, ["train/loss", "test/accuracy"]) for part in parts}
    answer = (
        study.measured("answer", lambda: computed_answer(study.cell("notebook")))["answer"].to_numpy()
        if "notebook" in tested
        else None
    )
    study.table("printed", printed_table(answer, tested))
    if tested:
        sets = pd.concat(_first_cell(curves).assign(images=IMAGES[part]) for part, curves in tested.items())
        study.table("test_sets", sets.pivot_table(index="epoch", columns="images", values="estimate").reset_index())
        labels, note = ("epoch", f"test accuracy ({TEST_IMAGES} images)"), "band: ± 1 standard error of 50 images"
        title = "One network, two sets of 50 test images: the notebook's run, seed 42"
        study.figure("test_sets", figures.estimates(sets, "epoch", "images", labels, note=note, title=title))
    if "notebook" in tested:
        curves = tested["notebook"]
        curves = curves.assign(run=curves["cell"].map(dict(zip(curves["cell"].unique(), ARMS, strict=True))))
        study.table("runs", runs_table(curves))
        title = "The notebook's network on its 250 training images, seed 42"
        study.figure("runs", figures.accuracies(curves, TEST_IMAGES, by="run", title=title))
        study.figure("losses", figures.learning_curves(curves, ["train/loss"], by="run", title=title))


def _first_cell(curves: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy after each epoch of a part's first cell, with one standard error of its 50 images."""
    own = curves[(curves["cell"] == curves["cell"].iloc[0]) & (curves["metric"] == "test/accuracy")]
    own = own[own["epoch"] > 0].sort_values("epoch").rename(columns={"value": "estimate"})
    error = np.sqrt(own["estimate"] * (1 - own["estimate"]) / TEST_IMAGES)
    return own.assign(low=own["estimate"] - error, high=own["estimate"] + error)


def computed_weights() -> dict[str, np.ndarray]:
    """The figures of PRINTED_WEIGHTS."""
    (w1, b1), (w2, _), _ = draw([notebook()] * 3, [10, 5, 5, 3], seed=42)
    return {"W1": w1.ravel(), "b1": b1, "W2[:2]": w2[:2].ravel()}


def computed_answer(cell: Cell) -> pd.DataFrame:
    """The figures of PRINTED_ANSWER."""
    x, y = cell.dataset.splits["train"]
    shape = {"hidden": (128, 64), "activation": "sigmoid", "output": "sigmoid", "loss": "mean_squared_error"}
    untrained = train(x, y, **shape, initializer=notebook(), learning_rate=1.0, epochs=0, seed=42)
    return pd.DataFrame({"answer": untrained.predict(x[:1])[0, 0]})


def printed_table(answer: np.ndarray | None, tested: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Every printed figure beside the computed one, as far as there is data, and whether they agree as printed."""
    compared = [(name, PRINTED_WEIGHTS[name], values) for name, values in computed_weights().items()]
    if answer is not None:
        compared.append(("answer to image 0", PRINTED_ANSWER, answer))
    for part, curves in tested.items():
        name = f"accuracy after epoch, {IMAGES[part]}"
        compared.append((name, PRINTED_ACCURACY[part], _first_cell(curves)["estimate"].to_numpy()))
    rows = []
    for name, printed, computed in compared:
        for place, (left, right) in enumerate(zip(printed, computed, strict=True)):
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
