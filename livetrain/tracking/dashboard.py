"""The dashboard of a W&B project, from its definition in livetrain/tracking/dashboard.yaml.

    livetrain dashboard PROJECT [--entity TEAM] [--definition FILE.yaml] [--print]

Saves a workspace view that shows loss, dev metrics, time waiting for data, the GPU and its video decoder, and verdicts
of all runs of the project, and prints its address. --print prints it as JSON and needs neither key nor network.
Needs the package wandb-workspaces: pip install 'livetrain[dashboard]'.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from livetrain.config.load import read_mapping
from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError, first_line

DEFINITION = Path(__file__).parent / "dashboard.yaml"
KINDS: dict[str, type] = {"lines": dict, "numbers": dict, "tables": list, "pictures": list}
COLUMNS = 3  # of panels in a section


def parser() -> Parser:
    """The command line of `livetrain dashboard`."""
    parser = Parser("dashboard", __doc__)
    parser.add_argument("project", help="the W&B project, as tracking.project")
    parser.add_argument("--entity", default="", help="the W&B team or user; default: the key's own")
    parser.add_argument("--definition", type=Path, default=DEFINITION, metavar="FILE.yaml", help="another dashboard")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print it as JSON, save nothing")
    return parser


def main(arguments: list[str]) -> int:
    """The command line. Returns the exit code."""
    options = parser().parse(arguments)
    found = read(options.definition)
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("livetrain dashboard needs the package wandb-workspaces: pip install 'livetrain[dashboard]'")
    if options.only_print:
        print(workspace(found, options.project, options.entity)._to_model().model_dump_json(indent=2))
        return 0
    import wandb

    try:
        entity = options.entity or wandb.Api().default_entity or ""
        print(workspace(found, options.project, entity).save().url)
    except Exception as error:  # whatever W&B raises without a key, a network or the right to write there
        raise UserError(f"W&B did not take the dashboard ({type(error).__name__}: {first_line(error)})") from None
    return 0


def read(path: Path) -> dict[str, Any]:
    """A definition: {name, sections: [{name, and of `KINDS` what it shows}]}. Raises UserError."""
    found = read_mapping(path, "--definition", missing=f"{DEFINITION} is one to copy")
    if not found.get("name") or not isinstance(found.get("sections"), list):
        raise UserError(f"--definition {path}: needs `name:` and a list `sections:`, as {DEFINITION} has them")
    for section in found["sections"]:
        if not isinstance(section, dict):
            raise UserError(f"--definition {path}: {section!r} is no section; it has name, {', '.join(KINDS)}")
        unknown = set(section) - {"name", *KINDS}
        if "name" not in section or unknown:
            what = f"knows no {min(unknown)!r}" if unknown else "lacks its name"
            raise UserError(f"--definition {path}: a section {what}; it has name, {', '.join(KINDS)}")
        for kind, wanted in KINDS.items():
            if not isinstance(section.get(kind, wanted()), wanted):
                shape = "`title: figure` lines" if wanted is dict else "a list"
                raise UserError(f"--definition {path}: {kind} of section {section['name']!r} must be {shape}")
    return found


def figures(definition: Mapping[str, Any]) -> Iterator[str]:
    """Every figure, table and picture that the dashboard shows, by W&B's name."""
    for section in definition["sections"]:
        for names in section.get("lines", {}).values():
            yield from names
        yield from section.get("numbers", {}).values()
        for kind in ("tables", "pictures"):
            yield from section.get(kind, [])


def workspace(definition: Mapping[str, Any], project: str, entity: str) -> Any:
    """The definition as a wandb_workspaces.workspaces.Workspace, not saved yet."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    sections = []
    for section in definition["sections"]:
        shown: list[Any] = [
            panels.LinePlot(title=title, x="step", y=list(names)) for title, names in section.get("lines", {}).items()
        ]
        shown += [
            panels.ScalarChart(title=title, metric=panels.SummaryMetric(name))
            for title, name in section.get("numbers", {}).items()
        ]
        shown += [panels.WeavePanelSummaryTable(table_name=name) for name in section.get("tables", [])]
        shown += [panels.MediaBrowser(title=name, media_keys=[name]) for name in section.get("pictures", [])]
        layout = workspaces.SectionLayoutSettings(columns=COLUMNS, rows=-(-len(shown) // COLUMNS))
        sections.append(workspaces.Section(section["name"], shown, is_open=True, layout_settings=layout))
    return workspaces.Workspace(entity=entity, project=project, name=definition["name"], sections=sections)
