/** Runs a verifier over text or over a bundled example. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import type { Checker, CheckOutcome } from "./checker.ts";

/** The text of an example recording. */
export function exampleText(name: string): string {
  const path = new URL(`../../../examples/${name}`, import.meta.url);
  return gunzipSync(readFileSync(path)).toString();
}

/** Gives a verifier a text and ends it. */
export function check(checker: Checker, text: string): CheckOutcome {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += 65_536) checker.push(bytes.subarray(at, at + 65_536));
  return checker.end();
}

/** Unwaived divergences as `line: what: expected, got`. */
export function unwaivedOf({ tally }: CheckOutcome): string[] {
  return tally.divergences
    .filter(({ waivedBy }) => waivedBy === null)
    .map(({ line, expected, got, what }) => `${line}: ${what ?? ""}: ${expected}, ${got}`);
}
