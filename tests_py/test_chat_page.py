"""The chat page, in Chromium, before servers with a real model. Nothing that it does leaves the server, or complains."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from bitnet_rust import BitNetModel
from page_server import CHROMIUM, serving, talker

if CHROMIUM is None:
    warnings.warn("NOT TESTED: the chat page. No Chromium on PATH (Debian: apt-get install chromium)", stacklevel=1)
    pytestmark = pytest.mark.skip("no Chromium on PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The address of a server with a base model, which only completes."""
    with serving("bitnet-shakespeare") as (url, _):
        yield url


@pytest.fixture(scope="module")
def talking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talker(tmp_path_factory.mktemp("models") / "talker")


@pytest.fixture(scope="module")
def chatting(talking_model: Path) -> Iterator[str]:
    """The address of a server with a model that has a chat template and a long context."""
    with serving(talking_model) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)  # machines that test are busy
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A user's browser, with storage of its own."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(
            base_url=url, viewport=options.pop("viewport", {"width": 1280, "height": 800}), **options
        )
        self.context.set_default_timeout(60_000)
        self.url = url
        self.complaints: list[str] = []
        self.posted: list[dict[str, Any]] = []  # bodies of requests for text
        self.expected: set[int] = set()  # statuses that the browser reports on the console, as they should be there
        self.context.on("request", self._requested)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.context.on("console", lambda message: self._told(message.type, message.text))
        self.page = self.context.new_page()

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.url, "blob:")):
            self.complaints.append(f"a request to {request.url}")
        if request.method == "POST":
            self.posted.append(request.post_data_json)

    def _told(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(f"status of {status}" in text for status in self.expected):
            self.complaints.append(f"{kind}: {text}")

    def open(self) -> "Visit":
        self.page.goto("/")
        expect(self.page.locator("#model")).not_to_be_empty()
        return self

    def set(self, **settings: object) -> "Visit":
        for name, value in settings.items():
            self.page.locator(f"#settings-form [name={name}]").fill(str(value))
        return self

    def send(self, text: str) -> None:
        self.page.get_by_role("textbox", name="Message").or_(
            self.page.get_by_role("textbox", name="Text to continue")
        ).fill(text)
        self.page.keyboard.press("Enter")

    def ended(self) -> "Visit":
        """Waits until nothing is being written."""
        expect(self.button("Send")).to_be_visible()
        return self

    def answered_with(self, body: str) -> "Visit":
        """Lets the next request of a chat have an answer that no server of ours gives."""
        self.page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(body=body, content_type="text/event-stream"),
            times=1,
        )
        return self

    def ask(self, text: str) -> str:
        """Sends text and gives the whole reply."""
        self.send(text)
        return self.ended().reply()

    def reply(self) -> str:
        return self.turns()[-1]["content"]

    def turns(self, mode: str | None = None) -> list[dict[str, Any]]:
        """The conversation that the browser keeps."""
        mode = mode or self.page.locator("[name=mode]:checked").input_value()
        kept: list[dict[str, Any]] = self.page.evaluate(
            "mode => JSON.parse(localStorage['bitnet.' + mode] ?? '[]')", mode
        )
        return kept

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def messages(self) -> Locator:
        return self.page.locator("#messages > li")

    def metric(self, name: str) -> float:
        """A figure of the server."""
        for line in self.context.request.get("/metrics").text().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"the server has no metric {name}")


@pytest.fixture
def visits(browser: Browser) -> Iterator[Any]:
    """Opens the page of a server; at the end no visit may have had a complaint."""
    made: list[Visit] = []

    def visit(url: str, **options: Any) -> Visit:
        made.append(Visit(browser, url, **options))
        return made[-1].open()

    yield visit
    for each in made:
        each.context.close()
    assert [each.complaints for each in made] == [[]] * len(made)


# --- conversations ---------------------------------------------------------------------------------------------------


def test_a_base_model_continues_a_text_as_generate_does(visits: Any, base: str, shakespeare: BitNetModel) -> None:
    visit = visits(base).set(temperature=0, max_tokens=40)
    expect(visit.page.get_by_role("radio", name="Chat")).to_be_disabled()
    expect(visit.page.get_by_role("radio", name="Completion")).to_be_checked()
    assert visit.ask("First Citizen:") == shakespeare.generate("First Citizen:", max_new_tokens=40)
    stats = visit.messages.last.locator(".stats")
    expect(stats).to_contain_text("40 tokens ·")
    expect(stats).to_contain_text("tokens/s ·")
    expect(stats).to_contain_text("to the first token")
    prompt = len(shakespeare.tokenizer.encode("First Citizen:"))
    expect(stats).to_contain_text(f"{prompt + 40} of 256 tokens of context · limit of tokens reached")
    assert visit.page.title() == "bitnet-shakespeare · BitNet"


def test_no_more_of_the_context_is_used_than_there_is(visits: Any, base: str) -> None:
    visit = visits(base).set(temperature=0)
    visit.set(max_tokens=256)
    visit.ask("First Citizen:")
    expect(visit.messages.last.locator(".stats")).to_contain_text(
        "· 256 of 256 tokens of context · limit of tokens reached"
    )


def test_the_end_of_a_reply_is_in_view_however_fast_it_came(visits: Any, chatting: str) -> None:
    visit = visits(chatting)
    visit.answered_with(event("line\n" * 100) + DONE).ask("Speak.")
    expect(visit.messages.last.locator(".stats")).to_be_in_viewport()


def test_speed_is_that_of_the_tokens_after_the_first_piece(visits: Any, chatting: str) -> None:
    statistics = visits(chatting).page.evaluate(
        """async () => {
          const { Stopwatch } = await import("/stopwatch.js");
          let now = 0;
          performance.now = () => now;
          const at = (milliseconds, watch, piece) => ((now = milliseconds), watch.note(piece), watch.statistics(100));
          const watch = new Stopwatch();
          const none = watch.statistics(100);
          const prompt = at(400, watch, { text: "" });
          const one = at(500, watch, { text: "abcde" });
          at(1000, watch, { text: "fghij" });
          const all = at(2000, watch, { text: "klmnopqrst", usage: { completion_tokens: 8, total_tokens: 20 } });
          return [none, prompt, one, all];
        }"""
    )
    unknown = {"tokens": 0, "exact": False, "rate": None, "first": None, "used": None, "context": 100}
    assert statistics == [
        unknown,
        unknown,
        unknown | {"tokens": 1, "rate": 2, "first": 0.5},
        # A quarter of the characters, so two of eight tokens, came after half a second; six in one and a half.
        {"tokens": 8, "exact": True, "rate": 4, "first": 0.5, "used": 20, "context": 100},
    ]


def test_continue_goes_on_where_the_text_ends(visits: Any, base: str, shakespeare: BitNetModel) -> None:
    visit = visits(base).set(temperature=0, max_tokens=20)
    text = visit.ask("ROMEO:")
    visit.button("Continue").click()
    longer = visit.ended().reply()
    assert longer == text + shakespeare.generate("ROMEO:" + text, max_new_tokens=20)
    expect(visit.messages).to_have_count(2)


def test_a_chat_sends_the_system_prompt_what_was_said_and_the_settings(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(
        system=" Be brief. ", temperature=0, max_tokens=12, top_k=5, seed=7, stop="ZZ\n\nYY", presence_penalty=0.5
    )
    first = visit.ask("Who is there?")
    visit.set(temperature=0.7).ask("Speak\nagain")
    asked, again = visit.posted
    assert again["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who is there?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Speak\nagain"},
    ]
    assert again["temperature"] == 0.7
    assert {name: asked[name] for name in asked if name != "messages"} == {
        "model": "talker", "temperature": 0, "max_tokens": 12, "top_k": 5, "seed": 7, "stop": ["ZZ", "YY"], "presence_penalty": 0.5,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_text_is_seen_while_it_is_written_and_stop_ends_it_on_the_server(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(temperature=0)
    canceled = visit.metric('bitnet_requests_total{outcome="canceled"}')
    visit.send("Go on and on")
    text = visit.messages.last.locator(".text")
    expect(text).not_to_be_empty()
    seen = text.text_content()
    expect(text).not_to_have_text(seen)  # it grows
    visit.page.keyboard.press("Escape")
    visit.ended()
    expect(visit.messages.last.locator(".stats")).to_contain_text("stopped")
    while visit.metric("bitnet_requests_running"):
        pass
    assert visit.metric('bitnet_requests_total{outcome="canceled"}') == canceled + 1
    turn = visit.turns()[-1]
    assert turn["finish"] == "stopped"
    assert "".join(turn["content"].split()).startswith("".join(seen.split()))
    assert len(visit.posted) == 1


def test_regenerate_asks_again_and_replaces_the_reply(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(seed=1, max_tokens=24, temperature=1)
    first = visit.ask("Speak")
    visit.button("Regenerate").click()
    assert visit.ended().reply() == first  # the seed is the same
    visit.set(seed=2)
    visit.button("Regenerate").click()
    assert visit.ended().reply() != first
    expect(visit.messages).to_have_count(2)
    assert [len(body["messages"]) for body in visit.posted] == [1, 1, 1]


def test_a_message_that_waits_for_the_model_is_sent_once(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=4)
    held: list[Any] = []
    visit.page.route("**/v1/models", lambda route: held.append(route))
    visit.page.reload(wait_until="domcontentloaded")
    expect(visit.page.get_by_role("textbox", name="Message")).to_be_focused()
    visit.send("Hello")
    visit.page.keyboard.press("Enter")
    while len(held) < 3:  # of the page itself and of each Enter
        visit.page.wait_for_timeout(10)
    for route in held:
        route.continue_()
    visit.page.wait_for_load_state("networkidle")
    expect(visit.messages).to_have_count(2)
    visit.ended()
    assert [body["messages"] for body in visit.posted] == [[{"role": "user", "content": "Hello"}]]


def test_an_edited_message_is_sent_again_and_what_followed_is_dropped(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=8)
    visit.ask("One")
    visit.ask("Two")
    visit.button("Edit").first.click()
    area = visit.page.get_by_role("textbox", name="Edit the message")
    expect(area).to_be_focused()
    area.fill("not this")
    area.press("Escape")
    expect(visit.messages).to_have_count(4)
    visit.button("Edit").first.click()
    area.fill("Three")
    visit.button("Send again").click()
    visit.ended()
    expect(visit.messages).to_have_count(2)
    assert visit.posted[-1]["messages"] == [{"role": "user", "content": "Three"}]


def test_conversation_and_settings_survive_a_reload_and_a_deleted_conversation_comes_back(
    visits: Any, chatting: str
) -> None:
    visit = visits(chatting).set(max_tokens=8, top_p=0.5, system="Sir")
    reply = visit.ask("Stay")
    visit.page.reload()
    expect(visit.messages).to_have_count(2)
    assert visit.reply() == reply
    for name, value in (("max_tokens", "8"), ("top_p", "0.5"), ("system", "Sir")):
        expect(visit.page.locator(f"#settings-form [name={name}]")).to_have_value(value)
    visit.button("New conversation").click()
    expect(visit.messages).to_have_count(0)
    visit.button("New conversation").click()  # which there is nothing to delete for
    visit.button("Bring it back").click()
    expect(visit.messages).to_have_count(2)
    visit.button("Reset sampling").click()
    expect(visit.page.locator("#top_p")).to_have_value("")
    expect(visit.page.locator("#system")).to_have_value("Sir")


def test_tabs_show_the_same_conversation_and_closing_one_loses_nothing(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=4)
    other = visit.context.new_page()
    other.goto("/")
    expect(other.locator("#model")).to_have_text("talker")
    visit.ask("One")
    expect(other.locator("#messages > li")).to_have_count(2)
    visit.ask("Two")
    other.close()
    visit.page.reload()
    expect(visit.messages).to_have_count(4)


def test_each_mode_has_its_conversation(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=4)
    visit.ask("In a chat")
    visit.page.get_by_role("radio", name="Completion").check()
    expect(visit.messages).to_have_count(0)
    visit.ask("As a text")
    assert visit.posted[-1]["prompt"] == "As a text"
    visit.page.reload()
    expect(visit.messages.first).to_contain_text("As a text")
    visit.page.get_by_role("radio", name="Chat").check()
    expect(visit.messages.first).to_contain_text("In a chat")


def test_a_stored_conversation_that_is_none_is_passed_over(visits: Any, chatting: str) -> None:
    visit = visits(chatting)
    for kept in (
        "nonsense",
        "[1]",
        '[{"role": "assistant", "content": "x"}]',
        '[{"role": "user", "content": 1}]',
        "null",
    ):
        visit.page.evaluate(
            "kept => ['chat', 'settings', 'theme'].forEach(name => (localStorage['bitnet.' + name] = kept))", kept
        )
        visit.page.reload()
        expect(visit.page.locator("#model")).to_have_text("talker")
        expect(visit.messages).to_have_count(0)


def test_conversations_are_exported(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=8, system="Sir", seed=3)
    reply = visit.ask("Save me")
    with visit.page.expect_download() as waiting:
        visit.button("Export as JSON").click()
    assert json.loads(Path(waiting.value.path()).read_text()) == {
        "model": "talker", "mode": "chat", "max_tokens": 8, "seed": 3,
        "messages": [
            {"role": "system", "content": "Sir"}, {"role": "user", "content": "Save me"}, {"role": "assistant", "content": reply},
        ],
    }  # fmt: skip
    with visit.page.expect_download() as waiting:
        visit.button("Export as Markdown").click()
    assert waiting.value.suggested_filename == "conversation.md"
    text = Path(waiting.value.path()).read_text()
    assert text == f"# Conversation with talker\n\n## System\n\nSir\n\n## You\n\nSave me\n\n## Assistant\n\n{reply}\n"


def test_copy_puts_a_reply_on_the_clipboard(visits: Any, chatting: str) -> None:
    visit = visits(chatting, permissions=["clipboard-read", "clipboard-write"]).set(max_tokens=8)
    reply = visit.ask("Copy me")
    visit.button("Copy").last.click()
    expect(visit.button("Copied")).to_be_visible()
    assert visit.page.evaluate("navigator.clipboard.readText()") == reply


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_server_with_keys_is_asked_with_the_users(browser: Browser) -> None:
    with serving("bitnet-shakespeare", BITNET_API_KEYS="sesame") as (url, _):
        visit = Visit(browser, url)
        visit.expected = {401}
        visit.page.goto("/")
        key = visit.page.get_by_label("API key")
        expect(key).to_be_focused()
        expect(key).to_have_attribute("type", "password")
        key.fill("guess")
        key.press("Enter")
        expect(visit.page.get_by_text("The server refuses this key.")).to_be_visible()
        key.fill("sesame")
        key.press("Enter")
        expect(visit.page.locator("#model")).to_have_text("bitnet-shakespeare")
        assert visit.set(max_tokens=5).ask("ROMEO:")
        assert visit.page.evaluate("JSON.stringify(localStorage).includes('sesame')") is False
        visit.page.reload()  # the tab keeps it
        expect(visit.page.locator("#model")).to_have_text("bitnet-shakespeare")
        visit.button("Forget the API key").click()
        visit.button("Regenerate").click()
        expect(key).to_be_focused()
        key.fill("sesame")
        key.press("Enter")  # what was asked is asked again
        assert visit.ended().reply()
        expect(visit.messages).to_have_count(2)
        assert visit.complaints == []
        visit.context.close()


def test_the_servers_reason_is_shown_and_what_got_no_answer_is_not_sent_again(
    visits: Any, base: str, chatting: str
) -> None:
    visit = visits(base)
    visit.expected = {400}
    visit.send("word " * 300)
    error = visit.messages.last.locator(".error")
    expect(error).to_contain_text("context")
    visit.ended()

    visit = visits(chatting).set(max_tokens=4)
    visit.expected = {429}
    busy = {"error": {"message": "The queue is full.", "type": "rate_limit_error", "param": None, "code": "queue_full"}}
    visit.page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=429, json=busy, headers={"Retry-After": "3"}),
        times=1,
    )
    visit.send("Too many")
    expect(visit.messages.last.locator(".error")).to_have_text("The queue is full. Try again in 3 s.")
    visit.ask("Now")
    assert visit.posted[-1]["messages"] == [{"role": "user", "content": "Now"}]


DONE = "data: [DONE]\n\n"


def event(text: str) -> str:
    return (
        "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}) + "\n\n"
    )


def test_a_stream_ends_with_a_clear_error_or_none(visits: Any, chatting: str) -> None:
    visit = visits(chatting)
    for body, text, error in (
        (event("half") + 'data: {"error": {"message": "The model ended."}}\n\n', "half", "The model ended."),
        (event("half"), "half", "The connection ended before the reply did."),
        (
            ": ping\r\n\r\n" + event("a").replace("\n", "\r\n") + event("ü").replace("\n", "\r") + "data:[DONE]\n\n",
            "aü",
            "",
        ),
        ("<html>", "", "The connection ended before the reply did."),
        ("data: {]\n\n", "", "The server sends what is no JSON."),
    ):
        visit.answered_with(body).send("Hello")
        visit.ended()
        turn = visit.turns()[-1]
        assert (turn["content"], turn.get("error", "")) == (text, error)
        expect(visit.messages.last.locator(".error")).to_have_text(error)


def test_events_are_read_however_the_network_cuts_them(visits: Any, chatting: str) -> None:
    in_two_lines = event("a\nb").replace(", ", ",\r\ndata: ", 1).replace("\n\n", "\r\n\r\n")
    body = ": hello\n\n" + event("日本 ") + in_two_lines + DONE
    pieces = visits(chatting).page.evaluate(
        """async (body) => {
          const { reply } = await import("/api.js");
          const bytes = new TextEncoder().encode(body);
          const texts = [];
          for (let size = 1; size <= bytes.length; size += 1) {
            const stream = new ReadableStream({
              start(controller) {
                for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
                controller.close();
              },
            });
            window.fetch = async () => new Response(stream);
            let text = "";
            for await (const piece of reply("chat", {}, "", undefined)) text += piece.text;
            texts.push(text);
          }
          return texts;
        }""",
        body,
    )
    assert pieces == ["日本 a\nb"] * len(body.encode())


def test_a_server_that_dies_is_said_to_be_gone_and_what_it_wrote_stays(visits: Any, talking_model: Path) -> None:
    with serving(talking_model) as (url, process):
        visit = visits(url)
        visit.send("Go on")
        expect(visit.messages.last.locator(".text")).not_to_be_empty()
        process.kill()
        error = visit.messages.last.locator(".error")
        expect(error).to_have_text("The connection broke off.")
        assert visit.reply()
        visit.button("Regenerate").click()
        expect(error).to_have_text("The server cannot be reached.")
        assert all("net::ERR" in complaint for complaint in visit.complaints)  # the browser's own words for it
        visit.complaints.clear()


def test_a_value_out_of_range_is_shown_and_not_sent(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=4)
    reply = visit.ask("Hello")
    visit.set(top_p=2)
    visit.button("Settings").click()  # it opens again to show the field
    visit.send("Hello again")
    expect(visit.page.locator("#top_p")).to_be_focused()
    expect(visit.page.get_by_role("textbox", name="Message")).to_have_value("Hello again")
    visit.button("Regenerate").click()
    expect(visit.messages).to_have_count(2)
    assert visit.reply() == reply
    assert len(visit.posted) == 1


def test_the_page_works_below_a_path(visits: Any, base: str) -> None:
    visit = visits(base).set(max_tokens=4)
    visit.page.route("**/below/**", lambda route: route.continue_(url=route.request.url.replace("/below/", "/")))
    visit.page.goto("/below/")
    expect(visit.page.locator("#model")).to_have_text("bitnet-shakespeare")
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    assert visit.ask("ROMEO:")
    assert asked == [f"{base}/below/v1/completions"]


# --- how text looks --------------------------------------------------------------------------------------------------


def test_markup_in_a_text_stays_text(visits: Any, chatting: str) -> None:
    visit = visits(chatting)
    text = "<img src=x onerror=alert(1)> `<b>` [a](javascript:alert(1))\n\n```html\n<script>alert(1)</script>\n```\n<i>"
    visit.answered_with(event(text) + DONE).ask("<u>hm</u>")
    expect(visit.messages.first.locator(".text")).to_have_text("<u>hm</u>")
    reply = visit.messages.last.locator(".text")
    assert reply.locator("> *").evaluate_all("all => all.map(e => e.tagName)") == ["P", "FIGURE", "P"]
    expect(reply.locator("p code")).to_have_text("<b>")
    expect(reply.locator("pre code")).to_have_text("<script>alert(1)</script>")
    expect(reply.locator("figcaption")).to_contain_text("html")
    assert reply.locator("img, b, script, i, a, u").count() == 0


def test_blocks_of_code_are_found_also_while_they_grow(visits: Any, chatting: str) -> None:
    page = visits(chatting).page
    text = "a\nb\n\n\nc\n````py x\n```\n1\n\n````\n~~~\n2\n```\n~~~\nlast\n```"
    blocks = page.evaluate("async text => (await import('/text.js')).blocksOf(text)", text)
    assert [(block.get("language"), block["text"]) for block in blocks] == [
        (None, "a\nb"), (None, "c"), ("py", "```\n1\n"), ("", "2\n```"), (None, "last"), ("", ""),
    ]  # fmt: skip
    drawn, grown = page.evaluate(
        """async (text) => {
          const { draw } = await import("/text.js");
          const [once, often] = [document.createElement("div"), document.createElement("div")];
          draw(text, once);
          for (let i = 1; i <= text.length; i += 1) draw(text.slice(0, i), often);
          return [once.innerHTML, often.innerHTML];
        }""",
        text,
    )
    assert drawn == grown


def test_the_dark_theme_is_the_systems_until_the_user_chooses(visits: Any, chatting: str) -> None:
    def background(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    visit = visits(chatting, color_scheme="dark")
    dark, toggle = background(visit.page), visit.button("Dark mode")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    light = background(visit.page)
    assert light != dark
    visit.page.reload()
    assert background(visit.page) == light
    assert background(visits(chatting, color_scheme="light").page) == light


def test_narrow_screens_have_everything_and_nothing_beside_them(visits: Any, chatting: str) -> None:
    visit = visits(chatting, viewport={"width": 320, "height": 640})
    visit.answered_with(event("x" * 500 + "\n```\n" + "y" * 500) + DONE).ask("z" * 300)
    for width in (320, 390, 768):
        visit.page.set_viewport_size({"width": width, "height": 640})
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        expect(visit.page.locator("#settings")).to_be_hidden()
        expect(visit.button("Send")).to_be_in_viewport()
        assert visit.page.evaluate(
            "scroll => scroll.scrollWidth <= scroll.clientWidth", visit.page.locator("#scroll").element_handle()
        )
        visit.button("Settings").click()
        visit.set(temperature=1, seed=2)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        visit.button("Settings").click()


# --- keyboard and screen readers -------------------------------------------------------------------------------------


def test_everything_can_be_done_with_the_keyboard(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=6)
    visit.page.reload()
    keyboard, focused = visit.page.keyboard, visit.page.locator(":focus")
    expect(visit.page.get_by_role("textbox", name="Message")).to_be_focused()
    expect(visit.page.locator("#model")).not_to_be_empty()  # before that, what is sent waits
    keyboard.type("first line")
    keyboard.press("Shift+Enter")
    keyboard.type("second line")
    keyboard.press("Enter")
    visit.ended()
    assert visit.posted[-1]["messages"][0]["content"] == "first line\nsecond line"
    expect(visit.page.get_by_role("textbox", name="Message")).to_be_focused()
    names = []
    for _ in range(8):
        keyboard.press("Shift+Tab")
        names.append(focused.evaluate("e => e.getAttribute('aria-label') ?? e.textContent"))
        assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"  # it is seen
    assert names == [
        "Regenerate", "Copy", "Edit", "Copy", "Conversation", "Settings", "Dark mode", "New conversation",
    ]  # fmt: skip
    keyboard.press("Shift+Tab")
    expect(focused).to_have_text("Skip to the message box")
    keyboard.press("Enter")
    expect(visit.page.get_by_role("textbox", name="Message")).to_be_focused()


def test_screen_readers_hear_a_reply_once(visits: Any, chatting: str) -> None:
    visit = visits(chatting).set(max_tokens=16)
    visit.page.evaluate(
        """() => {
          window.heard = []; // what changes in regions that are read aloud
          new MutationObserver((changes) => changes.forEach(({ target }) => {
            const live = (target.closest ? target : target.parentElement)?.closest("[aria-live], [role=status], [role=alert], [role=log]");
            if (live) heard.push(live.textContent);
          })).observe(document.body, { subtree: true, childList: true, characterData: true });
        }"""
    )
    reply = visit.ask("Speak")
    assert visit.page.evaluate("window.heard") == ["The model is writing.", reply]


def test_axe_finds_nothing(visits: Any, chatting: str) -> None:
    visit = visits(chatting)
    visit.answered_with(event("x `y`\n```c\nz\n```")).ask("Look")  # which ends with an error
    visit.answered_with(event("x") + DONE).ask("And there")
    visit.button("Edit").first.click()
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        found = Axe().run(visit.page).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []


def test_every_control_has_a_name_and_the_page_its_parts(visits: Any, chatting: str) -> None:
    page = visits(chatting).page
    for control in page.locator("button, input, textarea, [tabindex]").all():
        name = control.evaluate(
            "e => e.getAttribute('aria-label') || [...(e.labels ?? [])].map(l => l.textContent).join() || e.textContent"
        )
        assert name.strip(), control.evaluate("e => e.outerHTML")
    for role in ("banner", "main", "complementary", "status"):
        expect(page.get_by_role(role)).to_have_count(1)
    assert page.evaluate("document.documentElement.lang") == "en"
