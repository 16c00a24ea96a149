"""The live page in a real browser: its numbers are those of the snapshot, its verdicts follow the pool, and all can read it."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest
from monitored import KEY, PCM, SECRET, pool_with_traffic

from speechpool import AsyncSpeechPool, Endpoint, monitoring
from speechpool.errors import SpeechPoolError
from speechpool.limits import LocalQuota
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.testing.proxy import FaultProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = Path(__file__).parents[2] / ".pictures"
AXE = Path(__file__).with_name("axe.min.js")
VIEWS = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}
FAST = 5


def browser_of(playwright):
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module", autouse=True)
def a_browser():
    try:
        import playwright  # noqa: F401
    except ModuleNotFoundError:
        missing = "playwright (pip)"
    else:
        missing = None if CHROMIUM else "chromium (make tools)"
    if missing:
        assert not os.environ.get("CI"), missing
        pytest.skip(f"needs {missing}")


def in_a_browser(pool_coroutine, look):
    """Run `look(page, url)` in a thread beside the loop of the pool; the browser's own API is of threads."""

    async def main():
        async with pool_coroutine as (pool, others):
            with monitoring.serve(pool, 0) as monitor:
                await asyncio.to_thread(with_page, monitor.url, lambda page: look(page, *others))

    def with_page(url, look):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = browser_of(playwright)
            page = browser.new_page()
            problems = []
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(url)
            page.wait_for_selector("body[data-seq]")
            look(page)
            browser.close()
            assert problems == []

    asyncio.run(main())


class UnderLoad:
    """A pool whose callers go on, behind a proxy that can cut the line; the window is five seconds."""

    async def __aenter__(self):
        settings = ServiceSettings(submission_rate=None)
        self.service = await SpeechService(LocalBackend("marker"), port=0, settings=settings).__aenter__()
        host, port = self.service.url.split("/")[2].split(":")
        self.proxy = await FaultProxy(host, int(port)).__aenter__()
        endpoint = Endpoint(self.proxy.url("ws", "/" + self.service.url.split("/", 3)[3]), api_key=KEY)
        self.pool = AsyncSpeechPool(endpoint, max_size=8, window=5, outage_after=0.5, quota=LocalQuota())
        await self.pool.__aenter__()
        self.loop, self.active = asyncio.get_running_loop(), None
        self.callers = [asyncio.create_task(self.call()) for _ in range(6)]
        return self.pool, (self,)

    async def __aexit__(self, *_):
        for caller in self.callers:
            caller.cancel()
        await asyncio.gather(*self.callers, return_exceptions=True)
        await self.pool.close()
        await self.proxy.__aexit__(None, None, None)
        await self.service.close()

    async def call(self):
        while True:
            try:
                await self.pool.synthesize(SECRET, PCM)
            except SpeechPoolError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.02)

    def cut(self):
        self.on_the_loop(lambda: setattr(self, "active", [self.proxy.add("drop"), self.proxy.add("refuse")]))

    def mend(self):
        self.on_the_loop(self.active[1].remove)

    def on_the_loop(self, work):
        async def run():
            return work()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)


def shown(page):
    """What is on the page now, read in one go together with the `seq` that it says."""
    return page.evaluate("""() => ({
        seq: document.body.dataset.seq,
        signals: [...document.querySelectorAll("#signals article")].map(one => [
            one.querySelector("h3").textContent, one.querySelector(".value").textContent, one.dataset.verdict,
            one.querySelector(".since").textContent]),
        now: Object.fromEntries([...document.querySelectorAll("#now dd")].map(one => [one.id.slice(4), one.textContent])),
        explained: document.getElementById("explained").textContent,
        closed: Object.fromEntries([...document.querySelectorAll("#closed div")].map(one => [one.firstChild.textContent, one.lastChild.textContent])),
        slowest: [...document.querySelectorAll("#slowest tr")].map(row => [row.cells[0].textContent, row.cells[3].textContent]),
    })""")


def test_every_number_is_that_of_the_snapshot_and_verdicts_follow_a_cut():
    def look(page, load):
        for _ in range(3):
            page.wait_for_timeout(1100)
            compare(page)
        load.cut()
        page.wait_for_selector("#signal-error_rate[data-verdict=missed]", timeout=2000 * FAST)
        page.wait_for_selector("#explained:has-text('The endpoint has been away')", timeout=2000 * FAST)
        compare(page)
        load.mend()
        page.wait_for_selector("#signal-error_rate:not([data-verdict=missed])", timeout=10_000 * FAST)
        assert "has been away" not in page.inner_text("#explained")

    in_a_browser(UnderLoad(), look)


def compare(page):
    on_page = shown(page)
    snapshot = page.evaluate("seq => fetch(`snapshot.json?seq=${seq}`).then(answer => answer.json())", on_page["seq"])[
        "pools"
    ][0]
    values = snapshot["values"]
    assert [name for name, *_ in on_page["signals"]] == list(values)
    for (name, value, verdict, since), signal in zip(on_page["signals"], five(snapshot), strict=True):
        assert value == values[name][0]
        assert since == f"since the start: {values[name][1]}"
        assert verdict == signal["verdict"]
    for key, text in on_page["now"].items():
        assert text == written(key, snapshot["stats"][key])
    assert on_page["explained"] == snapshot["explained"]
    assert len(on_page["slowest"]) == len(snapshot["slowest"]) > 0
    for (_, request), task in zip(on_page["slowest"], snapshot["slowest"], strict=True):
        assert request == (task["request_id"] or "–")
    counts = {reason: f"{count:,}" for reason, count in snapshot["stats"]["discarded"].items()}
    assert on_page["closed"] == (counts or {"so far": "none"})


def five(snapshot):
    return [value for value in snapshot["report"]["window"].values() if isinstance(value, dict) and "verdict" in value]


def written(key, value):
    if value is None:
        return "–"
    if key in {"oldest_wait", "predicted_wait"}:
        return f"{int(value * 1000 + 0.5)} ms" if value < 0.9995 else f"{value:.2f} s"
    return f"{value:,}"


def test_it_can_be_read_by_everybody_and_looks_as_it_should():
    def look(page, _):
        PICTURES.mkdir(exist_ok=True)
        page.wait_for_timeout(4000)
        for name, (width, height, scheme) in VIEWS.items():
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(1500)
            page.screenshot(path=PICTURES / f"monitor-{name}.png", full_page=True)
            page.evaluate(AXE.read_text())  # by the debugger's protocol, which no policy forbids
            found = page.evaluate(
                "() => axe.run().then(done => done.violations.map(one => one.id + ': ' + one.nodes.map(n => n.html).join(' ')))"
            )
            assert found == [], name
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert len(re.findall("<canvas", page.content())) == 7
        text = page.inner_text("body")
        assert KEY not in text
        assert "giraffe" not in text

    in_a_browser(UnderLoad(), look)


def test_several_pools_can_be_chosen_and_a_monitor_that_is_away_is_said():
    async def main():
        async with pool_with_traffic(3, (), name="one") as one, pool_with_traffic(5, (), name="two") as two:
            monitor = monitoring.serve([one, two], 0)
            try:
                await asyncio.to_thread(look, monitor)
            finally:
                await asyncio.to_thread(monitor.close)

    def look(monitor):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = browser_of(playwright)
            page = browser.new_page()
            page.goto(monitor.url)
            page.wait_for_selector("body[data-seq]")
            assert "one →" in page.inner_text("#endpoint")
            page.keyboard.press("Tab")
            page.keyboard.press("Tab")  # past the link that skips, to the choice
            page.keyboard.press("ArrowDown")
            assert "two →" in page.inner_text("#endpoint")
            assert page.inner_text("#now-borrows") == "5"
            monitor.close()
            page.wait_for_selector("#state:has-text('the monitor is away')", timeout=10_000)
            browser.close()

    asyncio.run(main())
