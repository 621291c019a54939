// How fast a reply comes.

export class Stopwatch {
  constructor() {
    this.begin = performance.now();
    this.pieces = []; // [seconds, characters] of those with text
    this.usage = null;
  }

  // A piece {text, usage} that has come now.
  note({ text, usage }) {
    if (text) this.pieces.push([(performance.now() - this.begin) / 1000, text.length]);
    this.usage = usage ?? this.usage;
  }

  // {tokens, exact, rate, first, used, context}: until the server has counted them, each piece is taken for a token.
  // rate is in tokens a second, first in seconds; used and context are tokens, null where they are not known.
  statistics(context) {
    const exact = this.usage !== null;
    const tokens = exact ? this.usage.completion_tokens : this.pieces.length;
    const used = exact ? this.usage.total_tokens : null;
    if (!this.pieces.length) return { tokens, exact, rate: null, first: null, used, context };
    const [[first, characters], [last]] = [this.pieces[0], this.pieces.at(-1)];
    // The first piece may be several tokens; what it took is mostly the prompt's time.
    const all = this.pieces.reduce((sum, [, length]) => sum + length, 0);
    const rate = last > first ? (tokens * (1 - characters / all)) / (last - first) : tokens / last;
    return { tokens, exact, rate, first, used, context };
  }
}
