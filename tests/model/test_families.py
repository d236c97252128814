"""The smallest member of each family of timm: it trains, scores, is packaged, exported, or one line says what to set.

`make test-slow`. Run as a script it writes the table of families: python -m tests.model.test_families > families.md
Each family has a process of its own: a library that ends the process (FACTS.md, timm) fails that family alone.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch

from livetrain.config import config_from
from livetrain.core.errors import UserError, first_line
from livetrain.inference.export import check, write
from livetrain.inference.package import Trained, load
from livetrain.inference.package import write as write_package
from livetrain.model import LivenessModel, build_model, p_live

pytestmark = pytest.mark.slow

SIZE = 224  # the default of data.image_size
SECONDS = 600  # of one family
SMALL = (
    "test_", "_zepto", "_atto", "_femto", "_pico", "_nano", "_xxtiny", "_xtiny", "_tiny", "_xxs", "_xxsmall", "_xs",
    "_xsmall", "_s0", "_t0", "_m0", "_b0", "_0", "_005", "_035", "_050", "_002", "_18", "18", "_1", "_s", "_small",
    "_t",
)  # fmt: skip
TOLERANCE = 1e-3  # of p_live, ONNX Runtime against torch: networks with random weights and few updates


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
    """works: it trains, scores and comes back from its package; size: of the pictures it does so with (0: none); said:
    the line that refused it or another size; exported: "yes", or why it is not.
    """

    works: bool
    size: int
    said: str = ""
    exported: str = ""


def attempt(name: str) -> Outcome:
    """Build, train, score, package and export as a run does, doing what the line says that refuses.

    Raises whatever is no UserError.
    """
    size, said = SIZE, ""
    for _ in range(3):
        try:
            config = config_from({"data": {"image_size": size}, "model": {"backbone": name}}, "test", [])
            model = build_model(config.model, config.loss, size)
        except UserError as error:
            said = str(error)
            sizes = [int(number) for number in re.findall(r"(?:data\.image_size=|made for )(\d+)", said)]
            if not sizes or sizes[0] == size:
                return Outcome(False, 0, said)
            size = sizes[0]
            continue
        train(model, size)
        return Outcome(True, size, said, hand_over(Trained(Path(name), config, model, 0.5)))
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


def hand_over(trained: Trained) -> str:
    """Package and export. Returns "yes" when the ONNX file scores as the model does, else why there is none."""
    clips = write.example(trained, 1, 2).numpy()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        expected = check.of_model(trained)(clips)
        packaged = load(write_package(trained, Path(folder) / "package"))
        assert abs(check.of_model(packaged)(clips) - expected).max() < 1e-5
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            write.to_onnx(dataclasses.replace(trained, path=Path(trained.config.model.backbone)), "fp32", file)
        except UserError as error:  # as it says, the other format does
            write.to_torch(trained, "fp32", file.with_suffix(".pt2"))
            assert abs(check.runtime(file.with_suffix(".pt2"))(clips) - expected).max() < TOLERANCE
            return str(error)
        score = check.runtime(file)
        assert abs(score(clips) - expected).max() < TOLERANCE, (score(clips), expected)
        assert len(score(write.example(trained, 3, 1).numpy())) == 3
    return "yes"


def of_a_process_of_its_own(name: str) -> Outcome:
    """`attempt(name)`. Raises RuntimeError with the end of what it printed when it failed."""
    command = [sys.executable, "-m", "tests.model.test_families", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise RuntimeError(f"exit code {done.returncode}: {lines[-1] if lines else ''}")
    return Outcome(**json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.timeout(SECONDS + 30)
@pytest.mark.parametrize("module", sorted(families()))
def test_a_family_works_or_says_what_to_set(module: str) -> None:
    outcome = of_a_process_of_its_own(families()[module])
    assert outcome.works or re.search(r"choose another|set (model|data)\.", outcome.said), outcome.said


def main(arguments: list[str]) -> None:
    """The outcome of one model as JSON, or the table of all in Markdown."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    if arguments:
        print(json.dumps(dataclasses.asdict(attempt(arguments[0]))))
        return
    print("| family | smallest member | trains, scores, packages | ONNX |\n|---|---|---|---|")
    for module, name in sorted(families().items()):
        try:
            outcome = of_a_process_of_its_own(name)
        except (RuntimeError, subprocess.TimeoutExpired) as error:  # a table of what happens
            print(f"| {module} | {name} | FAILS: {first_line(error)[:150]} | |", flush=True)
            continue
        trains = "yes" if outcome.works else f"refused: {outcome.said}"
        if outcome.works and outcome.size != SIZE:
            trains = f"with data.image_size={outcome.size}"
        print(f"| {module} | {name} | {trains} | {outcome.exported} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
