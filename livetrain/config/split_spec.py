"""Which samples a split of the configuration means: `train`, `fold1+fold2`, `train+test@-msu_mfsd`, `all@msu_mfsd`.

    SPLIT[+SPLIT …][@DOMAIN+DOMAIN … | @-DOMAIN+DOMAIN …]     splits, of these domains alone or of all but these

`all` is every split but `unused`, which a protocol left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError

ALL, UNUSED = "all", "unused"


@dataclass(frozen=True)
class Selection:
    """Splits by name, and the domains taken (or, with `but`, left out); no domains: all of them."""

    splits: frozenset[str]
    domains: frozenset[str] = frozenset()
    but: bool = False

    @staticmethod
    def parse(text: str) -> Selection:
        """Read `SPLIT+SPLIT@DOMAIN+DOMAIN`. Raises UserError when a name is empty."""
        splits, at, domains = text.partition("@")
        but = domains.startswith("-")
        found = Selection(frozenset(splits.split("+")), frozenset(domains[but:].split("+")) if at else frozenset(), but)
        if "" in found.splits or "" in found.domains:
            raise UserError(f"split {text!r}: a name is empty; write SPLIT+SPLIT or SPLIT@DOMAIN+DOMAIN")
        return found

    def takes_split(self, name: str) -> bool:
        return name in self.splits or (ALL in self.splits and name != UNUSED)

    def takes_domain(self, name: str) -> bool:
        return not self.domains or (name in self.domains) != self.but

    def which(self, names: NDArray[np.object_], what: str) -> NDArray[np.bool_]:
        """Of words `names`, those taken; `what`: split or domain."""
        takes = self.takes_split if what == "split" else self.takes_domain
        return np.array([takes(str(name)) for name in names], dtype=bool)

    def shares_samples(self, other: Selection) -> bool:
        """Whether some split of some domain could be in both."""
        if not (ALL in self.splits or ALL in other.splits or self.splits & other.splits):
            return False
        if not self.domains or not other.domains or (self.but and other.but):
            return True
        if self.but or other.but:
            out, taken = (self.domains, other.domains) if self.but else (other.domains, self.domains)
            return not taken <= out
        return bool(self.domains & other.domains)
