"""A headless Chromium that opens a page and evaluates expressions in it, over the pipe of its DevTools protocol.

No driver is needed beside the browser itself: messages are JSON, and each ends with a zero byte.
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-dev-shm-usage --no-first-run "
    "--hide-scrollbars --remote-debugging-pipe"
)


class BrowserError(RuntimeError):
    """The browser did not start or answer, or the page threw."""


def executable() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


class Tab:
    """One page. Made by `opened`."""

    def __init__(self, reads: int, writes: int):
        self._reads, self._writes = reads, writes
        self._rest, self._sent, self._session = b"", 0, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def call(self, method: str, seconds: float = 120, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the protocol. Raises `BrowserError`."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters, **self._session}
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + seconds
        while True:
            answer = json.loads(self._next(until - time.monotonic()))
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def go(self, address: str, width: int = 1280, height: int = 900) -> None:
        """Open an address and wait until all of it is loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=address)
        self.run("document.readyState === 'complete' || new Promise((done) => addEventListener('load', done))")

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited if it is a promise. Raises `BrowserError`."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write what is on the screen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _next(self, seconds: float) -> bytes:
        until = time.monotonic() + seconds
        while b"\0" not in self._rest:
            if not select([self._reads], [], [], max(0.0, until - time.monotonic()))[0]:
                raise BrowserError("no answer in time")
            part = os.read(self._reads, 1 << 20)
            if not part:
                raise BrowserError("the browser ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return message


@contextlib.contextmanager
def opened() -> Iterator[Tab]:
    """A tab of a browser of its own, which ends with the context. Raises `BrowserError` where there is none."""
    program = executable()
    if program is None:
        raise BrowserError(f"none of {', '.join(_NAMES)} is installed")
    (commands, writes), (reads, answers) = _pipe(), _pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        ours = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
        theirs = [ours, (os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4)]
        # A group of its own, because the program may be a script whose child is the browser.
        child = os.posix_spawn(
            program,
            [program, *_FLAGS.split(), f"--user-data-dir={profile}"],
            os.environ,
            file_actions=theirs,
            setpgroup=0,
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Tab(reads, writes)
        finally:
            os.close(reads)
            os.close(writes)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _pipe() -> tuple[int, int]:
    """A pipe whose numbers are above those that the browser gets."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
