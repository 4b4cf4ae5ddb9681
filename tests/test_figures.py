import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import shared
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from descentlab import figures
from descentlab.cli import main
from descentlab.tracking import find
from descentlab.values import InputError

CELLS = ("relu-cce-mini32", "sigmoid-cce-mini32", "a-rather-long-name-of-a-cell-mini128-lr0.25")


def long(cells=CELLS[:1], restarts=6, epochs=12, lost=(), rate=0.1, layers=3):
    """Curves as results.curves gives them, of made-up restarts."""
    generator = np.random.default_rng(3)
    parts = []
    for place, cell in enumerate(cells):
        for seed in range(restarts):
            decay = np.exp(-np.arange(epochs + 1) * (rate + 0.05 * place)) * (1 + 0.1 * generator.normal())
            values = {f"{split}/loss": decay + 1e-4 for split in ("train", "validation", "test")}
            values |= {f"{split}/accuracy": 1 - 0.9 * decay / 2 for split in ("train", "validation", "test")}
            values |= {f"delta_norm/layer_{k}": decay * 0.1 ** (layers - k) for k in range(1, layers + 1)}
            for metric, series in values.items():
                series = np.where((seed in lost) & (np.arange(epochs + 1) > 4), np.nan, series)
                keys = {"run_id": cell, "cell": cell, "data": "digits", "loss": "categorical_cross_entropy"}
                points = {"seed": seed, "epoch": range(epochs + 1), "metric": metric, "value": series}
                parts.append(pd.DataFrame(keys | points))
    return pd.concat(parts, ignore_index=True)


def ends(cells=CELLS, restarts=6, lost=()):
    """Restarts as results.restarts gives them."""
    generator = np.random.default_rng(4)
    rows = [
        {
            "run_id": cell,
            "cell": cell,
            "data": "digits",
            "activation": cell.split("-")[0],
            "descent": "mini_batch" if seed % 2 else "batch",
            "loss": "categorical_cross_entropy",
            "seed": seed,
            "test/loss": np.nan if seed in lost else 0.1 + generator.random(),
            "test/accuracy": np.nan if seed in lost else generator.random(),
        }
        for cell in cells
        for seed in range(restarts)
    ]
    return pd.DataFrame(rows)


def estimated():
    """Estimates with their limits over a setting, two arms in five panels."""
    generator = np.random.default_rng(5)
    rows = [
        {"x": x, "arm": arm, "panel": f"panel {panel}", "estimate": middle, "low": middle - 0.1, "high": middle + 0.2}
        for arm in ("one", "other")
        for panel in range(5)
        for x, middle in zip((1, 2, 4, 8), generator.random(4), strict=True)
    ]
    return pd.DataFrame(rows)


def sorted_ends():
    """The same with what each restart ended in."""
    frame = ends(restarts=9, lost=(8,))
    kinds = np.where(frame["seed"] % 3 == 0, "saddle", "flat minimum")
    return frame.assign(outcome=np.where(frame["test/loss"].isna(), "diverged", kinds))


def walked(pairs=5):
    """Losses along lines between networks, two kinds at two widths."""
    t = np.linspace(0, 1, 7)
    rows = [
        pd.DataFrame({"width": width, "kind": kind, "seed": pair, "t": t, "value": 1 + pair + height * t * (1 - t)})
        for width in (5, 25)
        for kind, height in (("raw", 3.0), ("matched", 0.3))
        for pair in range(pairs)
    ]
    return pd.concat(rows, ignore_index=True)


def sliced():
    """A bowl on two planes at two widths, with a marked end."""
    x, y = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)))
    grid = pd.DataFrame({"x": x, "y": y, "loss": 0.1 + x**2 + y**2, "end": np.nan})
    marked = pd.DataFrame({"x": [0.0], "y": [0.0], "loss": [np.nan], "end": [7.0]})
    both = pd.concat([grid, marked])
    planes = [both.assign(width=width, plane=plane) for width in (5, 25) for plane in ("random", "through ends")]
    return pd.concat(planes, ignore_index=True)


def settings():
    """Restarts over two settings that are numbers; the widest nets diverged at the highest rate."""
    generator = np.random.default_rng(6)
    rows = [
        {"run_id": f"{kind} {rate} {width}", "activation": kind, "learning_rate": rate, "width": width, "seed": seed}
        | {"test/accuracy": np.nan if rate > 1 and width > 16 else generator.random()}
        for kind in ("tanh", "leaky_relu")
        for rate in (0.1, 0.5, 2.0)
        for width in (8, 16, 32)
        for seed in range(5)
    ]
    return pd.DataFrame(rows)


def compared():
    """Shares with intervals beside their theory, over a width, for two depths."""
    rows = [
        {"width": width, "depth": depth, "theory": 1 / width / depth, "share": 1.1 / width / depth}
        | {"share_low": 0.9 / width / depth, "share_high": 1.3 / width / depth}
        for width in (2, 4, 8)
        for depth in (1, 3)
    ]
    return pd.DataFrame(rows)


def differences():
    """Differences between measurement and theory with their intervals."""
    rows = [
        {"activation": name, "depth": depth, "initializer": start, "estimate": place * 0.01, "low": -0.02, "high": 0.05}
        for place, name in enumerate(("tanh", "leaky_relu"))
        for depth in (3, 10)
        for start in ("he_normal", "glorot_uniform")
    ]
    return pd.DataFrame(rows)


def timed():
    """Medians of times with their intervals."""
    rows = [
        {"activation": name, "work": work, "dtype": dtype, "copies": 2.0 + place, "copies_low": 1.5, "copies_high": 5.0}
        for place, name in enumerate(("tanh", "leaky_relu"))
        for work in ("value", "gradient")
        for dtype in ("float32", "float64")
    ]
    return pd.DataFrame(rows)


def arrived():
    """Epochs at which restarts arrive; every fourth one does not."""
    rows = [
        {"rule": rule, "activation": name, "seed": seed, "arrival": np.nan if seed % 4 == 0 else 3.0 * seed + place}
        for place, rule in enumerate(("he_normal", "glorot_uniform"))
        for name in ("tanh", "relu")
        for seed in range(12)
    ]
    return pd.DataFrame(rows)


def simulated():
    """Ratios of simulated nets by layer."""
    generator = np.random.default_rng(7)
    return pd.DataFrame({"layer_of": np.repeat(["first", "second"], 50), "value": np.exp(generator.normal(size=100))})


MADE = {
    "learning_curves": lambda: figures.learning_curves(long(lost=(2,))),
    "learning_curves of several cells": lambda: figures.learning_curves(long(CELLS)),
    "learning_curves over decades": lambda: figures.learning_curves(long(CELLS, rate=0.6)),
    "layer_decay": lambda: figures.layer_decay(long(CELLS), theory={CELLS[0]: [0.01, 0.1, 1.0]}),
    "spread": lambda: figures.spread(ends(lost=(1,))),
    "ends": lambda: figures.ends(sorted_ends(), "test/loss", kind="outcome"),
    "ends by cell": lambda: figures.ends(sorted_ends(), "test/loss", kind="outcome", by="cell"),
    "shares": lambda: figures.shares(
        sorted_ends(), "outcome", "cell", "descent", ["saddle", "flat minimum", "diverged"]
    ),
    "spread in panels": lambda: figures.spread(ends(), by="activation", panels="descent"),
    "grid_table": lambda: figures.grid_table(ends(lost=(1,))),
    "histograms": lambda: figures.histograms(ends(restarts=30, lost=(1,)), "test/loss", "cell", "test loss (nats)"),
    "estimates": lambda: figures.estimates(
        estimated().query("panel == 'panel 0'"), "x", "arm", ("x", "y"), lines={"theory": ([1, 8], [1, 2])}
    ),
    "estimates in panels": lambda: figures.estimates(estimated(), "x", "arm", ("x", "y"), "panel", log=True),
    "estimates over decades": lambda: figures.estimates(
        estimated().query("panel == 'panel 1'"), "x", "arm", ("x", "y"), log_y=True
    ),
    "paths": lambda: figures.paths(walked(), "t", "kind", "width", ("t", "loss")),
    "slices": lambda: figures.slices(sliced(), "width", "plane", "loss", ("position", "loss (nats)")),
    "accuracies": lambda: figures.accuracies(long(CELLS[:2], restarts=1), 50),
    "arrivals": lambda: figures.arrivals(arrived(), 40, by="rule", panels="activation"),
    "costs": lambda: figures.costs(timed(), ["value", "gradient"], "dtype", "copies", "activation", "copies", 1.0),
    "deviations": lambda: figures.deviations(differences(), 0.03, "activation", "depth", "initializer", "log₁₀"),
    "heat_maps": lambda: figures.heat_maps(long(CELLS, lost=range(6))),
    "phase_map": lambda: figures.phase_map(
        settings().query("activation == 'tanh'"),
        "learning_rate",
        "width",
        "test/accuracy",
        {"theory": ([0.1, 1.0], [9.0, 30.0]), "elsewhere": ([5.0, 6.0], [9.0, 30.0])},
        ("rate", "width", "accuracy"),
    ),
    "predicted": lambda: figures.predicted(compared(), "width", {"share": "measured"}, "depth", labels=("w", "share")),
    "published": lambda: figures.published(simulated(), {"first": 1.2, "second": 3.0}, "layer_of", 0.9, "ratio"),
    "trends": lambda: figures.trends(
        settings(), "learning_rate", {"test/accuracy": "test accuracy"}, by="activation", panels="width"
    ),
    "scatter": lambda: figures.scatter(ends(restarts=30), "test/accuracy", "test/loss", "cell", ("x", "y")),
}


def bundles(axes):
    return [artist for artist in axes.collections if isinstance(artist, LineCollection)]


def test_every_figure_function_is_drawn_here():
    functions = {name for name in figures.__all__ if name not in ("Figure", "save", "words")}
    assert {name.split()[0] for name in MADE} == functions


@pytest.mark.parametrize("name", MADE)
def test_nothing_is_cut_off(name):
    figure = MADE[name]()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    box = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    assert 0 <= box.x0 <= box.x1 <= width
    assert 0 <= box.y0 <= box.y1 <= height


def test_every_restart_is_a_thin_line_and_the_mean_a_thick_one():
    figure = figures.learning_curves(long(restarts=7))
    for ax in figure.axes:
        assert [len(bundle.get_segments()) for bundle in bundles(ax)] == [7, 7, 7]
        assert [line.get_linewidth() for line in ax.lines] == [2, 2, 2]
        assert max(bundle.get_linewidth()[0] for bundle in bundles(ax)) < 1


def test_the_thick_line_is_the_mean_over_finite_restarts():
    frame = long(lost=(0, 3))
    ax = figures.learning_curves(frame).axes[0]
    train = frame[frame["metric"] == "train/loss"].groupby("epoch")["value"].mean()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), train, rtol=1e-12)


def test_where_a_restart_diverged_is_marked_and_explained():
    figure = figures.learning_curves(long(lost=(2,)))
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert {float(x) for line in crosses for x in line.get_xdata()} == {4.0}
    assert "diverged" in figure.legends[0].get_title().get_text()
    assert "diverged" not in figures.learning_curves(long()).legends[0].get_title().get_text()


def test_series_differ_in_colour_and_in_line_style():
    axes = figures.learning_curves(long([f"cell {k}" for k in range(12)], restarts=2, epochs=3)).axes[0]
    looks = [(line.get_color(), str(line.get_linestyle()), str(line._unscaled_dash_pattern)) for line in axes.lines]
    assert len(set(looks)) == 12
    assert len({style for _, *style in map(tuple, looks) for style in [tuple(style)]}) > 4


def test_title_and_labels_say_what_is_shown():
    figure = figures.learning_curves(long(restarts=6))
    assert figure.get_suptitle() == "relu-cce-mini32, digits, 6 restarts"
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "categorical cross-entropy (nats)",
        "accuracy (fraction of samples)",
    ]
    assert [ax.get_xlabel() for ax in figure.axes] == ["epoch", "epoch"]
    assert figures.learning_curves(long(CELLS)).axes[0].get_ylabel() == "test categorical cross-entropy (nats)"
    assert figures.learning_curves(long(restarts=1)).get_suptitle() == "relu-cce-mini32, digits, 1 restart"


def test_values_that_span_decades_are_on_a_log_axis():
    assert figures.learning_curves(long(rate=0.6)).axes[0].get_yscale() == "log"
    assert figures.learning_curves(long(epochs=3)).axes[0].get_yscale() == "linear"
    frame = ends()
    assert figures.spread(frame).axes[0].get_xscale() == "linear"
    frame.loc[0, "test/loss"] = 1e-6
    assert figures.spread(frame).axes[0].get_xscale() == "log"


def test_layer_decay_shows_layers_one_epoch_and_the_theory():
    frame = long(CELLS[:2])
    ax = figures.layer_decay(frame, theory={CELLS[0]: [0.01, 0.1, 1.0]}).axes[0]
    assert ax.get_yscale() == "log"
    start = frame[(frame["cell"] == CELLS[0]) & (frame["epoch"] == 0)]
    means = [start[start["metric"] == f"delta_norm/layer_{k}"]["value"].mean() for k in (1, 2, 3)]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), means, rtol=1e-12)
    (theory,) = (line for line in ax.lines if line.get_color() == "black")
    assert theory.get_ydata().tolist() == [0.01, 0.1, 1.0]


def test_spread_shows_every_finite_restart_and_counts_the_diverged():
    ax = figures.spread(ends(restarts=9, lost=(0, 5))).axes[0]
    points = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata()) > 1]
    assert [len(line.get_xdata()) for line in points] == [7, 7, 7]
    assert [text.get_text() for text in ax.texts] == ["2 of 9 diverged"] * 3


def test_the_grid_tells_mean_and_half_interval_of_every_cell():
    frame = ends(restarts=8)
    figure = figures.grid_table(frame)
    values = frame[(frame["activation"] == "relu") & (frame["descent"] == "batch")]["test/accuracy"]
    half = 3.182446305 * values.std() / 2  # Student's t, 3 degrees of freedom, over sqrt(4)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0] == f"{values.mean():.3f}\n± {half:.3f}"
    assert len(texts) == 6


def test_every_end_is_a_point_in_the_look_of_its_outcome_and_is_counted():
    figure = figures.ends(sorted_ends(), "test/loss")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["saddle", "flat minimum", "diverged"]
    assert sum(len(line.get_xdata()) for line in ax.lines) == 3 * 8
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["saddle (9)", "flat minimum (15)", "diverged (3)"]
    looks = {(line.get_color(), line.get_marker()) for line in ax.lines if len(line.get_xdata())}
    assert len(looks) == 2


def test_shares_of_outcomes_fill_each_bar():
    figure = figures.shares(sorted_ends(), "outcome", "cell")
    for row in range(3):
        bars = [bar for bar in figure.axes[0].patches if abs(bar.get_y() + bar.get_height() / 2 - row) < 0.1]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(1)
    assert any(text.get_text() == "56%" for text in figure.axes[0].texts)  # 5 of 9


def test_where_every_restart_diverged_the_figures_still_stand(tmp_path):
    curves = long(restarts=2, lost=(0, 1))
    curves.loc[curves["epoch"] > 0, "value"] = np.nan
    figures.save(figures.learning_curves(curves), tmp_path / "a.png")
    table = ends(lost=range(6))
    figures.save(figures.spread(table), tmp_path / "b.png")
    grid = figures.grid_table(table)
    figures.save(grid, tmp_path / "c.png")
    assert {text.get_text() for text in grid.axes[0].texts} == {"all diverged"}


def test_the_same_figure_is_the_same_file_in_any_thread(tmp_path):
    frame = long()

    def draw(number):
        path = tmp_path / f"{number}.png"
        figures.save(figures.learning_curves(frame), path)
        return path.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(draw, range(6)))) == 1


def test_a_figure_is_saved_as_vectors_too(tmp_path):
    figures.save(figures.spread(ends()), tmp_path / "spread.svg")
    assert ElementTree.parse(tmp_path / "spread.svg").getroot().tag.endswith("svg")


def test_histograms_show_every_finite_restart_once_and_count_the_diverged():
    figure = figures.histograms(ends(restarts=30, lost=(0, 5)), "test/loss", "cell", "test loss (nats)")
    assert len(figure.axes) == len(CELLS)
    for ax in figure.axes:
        (bars,) = ax.patches
        (strokes,) = (line for line in ax.lines if line.get_marker() == "|")
        assert bars.get_data().values.sum() == len(strokes.get_xdata()) == 28
        assert "2 of 30 diverged" in ax.get_title()


def test_estimates_stand_at_their_settings_with_their_limits():
    frame = estimated()
    figure = figures.estimates(frame[frame["panel"] == "panel 0"], "x", "arm", ("setting", "value"), log=True)
    (ax,) = figure.axes
    one = frame[(frame["panel"] == "panel 0") & (frame["arm"] == "one")]
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 4, 8]
    assert ax.lines[0].get_ydata().tolist() == one["estimate"].tolist()
    corners = ax.collections[0].get_paths()[0].vertices
    assert {round(float(y), 9) for _, y in corners} == {round(y, 9) for y in (*one["low"], *one["high"])}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4", "8"]
    small = figures.estimates(frame, "x", "arm", ("", "value"), "panel")
    assert [ax.get_xlabel() for ax in small.axes] == [f"panel {k}" for k in range(5)]


def test_paths_show_every_pair_and_the_mean_over_pairs():
    figure = figures.paths(walked(pairs=5), "t", "kind", "width", ("t", "loss"))
    for ax in figure.axes:
        assert [len(bundle.get_segments()) for bundle in bundles(ax)] == [5, 5]
        np.testing.assert_allclose(ax.lines[0].get_ydata()[3], 1 + 2 + 3 / 4)


def test_slices_mark_the_ends_on_their_planes():
    figure = figures.slices(sliced(), "width", "plane", "loss", ("position", "loss (nats)"))
    panels = figure.axes[:4]
    assert [[text.get_text() for text in ax.texts] for ax in panels] == [["7"]] * 4
    assert [ax.get_title() for ax in panels][:2] == ["width 5, random", "width 5, through ends"]


def tried():
    """Restarts of cells that differ in a factor which no figure below draws: three splits of the data."""
    parts = [ends().assign(split_seed=split, descent="batch") for split in range(3)]
    frame = pd.concat(parts, ignore_index=True)
    kinds = np.where(frame["seed"] % 2, "saddle", "minimum")
    return frame.assign(run_id=frame["cell"] + frame["split_seed"].astype(str), outcome=kinds, rate=0.1, arrival=1.0)


def tried_curves():
    parts = [long().assign(split_seed=split, run_id=f"run {split}") for split in range(3)]
    return pd.concat(parts, ignore_index=True)


POOLING = {
    "grid_table": lambda **more: figures.grid_table(tried(), **more),
    "spread": lambda **more: figures.spread(tried(), by="activation", **more),
    "trends": lambda **more: figures.trends(tried(), "rate", {"test/accuracy": "accuracy"}, by="activation", **more),
    "histograms": lambda **more: figures.histograms(tried(), "test/loss", "cell", "loss", **more),
    "scatter": lambda **more: figures.scatter(tried(), "test/loss", "test/accuracy", "cell", ("", ""), **more),
    "shares": lambda **more: figures.shares(tried(), "outcome", "cell", **more),
    "arrivals": lambda **more: figures.arrivals(tried(), 5, by="cell", **more),
    "learning_curves": lambda **more: figures.learning_curves(tried_curves(), **more),
    "layer_decay": lambda **more: figures.layer_decay(tried_curves(), **more),
    "heat_maps": lambda **more: figures.heat_maps(tried_curves(), **more),
    "phase_map": lambda **more: figures.phase_map(
        tried().query("activation == 'relu'").assign(width=8), "rate", "width", "test/accuracy", {}, ("",) * 3, **more
    ),
}


@pytest.mark.parametrize("name", POOLING)
def test_a_factor_that_is_not_drawn_is_refused_by_its_name_unless_it_is_to_be_averaged_over(name):
    with pytest.raises(InputError, match=r"^split_seed: 3 values \(0, 1, 2\) would be averaged"):
        POOLING[name]()
    texts = POOLING[name](over=["split_seed"]).findobj(match=lambda artist: hasattr(artist, "get_text"))
    assert any("over 3 values of split seed" in text.get_text().replace("\n", " ") for text in texts)


def test_a_restart_that_is_there_twice_is_not_counted_twice():
    again = pd.concat([ends(), ends().assign(run_id="another run of the same")])
    with pytest.raises(InputError, match=r"^seed=0: occurs twice among rows that are averaged"):
        figures.grid_table(again.assign(descent="batch"))


def test_two_restarts_do_not_share_a_line_of_accuracies():
    with pytest.raises(InputError, match="2 restarts would share a line"):
        figures.accuracies(long(restarts=2), 50)


@pytest.mark.parametrize("value", [1e300, -1e300, np.inf, 1.7976931348623157e308])
def test_values_that_are_too_large_to_be_drawn_are_left_out(value, tmp_path):
    curves, table = long(restarts=3), ends()
    curves.loc[curves["epoch"] == 3, "value"] = value
    table.loc[table["seed"] == 1, ["test/loss", "test/accuracy"]] = value
    drawn = [
        figures.learning_curves(curves),
        figures.layer_decay(curves, epoch=3),
        figures.heat_maps(curves),
        figures.spread(table),
        figures.grid_table(table),
        figures.ends(table, "test/loss", kind="descent", by="cell"),
        figures.histograms(table, "test/loss", "cell", "loss"),
        figures.scatter(table, "test/loss", "test/accuracy", "cell", ("", "")),
        figures.trends(table.assign(rate=0.1), "rate", {"test/loss": "loss"}, by="cell", panels="descent"),
    ]
    for place, figure in enumerate(drawn):
        figures.save(figure, tmp_path / f"{place}.png", last=True)


def test_a_legend_names_only_what_is_drawn():
    assert [text.get_text() for text in MADE["phase_map"]().legends[0].get_texts()] == ["theory"]
    lone = figures.spread(ends(restarts=1))
    assert [text.get_text() for text in lone.legends[0].get_texts()] == ["one restart"]
    late = figures.arrivals(arrived().assign(arrival=1.0), 5, by="rule", panels="activation")
    assert "arrived" not in late.legends[0].get_title().get_text()


def test_names_are_written_as_words():
    figure = figures.spread(ends(CELLS[:1]).assign(activation="leaky_relu"), by="activation", panels="descent")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["leaky ReLU"]
    assert [ax.get_title() for ax in figure.axes] == ["descent: batch", "descent: mini-batch"]


def test_bars_of_shares_carry_counts_and_the_interval_of_the_first_share():
    figure = figures.shares(sorted_ends(), "outcome", "cell", kinds=["saddle", "flat minimum", "diverged"])
    assert sum(text.get_text() == "5 of 9" for text in figure.axes[0].texts) == 3
    segments = [segment for bundle in bundles(figure.axes[0]) for segment in bundle.get_segments()]
    low, high = 0.1206, 0.6458  # Wilson's interval of 3 of 9
    assert {tuple(segment[:, 0].round(4)) for segment in segments} == {(low, high)}
    missing = sorted_ends().query("cell != 'relu-cce-mini32' or descent == 'batch'")
    axes = figures.shares(missing, "outcome", "cell", "descent").axes
    assert [[text.get_text() for text in ax.texts].count("no restarts") for ax in axes] == [0, 1]


def test_heat_maps_tell_zero_from_what_diverged_and_have_round_epochs():
    frame = long(restarts=2, epochs=12)
    frame = frame[~frame["epoch"].isin([5, 7, 11])]
    frame.loc[(frame["metric"] == "delta_norm/layer_1") & (frame["epoch"] > 8), "value"] = 0.0
    frame.loc[(frame["metric"] == "delta_norm/layer_2") & (frame["epoch"] > 8), "value"] = np.nan
    figure = figures.heat_maps(frame)
    image = figure.axes[0].images[0]
    shown = image.cmap(image.norm(image.get_array()))
    assert shown[0, -1].tolist() == [0, 0, 0, 1]
    assert shown[1, -1].tolist() == pytest.approx([0.8667, 0.8667, 0.8667, 1], abs=1e-3)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "5", "10"]


def test_an_interval_of_a_single_position_is_visible():
    figure = figures.estimates(estimated().query("x == 2 and panel == 'panel 0'"), "x", "arm", ("x", "y"))
    assert [len(bundle.get_segments()) for bundle in bundles(figure.axes[0])] == [1, 1]


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_the_same_figure_is_the_same_file_of_vectors(ending, tmp_path):
    for place in range(2):
        figures.save(figures.spread(ends()), tmp_path / f"{place}.{ending}")
    assert (tmp_path / f"0.{ending}").read_bytes() == (tmp_path / f"1.{ending}").read_bytes()


def test_a_run_that_blows_up_is_drawn_and_kept(store, capsys):
    words = ["data=iris", "loss=mean_squared_error", "output=linear", "learning_rate=3", "epochs=3", "restarts=5"]
    assert main([*words, f"tracking.uri={store.numbers['uri']}", "tracking.experiment=tests"]) == 0
    assert "cannot be drawn" not in capsys.readouterr().err
    (run,) = find(store, "cell")
    assert run.status == "FINISHED"
    assert {"learning_curves.png", "spread.png"} <= set(run.artifacts())


def test_a_figure_that_cannot_be_drawn_costs_the_run_nothing(store, monkeypatch, capsys):
    def fails(*args, **more):
        raise OverflowError("cannot convert float infinity to integer")

    monkeypatch.setattr(figures, "learning_curves", fails)
    shared.keep(store, shared.cell())
    assert "learning_curves.png is left out, it cannot be drawn (OverflowError: " in capsys.readouterr().err
    (run,) = find(store, "cell")
    assert run.status == "FINISHED"
    assert "spread.png" in run.artifacts()
    assert "learning_curves.png" not in run.artifacts()


def test_networks_of_different_depth_are_not_marked_as_diverged():
    deep, shallow = long(CELLS[:1], layers=4), long(CELLS[1:2], layers=2)
    absent = shallow[shallow["metric"] == "delta_norm/layer_1"].assign(metric="delta_norm/layer_4", value=np.nan)
    figure = figures.layer_decay(pd.concat([deep, shallow, absent]))
    assert "diverged" not in figure.legends[0].get_title().get_text()
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "x"]


def test_a_title_says_the_finding_above_the_panels_and_the_setting_stands_below_them():
    finding = "restarts of narrow networks end farther apart than those of wide ones " * 3
    figure = figures.spread(ends(), title=finding)
    assert figure.get_suptitle().replace("\n", " ").strip() == finding.strip()
    assert figure.legends[0].get_title().get_text() == "digits, 6 restarts per cell"
    assert figures.spread(ends()).legends[0].get_title().get_text() == ""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert 0 <= figure._suptitle.get_window_extent(renderer).x0
