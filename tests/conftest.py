import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

np.seterr(over="raise", invalid="raise")  # a trainer that means to overflow says so where it does


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background is born deaf to it, and all it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Leave the long fault tests out, unless `-m` asks for them."""
    if "fault" in config.option.markexpr:
        return
    left = [item for item in items if not item.get_closest_marker("fault")]
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("fault")])
    items[:] = left


@pytest.fixture
def mnist():
    """The folder of MNIST's IDX files and the notebook's CSV, named by DESCENTLAB_MNIST."""
    folder = os.environ.get("DESCENTLAB_MNIST", "")
    if not folder or not any(Path(folder).glob("train-images-idx3-ubyte*")):
        pytest.skip("DESCENTLAB_MNIST does not name a folder of MNIST's IDX files")
    return Path(folder)


@pytest.fixture(autouse=True)
def _no_run_is_kept_in_the_clone(tmp_path_factory, monkeypatch):
    """What is not told where to keep its runs keeps them in a folder of the tests."""
    monkeypatch.setattr("descentlab.tracking.locations.home", lambda: tmp_path_factory.getbasetemp() / "home")
    monkeypatch.delenv("DESCENTLAB_CONF", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated store without experiments; making one takes two seconds, copying it none."""
    from descentlab.tracking.sqlite_file import create_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    create_store(path)
    return path


@pytest.fixture
def store(empty_store, tmp_path):
    """A tracking option whose store lies in the test's own folder."""
    from descentlab.values import Option

    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_store, path)
    return Option("local", {"uri": f"sqlite:///{path}", "experiment": "tests", "children": "auto"})


@pytest.fixture(scope="session")
def database():
    """The address of an empty database of a PostgreSQL that runs for these tests; root runs it as the user postgres."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'descentlab[server]'")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parts[-2]))
    if not programs:
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="descentlab-tests-"))  # the user postgres cannot enter pytest's folders
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres", "postgres")

    def run(program, *words):
        words = [programs[-1] / program, "-D", folder / "data", *words]
        subprocess.run(words, check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)

    run("initdb", "-U", "postgres", "-E", "UTF8", "--no-locale", "-A", "trust")
    run("pg_ctl", "start", "-w", "-l", folder / "log", "-o", f"-k {folder} -c listen_addresses=''")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_uri(database, tmp_path_factory):
    """The address of a real PostgreSQL database with MLflow's tables, of this process's tests."""
    from descentlab.tracking import store
    from descentlab.values import Option

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("descentlab.tracking.locations.home", lambda: tmp_path_factory.mktemp("clone"))
        store.open_store(Option("local", {"uri": database, "experiment": "made by the fixture"}))
    return database


@pytest.fixture(scope="session")
def server_uri(postgres_uri, tmp_path_factory):
    """The address of a real MLflow server over that database; give each test an experiment of its own."""
    from descentlab.tracking import servers

    with servers.shared_store(tmp_path_factory.mktemp("shared"), database=postgres_uri) as served:
        yield served.address


@pytest.fixture
def option(store):
    """The option that names the test's own store."""
    return store
