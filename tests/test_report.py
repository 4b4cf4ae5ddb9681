import importlib.util
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from descentlab.config import composing
from descentlab.data import loading
from descentlab.data.sources import SOURCES
from descentlab.studies import report, study
from descentlab.studies.study import Part
from descentlab.tracking import find
from descentlab.values import InputError

CLAIMS = """
claims:
  - id: better
    statement: more width & depth <help>
    family: f
    metric: test accuracy (fraction)
    test: greater
    margin: {margin}
    n: 6
    conditional_on: iris
"""
SCRIPT = '''"""What a small study asks."""
from descentlab import figures
from descentlab.studies.study import Part, main
import pandas as pd
PARTS = {"widths": Part(["restarts=2"])}
CALLS = []
def measure():
    CALLS.append(1)
    return pd.DataFrame({"speed": [0.1 + 0.2, 2.0]})
def report(study):
    ends = study.restarts("widths")
    study.table("ends", ends[["hidden", "seed", "test/accuracy"]])
    study.table("measured", study.measured("speeds", measure))
    study.figure("curves", figures.learning_curves(study.curves("widths", ["test/loss"])))
    study.verdicts({"better": ends[ends["hidden"].astype(str) == "4"]["test/accuracy"].to_numpy()})
'''
SWEEP = "# @package _global_\narms:\n  - [network.hidden=2]\n  - [network.hidden=4]\n"
SETTINGS = ["data=iris", "epochs=3", "restarts=6", "learning_rate=0.5"]


@pytest.fixture
def small(tmp_path, store, monkeypatch):
    """A study of its own: runs it with overrides, returns the exit status."""
    (tmp_path / "claims").mkdir()
    (tmp_path / "small.py").write_text(SCRIPT)
    monkeypatch.setattr(study, "EXPERIMENTS", tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "widths.yaml").write_text(SWEEP)
    monkeypatch.setenv("DESCENTLAB_CONF", str(tmp_path / "conf"))

    def run(*words, margin=0.2):
        (tmp_path / "claims" / "small.yaml").write_text(CLAIMS.format(margin=margin))
        module = report._script("small")
        place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
        return study.main("small", module.__doc__, module.PARTS, module.report, [*SETTINGS, *words, *place])

    return run


def test_a_study_is_drawn_anew_from_the_store_without_measuring_anything(small, store, tmp_path):
    assert small() == 0
    (summary,) = find(store, "summary")
    one = report.rebuild(store, "small", tmp_path / "reports")
    assert one.run.run_id == summary.run_id
    assert sys.modules["experiments_small"].CALLS == []
    for name in ("ends.csv", "speeds.csv", "verdicts.csv", "verdict.json"):
        assert (one.folder / name).read_bytes() == summary.artifact(name).read_bytes(), name
    assert (one.folder / "curves.svg").read_bytes() == summary.artifact("curves.svg").read_bytes()


def test_a_verdict_that_flipped_is_shown_beside_the_one_before(small, store, tmp_path):
    assert small(margin=0.01) == 0
    assert small(margin=0.99) == 0
    first, second = find(store, "summary")
    assert (first.metrics["verdict/better"], second.metrics["verdict/better"]) == (1, -1)
    assert first.metrics["estimate/better"] == pytest.approx(
        json.loads(first.artifact("verdict.json").read_text())[0]["estimate"]
    )
    one = report.rebuild(store, "small", tmp_path / "reports")
    assert one.verdicts[["verdict", "before"]].iloc[0].tolist() == ["not supported", "supported"]
    page = report.write_page([one], tmp_path / "reports").read_text()
    assert "more width &amp; depth &lt;help&gt;" in page
    assert "class='not-supported flipped'" in page
    assert "small/curves.svg" in page


def test_a_verdict_without_a_finite_estimate_is_still_json():
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5, "e": "x", "f": 3}
    text = json.dumps({key: study._json_value(value) for key, value in values.items()}, allow_nan=False)
    assert json.loads(text) == {"a": None, "b": "inf", "c": "-inf", "d": 1.5, "e": "x", "f": 3}


def test_the_full_form_is_drawn_and_not_a_later_quick_one(small, store, tmp_path):
    assert small() == 0
    assert small("--quick") == 0
    assert report.rebuild(store, "small", tmp_path / "reports").run.params["form"] == "full"


def test_a_study_is_drawn_anew_without_todays_configuration_or_data(small, store, tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("is read")

    assert small() == 0
    for module, name in ((composing, "conf_folder"), (loading, "load"), (loading, "read_table")):
        monkeypatch.setattr(module, name, refuse)
    one = report.rebuild(store, "small", tmp_path / "reports")
    assert (one.folder / "curves.svg").is_file()


def test_a_study_takes_its_settings_from_its_runs_and_refuses_other_data(small, store, tmp_path, monkeypatch):
    assert small("learning_rate=0.25") == 0
    (summary,) = find(store, "summary")
    drawn = study.Study(store, None, {"widths": f"{summary.sweep}-widths"})
    with monkeypatch.context() as patch:
        patch.setattr(composing, "conf_folder", lambda: tmp_path)
        cell = drawn.cell("widths")
    assert (cell.config.learning_rate, cell.config.hidden) == (0.25, (2,))
    whole = SOURCES["iris"].read
    shifted = lambda numbers: replace(whole(numbers), inputs=whole(numbers).inputs + 1.0)  # noqa: E731
    monkeypatch.setitem(SOURCES, "iris", replace(SOURCES["iris"], read=shifted))
    loading.forget()
    with pytest.raises(InputError, match=r"data=iris: has other values than those that run .* was trained on"):
        drawn.cell("widths")


def test_a_study_that_was_never_run_or_does_not_exist_is_said_to_be_so(small, store, tmp_path):
    assert report.rebuild(store, "small", tmp_path / "reports") is None
    with pytest.raises(InputError, match="study=large: not one of small"):
        report.rebuild(store, "large", tmp_path / "reports")


def test_a_study_that_cannot_be_drawn_is_named_and_costs_the_page_nothing(small, store, tmp_path, monkeypatch, capsys):
    for name, line in (("broken", "x = {}['no such column']"), ("missing", "raise MissingData('data.path=a: none')")):
        text = SCRIPT.replace("    ends = study", f"    study.table('first', measure())\n    {line}\n    ends = study")
        (tmp_path / f"{name}.py").write_text(f"{text}\nfrom descentlab.data.table import MissingData\n")
    assert small() == 0
    (summary,) = find(store, "summary")
    monkeypatch.setattr(report, "find", lambda *a, **kw: [summary] if a[1] == "summary" else find(*a, **kw))
    folder = tmp_path / "reports"
    monkeypatch.setattr(report, "FOLDER", folder)
    assert report.main([f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "broken: not drawn: KeyError: 'no such column'" in said
    assert "missing: not drawn: data.path=a: none" in said
    assert f"small: drawn from run {summary.run_id}" in said
    page = (folder / "index.html").read_text()
    assert "experiments/broken.py: not drawn: KeyError: &#x27;no such column&#x27;" in page
    assert "small/curves.svg" in page
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "small"]


def test_a_report_that_cannot_be_written_is_refused_in_one_line(store, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(report, "FOLDER", tmp_path / "file" / "reports")
    assert report.main([f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("descentlab: error: report=/")
    assert line.endswith("cannot be written (Not a directory)\n")


def test_a_report_of_another_store_leaves_no_folder_of_the_last_one(small, store, tmp_path):
    assert small() == 0
    folder = tmp_path / "reports"
    (folder / "other").mkdir(parents=True)
    (folder / "other" / "report.txt").write_text("of another store")
    (folder / "small").mkdir()
    (folder / "small" / "old.svg").write_text("a figure that is no longer made")
    (folder / "mine").mkdir()  # of the user
    report.rebuild_all(store, ["small"], folder)
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "small"]
    assert not (folder / "small" / "old.svg").exists()


def test_claims_that_too_few_seeds_could_not_decide_are_refused_before_anything_trains(small, store, capsys):
    assert small("restarts=5") == 2
    assert "claim better: n=5: wilcoxon cannot go below" in capsys.readouterr().err
    assert not find(store, "cell")


def test_the_quick_form_prints_and_keeps_no_verdict_and_says_which_command_decides(small, store, tmp_path, capsys):
    assert small("--quick", "restarts=2") == 0
    said = capsys.readouterr().out
    assert "No verdict (quick form): run python experiments/small.py" in said
    assert "undecided" not in said
    (summary,) = find(store, "summary")
    assert not [name for name in summary.metrics if name.startswith("verdict/")]
    assert not {"verdicts.csv", "verdict.json"} & set(summary.artifacts())
    assert report.rebuild(store, "small", tmp_path / "reports").verdicts.empty


def test_the_full_form_says_first_how_long_it_takes(small, store, monkeypatch, capsys):
    about = "A study.\n\nMethod: none.\n\nCost: about two minutes\non two cores, one without certificates.\n"
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    assert study.main("none", about, {}, lambda one: None, place) == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told == "none: about two minutes on two cores; stored cells are reused"
    assert study.main("none", about, {}, lambda one: None, ["--quick", *place]) == 0
    assert "two minutes" not in capsys.readouterr().out


def test_a_part_whose_data_is_missing_is_skipped_with_a_line(store, monkeypatch, capsys):
    monkeypatch.delenv("NO_SUCH_DATA", raising=False)
    seen = []
    parts = {"width": Part(needs="NO_SUCH_DATA"), "depth": Part(full_only=True)}
    place = [f"tracking.{key}={store.numbers[key]}" for key in ("uri", "experiment")]
    assert (
        study.main(
            "none", "", parts, lambda one: seen.append([one.has("width"), one.has("depth")]), ["--quick", *place]
        )
        == 0
    )
    assert seen == [[False, False]]
    assert "width: skipped, because NO_SUCH_DATA is not set" in capsys.readouterr().out


# --- vanishing gradients -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vanishing():
    spec = importlib.util.spec_from_file_location("vanishing", study.EXPERIMENTS / "vanishing_gradients.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_slope_of_the_root_mean_square_has_pseudo_values_that_average_to_it(vanishing):
    rng = np.random.default_rng(3)
    nets = 0.3 * np.arange(6) + rng.normal(0, 0.05, (50, 6))
    values = vanishing.pseudo_slopes(nets)
    whole = np.polyfit(np.arange(6), 0.5 * np.log10((10 ** (2 * nets)).mean(axis=0)), 1)[0]
    assert values.shape == (50,)
    assert values.mean() == pytest.approx(whole, abs=2e-4)
    assert vanishing.pseudo_slopes(nets - 300).mean() == pytest.approx(values.mean())  # no underflow


def test_the_claims_of_vanishing_gradients_count_the_cases_that_it_judges(vanishing):
    claims = {claim.id: claim for claim in study.declared_claims("vanishing_gradients")}
    for depths, suffix in ((vanishing.DEPTHS, ""), (vanishing.MNIST_DEPTHS, "_mnist")):
        deep = [depth for depth in depths if depth >= vanishing.DEEP]
        assert claims[f"relu_learns_deeper{suffix}"].cases == 2 * len(deep)
        assert claims[f"leaky_improves{suffix}"].cases == 2 * len(deep)
    assert all(claims[name].cases == len(vanishing.ACTIVATIONS) for name in vanishing.START.values())
    assert all(claims[name].margin == 0.01 for name in vanishing.START.values())
    assert claims["nielsen_start"].cases == sum(map(len, vanishing.PUBLISHED.values()))


def test_fading_is_fitted_over_hidden_layers_alone(vanishing):
    values = {1: 1e-3, 2: 1e-2, 3: 1e-1, 4: 7.0}  # layer 4 is the output
    frame = pd.DataFrame(
        {
            "hidden_layers": 3,
            "arm": "x",
            "seed": 0,
            "epoch": 0,
            "metric": f"delta_norm/layer_{layer}",
            "value": value,
        }
        for layer, value in values.items()
    )
    assert vanishing.fading(frame, 0, "delta_norm").iloc[0] == pytest.approx(1.0)
    frame.loc[0, "value"] = 1e-9
    assert vanishing.fading(frame, 0, "delta_norm", first=2).iloc[0] == pytest.approx(1.0)


def test_the_studies_of_published_theory_lie_in_a_folder_of_their_own_and_are_found():
    scripts = study.scripts()
    literature = {name for name, path in scripts.items() if path.parent.name == "literature"}
    assert {"order_to_chaos", "student_teacher", "barriers"} <= literature
    assert {"sweep", "notebook", "vanishing_gradients", "xor"} <= set(scripts) - literature
    for name in literature:
        assert study.declared_claims(name), name
    assert study.told(scripts["barriers"]) == "experiments/literature/barriers.py"
    assert len(composing.compose(["tracking=none"], "order_to_chaos")) == 42
