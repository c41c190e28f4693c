"""The widget: choose the layers, press a button, and watch the labels come, slice by slice."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, Label, ProgressBar, PushButton
from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from numpy.typing import NDArray

from kshot.napari_plugin.layers import Painted, Slices, fit, predicted
from kshot.segmenter import Segmenter

_OBJECTS, _CLASSES = "objects of one class", "classes"
_ALL, _SHOWN = "all labelled slices", "the slice that is shown"


class FewShot:
    """Learns from what is painted over an image layer, and labels all slices of it or of another one.

    The painted slices stay as they are; the result is a new Labels layer with the place and scale of its image.
    """

    def __init__(self, napari_viewer: Any):
        self.viewer = napari_viewer
        self.image = ComboBox(label="image", choices=lambda _: self._layers(Image))
        self.labels = ComboBox(label="painted labels", choices=lambda _: self._layers(Labels))
        self.meaning = ComboBox(label="numbers are", choices=[_OBJECTS, _CLASSES])
        self.examples = ComboBox(label="learn from", choices=[_ALL, _SHOWN])
        self.target = ComboBox(label="predict in", choices=lambda _: self._layers(Image))
        self.related = CheckBox(
            text="slices follow each other",
            value=True,
            tooltip="Each slice is compared with those before it too, and objects keep their numbers",
        )
        self.run = PushButton(text="Fit and predict")
        self.stop = PushButton(text="Stop", enabled=False)
        self.progress = ProgressBar(label="slices", value=0, visible=False)
        self.said = Label(value="Paint all objects of one slice or more.")
        self.container = Container(
            widgets=[
                *(self.image, self.labels, self.meaning, self.examples, self.target, self.related),
                *(self.run, self.stop, self.progress, self.said),
            ]
        )
        self.native = self.container.native
        self.said.native.setWordWrap(True)
        self.run.clicked.connect(self.start)
        self.stop.clicked.connect(self.quit)
        self.worker: Any = None
        self._segmenter: Segmenter | None = None

    def reset_choices(self, event: object = None) -> None:
        """Offer the layers that are there now; napari calls it when one comes or goes."""
        for box in (self.image, self.labels, self.target):
            box.reset_choices()

    def start(self) -> None:
        """Fit and predict on a thread; each slice is shown as soon as it is done."""
        try:
            painted, slices, numbers = self._asked()
        except ValueError as error:  # kshot's errors of shapes are ones
            self._say(str(error))
            return
        target = self.target.value
        about = {"scale": target.scale, "translate": target.translate, "rotate": target.rotate, "shear": target.shear}
        about |= {"affine": target.affine, "units": target.units, "axis_labels": target.axis_labels}
        result = self.viewer.add_labels(np.zeros(slices.shape, np.int32), name=f"{target.name} (kshot)", **about)
        kept = painted if target is self.image.value else None
        self.progress.max, self.progress.value, self.progress.visible = len(slices), 0, True
        self.run.enabled, self.stop.enabled = False, True
        self._say("Learning...")
        self.worker = create_worker(
            self._work, painted, numbers, slices, kept, self.related.value, _ignore_errors=True, _start_thread=False
        )
        self.worker.yielded.connect(lambda done: self._show(result, slices, *done))
        self.worker.errored.connect(lambda error: self._say(str(error)))
        self.worker.finished.connect(self._finished)
        self.worker.start()

    def quit(self) -> None:
        """Stop after the slice that is being done."""
        if self.worker is not None:
            self.worker.quit()

    def _asked(self) -> tuple[Painted, Slices, list[int]]:
        """What is painted, what is to be predicted, and the numbers of the slices to learn from."""
        if self.image.value is None or self.labels.value is None or self.target.value is None:
            raise ValueError("Add an image layer, and a labels layer with the objects of one slice painted.")
        source = _slices(self.image.value)
        painted = Painted(_finest(self.labels.value), source, objects=self.meaning.value == _OBJECTS)
        numbers = painted.numbers()
        if self.examples.value == _SHOWN:
            shown = source.number([int(step) for step in self.viewer.dims.current_step])
            numbers = [number for number in numbers if number == shown]
        if not numbers:
            raise ValueError("Nothing is painted there: paint the objects of one slice in the labels layer.")
        return painted, _slices(self.target.value), numbers

    def _work(
        self, painted: Painted, numbers: list[int], slices: Slices, kept: Painted | None, related: bool
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        self._segmenter = self._segmenter or Segmenter()
        task = fit(self._segmenter, painted, numbers)
        yield from enumerate(predicted(self._segmenter, task, slices, kept, related=related))

    def _show(self, result: Any, slices: Slices, number: int, labels: NDArray[np.int32]) -> None:
        result.data[slices.place(number)] = labels
        result.refresh()
        self.progress.value = number + 1
        self._say(f"{number + 1} of {len(slices)} slices")

    def _finished(self) -> None:
        self.run.enabled, self.stop.enabled, self.progress.visible = True, False, False

    def _say(self, text: str) -> None:
        self.said.value = text

    def _layers(self, kind: type) -> list[Any]:
        return [layer for layer in self.viewer.layers if isinstance(layer, kind)]


def _finest(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _slices(layer: Any) -> Slices:
    """An image layer's planes as it shows them. Raises `ShapeError`."""
    low, high = (float(value) for value in layer.contrast_limits)
    return Slices(_finest(layer), layer.name, bool(layer.rgb), None if layer.rgb else (low, high))
