/** Words as a shell reads them back. */

const PLAIN = /^[A-Za-z0-9_@%+=:,./-]+$/;

/** Quotes a word where a shell would change it. */
export function shellWord(word: string): string {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * A command line to copy: options on lines of their own, with the values that follow them.
 *
 * @example
 * shellCommand(["qemu", "-m", "1G", "-name", "my vm"]); // "qemu \\\n  -m 1G \\\n  -name 'my vm'"
 */
export function shellCommand(words: readonly string[]): string {
  const lines: string[] = [];
  for (const word of words) {
    if (lines.length === 0 || word.startsWith("-")) lines.push(shellWord(word));
    else lines[lines.length - 1] += ` ${shellWord(word)}`;
  }
  return lines.join(" \\\n  ");
}
