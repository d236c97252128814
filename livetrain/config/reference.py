"""Every key with its default and meaning, from the docstrings under the fields.

python -m livetrain.config.reference > docs/train/configuration.md       # make docs
"""

from __future__ import annotations

import ast
import functools
import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

from livetrain.config import augment, data, domains, schema
from livetrain.config.schema import Config, default_of, known_keys

HEAD = """# Configuration reference

Made by `make docs` from the docstrings in `livetrain/config/`. Set keys in a YAML file or on the command line,
`livetrain train configs/base.yaml train.epochs=5`. [Training](training.md) shows the ones that are often changed.
"""


def describe_keys() -> str:
    """Every key with its default, meaning and allowed values, a line each."""
    lines = []
    for key, item in known_keys().items():
        default = "" if default_of(key) in ("", []) else f"={_shown(key, item)}"
        allowed = item.metadata.get("allowed")
        lines.append(f"{key + default:<40} {_meaning(key)}" + (f" ({', '.join(allowed)})" if allowed else ""))
    return "\n".join(lines)


def markdown() -> str:
    """The reference as Markdown, a table a section."""
    parts = [HEAD]
    for section, keys in itertools.groupby(known_keys(), key=lambda key: key.rpartition(".")[0]):
        title = f"`{section}.*`: {_docstrings()[1][_section_class(section)]}" if section else "Top level"
        rows = [f"## {title}", "", "| key | default | meaning |", "|---|---|---|"]
        for key in keys:
            item = known_keys()[key]
            allowed = item.metadata.get("allowed")
            choices = f" ({', '.join(f'`{word}`' for word in allowed)})" if allowed else ""
            shown = _shown(key, item)
            rows.append(f"| `{key}` | {f'`{shown}`' if shown else ''} | {_meaning(key)}{choices} |".replace("  ", " "))
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _meaning(key: str) -> str:
    section, _, name = key.rpartition(".")
    return " ".join(_docstrings()[0][_section_class(section), name].split())


def _section_class(section: str) -> str:
    return type(getattr(Config(), section)).__name__ if section else "Config"


def _shown(key: str, item: Any) -> str:
    value = default_of(key)
    return str(value).lower() if item.type == "bool" else str(value)


@functools.cache
def _docstrings() -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """((class, field) → the docstring under it, class → the first line of its docstring)."""
    fields: dict[tuple[str, str], str] = {}
    classes: dict[str, str] = {}
    for node in itertools.chain(*map(_classes, (augment, data, domains, schema))):
        classes[node.name] = (ast.get_docstring(node) or "").splitlines()[0]
        for item, after in itertools.pairwise(node.body):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                assert isinstance(item.target, ast.Name)
                fields[node.name, item.target.id] = str(after.value.value)
    return fields, classes


def _classes(module: ModuleType) -> list[ast.ClassDef]:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]
