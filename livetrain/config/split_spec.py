"""Which samples a split of the configuration means: `train`, `fold1+fold2`, `train+test@-msu_mfsd`, `train:live+print`.

    SPLIT[+SPLIT …][@DOMAIN+DOMAIN …][:KIND+KIND …]     splits, of these domains and of these kinds of clips alone
    SPLIT[+SPLIT …][@-DOMAIN+DOMAIN …][:-KIND+KIND …]   or of all but these

`all` is every split but `unused`, which a protocol left out. A kind is `live` or an attack type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livetrain.core.errors import UserError

ALL, UNUSED = "all", "unused"


@dataclass(frozen=True)
class Some:
    """The names taken, or with `but` those left out; no names: all are taken."""

    names: frozenset[str] = frozenset()
    but: bool = False

    @staticmethod
    def parse(text: str) -> Some:
        """Read `A+B` or `-A+B`."""
        but = text.startswith("-")
        return Some(frozenset(text[but:].split("+")), but)

    def takes(self, name: str) -> bool:
        """Whether this name is taken."""
        return not self.names or (name in self.names) != self.but

    def overlaps(self, other: Some) -> bool:
        """Whether some name could be taken by both."""
        if not self.names or not other.names or (self.but and other.but):
            return True
        if self.but or other.but:
            out, taken = (self.names, other.names) if self.but else (other.names, self.names)
            return not taken <= out
        return bool(self.names & other.names)


@dataclass(frozen=True)
class Selection:
    """Splits by name, and the domains and kinds of clips taken of them."""

    splits: frozenset[str]
    domains: Some = Some()
    kinds: Some = Some()

    @staticmethod
    def parse(text: str) -> Selection:
        """Read `SPLIT+SPLIT@DOMAIN+DOMAIN:KIND+KIND`. Raises UserError when a name is empty."""
        places, colon, kinds = text.partition(":")
        splits, at, domains = places.partition("@")
        found = Selection(
            frozenset(splits.split("+")), Some.parse(domains) if at else Some(), Some.parse(kinds) if colon else Some()
        )
        if "" in found.splits | found.domains.names | found.kinds.names:
            raise UserError(
                f"split {text!r}: a name is empty; write SPLIT+SPLIT, SPLIT@DOMAIN+DOMAIN or SPLIT:KIND+KIND"
            )
        return found

    def takes_split(self, name: str) -> bool:
        """Whether a split of this name is taken."""
        return name in self.splits or (ALL in self.splits and name != UNUSED)

    def which(self, names: NDArray[np.object_], what: str) -> NDArray[np.bool_]:
        """Of words `names`, those taken; `what`: split, domain or kind."""
        takes = {"split": self.takes_split, "domain": self.domains.takes, "kind": self.kinds.takes}[what]
        return np.array([takes(str(name)) for name in names], dtype=bool)

    def shares_samples(self, other: Selection) -> bool:
        """Whether some clip could be in both."""
        if not (ALL in self.splits or ALL in other.splits or self.splits & other.splits):
            return False
        return self.domains.overlaps(other.domains) and self.kinds.overlaps(other.kinds)
