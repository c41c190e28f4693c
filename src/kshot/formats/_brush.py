"""Label Studio's brush strokes: RGBA values of all pixels as packed runs (the `rle-pack` of thi.ng/umbrella).

The bits, from the highest of the first byte on: 32 the number of values; 5 the bits of a value, less one; 4 times 4
the bits of a run's length in four sizes, less one. Then runs until all values are there: 1 whether the value repeats,
2 which size, the length less one, and the value once, or, where it does not repeat, each value. Zeros fill the last
byte. A pixel has four values, red, green, blue and alpha; its alpha says whether it is marked.
"""

import numpy as np
from numpy.typing import NDArray

_SIZES = (3, 4, 8, 16)  # as Label Studio's own tools choose them
_CHANNELS = 4


def encode(mask: NDArray[np.bool_]) -> list[int]:
    """The bytes of a mask (h, w); marked pixels are 255 in all four channels, as in Label Studio's `mask2rle`."""
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    head = f"{flat.size * _CHANNELS:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES)
    bits = head + "".join(_run(int(length), bool(flat[end - 1])) for length, end in zip(lengths, ends, strict=True))
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def decode(data: bytes, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (h, w) of packed bytes: where alpha is above half. Raises `ValueError` when they are damaged."""
    height, width = size_hw
    total, bits = height * width * _CHANNELS, _Bits(data)
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(_CHANNELS)]
    if count != total:
        raise ValueError(f"it holds {count} values, but an image of {width} x {height} pixels has {total}")
    values = np.zeros(total, np.uint32)
    at = 0
    while at < total:
        repeats = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if end > total:
            raise ValueError("a run goes beyond the image")
        values[at:end] = bits.read(word) if repeats else [bits.read(word) for _ in range(end - at)]
        at = end
    marked: NDArray[np.bool_] = (values[3::_CHANNELS] > 127).reshape(height, width)
    return marked


def _run(length: int, marked: bool) -> str:
    """The bits of a run; one that is too long for the largest size takes several."""
    value, longest = "1" * 8 if marked else "0" * 8, 1 << _SIZES[-1]
    whole, rest = divmod(length, longest)
    bits = f"111{longest - 1:016b}{value}" * whole
    if rest:
        index = next(i for i, size in enumerate(_SIZES) if rest <= 1 << size)
        bits += f"1{index:02b}{rest - 1:0{_SIZES[index]}b}{value}"
    return bits


class _Bits:
    def __init__(self, data: bytes):
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def read(self, size: int) -> int:
        part = self.text[self.at : self.at + size]
        if len(part) < size:
            raise ValueError("it ends within a run")
        self.at += size
        return int(part, 2)
