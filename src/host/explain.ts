/** Explains a code of the register, or a message of Linux or QEMU. */
import { type KnownMessage, knownMessages } from "./explain-messages.ts";
import { type FindingKind, findingKinds } from "./findings.ts";

/** What is said about a code or a message. */
export interface Explanation {
  readonly code: string;
  /** What it is, or what the message looks like. */
  readonly title: string;
  /** What the message itself carries. */
  readonly facts: readonly string[];
  readonly cause: string;
  readonly example: string | null;
  readonly remedy: string;
}

/** Characters of a message that are looked at. */
const TEXT_MAX = 2000;

/** Explains it; null where it is not known. */
export function explain(text: string): Explanation | null {
  const asked = text.trim().slice(0, TEXT_MAX);
  const byCode = Object.hasOwn(findingKinds, asked) ? asked : null;
  if (byCode !== null) return ofFinding(byCode, findingKinds[byCode as keyof typeof findingKinds]);
  for (const known of knownMessages) {
    if (known.code === asked) return ofMessage(known, []);
    const match = known.pattern.exec(asked);
    if (match !== null) return ofMessage(known, known.decode?.(match) ?? []);
  }
  return null;
}

function ofFinding(code: string, { title, cause, remedy }: FindingKind): Explanation {
  const known = knownMessages.find((one) => one.code === code);
  return { code, title, facts: [], cause, example: known?.example ?? null, remedy };
}

function ofMessage(known: KnownMessage, facts: readonly string[]): Explanation {
  const { code, cause, example, remedy } = known;
  return { code, title: "a message of the kernel or of QEMU", facts, cause, example, remedy };
}

/** Every code that can be explained, sorted. */
export function explainableCodes(): string[] {
  return [
    ...new Set([...Object.keys(findingKinds), ...knownMessages.map(({ code }) => code)]),
  ].sort();
}

/** Codes whose example shares most words with a text, best first; for what nothing fits. */
export function similarCodes(text: string, count = 3): string[] {
  const words = wordsOf(text.slice(0, TEXT_MAX));
  return knownMessages
    .map(({ code, example }) => {
      const common = [...wordsOf(example)].filter((word) => words.has(word)).length;
      return { code, common };
    })
    .filter(({ common }) => common >= 2)
    .sort((a, b) => b.common - a.common)
    .slice(0, count)
    .map(({ code }) => code);
}

function wordsOf(text: string): Set<string> {
  return new Set(text.toLowerCase().match(/[a-z][a-z_-]{2,}/g) ?? []);
}
