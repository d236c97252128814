"""Score videos with a trained model.

.venv/bin/python examples/predict_from_python.py runs/quickstart data/demo/videos/*.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from livetrain import load_model


def main(source: str, videos: Sequence[str]) -> list[float | None]:
    """p_live of each video; None where it could not be scored."""
    model = load_model(source)  # a run, a package, a checkpoint's folder, an ensemble
    predictions = model.predict(list(videos))
    for found in predictions:
        shown = "not scored: " + found.reason if found.p_live is None else f"{found.p_live:.4f}"
        print(f"{shown}  {found.video}")
    return [found.p_live for found in predictions]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
