"""A real browser for tests of pages: Chromium as Qt's wheels bring it, without a screen.

It runs in a process of its own, so that nothing of it is left in the tests' process.
"""

from __future__ import annotations

import os
import time
from multiprocessing import get_context

SECONDS = 120.0  # for an answer; the machine may be busy
LIBRARIES = (
    "libnss3 libegl1 libgl1 libasound2 libgbm1 libxkbcommon0 libxkbfile1 libxcomposite1 "
    "libxdamage1 libxrandr2 libxtst6"
)
FLAGS = "--no-sandbox --disable-gpu --disable-dev-shm-usage --force-device-scale-factor=1"


class Browser:
    """One window that shows one page at a time. Every method raises RuntimeError if it cannot.

    dark : whether pages are told that the user prefers so.
    open(path, width, height) : shows a file. evaluate(script) : the value of an expression.
    click(selector), press(key) : as a mouse and a keyboard do.
    console() : messages of the page since it was opened. requests() : addresses it asked for.
    """

    def __init__(self, dark=False):
        context = get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, dark), daemon=True)
        self._process.start()
        self._ask("start")

    def __getattr__(self, name):
        return lambda *arguments: self._ask(name, *arguments)

    def wait(self, script):
        """Until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise RuntimeError(f"never came true: {script}")
            time.sleep(0.02)

    def close(self):
        self._pipe.close()
        self._process.join(SECONDS)

    def _ask(self, name, *arguments):
        self._pipe.send((name, arguments))
        if not self._pipe.poll(SECONDS):
            raise RuntimeError(f"{name}: the browser does not answer")
        try:
            value, fault = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{name}: the browser ended") from None
        if fault:
            raise RuntimeError(f"{name}: {fault}")
        return value


def _serve(pipe, dark):
    """Answer requests until the other end is closed."""
    flags = f"{FLAGS} --blink-settings=preferredColorScheme={int(not dark)}"
    os.environ |= dict(QT_QPA_PLATFORM="offscreen", QTWEBENGINE_CHROMIUM_FLAGS=flags)
    window = None
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            os._exit(0)  # Qt's objects would have to be taken down in order
        try:
            if window is None:
                from tests.cost.browser_window import Window  # Qt may be missing

                window = Window()
            pipe.send((getattr(window, name)(*arguments), None))
        except ImportError as error:
            pipe.send((None, f"{error}; on Debian or Ubuntu: apt install {LIBRARIES}"))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))
