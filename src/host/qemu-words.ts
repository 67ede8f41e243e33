/**
 * Splits a command line into words as a POSIX shell does: quotes, backslashes, continued lines.
 *
 * Variables, substitutions and comments stay as they are: what is read is a command line, not a
 * script. Source: POSIX.1-2024, Shell Command Language, 2.2 Quoting.
 */
import { StackError } from "../errors.ts";

/** Characters of a command line; Linux takes 2 MiB from `execve`. */
const TEXT_MAX = 4 << 20;
/** Words of a command line. */
export const WORDS_MAX = 1 << 16;

/**
 * Splits text into words.
 *
 * @param file - how messages name it
 * @throws StackError `host/command-line` when a quote stays open or the text is too long
 * @example
 * splitWords("-m 4G -name 'my vm'", "--qemu"); // ["-m", "4G", "-name", "my vm"]
 */
export function splitWords(text: string, file: string): string[] {
  if (text.length > TEXT_MAX) throw refused(file, "it is longer than 4 MiB");
  const words: string[] = [];
  let word = "";
  let isOpen = false;
  let quote = "";
  let quotedAt = 0;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at]!;
    if (quote === "'") {
      if (char === "'") quote = "";
      else word += char;
    } else if (char === "\\") {
      const next = text[at + 1] ?? "";
      at += 1;
      if (next === "\n") continue;
      // Between double quotes a backslash quotes only what would have a meaning there.
      word += quote === '"' && !'"\\$`'.includes(next) ? `\\${next}` : next;
      isOpen = true;
    } else if (quote === '"') {
      if (char === '"') quote = "";
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      quotedAt = at;
      isOpen = true;
    } else if (/\s/.test(char)) {
      if (isOpen) words.push(word);
      if (words.length > WORDS_MAX) throw refused(file, `it has more than ${WORDS_MAX} words`);
      word = "";
      isOpen = false;
    } else {
      word += char;
      isOpen = true;
    }
  }
  if (quote !== "") throw refused(file, "a quote is not closed", place(text, quotedAt));
  if (isOpen) words.push(word);
  return words;
}

/** Words of `/proc/PID/cmdline`, each of which ends with a zero. */
export function wordsOfProcess(text: string): string[] {
  const words = text.slice(0, TEXT_MAX).split("\0", WORDS_MAX);
  if (words.at(-1) === "") words.pop();
  return words;
}

function place(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset).split("\n");
  return { line: before.length, column: before.at(-1)!.length + 1 };
}

function refused(
  file: string,
  what: string,
  at: { readonly line: number; readonly column: number } | undefined = undefined,
): StackError {
  return new StackError({
    code: "host/command-line",
    kind: "input",
    message: `this is no command line that can be read: ${what}`,
    at: { file, ...at },
    hint: "quote it as for a shell; a libvirt domain goes to --libvirt",
  });
}
