"""The structure of src/descentlab, measured from its imports: what keeps the packages readable stays so."""

import ast
import collections
from pathlib import Path

import pytest

import descentlab

SOURCE = Path(descentlab.__file__).parent
FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
HOME = {"mlflow": "tracking", "hydra": "config", "matplotlib": "figures"}
# A package may import those of the rows below its own, whatever stands in the function or under TYPE_CHECKING.
ROWS = (("cli", "api", "studies"), ("sweeps",), ("tracking",), ("config", "figures"), ("data", "analysis"), ("nn",))
BELOW_ALL = ("values", "interrupts")
WRITING = ("cell_run", "closing", "tracker", "trained_cell", "write_queue", "writer")


def name_of(path):
    return str(path.relative_to(SOURCE))


def package_of(path):
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else path.stem


def modules_of(path):
    """The modules of the package that a file imports, as files, and the names of other packages."""
    known = {}
    for other in FILES:
        dotted = ["descentlab", *other.relative_to(SOURCE).with_suffix("").parts]
        known[".".join(dotted).removesuffix(".__init__")] = other
    inside, outside = set(), set()
    for node in ast.walk(FILES[path]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                (inside if alias.name.split(".")[0] == "descentlab" else outside).add(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] != "descentlab":
                outside.add(node.module)
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                inside.add(full if full in known else node.module)
    return {known[name] for name in inside if name in known} - {path}, {name.split(".")[0] for name in outside}


EDGES = {path: modules_of(path) for path in FILES}


def body_lines(node):
    """Lines of a function without its docstring."""
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def test_no_file_imports_itself_by_way_of_others():
    reached = {path: set(inside) for path, (inside, _) in EDGES.items()}
    for _ in FILES:  # as many steps as a way can have
        grown = {path: found.union(*(reached[other] for other in found)) for path, found in reached.items()}
        if grown == reached:
            break
        reached = grown
    assert [name_of(path) for path in FILES if path in reached[path]] == []


def test_packages_import_only_those_below_them():
    row = {package: place for place, packages in enumerate(ROWS) for package in packages}
    wrong = []
    for path, (inside, _) in EDGES.items():
        own = package_of(path)
        for other in inside:
            package = package_of(other)
            if package == own or package in BELOW_ALL or own in ("__init__", "__main__"):
                continue
            if own in BELOW_ALL or package not in row or row[package] <= row[own]:
                wrong.append(f"{name_of(path)} imports {name_of(other)}")
    assert wrong == []


def test_no_package_holds_more_than_a_quarter_of_the_source():
    lines = collections.Counter()
    for path in FILES:
        lines[package_of(path)] += len(path.read_text(encoding="utf-8").splitlines())
    package, most = lines.most_common(1)[0]
    assert most <= 0.25 * sum(lines.values()), package


def test_no_file_has_more_than_400_lines():
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_function_has_more_than_60_lines_without_its_docstring():
    functions = [
        (name_of(path), node.name, body_lines(node))
        for path, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [one for one in functions if one[2] > 60] == []


@pytest.mark.parametrize("library", HOME)
def test_a_framework_is_known_in_one_package_only(library):
    users = {package_of(path) for path, (_, outside) in EDGES.items() if library in outside}
    assert users == {HOME[library]}


def test_the_network_needs_numpy_and_what_sends_work_to_processes():
    libraries = set().union(*(outside for path, (_, outside) in EDGES.items() if package_of(path) == "nn"))
    assert libraries & {"pandas", "mlflow", "hydra", "matplotlib", "omegaconf"} == set()


def test_no_tag_or_param_of_the_store_is_read_by_its_name_outside_tracking():
    raw = []
    for path, tree in FILES.items():
        for node in ast.walk(tree) if package_of(path) != "tracking" else ():
            place = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and node.attr == "tags":
                raw.append(place)
            if isinstance(node, ast.Subscript):
                of, key = node.value, node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                of, key = node.func.value, node.args[0]
            else:
                continue
            if isinstance(of, ast.Attribute) and of.attr == "params" and isinstance(key, ast.Constant):
                raw.append(place)
    assert raw == []


def test_reading_stored_runs_does_not_import_what_writes_them():
    writing = {SOURCE / "tracking" / f"{name}.py" for name in WRITING}
    reached = {SOURCE / "tracking" / f"{name}.py" for name in ("reading", "results", "upkeep")}
    while (
        grown := {other for path in reached for other in EDGES[path][0]} - reached - {SOURCE / "tracking/__init__.py"}
    ):
        reached |= grown
    assert all(path.is_file() for path in writing)
    assert sorted(name_of(path) for path in reached & writing) == []
