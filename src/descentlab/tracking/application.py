"""The web application of `descentlab ui` and `descentlab server`: MLflow's, behind a list of the routes that are open.

MLflow's application can also run commands and send requests of its own: an assistant with a shell, gateways to language
models, jobs, webhooks. Its password protects only a part of them. Every path that is not listed here is answered with
status 403 before MLflow sees the request, so a route that a later MLflow adds is closed until it is listed.
"""

import os
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Callable[[], Awaitable[Any]], Send], Awaitable[None]]

CLOSED = b"descentlab: this route is closed; docs/scale.md lists the open ones\n"
OPEN = {
    "artifacts": {"list"},
    "experiments": {
        *("create", "delete", "delete-experiment-tag", "get", "get-by-name", "restore", "search", "search-datasets"),
        *("set-experiment-tag", "update"),
    },
    "metrics": {"get-history", "get-history-bulk", "get-history-bulk-interval"},
    "model-versions": {
        *("create", "delete", "delete-tag", "get", "get-download-uri", "search", "set-tag", "transition-stage"),
        "update",
    },
    "registered-models": {
        *("alias", "create", "delete", "delete-tag", "get", "get-latest-versions", "rename", "search", "set-tag"),
        "update",
    },
    "runs": {
        *("create", "delete", "delete-tag", "get", "log-batch", "log-inputs", "log-metric", "log-model"),
        *("log-parameter", "outputs", "restore", "search", "set-tag", "update"),
    },
    "users": {"create", "create-ui", "current", "delete", "get", "list", "update-admin", "update-password"},
}

# Runs in the browser before MLflow's script: it starts in the view for training runs with the assistant's panel closed,
# and shows no error because the gateway, whose endpoints the runs' page asks for, is closed.
PAGE_SETTINGS = """<script>
for (const [key, value] of Object.entries({
  "mlflow.workflowType_v1": JSON.stringify("machine_learning"),
  "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
  "mlflow.assistant.panelOpen_v1": "false",
})) localStorage.getItem(key) ?? localStorage.setItem(key, value);
const request = window.fetch;
window.fetch = (address, ...more) => String(address).includes("/mlflow/gateway-proxy?")
  ? Promise.resolve(new Response(JSON.stringify({endpoints: []}))) : request(address, ...more);
</script>"""


def is_open(path: str) -> bool:
    """Whether a decoded path leads to one of the open routes; the comparison is exact."""
    root, *segments = path.split("/")
    if root or (path != "/" and {"", ".", ".."} & set(segments)):
        return False
    match segments:
        case ["" | "health" | "version" | "graphql" | "get-artifact" | "signup"] | ["model-versions", "get-artifact"]:
            return True
        case ["static-files", _, *_]:
            return True
        case ["api" | "ajax-api", "3.0", "mlflow", "server-info"]:
            return True
        case ["api" | "ajax-api", "2.0", "mlflow-artifacts", "artifacts" | "mpu" | "presigned", *_]:
            return True  # the rest is the name of a file, whatever it is
        case ["api" | "ajax-api", "2.0", "mlflow", "logged-models", *rest]:
            return (
                len(rest) < 2
                or rest[1:] in (["params"], ["artifacts", "directories"], ["artifacts", "files"])
                or (rest[1] == "tags" and len(rest) < 4)
            )
        case ["api" | "ajax-api", "2.0", "mlflow", area, name]:
            return name in OPEN.get(area, ())
    return False


def only_open(application: Application) -> Application:
    """Wrap an ASGI application so that it sees requests to open routes only; all others are answered with 403."""

    async def guarded(scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and is_open(scope["path"])):
            await application(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(CLOSED)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": CLOSED})
        else:
            await send({"type": "websocket.close", "code": 1008})

    return guarded


def create(uri: str, artifacts: str, passwords: bool = False) -> Application:
    """Create MLflow's application over a store, behind the list of open routes.

    Args:
        uri: address of the store; its tables are created or upgraded.
        artifacts: address of the folder of the artifacts that the server keeps.
        passwords: whether users must sign in.
    """
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"  # else authentication covers the Flask half of the routes only
    from mlflow.server import app as flask_app
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores

    root = "mlflow-artifacts:/"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: root,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    initialize_backend_stores(uri, uri, root)
    flask_app.view_functions["serve"] = lambda: _page(Path(flask_app.static_folder))
    if passwords:
        from mlflow.server.auth import create_app

        return only_open(create_app())
    from mlflow.server.fastapi_app import app

    return only_open(app)


def _page(folder: Path) -> str:
    """MLflow's page with the settings of the browser before its first script."""
    return (folder / "index.html").read_text(encoding="utf-8").replace("<head>", f"<head>{PAGE_SETTINGS}", 1)


def main() -> None:
    """Serve on 127.0.0.1; the words are the port, the address of the artifacts, and `passwords` or nothing."""
    import uvicorn  # before MLflow, which leaves its check of the Host header out where no server is loaded

    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()  # end with the parent
    port, artifacts, *more = sys.argv[1:]
    application = create(os.environ["MLFLOW_BACKEND_STORE_URI"], artifacts, more == ["passwords"])
    uvicorn.run(application, port=int(port), ws="none", access_log=False, timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
