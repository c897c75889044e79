"""A real browser for tests of pages: Chromium as Qt's wheels bring it, without a screen.

It runs in a process of its own, so that nothing of it is left in the tests' process.
"""

from __future__ import annotations

import json
import os
import time
from multiprocessing import get_context
from pathlib import Path

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
                window = _window()
            pipe.send((getattr(window, name)(*arguments), None))
        except ImportError as error:
            pipe.send((None, f"{error}; on Debian or Ubuntu: apt install {LIBRARIES}"))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))


def _window():
    from PySide6.QtCore import QEventLoop, QPoint, Qt, QTimer, QUrl
    from PySide6.QtTest import QTest
    from PySide6.QtWebEngineCore import (
        QWebEnginePage,
        QWebEngineProfile,
        QWebEngineSettings,
        QWebEngineUrlRequestInterceptor,
    )
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    application = QApplication([])

    def until(connect):
        """Run Qt's events until the callback is called that `connect` is given."""
        loop, results = QEventLoop(), []
        timer = QTimer(singleShot=True, interval=int(SECONDS * 1000))
        timer.timeout.connect(loop.quit)
        timer.start()
        connect(lambda result=None: (results.append(result), loop.quit()))
        if not results:
            loop.exec()
        if not results:
            raise TimeoutError
        return results[0]

    class Interceptor(QWebEngineUrlRequestInterceptor):
        seen: list[str] = []

        def interceptRequest(self, info):
            self.seen.append(info.requestUrl().toString())
            info.block(not info.requestUrl().isLocalFile())

    class Page(QWebEnginePage):
        said: list[str] = []

        def javaScriptConsoleMessage(self, level, message, line, source):
            self.said.append(f"{level.name}: {message}")

    class Window:
        def __init__(self):
            self.application = application
            self.interceptor = Interceptor()
            self.profile = QWebEngineProfile()
            self.profile.setUrlRequestInterceptor(self.interceptor)
            self.page = Page(self.profile)
            remote = QWebEngineSettings.WebAttribute.LocalContentCanAccessRemoteUrls
            self.page.settings().setAttribute(remote, True)  # so that requests are seen
            self.view = QWebEngineView(self.page)

        def start(self):
            self.view.show()

        def open(self, path, width, height):
            self.view.resize(width, height)
            self.interceptor.seen.clear()
            self.page.said.clear()
            url = QUrl.fromLocalFile(str(Path(path).resolve()))

            def load(done):
                self.page.loadFinished.connect(done, Qt.ConnectionType.SingleShotConnection)
                self.page.load(url)

            if not until(load):
                raise RuntimeError(f"{path} could not be loaded")

        def evaluate(self, script):
            text = f"JSON.stringify(({script}) ?? null)"  # lists do not come as they are
            return json.loads(until(lambda done: self.page.runJavaScript(text, 0, done)))

        def click(self, selector):
            at = self.evaluate(
                f"(e => {{ e.scrollIntoView({{block: 'center', inline: 'center'}});"
                " const r = e.getBoundingClientRect();"
                " return [r.x + r.width / 2, r.y + r.height / 2]; })"
                f"(document.querySelector({selector!r}))"
            )
            where = QPoint(*map(round, at))
            QTest.mouseClick(self.view.focusProxy(), Qt.MouseButton.LeftButton, pos=where)

        def press(self, key):
            QTest.keyClick(self.view.focusProxy(), getattr(Qt.Key, f"Key_{key}"))

        def console(self):
            return list(self.page.said)

        def requests(self):
            return list(self.interceptor.seen)

    return Window()
