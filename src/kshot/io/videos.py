"""Videos as sequences of images, decoded one after another. Needs the extra `video` (PyAV)."""

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import Queue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageReadError, ImageTooLargeError, OutputError, SettingError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
_MISSING_SECONDS, _MISSING_SHARE = 0.5, 0.1  # that a video may end before the time in its header; sound may be longer
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

    A video that ends long before the time that its header says gives a warning in the log. Raises `ImageReadError`
    without PyAV, for what is no video or holds no frames, and where a video is damaged, after the frames that come
    before; `SettingError`.
    """
    check_every(every)
    name = str(path)
    av = _load(name)
    number = -1
    try:
        with av.open(name) as file:
            if not len(file.streams):
                raise ImageReadError(f"{name}: an empty video, without a frame; record it again, or leave it out")
            if not file.streams.video:
                raise ImageReadError(f"{name}: holds no images, only {_kinds(file)}; leave it out")
            stream, last = file.streams.video[0], None
            for number, decoded in enumerate(file.decode(stream)):
                last = decoded.time
                if number % every == 0:
                    yield VideoFrame(name, number, decoded)
            if last is not None and (told := _cut_off(file, stream, last)):
                log.warning("%s: %s; the %d frames before are kept", name, told, number + 1)
    except ImageReadError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f" after {number + 1} frames" if number >= 0 else ""
        raise ImageReadError(f"{name}: cannot be decoded{where} ({reason}); convert it, or leave it out") from error
    if number < 0:
        raise ImageReadError(f"{name}: a video without a frame that can be decoded; record it again, or leave it out")


def _cut_off(file: Any, stream: Any, last: float) -> str:
    """What to say of a video whose last frame, at `last` seconds, comes long before the end in its header; else ""."""
    known = stream.duration is not None and stream.time_base
    whole = float(stream.duration * stream.time_base) if known else (file.duration or 0) / 1e6
    start = float((stream.start_time or 0) * (stream.time_base or 0))
    shown = last - start + float(1 / stream.average_rate if stream.average_rate else 0)
    missing = whole - shown
    if missing <= max(_MISSING_SECONDS, _MISSING_SHARE * whole):
        return ""
    return f"seems cut off, it ends after {shown:.1f} of the {whole:.1f} seconds in its header"


def frame_rate(path: Path | None) -> float | None:
    """Frames a second of a video, as its header has them; None of other files, and where it says nothing."""
    if path is None or not is_video(path):
        return None
    av = _load(str(path))
    try:
        with av.open(str(path)) as file:
            rate = file.streams.video[0].average_rate
            return float(rate) if rate else None
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return None


def write_video(path: Path, images: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """Write images (h, w, 3) as an .mp4 with `rate` frames a second; all get the size of the first.

    H.264 where PyAV has an encoder of it, else MPEG-4. Sides become even, as both want them. Raises `OutputError`.
    """
    av = _load(str(path))
    codec = next((name for name in ("libx264", "libopenh264") if name in av.codecs_available), "mpeg4")
    try:
        with av.open(str(path), "w", format="mp4") as file:
            stream = None
            for image in images:
                if stream is None:
                    stream = file.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
                    stream.height, stream.width = (max(2, side - side % 2) for side in image.shape[:2])
                    stream.pix_fmt, stream.bit_rate = "yuv420p", 16 * stream.height * stream.width
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                file.mux(stream.encode(frame.reformat(stream.width, stream.height)))
            if stream is not None:
                file.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written as a video ({error})") from error


def camera(index: int) -> Iterator[NDArray[np.uint8]]:
    """Images (h, w, 3) RGB of a camera of this machine, from 0, as long as it gives some.

    Raises `ImageReadError` without PyAV, or where there is no such camera.
    """
    name = f"camera {index}"
    av = _load(name)
    places = {"linux": (f"/dev/video{index}", "v4l2"), "darwin": (str(index), "avfoundation")}
    place, kind = places.get(sys.platform, (f"video={index}", "dshow"))
    try:
        with av.open(place, format=kind) as file:
            for decoded in file.decode(file.streams.video[0]):
                yield decoded.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise ImageReadError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error


def newest(source: Iterable[Item]) -> Iterator[Item]:
    """The newest item of a live source each time one is asked for; those that came meanwhile are dropped.

    A thread of its own takes the items; an error of the source is raised here, and the thread ends with the source, or
    with its next item once nobody asks any more.
    """
    waiting: Queue[tuple[Item | None, BaseException | None]] = Queue()
    done = threading.Event()

    def take() -> None:
        try:
            for item in source:
                if done.is_set():
                    return
                waiting.put((item, None))
            waiting.put((None, None))
        except BaseException as error:
            waiting.put((None, error))

    threading.Thread(target=take, name="kshot-camera", daemon=True).start()
    try:
        while True:
            item, error = waiting.get()
            last = item
            while item is not None and not waiting.empty():
                item, error = waiting.get()
                last = last if item is None else item
            if last is not None:
                yield last
            if error is not None:
                raise error
            if item is None:
                return
    finally:
        done.set()


def _kinds(file: Any) -> str:
    return ", ".join(sorted({stream.type for stream in file.streams})) or "nothing"


def _load(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImageReadError(f"{name}: a video is decoded by PyAV; pip install 'kshot[video]'") from error
    return av
