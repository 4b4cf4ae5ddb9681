"""A shared store: PostgreSQL, MLflow's server over it, and passwords that stay where they belong."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from test_tracking import cell, children, keep, trained

from descentlab.harness import results, tracking
from descentlab.harness.config import InputError, Option, shown
from descentlab.harness.tracking import servers

PASSWORD = "Tr0ub4dor-and-3"


def option(uri, experiment, **numbers):
    return Option("server", {"uri": uri, "experiment": experiment, "children": "auto", **numbers})


def command(*words, **environment):
    """Run the real command; whatever it answers."""
    return subprocess.run(
        [sys.executable, "-m", "descentlab", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def sweep_words(uri, experiment, *more):
    words = ["data=iris", "network.hidden=4", "epochs=2", "restarts=2", "tracking=server"]
    return [*words, f"tracking.uri={uri}", f"tracking.experiment={experiment}", *more]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgres_uri", "server_uri"])
def test_a_run_comes_back_from_a_shared_store_as_it_was_trained(kind, request):
    kept = option(request.getfixturevalue(kind), f"comes back {kind}")
    config = cell()
    dataset, training = trained(config)
    run_id = keep(kept, config, training, dataset)
    table = results.restarts(kept)
    assert table["seed"].tolist() == [7, 8, 9]
    assert table["train/loss"].tolist() == training.curves["train/loss"][-1].tolist()
    assert len(children(kept, run_id)) == 3
    assert (results.weights(kept, run_id).final["W1"] == training.final.W[0]).all()


@pytest.mark.slow
def test_two_terminals_sweep_into_one_server_at_once(server_uri):
    words = sweep_words(server_uri, "terminals")
    terminals = [
        subprocess.Popen(
            [sys.executable, "-m", "descentlab", "-m", *words, f"seed={seeds}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seeds in ("0,10", "20,30")
    ]
    errors = [terminal.communicate(timeout=120)[1] for terminal in terminals]
    assert [terminal.returncode for terminal in terminals] == [0, 0], errors
    found = tracking.find(option(server_uri, "terminals"))
    assert sorted(int(run.params["seed"]) for run in found) == [0, 10, 20, 30]


@pytest.mark.slow
def test_first_users_of_an_empty_database_at_once_do_not_collide(postgres_uri):
    import psycopg

    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    uri = postgres_uri.replace("/mlflow?", "/fresh?")
    with pytest.raises(InputError, match="there is no store yet"):
        tracking.find(option(uri, "x"))
    code = (
        "import sys; from descentlab.harness.config import Option; from descentlab.harness.tracking.store import *;"
        "print(open_store(Option('server', {'uri': sys.argv[1], 'experiment': 'first'})).experiment_id)"
    )
    users = [subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({user.communicate(timeout=120)[0] for user in users}) == 1
    assert [user.returncode for user in users] == [0] * 3


def test_a_database_of_something_else_is_left_alone(postgres_uri):
    import psycopg

    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
    uri = postgres_uri.replace("/mlflow?", "/other?")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE TABLE books (title text)")
    with pytest.raises(InputError, match="is a database, but not one of MLflow's"):
        tracking.open_tracker(option(uri, "x"))


def test_a_database_that_does_not_answer_is_refused_without_its_password(postgres_uri):
    uri = f"postgresql://me:{PASSWORD}@127.0.0.1:9/mlflow"
    with pytest.raises(InputError, match=r"^tracking.uri=postgresql://127.0.0.1:9/mlflow: ") as refused:
        tracking.open_tracker(option(uri, "x"))
    assert PASSWORD not in str(refused.value)


@pytest.mark.slow
def test_an_experiment_of_a_server_is_not_written_past_it(server_uri, postgres_uri):
    with tracking.open_tracker(option(server_uri, "of the server")):
        pass
    with pytest.raises(InputError, match=r"^tracking.experiment=of the server: its server keeps the artifacts"):
        tracking.open_tracker(option(postgres_uri, "of the server"))


@pytest.mark.slow
def test_a_foreign_host_or_page_is_turned_away(server_uri):
    def status(headers, data=None):
        request = urllib.request.Request(f"{server_uri}/api/2.0/mlflow/experiments/create", data, headers)
        try:
            return urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code

    json = {"Content-Type": "application/json"}
    assert status({"Host": "evil.example.org", **json}, b"{}") == 403
    assert status({"Origin": "http://evil.example.org", **json}, b'{"name": "x"}') == 403
    assert status({"Origin": server_uri, **json}, b'{"name": "from its own page"}') == 200


@pytest.mark.parametrize(
    "text", [f"http://u:{PASSWORD}@h:1/x", f"x=postgresql://u:{PASSWORD}@h", f"a://u:p/{PASSWORD}@h"]
)
def test_messages_leave_passwords_out(text):
    assert PASSWORD not in shown(text)
    assert shown("sqlite:////home/me@work/runs.db") == "sqlite:////home/me@work/runs.db"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["port=0"], "port=0"),
        (["prot=5000"], "prot=5000"),
        (["auth=open"], "auth=open"),
        (["folder"], "folder"),
    ],
)
def test_a_server_that_cannot_be_meant_is_refused(words, named):
    answer = command("server", *words)
    assert answer.returncode == 2
    assert re.match(rf"descentlab: error: {named}: .*\n$", answer.stderr)


def test_a_database_address_of_another_kind_is_refused_without_its_password():
    answer = command("server", DESCENTLAB_DATABASE=f"mysql://me:{PASSWORD}@host/db")
    assert answer.stderr == "descentlab: error: DESCENTLAB_DATABASE=mysql://host/db: must start with postgresql://\n"


def test_without_postgresql_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(servers.shutil, "which", lambda name: None)
    monkeypatch.setattr(servers.Path, "glob", lambda path, pattern: iter(()))
    with pytest.raises(InputError, match=r"needs PostgreSQL .*apt-get install postgresql"), servers.postgres(tmp_path):
        pass


def test_without_its_driver_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(servers, "_has_module", lambda name: False)
    with pytest.raises(InputError, match=r"pip install 'descentlab\[server\]'"), servers.shared_store(tmp_path):
        pass
