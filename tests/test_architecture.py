"""The direction of imports, and that there is no circle anywhere."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "sessions_app": {"sessions_app"},
    "agents_app": {"agents_app", "sessions_app"},
    "runtime_project": {"runtime_project", "agents_app", "sessions_app"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path], *, top_level_only: bool) -> set[str]:
    """The modules of ours that this one imports; inside functions too, unless `top_level_only`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            )
    return {target for target in found if target.split(".")[0] in MAY_IMPORT and target != name}


def test_imports_point_one_way_only() -> None:
    known = modules()
    wrong = [
        f"{name} imports {target}"
        for name, path in known.items()
        for target in imports(name, path, known, top_level_only=False)
        if target.split(".")[0] not in MAY_IMPORT[name.split(".")[0]]
    ]
    assert wrong == []


def test_there_is_no_circle_of_imports() -> None:
    known = modules()
    graph = {name: imports(name, path, known, top_level_only=True) & set(known) for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_sessions_app_alone_has_tables() -> None:
    assert not (ROOT / "agents_app" / "models.py").exists()
    assert not (ROOT / "agents_app" / "migrations").exists()
