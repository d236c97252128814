"""SiW-Mv2, Spoof in the Wild with multiple attacks: 785 live videos, and 915 of 14 kinds of attack.

    Live/Live_1.mov    Spoof/<kind>/<name>_1.mov, such as Spoof/Mask_HalfMask/Mask_Half_12.mov

The files do not say who is in them, so a split by people cannot be made: `shards audit` finds candidates for the same
person, and a label file with them can be built. Kinds are named as the folders, in lower case (Paper is print).
Source: Guo, Liu, Jain, Liu, "Multi-domain learning for updating face anti-spoofing models", ECCV 2022, and the
authors' description of the folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.importers.layout import Options, Row, attack, matching

OPTIONS = ()


def rows(root: Path, options: Options) -> Iterator[Row]:
    pattern = r"(?:(Live)/(?:Train/|Test/)?|Spoof/([A-Z_]+)/)[^/]+\.\w+"
    for video, found in matching(root, pattern, "Spoof/Mask_HalfMask/Mask_Half_1.mov"):
        is_live = found[1] is not None
        kind = "" if is_live else found[2].lower()
        yield Row(video, float(is_live), "", attack(is_live, "print" if kind in ("paper", "print") else kind))
