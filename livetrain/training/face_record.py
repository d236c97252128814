"""How the faces of a run were found, kept in its folder: a run sees the same boxes from its first to its last step."""

from __future__ import annotations

from livetrain.config import Config
from livetrain.core.errors import UserError
from livetrain.core.files import write_json
from livetrain.data import Dataset, face_tracks
from livetrain.tracking.run_dir import RunDir


def keep(run: RunDir, config: Config, dataset: Dataset) -> None:
    """Write faces.json of a run with data.crop=face.

    Raises UserError where the run has begun with other faces, or its shards have none.
    """
    if config.data.crop != "face":
        return
    record = {**dataset.faces.about, "sha256": [item["sha256"] for item in dataset.faces.found_by]}
    if not run.faces.exists():
        write_json(run.faces, record)
        return
    before = run.read_faces()
    if before != record:
        raise UserError(
            f"{run.path} was begun with faces found by {face_tracks.describe(before)}, and faces.arrow has changed "
            f"since ({face_tracks.describe(record)}); put the old one back, or start another run (run_dir=…)"
        )
