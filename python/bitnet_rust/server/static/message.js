// How a turn of a conversation looks.

import { speaker } from "./conversation.js";
import { button, copy, create } from "./dom.js";
import { draw } from "./text.js";

const ENDS = {
  length: "limit of tokens reached",
  stopped: "stopped",
  cut: "cut off",
};

export class MessageView {
  // actions: {name: function of no arguments}, the buttons besides Copy.
  constructor(mode, turn, actions) {
    this.turn = turn;
    this.text = create("div", "text");
    this.stats = create("p", "stats");
    this.error = create("p", "error");
    this.buttons = create("div", "actions", button("Copy", (pressed) => copy(turn.content, pressed)));
    for (const [name, action] of Object.entries(actions)) this.buttons.append(button(name, action));
    this.element = create(
      "li",
      `message ${turn.role} ${mode}`,
      create("h2", "", speaker(mode, turn.role)),
      this.text,
      this.error,
      this.stats,
      this.buttons,
    );
    this.update();
  }

  // Shows what the turn has become; writing says that more is to come.
  update(writing = false) {
    const { turn } = this;
    draw(turn.content, this.text);
    this.element.classList.toggle("writing", writing);
    this.stats.textContent = summary(turn);
    this.error.textContent = turn.error ?? "";
  }

  // Puts a form in the text's place; done(text) gets what is to be sent instead.
  edit(name, done) {
    const area = create("textarea");
    area.value = this.turn.content;
    area.rows = Math.min(12, area.value.split("\n").length + 1);
    area.setAttribute("aria-label", name);
    const cancel = () => {
      form.replaceWith(this.text);
      this.buttons.hidden = false;
      this.buttons.querySelector("button:last-child").focus();
    };
    const form = create("form", "edit", area, create("button", "", "Send again"), button("Cancel", cancel));
    const submit = () => area.value.trim() && done(area.value);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        submit();
      }
    });
    this.buttons.hidden = true;
    this.text.replaceWith(form);
    area.focus();
  }
}

function summary({ stats, finish }) {
  const parts = [];
  if (stats) {
    parts.push(`${stats.exact ? "" : "about "}${stats.tokens} ${stats.tokens === 1 ? "token" : "tokens"}`);
    if (stats.rate !== null) parts.push(`${Number(stats.rate).toFixed(1)} tokens/s`);
    if (stats.first !== null) parts.push(`${seconds(stats.first)} to the first token`);
    if (stats.used !== null) parts.push(`${stats.used} of ${stats.context} tokens of context`);
  }
  if (ENDS[finish]) parts.push(ENDS[finish]);
  return parts.join(" · ");
}

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}
