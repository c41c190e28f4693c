"""Videos and scans of several pages."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.support.drawing import draw


def film(path: Path, pictures: list[np.ndarray]) -> Path:
    """A real video of these pictures, at ten frames a second."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        stream.bit_rate = 4_000_000
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def scan(path: Path, count: int = 3) -> Path:
    first, *rest = (Image.fromarray(draw(seed)[0]) for seed in range(count))
    first.save(path, save_all=True, append_images=rest)
    return path
