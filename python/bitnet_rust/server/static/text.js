// Shows a model's text: paragraphs, fenced blocks of code and `code`. Everything becomes text nodes, never markup.

import { button, copy, create } from "./dom.js";

// Draws text into element. While text grows only the blocks that changed are drawn again.
export function draw(text, element) {
  const blocks = blocksOf(text);
  while (element.children.length > blocks.length) element.lastElementChild.remove();
  blocks.forEach((block, i) => {
    const source = `${block.language ?? ""}\n${block.text}`;
    const shown = element.children[i];
    if (shown?.source === source) return;
    const made = block.language === undefined ? paragraph(block.text) : code(block);
    made.source = source;
    if (shown) shown.replaceWith(made);
    else element.append(made);
  });
}

// Paragraphs end at empty lines, blocks of code at a fence as long as the one that began them; an open fence goes to the end.
export function blocksOf(text) {
  const blocks = [];
  let lines = [];
  let fence = null; // of the block that we are in
  let language;
  const end = () => {
    if (lines.length || language !== undefined) blocks.push({ text: lines.join("\n"), language });
    lines = [];
    language = undefined;
  };
  for (const line of text.split("\n")) {
    const mark = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/.exec(line);
    if (fence === null && mark) {
      end();
      fence = mark[1];
      language = mark[2];
    } else if (fence !== null && mark && mark[1].startsWith(fence) && mark[2] === "") {
      end();
      fence = null;
    } else if (fence === null && line.trim() === "") {
      end();
    } else {
      lines.push(line);
    }
  }
  end();
  return blocks;
}

function paragraph(text) {
  return create("p", "", ...text.split(/`([^`\n]+)`/).map((part, i) => (i % 2 ? create("code", "", part) : part)));
}

function code({ text, language }) {
  const caption = create("figcaption", "", language || "code", button("Copy code", (pressed) => copy(text, pressed)));
  const body = create("pre", "", create("code", "", text));
  body.tabIndex = 0; // long lines are scrolled with the keyboard
  return create("figure", "", caption, body);
}
