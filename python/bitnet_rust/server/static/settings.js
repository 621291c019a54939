// The settings panel. Its form defines the settings: names of fields are those of the API, and an empty field is not sent.

import { load, save } from "./storage.js";

export class Settings {
  constructor(form, modeChanged) {
    this.form = form;
    const kept = load("settings", (value) => typeof value === "object" && !Array.isArray(value)) ?? {};
    this.wanted = kept.mode === "completion" ? "completion" : "chat";
    form.mode.value = this.wanted;
    for (const field of this.fields()) if (typeof kept[field.name] === "string") field.value = kept[field.name];
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      if (event.target.name === "mode") {
        this.wanted = form.mode.value;
        modeChanged();
      }
      this.save();
    });
  }

  // "chat" or "completion".
  get mode() {
    return this.form.mode.value;
  }

  get system() {
    return this.form.system.value.trim();
  }

  // A model without a chat template has completions only. What the user wanted is kept for models that have one.
  offerChat(possible) {
    this.form["mode-chat"].disabled = !possible;
    this.form.mode.value = possible ? this.wanted : "completion";
  }

  // The name of the first field with a value that the API would refuse, or null.
  invalid() {
    return this.fields().find((field) => !field.checkValidity()) ?? null;
  }

  // The sampling parameters of a request.
  sampling() {
    const parameters = {};
    for (const field of this.fields()) {
      if (field.type === "number" && field.value !== "") parameters[field.name] = field.valueAsNumber;
    }
    const stop = this.form.stop.value.split("\n").filter((line) => line !== "");
    return stop.length ? { ...parameters, stop } : parameters;
  }

  reset() {
    for (const field of this.fields()) if (field.name !== "system") field.value = "";
    this.save();
  }

  save() {
    save("settings", { mode: this.wanted, ...Object.fromEntries(this.fields().map((field) => [field.name, field.value])) });
  }

  // All but the choice of the mode.
  fields() {
    return [...this.form.elements].filter((field) => field.name && field.name !== "mode");
  }
}
