"""A headless Chromium for tests of pages; WebGL is computed in software."""

import shutil
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SLOW_MS = 240_000
"""Timeout in ms for WebGL in software on a busy machine."""


@contextmanager
def launched():
    """Yield a browser of playwright, which need not be installed for an import of this module."""
    from playwright import sync_api

    software = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=software, timeout=SLOW_MS)
        yield browser
        browser.close()


def offline_page(browser, height):
    """Return an empty page without network, with its errors in `complaints` and its requests in `asked`."""
    context = browser.new_context(viewport={"width": 1280, "height": height}, offline=True)
    context.set_default_timeout(SLOW_MS)
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    return page
