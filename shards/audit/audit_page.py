"""audit.html: the findings with pictures, as one file that needs no network, for a browser or a phone."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.audit import copies as copying
from shards.audit import outliers, probes
from shards.audit.audit_tables import SHARES, tables
from shards.audit.copies import Copy
from shards.audit.findings import WITHIN, Findings, counts, splits, summary, where
from shards.audit.look_table import LookTable

MAX_PAIRS = 30  # of each kind
MAX_GROUPS = 12
MAX_OF_GROUP = 8  # pictures
MAX_OUTLIERS = 16  # pictures of each kind
SHEET = 12  # pictures of a contact sheet
MAX_SHEETS = 24  # of people, of devices: the largest


def page(findings: Findings, looks: LookTable) -> str:
    """The page, with small pictures of the clips that it names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    clips = findings.clips

    def shown(row: int) -> dict[str, Any]:
        facts = (clips.kinds[row] or "unlabelled", clips.people[row], clips.words["split"][row])
        picture = base64.b64encode(looks.picture(row)).decode()
        return {"name": clips.name(row), "facts": [str(fact) for fact in facts if fact], "picture": picture}

    environment = Environment(
        loader=PackageLoader("shards.audit", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    groups = copying.groups(findings.copies)
    return environment.get_template("audit.html.j2").render(
        folders=[str(folder) for folder in clips.folders],
        num_clips=len(clips),
        num_compared=findings.num_compared,
        summary=summary(findings),
        counts=counts(findings),
        pairs=[(name, len(of), [_pair(pair, shown) for pair in of[:MAX_PAIRS]]) for name, of in _by_place(findings)],
        groups=[(len(rows), [shown(row) for row in rows[:MAX_OF_GROUP]]) for rows in groups[:MAX_GROUPS]],
        num_groups=len(groups),
        alike=findings.same_person,
        people=[
            {"pair": pair, "across": splits(clips, pair.first, pair.second)}
            | {"clips": [shown(pair.first), shown(pair.second)]}
            for pair in findings.same_person.pairs[:MAX_PAIRS]
        ],
        probes=findings.probes,
        meaning=probes.MEANING,
        flagged=probes.FLAGGED,
        outliers=[
            (kind, outliers.MEANING[kind], len(rows), [shown(row) for row in rows[:MAX_OUTLIERS]])
            for kind, rows in findings.outliers.items()
        ],
        shares=[f"{100 * share:g} %" for share in SHARES],
        tables=tables(findings),
        sheets=_sheets(findings, shown),
    )


def _by_place(findings: Findings) -> list[tuple[str, list[Copy]]]:
    """Pairs that matter by what makes them so; those within a split are shown as groups alone."""
    found: dict[str, list[Copy]] = {}
    for pair in findings.copies:
        found.setdefault(where(findings.clips, pair), []).append(pair)
    return [(name, pairs) for name, pairs in found.items() if name != WITHIN]


def _pair(pair: Copy, shown: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    how = ", ".join(word for word in (pair.kind, pair.how) if word)
    return {"how": how, "clips": [shown(pair.first), shown(pair.second)]}


def _sheets(
    findings: Findings, shown: Callable[[int], dict[str, Any]]
) -> list[tuple[str, list[tuple[str, int, list[dict[str, Any]]]], int]]:
    """Contact sheets by kind, person and device: (by what, [(name, clips, pictures)], how many more there are)."""
    clips = findings.clips
    found = []
    for title, words in (("kind", clips.kinds), ("person", clips.people), ("device", clips.words["device"])):
        names, sizes = np.unique(words[words != ""].astype(str), return_counts=True)
        if not len(names):
            continue
        order = np.argsort(-sizes, kind="stable")
        sheets = []
        for name, size in [(str(names[i]), int(sizes[i])) for i in order[:MAX_SHEETS]]:
            rows = _spread(np.flatnonzero(words == name), SHEET if title != "person" else SHEET // 2)
            sheets.append((name, size, [shown(row) for row in rows]))
        found.append((title, sheets, max(0, len(names) - MAX_SHEETS)))
    return found


def _spread(rows: NDArray[np.int64], count: int) -> Sequence[int]:
    """`count` of the rows, evenly over them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))].tolist()
