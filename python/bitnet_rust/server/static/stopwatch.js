// How fast a reply comes.

export class Stopwatch {
  constructor() {
    this.begin = performance.now();
    this.pieces = 0; // with text
    this.characters = 0;
    this.first = null; // {seconds, characters} of the first piece
    this.last = null; // seconds
    this.usage = null;
  }

  // A piece {text, usage} that has come now.
  note({ text, usage }) {
    this.usage = usage ?? this.usage;
    if (!text) return;
    this.last = (performance.now() - this.begin) / 1000;
    this.first ??= { seconds: this.last, characters: text.length };
    this.pieces += 1;
    this.characters += text.length;
  }

  // {tokens, exact, rate, first, used, context}: until the server has counted them, each piece is taken for a token.
  // rate is in tokens a second, first in seconds; used and context are tokens. What is not known is null.
  statistics(context) {
    const { first, last, usage } = this;
    const tokens = usage?.completion_tokens ?? this.pieces;
    let rate = null;
    if (first) {
      // The first piece may be several tokens, and most of the time that it took is the prompt's.
      const others = tokens * (1 - first.characters / this.characters);
      rate = last > first.seconds ? others / (last - first.seconds) : tokens / last;
    }
    // The last token of an answer that fills the context has no place there.
    const used = usage && Math.min(usage.total_tokens, context);
    return { tokens, exact: usage !== null, rate, first: first?.seconds ?? null, used, context };
  }
}
