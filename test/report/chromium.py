# SPDX-License-Identifier: Apache-2.0
"""Open a page in headless Chromium and query the displayed content."""
from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
import json
import os
from pathlib import Path
import select
import shutil
import subprocess
import sys
from time import monotonic
from typing import Any

PROGRAM = shutil.which('chromium') or shutil.which('chromium-browser')
MISSING = 'Chromium is not installed: sudo apt-get install chromium'
PATIENCE_S = 180.0

# Chromium must not use the network; as root it needs --no-sandbox.
_FLAGS = ('--headless', '--disable-gpu', '--disable-quic', '--no-first-run',
          '--disable-background-networking', '--disable-component-update', '--disable-sync',
          '--disable-dev-shm-usage', '--hide-scrollbars', '--remote-debugging-pipe')

# Chromium reads commands from descriptor 3 and writes answers to 4, which may be in use.
_CONNECT = (
    'import fcntl, os, sys\n'
    'ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]\n'
    'for number, end in enumerate(ends, 3):\n'
    '    os.dup2(end, number)\n'
    '    os.close(end)\n'
    'os.execv(sys.argv[3], sys.argv[3:])\n')


class Chromium:
    """
    One tab, controlled by the DevTools protocol over a pair of pipes.

    https://chromedevtools.github.io/devtools-protocol
    """

    def __init__(self, profile: Path) -> None:
        """Start the browser; `profile` is a new folder."""
        assert PROGRAM is not None
        inside, self._out = os.pipe()
        self._in, outside = os.pipe()
        sandbox = ['--no-sandbox'] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', _CONNECT, str(inside), str(outside),
             PROGRAM, *_FLAGS, *sandbox, f'--user-data-dir={profile}', 'about:blank'],
            pass_fds=(inside, outside), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(inside)
        os.close(outside)
        self._buffer, self._number = b'', 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        pages = self.call('Target.getTargets')['targetInfos']
        page = next(item for item in pages if item['type'] == 'page')
        self._session = self.call('Target.attachToTarget', targetId=page['targetId'],
                                  flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; append events that come meanwhile to `events`."""
        self._number += 1
        message: dict[str, Any] = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            message['sessionId'] = self._session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']
            self.events.append(answer)

    def show(self, page: Path, width: int, height: int = 900) -> None:
        """Load a file in a window of this size and wait for the end of loading."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.events.clear()
        self.call('Page.navigate', url=page.absolute().as_uri())
        while not any(item.get('method') == 'Page.loadEventFired' for item in self.events):
            self.events.append(self._receive())

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, as a JSON value."""
        answer = self.call('Runtime.evaluate', expression=expression, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def complaints(self) -> list[str]:
        """Return the entries of the console: logs, exceptions, refusals, failed loads."""
        self.ask('0')  # All earlier events arrive before the answer.
        names = ('Log.entryAdded', 'Runtime.consoleAPICalled', 'Runtime.exceptionThrown',
                 'Network.loadingFailed')
        return [json.dumps(item['params']) for item in self.events
                if item.get('method') in names]

    def requests(self) -> list[str]:
        """Return the requested addresses, except data in the page itself."""
        addresses = [item['params']['request']['url'] for item in self.events
                     if item.get('method') == 'Network.requestWillBeSent']
        return [address for address in addresses if not address.startswith('data:')]

    def picture(self) -> bytes:
        """Return the whole page as PNG."""
        size = self.call('Page.getLayoutMetrics')['cssContentSize']
        answer = self.call('Page.captureScreenshot', captureBeyondViewport=True, clip={
            'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1})
        return b64decode(answer['data'])

    def paper(self) -> bytes:
        """Return the page as a PDF, as printed on A4."""
        return b64decode(self.call('Page.printToPDF', paperWidth=8.27, paperHeight=11.69,
                                   printBackground=True, preferCSSPageSize=True)['data'])

    def close(self) -> None:
        """End the browser."""
        with suppress(OSError, AssertionError):
            self._session = None
            self.call('Browser.close')
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def _receive(self) -> dict[str, Any]:
        deadline = monotonic() + PATIENCE_S
        while b'\0' not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - monotonic()))
            assert ready, 'the browser says nothing'
            part = os.read(self._in, 1 << 20)
            assert part, 'the browser has ended'
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)


@contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """Yield a browser that is closed afterwards."""
    browser = Chromium(profile)
    try:
        yield browser
    finally:
        browser.close()
