"""Chromium without a window, steered by its DevTools protocol, for tests that use a page as a person does.

https://chromedevtools.github.io/devtools-protocol
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

_NAMES = ("chromium", "chromium-browser", "google-chrome") if os.name == "posix" else ()
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
"""The program. None on a machine without it, and on Windows, which has no inherited file descriptors."""
LIMIT = 60.0
"""Seconds until something that a page should do has failed."""
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
CTRL, SHIFT = 2, 8


class Tab:
    """A page of the browser. `logged` has what it wrote to the console, and its violations of the policy."""

    def __init__(self, to_browser: BinaryIO, from_browser: BufferedReader) -> None:
        self._to, self._from, self._ids = to_browser, from_browser, count(1)
        self._unread = b""
        self._session: dict[str, str] = {}
        self.logged: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params, **self._session}
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _message(self) -> bytes:
        while b"\0" not in self._unread:
            piece = self._from.read1(2**16)
            assert piece, "the browser has ended"
            self._unread += piece
        message, _, self._unread = self._unread.partition(b"\0")
        return message

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Log.entryAdded":
            self.logged.append(params["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.logged.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.logged.append(str(params["args"]))

    def open(self, url: str, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Load a page in a window of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", mobile=width < 600, **size)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript, which must be JSON."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        return self.value(f"document.querySelector({json.dumps(selector)}).textContent")

    def wait(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + LIMIT
        while not self.value(condition):
            assert time.monotonic() < end, f"this did not become true: {condition}"
            time.sleep(0.02)

    def wait_for_text(self, selector: str, words: str) -> None:
        self.wait(f"document.querySelector({json.dumps(selector)}).textContent.includes({json.dumps(words)})")

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse."""
        self.value(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        box = self.value(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        for kind in ("mousePressed", "mouseReleased"):
            middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **middle)

    def type(self, text: str) -> None:
        """Insert a text where the focus is."""
        self.send("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        typed = {"text": "\r"} if key == "Enter" else {}
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", **code, **typed)
        self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    def picture(self, path: Path) -> None:
        """Write what the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """A browser with an empty profile in a new directory."""
    assert CHROMIUM
    commands, answers = os.pipe(), os.pipe()
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    process = subprocess.Popen(
        [CHROMIUM, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_as_3_and_4(commands[0], answers[1]),
        pass_fds=(3, 4),
    )
    os.close(commands[0])
    os.close(answers[1])
    with os.fdopen(commands[1], "wb") as to_browser, os.fdopen(answers[0], "rb") as from_browser:
        try:
            yield Tab(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(LIMIT)


def _as_3_and_4(reads: int, writes: int) -> Callable[[], None]:
    """The browser reads commands from file descriptor 3, and writes answers to 4."""
    import fcntl  # which Windows does not have

    def move() -> None:
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (reads, writes)]
        for number, descriptor in enumerate(high, 3):
            os.dup2(descriptor, number)

    return move
