"""Every key with its default and meaning, from the docstrings under the fields."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from pathlib import Path
from types import ModuleType

from livetrain.config import augment, schema
from livetrain.config.schema import Config, default_of, known_keys


def describe_keys() -> str:
    """Every key with its default and meaning, a line each: the docstrings under the fields of this module."""
    meanings: dict[tuple[str, str], str] = {}
    for node in itertools.chain(*map(_classes, (augment, schema))):
        for item, after in itertools.pairwise(node.body):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                assert isinstance(item.target, ast.Name)
                meanings[node.name, item.target.id] = str(after.value.value)
    sections = {item.name: type(getattr(Config(), item.name)).__name__ for item in dataclasses.fields(Config)}
    lines = []
    for key, item in known_keys().items():
        section, _, name = key.rpartition(".")
        value = default_of(key)
        default = "" if value in ("", []) else f"={str(value).lower() if item.type == 'bool' else value}"
        allowed = item.metadata.get("allowed")
        lines.append(
            f"{key + default:<40} {meanings[sections[section] if section else 'Config', name]}"
            + (f" ({', '.join(allowed)})" if allowed else "")
        )
    return "\n".join(lines)


def _classes(module: ModuleType) -> list[ast.ClassDef]:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]
