import pytest

from descentlab import cli
from descentlab.config import spellings
from descentlab.config.composing import CHOICES, compose, conf_folder, every_option
from descentlab.config.resolving import keys
from descentlab.values import InputError


def hash_of(*words):
    (config,) = compose(words, sweep=False)
    return config.hash


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("lr=0.5", "learning_rate=0.5"),
        ("LR=0.5", "learning_rate=0.5"),
        ("Learning-Rate=0.5", "learning_rate=0.5"),
        ("batch_size=16", "descent.batch_size=16"),
        ("hidden=64-32", "network.hidden=64-32"),
        ("n_epochs=7", "epochs=7"),
        ("+n_epochs=7", "epochs=7"),
        ("random_state=3", "seed=3"),
        ("lr_decay=0.9", "learning_rate_decay=0.9"),
        ("optimizer=adam", "update=adam"),
        ("optimizer=sgd", "update=gradient_descent"),
        ("optimizer=SGD", "update=gradient_descent"),
        ("activation=ReLU", "activation=relu"),
        ("activation=LeakyReLU", "activation=leaky_relu"),
        ("activation=swish", "activation=silu"),
        ("loss=mse", "loss=mean_squared_error"),
        ("loss_fn=MSE", "loss=mean_squared_error"),
        ("loss=CategoricalCrossentropy", "loss=categorical_cross_entropy"),
        ("output=Softmax", "output=softmax"),
        ("dataset=Iris", "data=iris"),
        ("initializer=kaiming_normal", "initializer=he_normal"),
        ("descent=MiniBatch", "descent=mini_batch"),
    ],
)
def test_a_word_that_people_bring_along_means_what_it_means_here(given, right):
    assert hash_of(given) == hash_of(right)


def test_words_of_a_chosen_option_and_of_a_sweep_are_known_too():
    assert hash_of("optimizer=momentum", "momentum=0.5") == hash_of("update=momentum", "update.momentum=0.5")
    assert hash_of("optimizer=adam", "optimizer.beta1=0.5") == hash_of("update=adam", "update.beta1=0.5")
    assert hash_of("data=breast_cancer", "loss=bce") == hash_of("data=breast_cancer", "loss=binary_cross_entropy")
    rates = [config.learning_rate for config in compose(["lr=0.1,0.2", "activation=ReLU,Tanh"])]
    assert rates == [0.1, 0.1, 0.2, 0.2] or rates == [0.1, 0.2, 0.1, 0.2]
    (config,) = compose(["launcher=local", "launcher.workers=3"], sweep=False)
    assert (config.launcher.name, config.launcher.numbers["workers"]) == ("local", 3)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("loss=cross_entropy", "categorical_cross_entropy for several classes, binary_cross_entropy for two"),
        ("loss=log_loss", "categorical_cross_entropy for several classes, binary_cross_entropy for two"),
        ("loss=xent", "categorical_cross_entropy for several classes, binary_cross_entropy for two"),
        ("descent=sgd", "stochastic, one sample a step, or mini_batch"),
        ("descent=adam", "update=adam"),
        ("activation=softmax", "output=softmax"),
        ("data=my.csv", "data=file data.path=my.csv"),
        ("data=a/b.txt", "data=file data.path=a/b.txt"),
        ("initializer=xavier", "glorot_uniform or glorot_normal"),
        ("nesterov=true", "update=nesterov"),
        ("decay=0.1", "learning_rate_decay"),
        ("layers=3", "network.hidden"),
        ("batch=32", "descent.batch_size"),
        ("alpha=0.1", "learning_rate, weight_decay or activation.alpha"),
        ("activation=rleu", "relu"),
        ("lerning_rate=1", "learning_rate"),
        ("relu", "activation=relu"),
        ("ReLU", "activation=relu"),
        ("adam", "update=adam"),
        ("mnist", "data=mnist"),
        ("sgd", "update=gradient_descent"),
        ("uii", "ui"),
    ],
)
def test_a_word_that_is_not_safe_to_take_is_refused_with_what_may_be_meant(given, asked, capsys):
    assert cli.main([given, "tracking=none"]) == 2
    line = capsys.readouterr().err
    assert f" (did you mean {asked}" in line
    assert len(line.splitlines()) == 1


def test_every_entry_of_the_tables_names_a_key_or_an_option_that_is_there_and_no_name_stands_twice():
    known = [*keys(), "experiment", "hydra/launcher"]
    for right, names in spellings.KEYS.items():
        assert right in known or right.partition(".")[0] in known, right
        assert not {spellings._plain(name) for name in names} & set(map(spellings._plain, known)), right
    options = every_option([conf_folder()])
    for group, entries in spellings.OPTIONS.items():
        assert {f"{group}={right}" for right in entries} <= set(options)
    pairs = [(spellings.OPTIONS.get(group, {}), spellings.OPTION_HINTS.get(group, {})) for group in CHOICES]
    for tables in [(spellings.KEYS, spellings.KEY_HINTS), *pairs]:
        plain = [spellings._plain(name) for table in tables for names in table.values() for name in names]
        assert len(plain) == len(set(plain))
    for group in CHOICES:  # options that differ in case and dashes alone would be one
        plain = [spellings._plain(one) for one in options if one.startswith(f"{group}=")]
        assert len(plain) == len(set(plain))


def test_a_key_that_is_refused_is_called_by_its_own_name():
    with pytest.raises(InputError, match=r"^learning_rate=-1: must be a finite number above 0"):
        compose(["lr=-1"])
    with pytest.raises(InputError, match=r"belongs to update=momentum or nesterov"):
        compose(["momentum=0.5"])
