"""Finding the video that a name in a label file is about."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from livetrain.core.columns import Places
from livetrain.core.errors import UserError
from shards.videos import VIDEO_SUFFIXES


class VideoNames:
    """Videos by their names, with or without the suffix, however letters are composed."""

    def __init__(self, videos: Sequence[str]) -> None:
        self.videos = videos
        self._by_name = Places(map(_name, videos))
        self._by_stem = Places(map(_stem, videos))

    @cached_property
    def _by_file(self) -> Places:  # for hints alone
        return Places(map(_file, self.videos))

    def match(self, name: str, where: str) -> int:
        """The place of the video among all. Raises UserError, starting with `where`, for none and for several."""
        if not name:
            raise UserError(f"{where}: the name of the video is empty")
        plain = name.removeprefix("./")
        found = [place for place in self._by_name.find(plain) if _name(self.videos[place]) == plain]
        found = found or [place for place in self._by_stem.find(plain) if _stem(self.videos[place]) == plain]
        if len(found) > 1:
            several = " or ".join(repr(self.videos[place]) for place in found)
            raise UserError(f"{where}: {name!r} could be {several}; write the suffix, or rename one")
        if not found:
            raise UserError(
                f"{where}: the video {name!r} is not in the video folder{self._hint(plain)}; add the file or remove "
                "the row"
            )
        return found[0]

    def _hint(self, plain: str) -> str:
        if PurePosixPath(plain).suffix.lower() not in (*VIDEO_SUFFIXES, ""):
            return "; its suffix is not one of a video"
        other = [place for place in self._by_file.find(_file(plain)) if _file(self.videos[place]) == _file(plain)]
        if len(other) == 1:
            return f", but {self.videos[other[0]]!r} is: write names as paths below that folder"
        return ""


def spellings(video: str) -> Iterator[str]:
    """A video's name, its letters composed, and without its suffix; each once."""
    yield from dict.fromkeys((video, _name(video), _stem(video)))


def _name(video: str) -> str:
    return unicodedata.normalize("NFC", video)


def _stem(video: str) -> str:
    return str(PurePosixPath(_name(video)).with_suffix(""))


def _file(video: str) -> str:
    return PurePosixPath(_name(video)).name
