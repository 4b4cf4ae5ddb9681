import contextlib
import os
import shutil
import signal
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


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated store without experiments; making one takes two seconds, copying it none."""
    from descentlab.tracking.store import create_store

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
def database(tmp_path_factory):
    """A folder with a running PostgreSQL, and the address of its database."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'descentlab[server]'")
    from descentlab.tracking import servers
    from descentlab.values import InputError

    folder = Path(tempfile.mkdtemp(prefix="descentlab-tests-"))  # the user postgres cannot enter pytest's folders
    folder.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            try:
                uri = stack.enter_context(servers.postgres(folder))
            except InputError as error:
                if "needs PostgreSQL" in str(error) or "no user postgres" in str(error):
                    pytest.skip(str(error))
                raise
            yield folder, uri
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_uri(database):
    """The address of a real PostgreSQL database with MLflow's tables, of this process's tests."""
    from descentlab.tracking import store
    from descentlab.values import Option

    _, uri = database
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "home", lambda: database[0] / "clone")
        store.open_store(Option("local", {"uri": uri, "experiment": "made by the fixture"}))
    return uri


@pytest.fixture(scope="session")
def server_uri(database, postgres_uri):
    """The address of a real MLflow server over that database; give each test an experiment of its own."""
    from descentlab.tracking import servers

    folder, _ = database
    with servers.shared_store(folder, database=postgres_uri) as served:
        yield served.address


@pytest.fixture
def option(store):
    """The option that names the test's own store."""
    return store
