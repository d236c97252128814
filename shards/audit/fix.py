"""`shards audit --fix OUT`: a label file without the faults that can be mended, and lists of what was done and left.

    label.csv       for `shards build --labels`: one of each set of copies, people under one name
    dropped.csv     copies that were left out, each with the clip that is kept
    conflicts.csv   copies whose labels contradict: all left out, for a person to decide; rows of a label file
    people.csv      who was joined under one name, who may be one person and was not

With several folders each has a folder of its own in OUT. Nobody's label is ever changed.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from livetrain.core.disjoint_sets import DisjointSets
from livetrain.core.errors import UserError
from livetrain.core.files import write_text
from shards.audit import copies as copying
from shards.audit.clips import Clips
from shards.audit.findings import Findings, contradict
from shards.audit.people import MERGED

LABELS = ("fname", "liveness_score", "attack_type", "subject", "session", "device", "domain")


def fix(findings: Findings, identified: Sequence[bool], out: Path) -> list[str]:
    """Write the files of the docstring; lines that say what was done.

    identified: of each clip, whether its face could be compared. Raises UserError when `out` cannot be written.
    """
    clips = findings.clips
    names, joined = _people(findings, identified)
    conflicts = _conflicts(findings)
    kept_for = _dropped(findings, {row for rows in conflicts for row in rows})
    lines = []
    for number in range(len(clips.folders)):
        target = out if len(clips.folders) == 1 else out / _safe(clips.folder_names[number])
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--fix {target}: cannot make this folder: {error.strerror or error}") from error
        own = set(np.flatnonzero(clips.folder == number).tolist())
        undecided = [(place + 1, row) for place, rows in enumerate(conflicts) for row in rows if row in own]
        dropped = [row for row in sorted(kept_for) if row in own]
        left = sorted(own - set(dropped) - {row for _, row in undecided})
        labels = [_label(clips, row, names) for row in left if clips.labelled[row]]
        people = [line for line in joined if clips.folder[line["row"]] == number]
        write_text(target / "label.csv", _table(labels, [name for name in LABELS if _used(name, labels)]))
        write_text(
            target / "dropped.csv",
            _table(
                ({"fname": clips.words["video"][row], "kept": clips.name(kept_for[row][0]), "why": kept_for[row][1]}
                 for row in dropped),
                ["fname", "kept", "why"],
            ),
        )  # fmt: skip
        write_text(
            target / "conflicts.csv",
            _table(({**_label(clips, row, names), "conflict": str(place)} for place, row in undecided),
                   [*LABELS, "conflict"]),
        )  # fmt: skip
        write_text(target / "people.csv", _table(people, ["first", "second", "likelihood", "why", "joined"]))
        unlabelled = len(left) - len(labels)
        num_joined = sum(line["joined"] == "yes" for line in people)
        lines.append(
            f"{target}: label.csv with {len(labels):,} clips; {len(dropped):,} copies dropped, "
            f"{len(undecided):,} clips in conflict left out, {num_joined:,} pairs of names joined"
            + (f", {unlabelled:,} clips without a label left out" if unlabelled else "")
        )
        if undecided:
            lines.append(f"{target / 'conflicts.csv'}: decide, and move the right rows to label.csv")
        lines.append(
            f"next: python -m shards build --videos VIDEOS --labels {target / 'label.csv'} --skip-unlabelled --out DIR"
        )
    return lines


def _conflicts(findings: Findings) -> list[list[int]]:
    """Groups of copies in which two contradict each other: what any of them is, is not known then."""
    clips = findings.clips
    pairs = [pair for pair in findings.copies if contradict(clips, pair.first, pair.second)]
    bad = {row for pair in pairs for row in (pair.first, pair.second)}
    return [rows for rows in copying.groups(findings.copies) if bad & set(rows)]


def _dropped(findings: Findings, excluded: set[int]) -> dict[int, tuple[int, str]]:
    """Copies to leave out → (the clip that is kept for each, why).

    The largest and longest of a set is kept, of the first folder; a clip goes only if it is itself a copy of a kept
    one: of a long recording cut into overlapping parts, parts that share nothing both stay.
    """
    clips = findings.clips
    files: dict[int, list[int]] = defaultdict(list)  # first row of a file → its other rows
    for pair in findings.copies:
        if pair.kind == copying.EXACT and pair.first not in excluded:
            files[pair.first].append(pair.second)

    def stands_for(first: int) -> int | None:
        """Of the rows of a file the first that has a label."""
        return next((row for row in (first, *sorted(files.get(first, ()))) if clips.labelled[row]), None)

    pairs = defaultdict(list)
    for pair in findings.copies:
        one, other = stands_for(pair.first), stands_for(pair.second)
        if pair.kind == copying.NEAR and pair.first not in excluded and one is not None and other is not None:
            pairs[one].append((other, pair))
            pairs[other].append((one, pair))

    def worth(row: int) -> tuple[float, ...]:
        numbers = clips.numbers
        pixels = numbers["width"][row] * numbers["height"][row]
        return (clips.folder[row], -pixels * numbers["num_frames"][row], row)

    kept: set[int] = set()
    dropped: dict[int, tuple[int, str]] = {}
    for row in sorted(pairs, key=worth):
        same = [(other, pair) for other, pair in pairs[row] if other in kept]
        if same:
            other, pair = min(same, key=lambda found: worth(found[0]))
            dropped[row] = (other, ", ".join(word for word in (pair.kind, pair.how) if word))
        else:
            kept.add(row)
    for first, rows in files.items():
        stands = stands_for(first)
        for row in (first, *rows):
            if stands is not None and row != stands and clips.labelled[row]:
                dropped[row] = (dropped[stands][0] if stands in dropped else stands, copying.EXACT)
    return dropped


def _people(findings: Findings, identified: Sequence[bool]) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """The name of the person in each clip (row → subject), and a line for each two who are or may be one.

    Names are joined within a folder and domain alone: the same name in two domains is two people to a build. Clips
    without a name get one where any clip of their folder has one, or faces were compared.
    """
    clips = findings.clips
    same: DisjointSets[tuple[int, str, str]] = DisjointSets(key=lambda who: (who[2].startswith("\0"), who))

    def key(row: int) -> tuple[int, str, str]:
        who = str(clips.words["subject"][row])
        return int(clips.folder[row]), str(clips.words["domain"][row]), who or f"\0{row}"

    lines = []
    found = [(pair.first, pair.second, 1.0, pair.kind) for pair in findings.copies]
    found += [(pair.first, pair.second, pair.likelihood, "faces") for pair in findings.same_person.pairs]
    for first, second, likelihood, why in found:
        one, other = key(first), key(second)
        if one == other:
            continue
        may = one[:2] == other[:2]
        join = may and likelihood >= MERGED
        if join:
            same.join(one, other)
        lines.append(
            {
                "row": first, "first": clips.people[first] or clips.name(first), "likelihood": f"{likelihood:.2f}",
                "second": clips.people[second] or clips.name(second), "why": why,
                "joined": "yes" if join else "no: not likely enough" if may else "no: in two data sets",
            }
        )  # fmt: skip
    named = {int(clips.folder[row]) for row in range(len(clips)) if clips.words["subject"][row]}
    names: dict[int, str] = {}
    for row in range(len(clips)):
        who = same.root(key(row))[2]
        if who.startswith("\0"):
            who = f"person-of-clip-{int(who[1:]) + 1}" if int(clips.folder[row]) in named or identified[row] else ""
        names[row] = who
    for number in range(len(clips.folders)):
        rows = np.flatnonzero(clips.folder == number).tolist()
        if any(names[row] for row in rows):  # a column subject has a name in each row
            names |= {row: names[row] or f"person-of-clip-{row + 1}" for row in rows}
    once = {(line["first"], line["second"], line["why"]): line for line in reversed(lines)}
    return names, list(reversed(once.values()))


def _label(clips: Clips, row: int, names: Mapping[int, str]) -> dict[str, str]:
    words = {name: str(clips.words[name][row]) for name in ("attack_type", "session", "device", "domain")}
    score = f"{clips.numbers['label'][row]:.6g}"
    return {"fname": str(clips.words["video"][row]), "liveness_score": score, "subject": names[row], **words}


def _used(name: str, rows: Sequence[Mapping[str, str]]) -> bool:
    return name in LABELS[:2] or any(row[name] for row in rows)


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _safe(name: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in name)
