"""An audit from start to end: look at every clip once, compare, probe, write OUT.html, .json and .csv.

What was looked at lies in OUT.state/ until the end, so that a killed audit continues, and is removed then.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from livetrain.core.engines import ONE_PROCESS, Engine
from livetrain.core.files import write_text
from shards.audit import audit_page, audit_tables, copies, findings, fix, neighbours, outliers, people, probes
from shards.audit.clips import Clips
from shards.audit.features import features_of
from shards.audit.findings import Findings
from shards.audit.look import can_find_faces
from shards.audit.look_table import LookTable, look_at_all
from shards.faces.detector import EMBEDDING_SIZE
from shards.format import manifest


@dataclass(frozen=True)
class AuditOptions:
    """faces: whether to look for faces. embedding: a timm model for more candidates, "" for none. weights: its file.

    fix: folder for a cleaned label file, or None.
    """

    faces: bool = True
    embedding: str = ""
    weights: str = ""
    fix: Path | None = None


def audit(folders: Sequence[Path], out: Path, options: AuditOptions, *, engine: Engine = ONE_PROCESS) -> list[str]:
    """Audit shard folders; write `out` (.html) with .json and .csv beside it. Returns lines for the terminal.

    Raises UserError when a folder is not a finished build, a package is missing, or something cannot be written.
    """
    neighbours.library()
    clips = Clips.read(folders)
    engine = engine.sharing(*(folder / manifest.FILE_NAME for folder in folders))
    notices = []
    faces = options.faces and can_find_faces()
    if options.faces and not faces:
        notices.append("faces were not looked at: pip install livetrain[faces]")
    state = out.with_suffix(".state")
    looks = look_at_all(clips, state, faces=faces, engine=engine)
    found = _findings(clips, looks, options, notices, faces=faces, engine=engine)
    lines = findings.summary(found)
    if options.fix is not None:
        identified = ~np.isnan(looks.numbers("identity", EMBEDDING_SIZE)[:, 0])
        lines += fix.fix(found, identified.tolist(), options.fix)
    write_text(out, audit_page.page(found, looks))
    write_text(out.with_suffix(".json"), audit_tables.as_json(found))
    write_text(out.with_suffix(".csv"), audit_tables.as_csv(found))
    del looks  # which maps files of it: on NFS they would keep the folder
    shutil.rmtree(state, ignore_errors=True)
    return [*lines, f"{out}, {out.with_suffix('.json').name}, {out.with_suffix('.csv').name}"]


def _findings(
    clips: Clips, looks: LookTable, options: AuditOptions, notices: Sequence[str], *, faces: bool, engine: Engine
) -> Findings:
    features = features_of(looks, options.embedding, options.weights) if options.embedding else None
    same_file = copies.exact(clips)
    same_recording, num_compared = copies.near(looks, {pair.second for pair in same_file}, features, engine=engine)
    identities = looks.numbers("identity", EMBEDDING_SIZE)
    alike = people.alike(clips, identities) if faces else people.Alike(reason="faces were not looked at")
    return Findings(
        clips,
        findings.ordered(clips, [*same_file, *same_recording]),
        num_compared,
        alike,
        probes.probe_all(clips, probes.cues(clips, looks)),
        outliers.find(looks),
        looks.numbers("face_height", 1)[:, 0],
        notices,
    )
