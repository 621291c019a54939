"""Takes docs/images/chat-page.png, the chat page before the embedded model, with Chromium: python tests_py/record/chat_page.py"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests_py"))

from page_server import CHROMIUM, serving  # noqa: E402

PICTURE = ROOT / "docs/images/chat-page.png"


def main() -> None:
    with serving("bitnet-shakespeare") as (url, _), sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(base_url=url, viewport={"width": 1200, "height": 760}, color_scheme="light")
        page.goto("/")
        for name, value in (("temperature", 0.8), ("top_p", 0.95), ("seed", 1623), ("max_tokens", 120)):
            page.locator(f"[name={name}]").fill(str(value))
        page.get_by_role("textbox", name="Text to continue").fill("First Citizen:")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Continue").wait_for()
        page.locator("#scroll").evaluate("e => e.scrollTo(0, 0)")
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
