import copy
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import PLAIN, changed

from descentlab.config import configuration
from descentlab.config.cells import cells
from descentlab.config.composing import conf_folder
from descentlab.config.configuration import DATA_HASHED_NOT, HASHED_NOT, RUN, Config
from descentlab.config.names import tell_apart as named_apart
from descentlab.config.options import GROUPS, LAUNCHER, schemas
from descentlab.config.resolving import keys, resolve
from descentlab.data.sources import SOURCES
from descentlab.nn.activations import ACTIVATIONS
from descentlab.nn.descent import DESCENTS
from descentlab.nn.initializers import INITIALIZERS
from descentlab.nn.losses import LOSSES
from descentlab.nn.outputs import OUTPUTS
from descentlab.nn.updates import UPDATES
from descentlab.values import InputError


def resolved(**changes) -> Config:
    return resolve(changed(**changes))


def refused(**changes) -> str:
    with pytest.raises(InputError) as caught:
        cells([resolved(**changes)])
    message = str(caught.value)
    assert "\n" not in message
    return message


def outcome(work):
    # what comes of it, or the line in which it is refused
    try:
        return work()
    except InputError as error:
        line = str(error)
    assert len(line.splitlines()) == 1
    return line


def every_option(group, without=("auto",)):
    return [name for name in schemas(group) if name not in without]


# --- registries and files ----------------------------------------------------------------------------------------

REGISTRIES = {
    "activation": set(ACTIVATIONS),
    "loss": {*LOSSES, "auto"},
    "initializer": {*INITIALIZERS, "auto"},
    "descent": set(DESCENTS),
    "update": set(UPDATES),
    "data": set(SOURCES),
    "tracking": {"local", "server", "none"},
}


@pytest.mark.parametrize("group", GROUPS)
def test_option_files_and_registry_entries_are_the_same_set(group):
    assert {path.stem for path in (conf_folder() / group).glob("*.yaml")} == REGISTRIES[group] == set(schemas(group))


# --- auto --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "loss", "output"),
    [
        ("diabetes", "mean_squared_error", "linear"),
        ("xor", "binary_cross_entropy", "sigmoid"),
        ("digits", "categorical_cross_entropy", "softmax"),
        ({"name": "breast_cancer", "targets": "one_hot"}, "categorical_cross_entropy", "softmax"),
        ({"name": "breast_cancer", "targets": "column"}, "binary_cross_entropy", "sigmoid"),
    ],
)
def test_auto_loss_and_output_follow_the_task(source, loss, output):
    config = resolved(data=source)
    assert (config.loss.name, config.output) == (loss, output)


@pytest.mark.parametrize(("source", "output"), [("diabetes", "linear"), ("xor", "sigmoid"), ("digits", "sigmoid")])
def test_auto_output_of_squared_error_is_linear_for_regression_and_sigmoid_for_classes(source, output):
    assert resolved(data=source, loss="mean_squared_error").output == output


@pytest.mark.parametrize(
    ("activation", "rule"),
    [("relu", "he_normal"), ("leaky_relu", "he_normal"), ("selu", "lecun_normal"), ("tanh", "glorot_uniform"),
     ("sigmoid", "glorot_uniform"), ("softplus", "glorot_uniform")],
)  # fmt: skip
def test_auto_initializer_follows_the_activation_and_the_output_layer_takes_glorot(activation, rule):
    config = resolved(activation=activation)
    assert config.initializer.name == rule
    assert config.output_initializer.name == "glorot_uniform"


def test_a_named_initializer_is_used_for_every_layer_with_its_numbers():
    config = resolved(initializer={"name": "normal", "spread": 0.5, "bias_spread": 0.1})
    assert config.output_initializer == config.initializer
    assert dict(config.initializer.numbers) == {"spread": 0.5, "bias_spread": 0.1}


def test_nothing_that_alters_results_is_left_auto():
    values = resolved(data="xor").as_dict()
    assert values["loss"] != {"name": "auto"}
    assert "auto" not in (values["output"], values["initializer"]["name"], values["name"])


def test_the_notebooks_stream_draws_all_layers_or_none():
    message = refused(initializer="notebook", output_initializer={"name": "zeros"})
    assert message.startswith("output_initializer=zeros: ")


# --- equal configurations are equal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"network__hidden": "64-32"}, {"network__hidden": [64, 32]}),
        ({"network__hidden": 64}, {"network__hidden": [64.0]}),
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"epochs": 1e2}, {"epochs": 100}),
        ({"weight_decay": -0.0}, {"weight_decay": 0}),
        ({"activation": "leaky_relu"}, {"activation": {"name": "leaky_relu", "negative_slope": 0.01}}),
        ({"loss": "auto"}, {"loss": "categorical_cross_entropy"}),
        ({"initializer": "auto"}, {"initializer": "he_normal", "output_initializer": "glorot_uniform"}),
        ({"data__split": [60, 20, 20]}, {"data__split": "60-20-20"}),
    ],
)
def test_two_ways_to_say_the_same_are_one_configuration(one, other):
    assert resolved(**one) == resolved(**other)
    assert resolved(**one).hash == resolved(**other).hash


def test_no_hidden_layer_is_an_empty_list():
    config = resolved(network__hidden=[])
    assert config.hidden == ()
    assert cells([config])[0].recipe.layers == (64, 10)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_survives_being_kept_and_resolved_again(group):
    for name in every_option(group, without=("auto", "file", "idx", "server")):
        pair = {"data": "digits"} | ({"data": "diabetes"} if name == "mean_squared_error" else {})
        pair |= {"data": "xor"} if name == "binary_cross_entropy" else {}
        config = resolved(**{**pair, group: name})
        again = resolve(json.loads(json.dumps(config.as_dict())))
        assert again == config
        assert again.hash == config.hash


def test_the_factorys_defaults_stand_in_for_numbers_that_an_option_file_leaves_out():
    assert dict(resolved(update="adam").update.numbers) == {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


# --- the hash ----------------------------------------------------------------------------------------------------

OTHER = {
    "activation": "tanh", "loss": "binary_cross_entropy", "initializer": "orthogonal", "descent": "batch",
    "update": "adam", "data": "iris", "tracking": "local", "network__hidden": [8], "name": "mine", "output": "sigmoid",
    "learning_rate": 0.3, "learning_rate_decay": 0.9, "weight_decay": 0.1, "epochs": 3, "seed": 7, "restarts": 3,
    "dtype": "float32", "log_every": 2, "diagnostics": "none", "workers": 2, "resume": False,
}  # fmt: skip


def test_the_hash_is_over_exactly_the_keys_that_alter_results():
    assert {key.replace("__", ".") for key in OTHER} == set(keys())
    base = {"loss": "mean_squared_error", "output": "softmax"}
    for key, value in OTHER.items():
        same = resolved(**{**base, key: value}).hash == resolved(**base).hash
        assert same == (key in HASHED_NOT), key


def test_the_hash_is_16_hexadecimal_digits_and_the_same_in_another_process():
    assert resolved().hash == resolved().hash
    assert len(resolved().hash) == 16
    int(resolved().hash, 16)


def test_a_cell_whose_bits_have_changed_has_another_hash_and_others_keep_theirs(monkeypatch):
    moved, kept = resolved(activation="sigmoid", dtype="float32"), resolved(activation="sigmoid")
    hashes = moved.hash, kept.hash
    monkeypatch.setattr(configuration, "numerics", lambda *functions: 1)  # as before any change
    assert moved.hash != hashes[0]
    assert kept.hash == hashes[1]


def test_the_cell_hash_leaves_seed_and_restarts_out():
    assert resolved(seed=3, restarts=10).cell_hash == resolved().cell_hash
    assert resolved(seed=3, restarts=10).hash != resolved().hash
    assert resolved(epochs=3).cell_hash != resolved().cell_hash


def test_where_data_lies_does_not_enter_the_hash():
    here, there = ({"name": "mnist", "path": path} for path in ("/here", "/there"))
    assert resolved(data=here).hash == resolved(data=there).hash
    assert resolved(data={**here, "limit": 100}).hash != resolved(data=there).hash


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "relu-cce-mini32"),
        ({"data": "xor", "descent": "batch", "activation": "tanh"}, "tanh-bce-batch"),
        ({"loss": "mean_squared_error", "descent": "stochastic"}, "relu-mse-sgd"),
        ({"loss": "mean_squared_error", "output": "softmax", "descent": "sequential"}, "relu-mse-seq-softmax"),
        ({"activation": {"name": "leaky_relu", "negative_slope": 0.2}}, "leaky0.2-cce-mini32"),
        ({"descent__batch_size": 8, "update": "adam", "weight_decay": 1e-3}, "relu-cce-mini8-adam-wd0.001"),
        ({"initializer": "glorot_uniform"}, "relu-cce-mini32-glorot_uniform"),
        ({"initializer": {"name": "notebook", "draw": 2}}, "relu-cce-mini32-notebook2"),
        ({"name": "mine"}, "mine"),
    ],
)
def test_names_are_short_and_tell_what_a_run_does(changes, name):
    assert resolved(**changes).name == name


def test_cells_of_a_sweep_are_told_apart_by_what_differs():
    cells = [resolved(seed=s, learning_rate=r) for s in (0, 1) for r in (0.1, 0.5)]
    assert [cell.name for cell in named_apart(cells)] == [
        "relu-cce-mini32-lr0.1-s0",
        "relu-cce-mini32-lr0.5-s0",
        "relu-cce-mini32-lr0.1-s1",
        "relu-cce-mini32-lr0.5-s1",
    ]
    assert [cell.hash for cell in named_apart(cells)] == [cell.hash for cell in cells]


def test_files_of_one_name_in_different_folders_are_told_apart():
    found = {"task": "classes", "target": 1, "drop": "none", "target_scaling": "none"}  # nothing left to be read
    cells = [resolved(data={"name": "file", "path": path, **found}) for path in ("x/y/a.csv", "x/z/a.csv")]
    assert [cell.name for cell in named_apart(cells)] == ["relu-cce-mini32-y_a.csv", "relu-cce-mini32-z_a.csv"]


def test_names_too_long_to_tell_cells_apart_are_numbered():
    cells = [resolved(name="n" * 100, network={"hidden": [5] * 60 + [width]}) for width in (1, 2, 3)]
    names = [cell.name for cell in named_apart(cells)]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 200


def test_cells_on_different_data_all_bear_its_name():
    cells = [resolved(data=name, seed=seed) for name in ("digits", "diabetes") for seed in (0, 1)]
    assert [cell.name for cell in named_apart(cells)] == [
        "relu-cce-mini32-digits-s0",
        "relu-cce-mini32-digits-s1",
        "relu-mse-mini32-diabetes-s0",
        "relu-mse-mini32-diabetes-s1",
    ]


def test_cells_of_one_given_name_are_told_apart_by_their_options():
    cells = [resolved(name="mine", activation=a, update=u) for a in ("relu", "elu") for u in ("adam", "momentum")]
    assert [cell.name for cell in named_apart(cells)] == [
        f"mine-{a}-{u}" for a in ("relu", "elu") for u in ("adam", "momentum")
    ]


def test_cells_that_differ_already_keep_their_names():
    cells = [resolved(), resolved(activation="tanh")]
    assert named_apart(cells) == cells


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "begins", "holds"),
    [
        ({"learning_rate": ""}, "learning_rate=: ", "above 0"),
        ({"learning_rate": None}, "learning_rate=null: ", "above 0"),
        ({"learning_rate": 0}, "learning_rate=0: ", "above 0"),
        ({"learning_rate": -1}, "learning_rate=-1: ", "must be a finite number above 0"),
        ({"learning_rate": math.nan}, "learning_rate=nan: ", "finite"),
        ({"learning_rate": math.inf}, "learning_rate=inf: ", "finite"),
        ({"learning_rate": 10**400}, "learning_rate=a number of more than 60 digits: ", "finite"),
        ({"learning_rate": True}, "learning_rate=true: ", "finite"),
        ({"learning_rate": [0.1]}, "learning_rate=[0.1]: ", "finite"),
        ({"learning_rate_decay": 1.1}, "learning_rate_decay=1.1: ", "above 0, at most 1"),
        ({"weight_decay": -1e-9}, "weight_decay=-1e-09: ", "at or above 0"),
        ({"epochs": 0}, "epochs=0: ", "from 1"),
        ({"epochs": 1.5}, "epochs=1.5: ", "whole number"),
        ({"epochs": "10"}, "epochs=10: ", "whole number"),
        ({"restarts": 0}, "restarts=0: ", "from 1"),
        ({"seed": -1}, "seed=-1: ", "from 0"),
        ({"seed": 2**32 - 1, "restarts": 2}, "restarts=2: ", "2**32"),
        ({"dtype": "float16"}, "dtype=float16: ", "float32, float64"),
        ({"log_every": 0}, "log_every=0: ", "auto or a whole number"),
        ({"workers": "all"}, "workers=all: ", "auto or a whole number"),
        ({"diagnostics": "all"}, "diagnostics=all: ", "basic, full, none"),
        ({"output": "sofmax"}, "output=sofmax: ", "did you mean softmax?"),
        ({"name": ""}, "name=: ", "must be auto"),
        ({"name": "a/b"}, "name=a/b: ", "letters"),
        ({"name": "a\nb"}, "name=a\\nb: ", "letters"),
        ({"network__hidden": ""}, "network.hidden=: ", "64-32"),
        ({"network__hidden": [64, 0]}, "network.hidden=[64, 0]: ", "from 1"),
        ({"network__hidden": [1.5]}, "network.hidden=[1.5]: ", "sizes"),
        ({"network__hidden": [[64]]}, "network.hidden=[[64]]: ", "sizes"),
        ({"network__hidden": "64--32"}, "network.hidden=64--32: ", "sizes"),
        ({"network__depth": 3}, "network.depth=3: ", "unknown key"),
        ({"network": 3}, "network=3: ", "hidden"),
        ({"activation": "rleu"}, f"activation=rleu: not one of {min(ACTIVATIONS)}, ", "did you mean relu?"),
        ({"activation": {"name": None}}, "activation=null: not one of", "relu"),
        ({"activation": {}}, "activation=null: not one of", "relu"),
        ({"activation": 3}, "activation=3: not one of", "relu"),
        ({"activation__negative_slope": 0.1}, "activation.negative_slope=0.1: ", "belongs to activation=leaky_relu"),
        ({"activation": {"name": "leaky_relu", "negative_slop": 1}}, "activation.negative_slop=1: ", "negative_slope?"),
        ({"activation": {"name": "leaky_relu", "negative_slope": 2}}, "activation.negative_slope=2", "[0, 1)"),
        ({"activation": {"name": "leaky_relu", "negative_slope": math.nan}}, "activation.negative_slope=nan", "finite"),
        ({"descent": "batch", "descent__batch_size": 8}, "descent.batch_size=8: ", "belongs to descent=mini_batch"),
        ({"descent__batch_size": 0}, "descent.batch_size=0: ", "1"),
        ({"descent__batch_size": 1080}, "descent.batch_size=1080: ", "at most 1079"),
        ({"descent__batch_size": 2.5}, "descent.batch_size=2.5: ", "whole number"),
        ({"update__momentum": 0.5}, "update.momentum=0.5: ", "momentum or nesterov"),
        ({"loss__scale": 2}, "loss.scale=2: unknown key", "takes no numbers"),
        ({"initializer": {"name": "notebook", "draw": 0}}, "initializer.draw=0: ", "from 1"),
        ({"data__split_sed": 1}, "data.split_sed=1: unknown key", "split_seed?"),
        ({"tracking": "server"}, "tracking.uri=auto: ", "address"),
        ({"tracking": {"name": "local", "uri": ""}}, "tracking.uri=: ", "auto"),
        ({"tracking": {"name": "local", "children": "some"}}, "tracking.children=some: ", "all, auto, none"),
        ({"lerning_rate": 0.1}, "lerning_rate=0.1: unknown key", "did you mean learning_rate?"),
        ({"seed": "${oc.env:HOME}"}, "seed=${oc.env:HOME}: ", "interpolations are refused"),
        ({"seed": "???"}, "seed=???: ", "interpolations"),
        (
            {"activation": {"name": "relu", "_target_": "os.system"}},
            "activation._target_=os.system: ",
            "data, not code",
        ),
        ({"data": {"name": "digits", "deep": [{"_target_": "x"}]}}, "data.deep._target_=x: ", "data, not code"),
        ({"data": "xor", "output": "softmax"}, "output=softmax: ", "one output"),
        ({"loss": "binary_cross_entropy", "output": "linear"}, "output=linear: ", "sigmoid"),
        ({"output": "sigmoid"}, "output=sigmoid: ", "softmax"),
        ({"data": "diabetes", "loss": "binary_cross_entropy"}, "loss=binary_cross_entropy: ", "targets"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(changes, begins, holds):
    message = refused(**changes)
    assert message.startswith(begins)
    assert holds in message


@pytest.mark.parametrize("key", sorted(set(PLAIN) - {"resume"}))  # which no kept run has
def test_a_missing_key_is_named(key):
    raw = copy.deepcopy(PLAIN)
    del raw[key]
    with pytest.raises(InputError, match=r"is missing from the configuration"):
        resolve(raw)


def test_the_default_batch_goes_with_data_that_is_smaller():
    assert len(cells([resolved(data="xor")])[0].dataset.splits["train"][0]) == 4


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("source", ["digits", "xor", "diabetes"])
def test_every_pair_either_runs_or_is_refused_in_one_line(loss, output, source):
    def made():
        config = resolved(loss=loss, output=output, data=source)
        return cells([config])[0].recipe

    found = outcome(made)
    if isinstance(found, str):
        assert found.partition("=")[0] in ("loss", "output")
    else:
        assert output in LOSSES[loss].forms


def test_what_is_no_mapping_is_refused():
    for raw in (None, [], "relu", 3):
        with pytest.raises(InputError):
            resolve(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("auto"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
known = st.sampled_from([*PLAIN, "output_initializer"])
options = st.builds(
    lambda name, numbers: {"name": name, **numbers},
    st.sampled_from(
        sorted({name for group in GROUPS for name in schemas(group)} - {"file", "idx", "mnist", "notebook"})
    ),
    st.dictionaries(st.sampled_from(["batch_size", "spread", "draw", "alpha", "split", "limit", "uri"]), values),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(known | st.text(max_size=8), values | options, max_size=4), st.booleans())
def test_random_configurations_are_resolved_or_refused_and_nothing_else(changes, whole):
    raw = {**copy.deepcopy(PLAIN), **changes} if whole else changes
    config = outcome(lambda: resolve(raw))
    if not isinstance(config, str):
        assert resolve(json.loads(json.dumps(config.as_dict()))) == config


# --- configuration -> objects ------------------------------------------------------------------------------------


def test_a_recipe_holds_every_run_level_value():
    config = resolved(
        network__hidden=[5, 3], activation={"name": "leaky_relu", "negative_slope": 0.3}, learning_rate=0.7,
        learning_rate_decay=0.9, weight_decay=0.01, epochs=4, seed=5, restarts=6, dtype="float32", log_every=2,
        diagnostics="none", descent__batch_size=16, update={"name": "momentum", "momentum": 0.5},
    )  # fmt: skip
    made = cells([config])[0].recipe
    assert made.layers == (64, 5, 3, 10)
    for field in dataclasses.fields(made):
        if field.name in RUN:
            assert getattr(made, field.name) == getattr(config, field.name), field.name
    assert made.activation.value(np.array([-1.0]), np.empty(1))[0] == -0.3
    assert made.descent.batch_size == 16
    assert (made.loss.name, made.task) == ("categorical_cross_entropy", "multiclass")
    assert (made.initializer.name, made.output_initializer.name) == ("he_normal", "glorot_uniform")


# --- the documentation -------------------------------------------------------------------------------------------


def documented():
    # key -> (default, whether in the hash) as docs/configuration.md has it
    text = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    return {key: (default, hashed == "yes") for key, default, hashed in re.findall(
        r"^\| `([\w./]+)` \| `([^`]*)` \| (yes|no) \|", text, re.MULTILINE
    )}  # fmt: skip


def test_the_documentation_lists_every_key_its_default_and_whether_it_is_hashed():
    listed = documented()
    groups = {group.replace("/", "."): group for group in (*GROUPS, LAUNCHER)}
    numbers = {f"{dotted}.{key}" for dotted, group in groups.items() for one in schemas(group).values() for key in one}
    in_files = {  # what an option file lists and explains itself need not stand in the documentation too
        f"{group}.{key}"
        for group in ("activation", "initializer", "update")
        for path in (conf_folder() / group).glob("*.yaml")
        for key in yaml.safe_load(path.read_text())
    }
    assert {*keys(), LAUNCHER} <= set(listed) <= {*keys(), *numbers, LAUNCHER}
    assert numbers <= set(listed) | in_files
    for key, (default, hashed) in listed.items():
        hashed_not = (*HASHED_NOT, LAUNCHER, "hydra", *(f"data.{key}" for key in DATA_HASHED_NOT))
        assert hashed == (key not in hashed_not and key.split(".")[0] not in hashed_not), key
        dotted, _, number = key.rpartition(".")
        if group := groups.get(dotted):
            assert default in {str(schema[number][1]) for schema in schemas(group).values() if number in schema}, key


def test_the_documentations_defaults_of_a_run_are_those_of_the_configuration_file():
    composed = yaml.safe_load((conf_folder() / "config.yaml").read_text())
    chosen = {key: value for one in composed.pop("defaults") if isinstance(one, dict) for key, value in one.items()}
    assert chosen.pop("experiment") is None
    plain = {"network.hidden": composed.pop("network")["hidden"], **composed, **chosen}
    assert set(plain) == set(keys())
    said = {key: "true" if value is True else str(value) for key, value in plain.items()}
    assert {key: documented()[key][0] for key in plain} == said
