"""The rooms of the code and their arrows: docs/develop/architecture.md lists what each room may import."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

REPO = Path(__file__).parents[1]
NOT_MODULES = (".json", ".py", ".sif", ".sqsh", ".yaml", ".md", ".rstrip")  # files, and a variable's method
TOP = {"cli", "train", "evaluate", "predict", "__init__", "__main__"}


def allowed() -> dict[str, list[str]]:
    """room → what it may import, from the table in the docs."""
    text = (REPO / "docs" / "develop" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| .* \| (.*) \|$", text, re.MULTILINE)
    return {room: re.findall(r"`([\w.]+)`", cell) for room, cell in rows}


def room(module: str) -> str:
    """The room of a dotted module name."""
    package, *parts = module.split(".")
    if package == "shards":
        return f"shards.{parts[0]}" if parts[:1] in (["audit"], ["format"], ["faces"]) else "shards"
    return package if not parts or parts[0] in TOP or not (REPO / package / parts[0]).is_dir() else parts[0]


def arrows() -> dict[str, set[str]]:
    """room → rooms that it imports, anywhere in its modules."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in [*REPO.glob("livetrain/**/*.py"), *REPO.glob("shards/**/*.py")]:
        own = room(".".join(path.relative_to(REPO).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{item.name}" for item in node.names]
            found[own] |= {room(name) for name in names if name.split(".")[0] in ("livetrain", "shards")} - {own}
    return found


def test_rooms_import_what_the_docs_allow_and_nothing_else() -> None:
    table = allowed()
    assert len(table) >= 15, "the table is read"
    assert {own: sorted(found) for own, found in arrows().items() if found} == {
        own: sorted(rooms) for own, rooms in table.items() if rooms
    }


def test_arrows_point_down_the_table_so_there_is_no_cycle() -> None:
    table = allowed()
    order = {own: place for place, own in enumerate(table)}
    assert [(own, other) for own, rooms in table.items() for other in rooms if order[other] <= order[own]] == []


def test_no_module_is_longer_than_400_lines() -> None:
    """Two things are in a longer one."""
    lengths = {
        str(path.relative_to(REPO)): len(path.read_text(encoding="utf-8").splitlines())
        for package in ("livetrain", "shards")
        for path in REPO.glob(f"{package}/**/*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_function_takes_more_than_8_parameters() -> None:
    """What belongs together is one object."""
    found = {}
    for package in ("livetrain", "shards"):
        for path in REPO.glob(f"{package}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef):
                    names = [item.arg for item in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                    count = len(names) - (names[:1] in (["self"], ["cls"]))
                    found |= {f"{path.name}:{node.name}": count} if count > 8 else {}
    assert found == {}


def test_no_two_modules_share_a_name_but_for_the_same_thing() -> None:
    """A bench of a thing is named like the thing; `main` is the command line of a room."""
    names: dict[str, list[str]] = defaultdict(list)
    for package in ("livetrain", "shards"):
        for path in REPO.glob(f"{package}/**/*.py"):
            if path.stem not in ("__init__", "__main__", "main") and path.parent.name != "bench":
                names[path.stem].append(str(path.relative_to(REPO)))
    same = {"cli", "augment", "check"}  # of both packages; its keys and its operators; comparisons of a room
    assert {name: paths for name, paths in names.items() if len(paths) > 1 and name not in same} == {}


def test_modules_that_are_named_exist() -> None:
    """In docstrings, scripts and docs: a name that was moved is found here."""
    wrong = set()
    texts = [
        *REPO.glob("livetrain/**/*.py"),
        *REPO.glob("shards/**/*.py"),
        *REPO.glob("slurm/*"),
        *REPO.glob("docs/**/*.md"),
    ]
    for path in [*texts, *REPO.glob("launch/*"), REPO / "Makefile", REPO / "pyproject.toml"]:
        for name in re.findall(r"(?<![\w./-])((?:livetrain|shards)(?:\.[a-z_]\w*)+)", path.read_text(encoding="utf-8")):
            package, *parts = name.split(".")
            known = max((n for n in range(len(parts) + 1) if (REPO / package).joinpath(*parts[:n]).is_dir()), default=0)
            folder, rest = (REPO / package).joinpath(*parts[:known]), parts[known:]
            module = folder / (f"{rest[0]}.py" if rest else "__init__.py")
            if rest and not module.exists() and (folder / "__init__.py").exists():
                module, rest = folder / "__init__.py", ["", *rest]
            defined = module.read_text(encoding="utf-8") if module.exists() else ""
            if not module.exists() or (len(rest) > 1 and not re.search(rf"\b{rest[1]}\b", defined)):
                wrong |= set() if name.endswith(NOT_MODULES) else {f"{path.relative_to(REPO)}: {name}"}
    assert wrong == set()


def test_an_assert_does_no_work() -> None:
    """Python leaves it out with -O or PYTHONOPTIMIZE, and what it called with it."""
    harmless = {"isinstance", "len", "all", "bool", "callable", "isfinite", "unique", "count"}
    wrong = []
    for package in ("livetrain", "shards"):
        for path in REPO.glob(f"{package}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                tests = ast.walk(node.test) if isinstance(node, ast.Assert) else []
                called = {ast.unparse(test.func).rpartition(".")[2] for test in tests if isinstance(test, ast.Call)}
                wrong += [f"{path.relative_to(REPO)}:{node.lineno}"] if called - harmless else []
    assert wrong == []
