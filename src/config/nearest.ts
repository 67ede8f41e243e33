/** Which known word somebody probably meant. */

/** Edits that a slip of the finger makes: at most a third of the word, and at least two. */
function editsMax(word: string): number {
  return Math.max(2, Math.floor(word.length / 3));
}

/** Insertions, deletions and replacements that turn one word into the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let index = 1; index <= from.length; index += 1) {
    const next = [index];
    for (let column = 1; column <= to.length; column += 1) {
      const replace = row[column - 1]! + (from[index - 1] === to[column - 1] ? 0 : 1);
      next.push(Math.min(replace, row[column]! + 1, next[column - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}

/** The known word closest to `word`, or `null` when none is close. */
export function nearest(word: string, known: readonly string[]): string | null {
  const typed = word.toLowerCase().slice(0, 64);
  let best: string | null = null;
  let bestEdits = editsMax(typed) + 1;
  for (const candidate of known) {
    const edits = editDistance(typed, candidate);
    if (edits < bestEdits) {
      bestEdits = edits;
      best = candidate;
    }
  }
  return best;
}

/** `; did you mean "x"?` or nothing, to be put behind a message. */
export function suggestion(word: string, known: readonly string[]): string {
  const best = nearest(word, known);
  return best === null ? "" : `; did you mean "${best}"?`;
}
