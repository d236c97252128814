"""The smallest member of each family of timm: it trains, scores and is exported, or one line says what to set.

`make test-slow`. Run as a script it prints the table of families: python -m tests.model.test_families
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch

from livetrain.config import LossConfig, ModelConfig
from livetrain.errors import UserError
from livetrain.model import LivenessModel, build_model, p_live

pytestmark = pytest.mark.slow

SIZE = 224  # the default of data.image_size
SMALL = (
    "test_", "_zepto", "_atto", "_femto", "_pico", "_nano", "_xxtiny", "_xtiny", "_tiny", "_xxs", "_xxsmall", "_xs",
    "_xsmall", "_s0", "_t0", "_m0", "_b0", "_0", "_005", "_035", "_050", "_002", "_18", "18", "_1", "_s", "_small",
    "_t",
)  # fmt: skip


def families() -> dict[str, str]:
    """Family → its smallest model, by name."""
    found = {}
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if names:
            found[module] = min(names, key=_size)
    return found


def _size(name: str) -> tuple[int, int, str]:
    places = [place for place, word in enumerate(SMALL) if (name.startswith(word) if word == "test_" else word in name)]
    return min(places, default=len(SMALL)), len(name), name


@dataclass(frozen=True)
class Outcome:
    """works: True, or what is to be set; size: of the pictures it works with (0: none)."""

    works: bool
    size: int
    said: str


def attempt(name: str) -> Outcome:
    """Build, train and score as a run does, doing what the line says that refuses. Raises whatever is no UserError."""
    size, said = SIZE, ""
    for _ in range(3):
        try:
            model = build_model(ModelConfig(backbone=name), LossConfig(), size)
        except UserError as error:
            said = str(error)
            sizes = [int(number) for number in re.findall(r"data\.image_size=(\d+)", said)]
            if not sizes or sizes[0] == size:
                return Outcome(False, 0, said)
            size = sizes[0]
            continue
        train(model, size)
        return Outcome(True, size, said)
    return Outcome(False, 0, said)


def train(model: LivenessModel, size: int) -> None:
    """Two updates of two clips, and scores of one clip of one frame."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for _ in range(2):
        loss = torch.nn.functional.softplus(model(torch.randn(2, 2, 3, size, size))).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.inference_mode():
        score = p_live(model(torch.randn(1, 1, 3, size, size)))
    assert score.shape == (1,) and torch.isfinite(score).all()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", sorted(families()))
def test_a_family_works_or_says_what_to_set(module: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    outcome = attempt(families()[module])
    assert outcome.works or re.search(r"choose another|set (model|data)\.", outcome.said), outcome.said


def main() -> None:
    """The table in Markdown."""
    torch.set_num_threads(2)
    print("| family | smallest member | |\n|---|---|---|")
    for module, name in sorted(families().items()):
        try:
            outcome = attempt(name)
        except Exception as error:  # a table of what happens
            told = f"FAILS: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
        else:
            told = f"refused: {outcome.said}" if not outcome.works else "works"
            if outcome.works and outcome.size != SIZE:
                told = f"needs data.image_size={outcome.size}"
        print(f"| {module} | {name} | {told} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
