"""What all importers share: the row of a video, the options, and the search for files that are named as published."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from livetrain.core.errors import UserError
from shards.labels import LIVE
from shards.split import UNUSED
from shards.videos import find_videos

__all__ = ["UNUSED", "Options", "Row", "attack", "matching", "only_protocols", "read_list"]


@dataclass(frozen=True)
class Row:
    """A video of a data set. `video`: POSIX path below the video folder; label in [0, 1], live = 1; "" = not known."""

    video: str
    label: float
    subject: str = ""
    attack_type: str = ""
    session: str = ""
    device: str = ""
    split: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Options:
    """What a user may say of an import. A layout lists in OPTIONS those that it reads; others are refused."""

    protocol: str = ""
    fold: int = 0
    columns: dict[str, str] = field(default_factory=dict)  # table: field of a row → column of the file
    invert: bool = False
    live: Sequence[str] = ()
    subject_pattern: str = ""
    clips: Path | None = None
    clip_frames: int = 0


def matching(root: Path, pattern: str, example: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The videos below `root` whose path ends as `pattern` says (a regular expression, case ignored), with the match.

    Raises UserError when there is none: `example` says what was looked for.
    """
    compiled = re.compile(rf"(?:^|.*?/){pattern}$", re.IGNORECASE)  # as few folders before as can be: none is swallowed
    found = [(video, match) for video in find_videos(root, "ROOT") if (match := compiled.match(video))]
    if not found:
        raise UserError(f"ROOT {root}: no video there has a name like {example}; is it another layout?")
    yield from found


def only_protocols(options: Options, known: Sequence[str]) -> str:
    """The protocol asked for, the first of `known` when none was. Raises UserError for another."""
    protocol = options.protocol or known[0]
    if protocol not in known:
        raise UserError(f"--protocol {protocol}: this layout has {', '.join(known)}")
    return protocol


def attack(is_live: bool, kind: str) -> str:
    """The attack type of a row."""
    return LIVE if is_live else kind


def read_list(root: Path, names: Sequence[str]) -> tuple[Path, list[str]] | None:
    """(path, words) of the first of the text files `names` found anywhere below `root`.

    Words are separated by spaces, commas or lines; None when there is no such file. Raises UserError for a file that is
    no text.
    """
    for name in names:
        for path in sorted(root.rglob(name)):
            return path, re.split(r"[\s,;]+", read_text(path).replace("\\", "/").strip(" \t\r\n,;"))
    return None


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 with a byte order mark, as Windows saves "Unicode". Raises UserError."""
    try:
        data = path.read_bytes()
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no UTF-8 text (see byte {error.start}); save it as UTF-8") from None
