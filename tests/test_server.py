"""A shared store: MLflow's server over SQLite or PostgreSQL, and passwords that stay where they belong."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from shared import cell, children, keep, trained

from descentlab import cli, tracking
from descentlab.tracking import results, servers
from descentlab.tracking import store as stores
from descentlab.values import InputError, Option, shown

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
    uri = postgres_uri.replace("/postgres?", "/fresh?")
    with pytest.raises(InputError, match="there is no store yet"):
        tracking.find(option(uri, "x"))
    code = (
        "import sys; from descentlab.values import Option; from descentlab.tracking.store import *;"
        "print(open_store(Option('server', {'uri': sys.argv[1], 'experiment': 'first'})).experiment_id)"
    )
    users = [subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({user.communicate(timeout=120)[0] for user in users}) == 1
    assert [user.returncode for user in users] == [0] * 3


def test_a_database_of_something_else_is_left_alone(postgres_uri):
    import psycopg

    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
    uri = postgres_uri.replace("/postgres?", "/other?")
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
    with pytest.raises(InputError, match=r"^tracking.experiment=of the server: its artifacts are on a server"):
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


def everything_under(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_passwords_are_in_nothing_that_is_written(postgres_uri, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    folder = tmp_path / "shared"
    direct = postgres_uri.replace("postgres@", f"postgres:{PASSWORD}@")
    with servers.shared_store(folder, database=direct, passwords=True) as served:
        host = served.address.removeprefix("http://")
        addresses = [served.address, f"http://admin:{PASSWORD}@{host}"]
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"wrong{PASSWORD}")
        refused = [cli.main(sweep_words(served.address, "secret"))]
        refused += [cli.main([f"tracking.url={addresses[1]}"])]
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        answers = [cli.main(sweep_words(served.address, "secret"))]
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
        answers += [cli.main(sweep_words(addresses[1], "secret", "seed=5"))]
        answers += [cli.main(sweep_words(addresses[1], "secret", "--cfg", "job"))]
        answers += [cli.main(sweep_words(f'"{direct}"', "secret direct"))]
        server_log = served._log.read_bytes()
    said = capfd.readouterr()
    assert refused == [2, 2], said.err
    assert answers == [0, 0, 0, 0], said.err
    assert "access denied" in said.err
    assert PASSWORD not in said.out + said.err
    assert PASSWORD.encode() not in server_log + everything_under(folder)
    assert PASSWORD not in everything_in(postgres_uri)


def everything_in(uri):
    """All rows of all tables, as text."""
    import psycopg

    with psycopg.connect(uri) as connection:
        names = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        names = [name for (name,) in names.fetchall()]
        rows = [row for name in names for row in connection.execute(f'SELECT t::text FROM "{name}" t').fetchall()]
    assert len(rows) > 100
    return "\n".join(text for (text,) in rows)


@pytest.mark.parametrize(
    "text", [f"http://u:{PASSWORD}@h:1/x", f"x=postgresql://u:{PASSWORD}@h", f"a://u:p/{PASSWORD}@h"]
)
def test_messages_leave_passwords_out(text):
    assert PASSWORD not in shown(text)
    assert shown("sqlite:////home/me@work/runs.db") == "sqlite:////home/me@work/runs.db"


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_and_its_runs_stay(tmp_path):
    folder, port = tmp_path / "server", servers._free_port(None)
    words = [sys.executable, "-m", "descentlab", "server", f"port={port}", f"folder={folder}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = []
        while not said or (said[-1] and not said[-1].startswith("Ctrl-C")):
            said.append(process.stdout.readline())
        assert f"tracking.uri=http://127.0.0.1:{port} " in "".join(said), process.stderr.read()
        keep(option(f"http://127.0.0.1:{port}", "stays"), cell())
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    client = stores.open_store(option(str(folder / "mlflow.db"), "elsewhere")).client
    found = client.get_experiment_by_name("stays")
    assert len(client.search_runs([found.experiment_id], "tags.level = 'cell'")) == 1


def test_a_folder_with_an_earlier_versions_database_is_not_served_as_an_empty_store(tmp_path):
    (tmp_path / "postgres").mkdir()
    with pytest.raises(InputError, match=r"DESCENTLAB_DATABASE"), servers.shared_store(tmp_path):
        pass
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_server_ends_at_once_though_a_request_is_open(store):
    with servers.mlflow_server(store.numbers["uri"]) as served:
        port = int(served.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            request = (
                f"POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n\r\n{{"
            )
            connection.sendall(request.encode())
            time.sleep(0.5)
            servers._end(served._process)
            assert (
                served._process.returncode != -signal.SIGKILL
            )  # it ended of itself, and was not waited for and killed


@pytest.mark.slow
def test_a_server_does_not_outlive_a_command_that_was_killed(tmp_path):
    port = servers._free_port(None)
    words = [sys.executable, "-m", "descentlab", "server", f"port={port}", f"folder={tmp_path}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("Ctrl-C"):
            assert process.poll() is None
        process.kill()
    deadline, answers = time.monotonic() + 30, True
    while answers and time.monotonic() < deadline:
        with socket.socket() as probe:
            answers = probe.connect_ex(("127.0.0.1", port)) == 0
        time.sleep(0.2)
    assert not answers


def test_a_signal_ends_the_wait_even_if_it_does_not_interrupt_it():
    code = """if True:
        import signal, threading, time
        from descentlab.interrupts import terminable
        from descentlab.tracking import serving
        def late():  # a signal to another thread leaves the main thread's system call undisturbed
            time.sleep(0.5)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        threading.Thread(target=late).start()
        with terminable():
            serving.wait()
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Terminated: SIGTERM" in ended.stderr


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


def test_without_its_driver_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(servers, "_has_module", lambda name: False)
    with (
        pytest.raises(InputError, match=r"pip install 'descentlab\[server\]'"),
        servers.shared_store(tmp_path, database="postgresql:///x"),
    ):
        pass
