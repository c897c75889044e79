"""The window of tests.cost.browser on Qt's Chromium; it cannot be imported where Qt is missing."""

from __future__ import annotations

import json
from pathlib import Path

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

from tests.cost.browser import SECONDS


def _until(connect):
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


class _Interceptor(QWebEngineUrlRequestInterceptor):
    seen: list[str] = []

    def interceptRequest(self, info):
        self.seen.append(info.requestUrl().toString())
        info.block(not info.requestUrl().isLocalFile())


class _Page(QWebEnginePage):
    said: list[str] = []

    def javaScriptConsoleMessage(self, level, message, line, source):
        self.said.append(f"{level.name}: {message}")


class Window:
    """The methods of tests.browser.Browser, in the process that has its own."""

    def __init__(self):
        self.application = QApplication([])
        self.interceptor = _Interceptor()
        self.profile = QWebEngineProfile()
        self.profile.setUrlRequestInterceptor(self.interceptor)
        self.page = _Page(self.profile)
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

        if not _until(load):
            raise RuntimeError(f"{path} could not be loaded")

    def evaluate(self, script):
        text = f"JSON.stringify(({script}) ?? null)"  # lists do not come as they are
        return json.loads(_until(lambda done: self.page.runJavaScript(text, 0, done)))

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
