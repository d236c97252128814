"""ROSE-Youtu: 3350 videos of 20 people, by five phones. No splits: `shards build` makes them by people.

    <anything>/L_S_D_x_E_p_N.mp4, such as 2/G_NT_5s_wg_B_2_1.mp4
    L  G genuine; Ps, Pq still and quivering print; Vl, Vm replay on a Lenovo and a Mac screen; Mc, Mf, Mu paper mask:
       cropped, whole, upper part    S  T talking, NT not    D  phone: HS, HW, IP, 5s, ZTE    x  g glasses, wg none
    E  background    p  person    N  number

Source: Li, Li, Wang, Cao, Kot, "Unsupervised domain adaptation for face anti-spoofing", IEEE TIFS 2018, and the data
set's web page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.importers.layout import Options, Row, attack, matching

OPTIONS = ()
KINDS = {
    "g": "live", "ps": "print_still", "pq": "print_quivering", "vl": "replay_lenovo", "vm": "replay_mac",
    "mc": "mask_cropped", "mf": "mask_whole", "mu": "mask_upper",
}  # fmt: skip


def rows(root: Path, options: Options) -> Iterator[Row]:
    pattern = r"(G|Ps|Pq|Vl|Vm|Mc|Mf|Mu)_(T|NT)_([A-Z0-9]+)_(g|wg)_([A-Z0-9]+)_(\d+)_\d+\.\w+"
    for video, found in matching(root, pattern, "2/G_NT_5s_wg_B_2_1.mp4"):
        kind = KINDS[found[1].lower()]
        is_live = kind == "live"
        yield Row(video, float(is_live), found[6], attack(is_live, kind), found[5].upper(), found[3].lower())
