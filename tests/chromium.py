"""A headless Chromium, driven through the DevTools protocol over two pipes: no port, no package, real mouse and keys.

https://chromedevtools.github.io/devtools-protocol/ with --remote-debugging-pipe: JSON messages end with a zero byte,
the browser reads them from file descriptor 3 and writes them to 4.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
         '--disable-background-networking', '--disable-component-update', '--disable-extensions', '--hide-scrollbars',
         '--disable-dev-shm-usage', '--remote-debugging-pipe')
# Run by a process in between: the browser wants its pipes under these numbers.
RENUMBER = """
import fcntl, os, sys
read_end, write_end = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read_end, 3)
os.dup2(write_end, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def found():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser. `events` are the protocol's, in the order in which they came."""

    def __init__(self, process, to_browser, from_browser):
        self.process, self.to_browser, self.from_browser = process, to_browser, from_browser
        self.events, self.rest, self.number, self.session = [], b'', 0, None

    def call(self, method, **parameters):
        """Sends a command and returns its result."""
        self.number += 1
        message = {'id': self.number, 'method': method, 'params': parameters}
        if self.session:
            message['sessionId'] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b'\0')
        answer = self.wait(lambda event: event.get('id') == self.number)
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def wait(self, wanted, seconds=60):
        """The next message that `wanted` accepts; those before it are kept as events."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while b'\0' in self.rest:
                text, _, self.rest = self.rest.partition(b'\0')
                event = json.loads(text)
                self.events.append(event)
                if wanted(event):
                    return event
            if select.select([self.from_browser], [], [], 0.5)[0]:
                data = os.read(self.from_browser, 1 << 20)
                assert data, f'the browser has gone (exit code {self.process.poll()})'
                self.rest += data
        raise AssertionError('the browser did not answer')

    def open(self, url):
        """Loads an address and waits for the page."""
        self.call('Page.navigate', url=url)
        self.wait(lambda event: event.get('method') == 'Page.loadEventFired')

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def screen(self, width, height, phone=False, dark=False, media=''):
        """What the page is shown on."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call('Emulation.setTouchEmulationEnabled', enabled=phone)
        self.call('Emulation.setEmulatedMedia', media=media, features=[
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])

    def middle(self, selector):
        """Where an element's middle is on the screen, scrolled into view."""
        return self.run(f'(() => {{ const e = document.querySelector({json.dumps(selector)}); '
                        'e.scrollIntoView({block: "center"}); const r = e.getBoundingClientRect(); '
                        'return [r.x + r.width / 2, r.y + r.height / 2]; })()')

    def hover(self, selector):
        """Moves the mouse onto an element."""
        x, y = self.middle(selector)
        self.call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def tap(self, selector):
        """Touches an element."""
        x, y = self.middle(selector)
        self.call('Input.dispatchTouchEvent', type='touchStart', touchPoints=[{'x': x, 'y': y}])
        self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
        self.run('new Promise(done => setTimeout(done, 50))')

    def key(self, name, code):
        """Presses a key."""
        for kind in ('keyDown', 'keyUp'):
            self.call('Input.dispatchKeyEvent', type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def picture(self, path):
        """Writes the whole page as .png."""
        size = self.call('Page.getLayoutMetrics')['cssContentSize']
        shot = self.call('Page.captureScreenshot', captureBeyondViewport=True, clip=size | {'scale': 1})
        path.write_bytes(base64.b64decode(shot['data']))

    def complaints(self):
        """What a person would see in the console: errors, warnings, and exceptions."""
        return [event for event in self.events if event.get('method') in (
            'Runtime.exceptionThrown', 'Log.entryAdded', 'Runtime.consoleAPICalled')]

    def requests(self):
        """All addresses that were asked for."""
        return [event['params']['request']['url'] for event in self.events
                if event.get('method') == 'Network.requestWillBeSent']


@contextlib.contextmanager
def tab(profile):
    """Starts a browser with an empty profile folder; ends it with the block."""
    read_end, to_browser = os.pipe()
    from_browser, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, '-c', RENUMBER, str(read_end), str(write_end), found(), *FLAGS, f'--user-data-dir={profile}',
         'about:blank'], pass_fds=(read_end, write_end), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL)
    os.close(read_end)
    os.close(write_end)
    page = Tab(process, to_browser, from_browser)
    try:
        target = next(target for target in page.call('Target.getTargets')['targetInfos'] if target['type'] == 'page')
        page.session = page.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            page.call(f'{domain}.enable')
        yield page
    finally:
        page.session = None
        with contextlib.suppress(Exception):
            page.call('Browser.close')
        os.close(to_browser)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(from_browser)
