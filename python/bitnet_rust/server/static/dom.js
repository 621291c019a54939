// Small helpers for elements of the page.

export const byId = (id) => document.getElementById(id);

export function create(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// A button that calls pressed(button).
export function button(name, pressed) {
  const element = create("button", "", name);
  element.type = "button";
  element.addEventListener("click", () => pressed(element));
  return element;
}

// Copies text and says so on the button that was pressed.
export async function copy(text, pressed) {
  const name = pressed.textContent;
  pressed.textContent = (await toClipboard(text)) ? "Copied" : "The browser refuses";
  setTimeout(() => (pressed.textContent = name), 1500);
}

// Offers text to save as a file.
export function download(name, type, text) {
  const link = create("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser reads it after the click
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages from another computer over plain http have no clipboard, only this.
    const focused = document.activeElement;
    const area = create("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}
