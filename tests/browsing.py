"""A page in headless Chromium at a width of one's choice: scripts in it, and pictures of it, over the browser's own
debugging protocol.
"""

import asyncio
import base64
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SETTLED = """new Promise(done => { const wait = () => document.querySelectorAll(".plot:not(.js-plotly-plot)").length
  ? setTimeout(wait, 50) : setTimeout(done, 300); wait(); })"""


def axe() -> Path | None:
    """axe-core's script, of the package that carries it."""
    found = find_spec("axe_core_python")
    return Path(found.submodule_search_locations[0]) / "axe.min.js" if found else None


def visit(
    page: Path,
    profile: Path,
    scripts: list[str],
    width: int = 800,
    dark: bool = False,
    picture: Path | None = None,
):
    """What each of ``scripts`` (expressions, promises are waited for) gives once every plot is drawn."""
    return asyncio.run(_visit(page, profile, scripts, width, dark, picture))


async def _visit(page, profile, scripts, width, dark, picture):
    import aiohttp

    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as browser:
        try:
            port = next(
                found[1] for line in browser.stderr if (found := re.search(r"ws://[^:]+:(\d+)/", line))
            )
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    tabs = await answer.json(content_type=None)
                address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    return await _ask(socket, page, scripts, width, dark, picture)
        finally:
            browser.kill()


async def _ask(socket, page, scripts, width, dark, picture):
    number = 0

    async def call(method, **params):
        nonlocal number
        number += 1
        await socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await socket.receive_json(timeout=120)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def evaluate(script):
        found = await call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    await call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    await call("Emulation.setEmulatedMedia", features=features)
    await call("Page.navigate", url=page.as_uri())
    while await evaluate("document.readyState + location.protocol") != "completefile:":
        await asyncio.sleep(0.05)
    await evaluate(SETTLED)
    given = [await evaluate(script) for script in scripts]
    if picture:
        shot = await call("Page.captureScreenshot", captureBeyondViewport=True, clip=None or {
            "x": 0, "y": 0, "width": width, "height": await evaluate("document.documentElement.scrollHeight"), "scale": 1})  # fmt: skip
        picture.write_bytes(base64.b64decode(shot["data"]))
    return given
