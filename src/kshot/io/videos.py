"""Videos as sequences of images, decoded one after another. Needs the extra `video` (PyAV)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageReadError, ImageTooLargeError, SettingError

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded frame of a video."""

    name: str
    """Of the video, in messages."""
    number: int
    """Place among the video's frames as they are shown, from 0."""
    decoded: Any
    """PyAV's frame."""

    def image(self, max_pixels: int) -> NDArray[np.uint8]:
        """(h, w, 3) RGB, as a player shows it. Raises `ImageTooLargeError`."""
        width, height = self.decoded.width, self.decoded.height
        if width * height > max_pixels:
            raise ImageTooLargeError(
                f"{self.name}: frames of {width} x {height} = {width * height:,} pixels, over the limit of "
                f"{max_pixels:,}; raise max_pixels (--max-pixels, or KSHOT_MAX_PIXELS)"
            )
        # FFmpeg counts the turns of its display matrix against the clock, as numpy does.
        turned: NDArray[np.uint8] = np.rot90(self.decoded.to_ndarray(format="rgb24"), round(self.decoded.rotation / 90))
        return np.ascontiguousarray(turned)


def is_video(path: Path) -> bool:
    """Whether the name is that of a video."""
    return path.suffix.lower() in SUFFIXES


def check_every(every: int) -> None:
    """Raise `SettingError` unless every `every`-th frame can be taken."""
    if every < 1:
        raise SettingError(f"every {every}. frame; expected 1 (all frames) or more")


def frames(path: str | Path, every: int = 1) -> Iterator[VideoFrame]:
    """Frames 0, `every`, 2 `every`, ... of a video; one is in memory at a time, and a few in the decoder.

    Raises `ImageReadError` without PyAV, for what is no video or holds no frames, and where a video is damaged, after
    the frames that come before; `SettingError`.
    """
    check_every(every)
    name = str(path)
    av = _load(name)
    number = -1
    try:
        with av.open(name) as file:
            if not file.streams.video:
                raise ImageReadError(f"{name}: holds no images, only {_kinds(file)}; leave it out")
            for number, decoded in enumerate(file.decode(file.streams.video[0])):
                if number % every == 0:
                    yield VideoFrame(name, number, decoded)
    except ImageReadError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f" after {number + 1} frames" if number >= 0 else ""
        raise ImageReadError(f"{name}: cannot be decoded{where} ({reason}); convert it, or leave it out") from error
    if number < 0:
        raise ImageReadError(f"{name}: a video without a frame that can be decoded; record it again, or leave it out")


def _kinds(file: Any) -> str:
    return ", ".join(sorted({stream.type for stream in file.streams})) or "nothing"


def _load(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageReadError(f"{name}: a video is decoded by PyAV; pip install 'kshot[video]'") from error
    return av
