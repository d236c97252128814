"""What the network is shown of a clip, made in worker processes: without torch, which takes each seconds to import."""

from __future__ import annotations

from dataclasses import dataclass

from shards.faces.blazeface import Look, looked_at
from shards.faces.find import ClipTask, Found, pictures_of
from shards.faces.track import shrunk


@dataclass(frozen=True)
class Prepared:
    """What the network is shown of a clip, a Look for each frame, and the height and width of what is looked at."""

    looks: list[Look]
    shapes: list[tuple[int, ...]]

    @property
    def num_pictures(self) -> int:
        """Of all frames and parts."""
        return sum(len(look.pixels) for look in self.looks)


def prepare(task: ClipTask) -> Prepared | Found:
    """Decode and shrink: the task of a worker process. Found, with the reason, if the clip does not decode."""
    pictures = pictures_of(task)
    if isinstance(pictures, Found):
        return pictures
    small = [shrunk(picture) for picture in pictures]
    looks = [looked_at(picture, task.options.upsample) for picture in small]
    return Prepared(looks, [picture.shape for picture in small])
