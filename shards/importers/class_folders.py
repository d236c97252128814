"""A folder for each class: live/… and one for each kind of attack, or one for all: print/…, replay/…, spoof/….

Folders of splits may come before them (train/live/…, valid/spoof/…): they become the column split.

--live NAME …             the folders of live people (default: live, real, genuine, bonafide, bona_fide, client)
--subject-pattern REGEX   its first group, searched in a video's path, is the person: '^[^/]+/([^/]+)/'
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from livetrain.core.errors import UserError
from shards.importers.layout import Options, Row, attack
from shards.videos import find_videos

OPTIONS = ("live", "subject_pattern")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
LIVE_FOLDERS = ("live", "real", "genuine", "bonafide", "bona_fide", "client")


def rows(root: Path, options: Options) -> Iterator[Row]:
    live = {name.lower() for name in options.live or LIVE_FOLDERS}
    try:
        pattern = re.compile(options.subject_pattern)
    except re.error as error:
        raise UserError(f"--subject-pattern {options.subject_pattern}: no regular expression ({error})") from None
    if options.subject_pattern and not pattern.groups:
        raise UserError(f"--subject-pattern {options.subject_pattern}: has no group; put ( ) around the person's name")
    videos = [video for video in find_videos(root, "ROOT") if "/" in video]
    firsts = {video.partition("/")[0] for video in videos}
    split_of = {name: SPLITS[name.lower()] for name in firsts if name.lower() in SPLITS}
    is_below = bool(firsts) and len(split_of) == len(firsts)
    if is_below:
        bare = [video for video in videos if video.count("/") < 2]
        if bare:
            raise UserError(f"ROOT {root}: {bare[0]} is in a folder of a split, but in none of a class, such as live")
    classes = {video.split("/")[is_below] for video in videos}
    if not {name.lower() for name in classes} & live:
        raise UserError(
            f"ROOT {root}: none of its folders ({', '.join(sorted(classes)) or 'it has none'}) is one of live people "
            f"({', '.join(sorted(live))}); name it with --live. Classes are the first "
            "folders, or the ones below train, dev and test"
        )
    for video in videos:
        first, folder = video.split("/")[0], video.split("/")[is_below]
        is_live = folder.lower() in live
        match = pattern.search(video) if options.subject_pattern else None
        subject = (match[1] or "") if match else ""  # a group that is optional may be of nothing
        if options.subject_pattern and not subject:
            raise UserError(f"ROOT {root}: --subject-pattern finds no person in {video}")
        split = split_of[first] if is_below else ""
        yield Row(video, float(is_live), subject, attack(is_live, folder), split=split)
