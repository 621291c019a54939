// The chat page: what happens when.

import { reply, servedModel } from "./api.js";
import { Conversation } from "./conversation.js";
import { byId, download } from "./dom.js";
import { MessageView } from "./message.js";
import { Settings } from "./settings.js";
import { Stopwatch } from "./stopwatch.js";
import { key, load, save } from "./storage.js";

const [form, message, list, scroll] = [byId("composer"), byId("message"), byId("messages"), byId("scroll")];
const settings = new Settings(byId("settings-form"), () => show());
const conversations = { chat: new Conversation("chat"), completion: new Conversation("completion") };

let model = null; // what the server serves, once it has said so
let writing = null; // {conversation, turn, abort()} of the reply that is being written
let views = [];
let deleted = null; // {conversation, turns} that can be brought back
let waiting = null; // what to do once there is a key

const current = () => conversations[settings.mode];

start();

// --- what the user does ----------------------------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && writing) stop();
});

byId("stop").addEventListener("click", stop);

byId("new").addEventListener("click", () => {
  stop();
  const conversation = current();
  if (conversation.turns.length) {
    deleted = { conversation, turns: conversation.turns };
    restart(conversation, []);
  }
  byId("undo-bar").hidden = !deleted;
});

byId("undo").addEventListener("click", () => {
  restart(deleted.conversation, deleted.turns);
  deleted = null;
  byId("undo-bar").hidden = true;
});

byId("dark").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("bitnet.theme", theme);
  } catch {
    // Not kept.
  }
  showTheme();
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);

byId("settings-toggle").addEventListener("click", () => {
  const open = byId("settings").hidden;
  showSettings(open);
  save("settings-open", open);
});

byId("reset").addEventListener("click", () => settings.reset());

byId("export-markdown").addEventListener("click", () => {
  download("conversation.md", "text/markdown", current().asMarkdown(model?.id ?? "a model", settings.system));
});

byId("export-json").addEventListener("click", () => {
  const text = current().asJSON(model?.id ?? null, settings.system, settings.sampling());
  download("conversation.json", "application/json", text);
});

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(byId("key").value);
  byId("key").value = "";
  byId("key-form").hidden = true;
  message.focus();
  waiting?.();
});

byId("forget-key").addEventListener("click", () => {
  key.set("");
  show();
});

// What there is of a reply when the page is closed.
addEventListener("pagehide", () => writing && keep(writing.conversation));

// Another tab went on with the conversation: this one follows.
addEventListener("storage", ({ key: name }) => {
  const conversation = Object.values(conversations).find(({ mode }) => name === `bitnet.${mode}`);
  if (!conversation || writing) return;
  conversation.load();
  show();
});

// --- what the page does ----------------------------------------------------------------------------------------------

async function start() {
  showTheme();
  const wide = matchMedia("(min-width: 70rem)").matches; // elsewhere they would cover the conversation
  showSettings(wide && (load("settings-open", (value) => typeof value === "boolean") ?? true));
  show();
  message.focus();
  await greet();
}

// Asks the server what it serves.
async function greet() {
  try {
    model = await servedModel(key.get());
  } catch (error) {
    if (error.status === 401) askForKey(greet);
    else say(error.message);
    byId("welcome").textContent = error.message;
    return;
  }
  settings.offerChat(model.chat !== false);
  byId("model").textContent = model.id;
  document.title = `${model.id} · BitNet`;
  if (model.chat === false) {
    byId("mode-hint").textContent = "This model has no chat template: it continues a text.";
  }
  show();
}

async function send() {
  if (writing || !message.value.trim() || !settingsAreValid()) return;
  if (!model) await greet();
  const text = message.value;
  if (!model || writing || !text.trim()) return; // a second Enter waited for the model, too
  message.value = "";
  current().turns.push({ role: "user", content: text });
  answer();
}

// Writes the last turn, which is a new one unless it goes on with one that is there.
async function answer(turn = { role: "assistant", content: "" }, conversation = current()) {
  const { turns } = conversation;
  if (turns.at(-1) !== turn) turns.push(turn);
  const before = turn.content;
  for (const old of ["finish", "error", "stats"]) delete turn[old];
  const request = conversation.request(model.id, settings.system, settings.sampling());
  const clock = new Stopwatch();
  const aborter = new AbortController();
  writing = { conversation, turn, abort: () => aborter.abort() };
  deleted = null;
  byId("undo-bar").hidden = true;
  show();
  scroll.scrollTop = scroll.scrollHeight;
  message.focus();
  say("The model is writing.");
  try {
    for await (const piece of reply(conversation.mode, request, key.get(), aborter.signal)) {
      turn.content += piece.text;
      turn.finish = piece.finish ?? turn.finish;
      clock.note(piece);
      turn.stats = clock.statistics(model.max_model_len);
      showGrowth(turn);
    }
  } catch (error) {
    if (error.name === "AbortError") {
      turn.finish = "stopped";
    } else {
      turn.error = error.retryAfter ? `${error.message} Try again in ${error.retryAfter} s.` : error.message;
      if (error.status === 401) askForKey(() => again(conversation, turn, before));
    }
  }
  turn.finish ??= "cut";
  writing = null;
  keepAtEnd(show); // what came since the last frame, and the figures below it
  say(turn.error ?? turn.content.slice(before.length));
  keep(conversation);
}

// The same request once more, from what was there before it.
function again(conversation, turn, before) {
  if (before) {
    turn.content = before;
    answer(turn, conversation);
  } else {
    conversation.turns.pop();
    answer(undefined, conversation);
  }
}

function stop() {
  writing?.abort();
}

function settingsAreValid() {
  const field = settings.invalid();
  if (!field) return true;
  showSettings(true);
  field.reportValidity();
  return false;
}

function restart(conversation, turns) {
  conversation.turns = turns;
  keep(conversation);
  show();
  message.focus();
}

function keep(conversation) {
  if (!conversation.save()) say("The browser has no room to keep this conversation.");
}

function askForKey(then) {
  waiting = then;
  byId("key-hint").textContent = key.get() ? "The server refuses this key." : "The server wants an API key.";
  byId("key-form").hidden = false;
  byId("key").focus();
}

// --- how it looks ----------------------------------------------------------------------------------------------------

function show() {
  const { mode, turns } = current();
  const last = turns.length - 1;
  views = turns.map((turn, i) => {
    const actions = {};
    if (!writing && turn.role === "user") actions.Edit = () => edit(i);
    if (!writing && turn.role === "assistant" && i === last) {
      actions.Regenerate = () => regenerate();
      if (mode === "completion" && !turn.error) actions.Continue = () => settingsAreValid() && answer(turn);
    }
    return new MessageView(mode, turn, actions);
  });
  list.replaceChildren(...views.map((view) => view.element));
  viewOf(writing?.turn)?.update(true);
  list.setAttribute("aria-busy", String(writing !== null));
  byId("send").hidden = writing !== null;
  byId("stop").hidden = writing === null;
  byId("welcome").hidden = turns.length > 0;
  byId("welcome").textContent = mode === "chat" ? "Ask something." : "Begin a text, and the model goes on.";
  byId("message-label").textContent = mode === "chat" ? "Message" : "Text to continue";
  byId("system-field").hidden = mode !== "chat";
  byId("forget-key").hidden = !key.get();
}

let frame = 0;
// Draws a growing turn, at most once a frame, and stays at the end if the reader is there.
function showGrowth(turn) {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (writing?.turn !== turn) return;
    keepAtEnd(() => viewOf(turn)?.update(true));
  });
}

function keepAtEnd(draw) {
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  draw();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function viewOf(turn) {
  return views.find((view) => view.turn === turn);
}

function regenerate() {
  if (!settingsAreValid()) return;
  current().turns.pop();
  answer();
}

function edit(i) {
  views[i].edit("Edit the message", (text) => {
    if (!settingsAreValid()) return;
    const { turns } = current();
    turns.splice(i, turns.length, { role: "user", content: text });
    answer();
  });
}

// For screen readers: a reply is read once it is there, not piece by piece.
function say(text) {
  byId("status").textContent = text;
}

function showSettings(open) {
  byId("settings").hidden = !open;
  byId("settings-toggle").setAttribute("aria-expanded", String(open));
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  byId("dark").setAttribute("aria-pressed", String(isDark()));
}
