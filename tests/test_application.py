"""Which of MLflow's routes are open, asked of its own tables of routes and of real servers."""

import http.client
import json
import os
import re
import subprocess
import sys
from base64 import b64encode

import pytest

from descentlab.tracking import servers
from descentlab.tracking.application import CLOSED, is_open

PASSWORD = "Tr0ub4dor-and-3"
ROUTES = """
import json, sys, uvicorn
import mlflow.server
from mlflow.server import auth

application = auth.create_app()
paths = {rule.rule for rule in mlflow.server.app.url_map.iter_rules()}
for included in application.routes:
    if hasattr(included, "original_router"):
        paths |= {included.include_context.prefix + route.path for route in included.original_router.routes}
json.dump(sorted(paths), sys.stdout)
"""
RUNS_OR_REACHES_OUT = re.compile(
    r"assistant|gateway|jobs|invoke|online-config|webhooks|promptlab|mcp-servers|demo|telemetry|prompt-optimization"
)
AREAS = re.compile(
    r"/(api|ajax-api)/2\.0/mlflow/"
    r"(artifacts|experiments|metrics|model-versions|registered-models|runs|users)/[a-z-]+"
    r"|/(api|ajax-api)/2\.0/mlflow/logged-models(/.*)?"
    r"|/(api|ajax-api)/2\.0/mlflow-artifacts/(artifacts|mpu|presigned)(/.*)?"
    r"|/(api|ajax-api)/3\.0/mlflow/server-info"
    r"|/|/health|/version|/graphql|/signup|/get-artifact|/model-versions/get-artifact|/static-files/.*"
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "XYZ")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Every route of MLflow's application with authentication, its parameters filled in."""
    folder = tmp_path_factory.mktemp("routes")
    uri = f"sqlite:///{folder}/users.db"
    settings = servers._sign_in(uri, folder, folder) | {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    environment = {**os.environ, **settings, "MLFLOW_DISABLE_TELEMETRY": "true", "_MLFLOW_SGI_NAME": "uvicorn"}
    answer = subprocess.run([sys.executable, "-c", ROUTES], capture_output=True, text=True, cwd=folder, env=environment)
    assert answer.returncode == 0, answer.stderr
    found = {re.sub(r"<[^>]*>|\{[^}]*\}", "x", path) for path in json.loads(answer.stdout)}
    assert len(found) > 300
    return found


@pytest.fixture(scope="module", params=["without passwords", "with passwords"])
def served(request, tmp_path_factory):
    """A real server: its host and port, and the headers of a user of it."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD)
        with servers.shared_store(folder, passwords=request.param == "with passwords") as server:
            user = {"Authorization": f"Basic {b64encode(f'admin:{PASSWORD}'.encode()).decode()}"}
            yield server.address, user if request.param == "with passwords" else {}


def ask(served, method, path, body=None):
    """Status and body of one request, its path sent as it is written."""
    address, headers = served
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def test_what_runs_things_or_reaches_out_is_closed(paths):
    found = {path for path in paths if RUNS_OR_REACHES_OUT.search(path)}
    assert {
        "/ajax-api/3.0/mlflow/assistant/config",
        "/gateway/x/mlflow/invocations",
        "/ajax-api/3.0/jobs/search",
    } < found
    assert {"/api/3.0/mlflow/mcp-servers/x", "/api/2.0/mlflow/webhooks", "/ajax-api/3.0/jobs/search"} < found
    assert not [path for path in found if is_open(path)]


def test_open_routes_are_those_of_runs_models_artifacts_pages_and_users(paths):
    opened = {path for path in paths if is_open(path)}
    assert len(opened) > 120
    assert not [path for path in opened if not AREAS.fullmatch(path)]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/health/",
        "//health",
        "/x",
        "/static-files/../gateway",
        "/static-files//x",
        "/api/2.0/mlflow-artifacts/artifacts/../../../gateway",
        "/api/2.0/mlflow-artifacts/artifacts/./x",
        "/API/2.0/mlflow/runs/search",
        "/api/2.0/mlflow/runs/Search",
        "/api/2.0/mlflow//runs/search",
        "/api/2.0/mlflow/./runs/search",
        "/api/9.0/mlflow/runs/search",
        "/api/2.0/mlflow/runs/search/x",
        "/api/2.0/mlflow/runs/execute",
        "/ui/api/2.0/mlflow/runs/search",
        "api/2.0/mlflow/runs/search",
        "http://127.0.0.1/api/2.0/mlflow/runs/search",
    ],
)
def test_other_forms_of_an_open_path_are_closed(path):
    assert not is_open(path)


def test_an_artifact_may_have_the_name_of_a_closed_route():
    assert is_open("/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/jobs/assistant/config")


@pytest.mark.slow
def test_a_real_server_answers_403_on_every_closed_route_whatever_the_method(served, paths):
    closed = sorted(path for path in paths if not is_open(path))
    assert len(closed) > 150
    assistant = "/ajax-api/3.0/mlflow/assistant/config"
    asked = [(method, path) for path in closed for method in ("GET", "POST")]
    asked += [(method, path) for path in (assistant, "/gateway/mlflow/v1/models") for method in METHODS]
    answers = {(method, path): ask(served, method, path, "{}" if method != "TRACE" else None) for method, path in asked}
    assert {answer[0] for answer in answers.values()} == {403}
    assert {text for (method, _), (_, text) in answers.items() if method != "HEAD"} == {CLOSED}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/%61ssistant/config",
        "/ajax-api/3.0/mlflow/%2561ssistant/config",
        "/ajax-api%2F3.0%2Fmlflow%2Fassistant%2Fconfig",
        "//ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0//mlflow/assistant//config",
        "/ajax-api/3.0/mlflow/./assistant/config",
        "/ajax-api/3.0/mlflow/runs/../assistant/config",
        "/static-files/../ajax-api/3.0/mlflow/assistant/config",
        "/static-files/%2e%2e/ajax-api/3.0/mlflow/assistant/config",
        "/api/2.0/mlflow-artifacts/artifacts/..%2f..%2f..%2f..%2fajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/mlflow/ASSISTANT/config",
        "/AJAX-API/3.0/mlflow/assistant/CONFIG",
        "/ajax-api/3.0/mlflow/assistant/config/",
        "/ajax-api/3.0/mlflow/assistant/config;x",
        "/ajax-api/3.0/mlflow/assistant/config?x=/health",
        "/health/../ajax-api/3.0/mlflow/assistant/config",
        "/health%00/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api\\3.0\\mlflow\\assistant\\config",
        "http://127.0.0.1/ajax-api/3.0/mlflow/assistant/config",
    ],
)
def test_a_real_server_answers_403_to_every_spelling_of_the_assistants_settings(served, path):
    body = '{"providers": {"x": {"permissions": {"full_access": true}}}}'
    assert ask(served, "PUT", path, body)[0] in ({403} if not path.startswith("http") else {400, 403, 404})


@pytest.mark.slow
def test_a_real_server_lets_open_routes_through_to_mlflow(served, paths):
    opened = [path for path in sorted(paths) if is_open(path) and "users" not in path]
    assert not [path for path in opened if ask(served, "GET", path)[1] == CLOSED]
    page = ask(served, "GET", "/")[1].decode()
    assert page.index("mlflow.assistant.panelOpen_v1") < page.index("static-files/static/js/main")
    script = re.search(r"static-files/static/js/main\.\w+\.js", page).group()
    assert ask(served, "GET", f"/{script}")[0] == 200


@pytest.mark.slow
def test_without_a_password_only_health_static_files_and_server_info_are_answered(served, paths):
    address, headers = served
    if not headers:
        pytest.skip("this server asks for no password")
    asked = [(method, path) for path in sorted(paths) if is_open(path) for method in ("GET", "POST", "PUT")]
    reached = {path for method, path in asked if ask((address, {}), method, path)[0] not in (401, 405)}
    public = {"/health", "/static-files/x", "/api/3.0/mlflow/server-info", "/ajax-api/3.0/mlflow/server-info"}
    assert reached == public


CLIENT = """
import sys, tempfile
from pathlib import Path
import mlflow
from mlflow import MlflowClient

class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("everything")
with mlflow.start_run() as run:
    mlflow.log_param("rate", 0.1)
    mlflow.log_metrics({"loss": 0.5}, step=3)
    mlflow.set_tag("kind", "trial")
    mlflow.log_text("words", "folder/words.txt")
    mlflow.log_dict({"a": 1}, "jobs/assistant.json")
    logged = mlflow.pyfunc.log_model(name="doubler", python_model=Doubler(), registered_model_name="doubler")
client = MlflowClient()
found = client.search_runs([run.info.experiment_id], "metrics.loss < 1")
assert [each.info.run_id for each in found] == [run.info.run_id]
assert client.get_metric_history(run.info.run_id, "loss")[0].step == 3
assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"folder", "jobs"}
assert Path(client.download_artifacts(run.info.run_id, "folder/words.txt")).read_text() == "words"
assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/jobs/assistant.json") == {"a": 1}
client.set_registered_model_alias("doubler", "best", "1")
assert client.get_model_version_by_alias("doubler", "best").run_id == run.info.run_id
assert [model.name for model in client.search_registered_models()] == ["doubler"]
assert [model.name for model in client.search_logged_models([run.info.experiment_id])] == ["doubler"]
for uri in ("models:/doubler@best", logged.model_uri):
    assert mlflow.pyfunc.load_model(uri).predict([[2]]) is not None
client.delete_run(run.info.run_id)
client.restore_run(run.info.run_id)
client.delete_experiment(client.create_experiment("passing"))
"""


@pytest.mark.slow
def test_mlflows_client_logs_searches_loads_and_registers_as_ever(served, tmp_path):
    address, headers = served
    user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD} if headers else {}
    words = [sys.executable, "-c", CLIENT, address]
    answer = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **user})
    assert answer.returncode == 0, answer.stderr
