"""A photograph of a face that is on every machine: Grace Hopper (public domain), as it comes with matplotlib."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def portrait() -> NDArray[np.uint8]:
    """Upright RGB, uint8 [600, 512, 3]; one face, about at rows 80 to 300, columns 165 to 385."""
    from matplotlib import cbook
    from PIL import Image

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB"))
