"""The clips under audit, of one or more shard folders, as columns."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from livetrain.core.columns import objects, whole
from livetrain.core.errors import UserError
from shards.format import index_table, manifest

Words = NDArray[Any]  # of str
WORDS = ("video", "attack_type", "subject", "session", "device", "domain", "split", "codec", "pixel_format", "sha256")
NUMBERS = ("label", "num_frames", "fps", "duration_seconds", "width", "height", "rotation", "size")


@dataclass(frozen=True)
class Clips:
    """n clips, those of a folder one after the other.

    folders: given ones. contents: their dataset.json. index: all rows of index.arrow. folder: int [n], into folders.
    words, numbers: columns of the index, object or float64 [n], not to be changed: what follows is kept.
    """

    folders: Sequence[Path]
    contents: Sequence[dict[str, Any]]
    index: pa.Table
    folder: NDArray[np.int64]
    words: dict[str, Words]
    numbers: dict[str, NDArray[np.float64]]

    @staticmethod
    def read(folders: Sequence[Path]) -> Clips:
        """Raises UserError when a folder is not a finished build, or is given twice."""
        if len({folder.resolve() for folder in folders}) < len(folders):
            raise UserError("a folder is given twice; each clip would be its own copy")
        contents, tables = [], []
        for folder in folders:
            try:
                contents.append(manifest.read(folder))
            except ValueError as error:
                raise UserError(f"{folder / manifest.FILE_NAME}: damaged ({error}); build the shards again") from None
            tables.append(index_table.read(folder / index_table.FILE_NAME))
        index = pa.concat_tables(tables)
        return Clips(
            folders,
            contents,
            index,
            np.repeat(np.arange(len(folders)), [len(table) for table in tables]),
            {name: objects(whole(index[name].unify_dictionaries())) for name in WORDS},
            {name: index[name].to_numpy().astype(np.float64) for name in NUMBERS},
        )

    def __len__(self) -> int:
        return len(self.folder)

    @functools.cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which are of live people; clips without a label (NaN) are not."""
        return self.numbers["label"] >= 0.5

    @functools.cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """Which have a label."""
        return ~np.isnan(self.numbers["label"])

    @functools.cached_property
    def kinds(self) -> Words:
        """live, or the attack type; "" without a label."""
        kinds = np.where(self.live, "live", self.words["attack_type"])
        return np.where(self.labelled, kinds, "").astype(object)

    @functools.cached_property
    def people(self) -> Words:
        """Who is in a clip, "domain/subject", where a folder without a domain stands for one; "" when unknown."""
        domains = self.words["domain"].copy()
        for number in range(len(self.folders)):
            domains[(self.folder == number) & (domains == "")] = self.folder_names[number]
        found = np.array([f"{d}/{s}" for d, s in zip(domains, self.words["subject"], strict=True)], object)
        return np.where(self.words["subject"] == "", "", found).astype(object)

    @functools.cached_property
    def folder_names(self) -> list[str]:
        """A short name of each folder, its last part, with a number where two have the same."""
        names = [folder.resolve().name for folder in self.folders]
        return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]

    def name(self, row: int) -> str:
        """The video of a clip, with its folder's name where there are several."""
        video = str(self.words["video"][row])
        return video if len(self.folders) == 1 else f"{self.folder_names[self.folder[row]]}: {video}"
