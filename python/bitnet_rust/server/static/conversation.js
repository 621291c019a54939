// A conversation: turns that the browser keeps, and what is sent and exported of them.

import { load, save } from "./storage.js";

const COMPLETION_TOKENS = 256; // where the user says nothing: the API's 16 are few

// A turn: {role: "user" | "assistant", content}, and of the assistant {finish, error, stats} once it has ended:
// finish is the API's finish_reason, "stopped" or "cut", error a sentence, stats are those of a Stopwatch.
export class Conversation {
  constructor(mode) {
    this.mode = mode;
    this.load();
  }

  // Takes what the browser keeps.
  load() {
    this.turns = load(this.mode, areTurns) ?? [];
    for (const turn of this.turns) if (turn.role === "assistant") turn.finish ??= "cut"; // the page was closed meanwhile
  }

  // False if the browser does not keep it.
  save() {
    return save(this.mode, this.turns);
  }

  // The body of the request for the last turn, which is the assistant's. A completion goes on from where its text ends.
  request(model, system, sampling) {
    const [prompt, text] = this.turns.slice(-2);
    if (this.mode === "completion") {
      return { model, prompt: prompt.content + text.content, max_tokens: COMPLETION_TOKENS, ...sampling };
    }
    const messages = system ? [{ role: "system", content: system }] : [];
    for (let i = 0; i + 2 < this.turns.length; i += 2) {
      const [question, answer] = this.turns.slice(i, i + 2);
      if (answer.content) messages.push(plain(question), plain(answer)); // templates want messages in turns: nothing unanswered
    }
    return { model, messages: [...messages, plain(prompt)], ...sampling };
  }

  asMarkdown(model, system) {
    const parts = [`# Conversation with ${model}`];
    if (system && this.mode === "chat") parts.push("## System", system);
    for (const { role, content } of this.turns) parts.push(`## ${speaker(this.mode, role)}`, content);
    return parts.join("\n\n") + "\n";
  }

  asJSON(model, system, sampling) {
    const messages = this.turns.map(plain);
    if (system && this.mode === "chat") messages.unshift({ role: "system", content: system });
    return JSON.stringify({ model, mode: this.mode, ...sampling, messages }, null, 2) + "\n";
  }
}

export function speaker(mode, role) {
  if (mode === "chat") return role === "user" ? "You" : "Assistant";
  return role === "user" ? "Text" : "Continuation";
}

function plain({ role, content }) {
  return { role, content };
}

function areTurns(value) {
  return (
    Array.isArray(value) &&
    value.length % 2 === 0 &&
    value.every((turn, i) => turn?.role === (i % 2 ? "assistant" : "user") && typeof turn.content === "string")
  );
}
