/** The verb `explain`: cause and remedy of a finding's code, or of a message of Linux or QEMU. */
import { nearest } from "../config/nearest.ts";
import { StackError } from "../errors.ts";
import {
  type Explanation,
  explainableCodes,
  explain as explained,
  similarCodes,
} from "../host/explain.ts";
import { type Style, wrap } from "../report/table.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface ExplainFlags {
  readonly json: boolean;
}

/** Runs the verb. @param words - a code, or the words of a message */
export async function explain(
  { json }: ExplainFlags,
  words: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  const text = words.join(" ");
  if (words.length === 0) {
    const codes = explainableCodes();
    const document = { schema: "iommukit/explain@1", result: { codes } };
    terminal.print(json ? `${JSON.stringify(document, null, 2)}\n` : `${codes.join("\n")}\n`);
    return Exit.DONE;
  }
  const found = explained(text);
  if (found === null) throw unknown(text);
  if (json) {
    const document = { schema: "iommukit/explain@1", result: found };
    terminal.print(`${JSON.stringify(document, null, 2)}\n`);
  } else terminal.print(`${lines(found, terminal.width, terminal.style).join("\n")}\n`);
  return Exit.DONE;
}

function lines(found: Explanation, width: number, style: Style): string[] {
  const part = (name: string, text: string) => [style("heading", name), ...wrap(text, width, "  ")];
  return [
    `${style("title", found.code)}  ${found.title}`,
    ...(found.facts.length === 0
      ? []
      : [style("heading", "says"), ...found.facts.map((one) => `  ${one}`)]),
    ...part("cause", found.cause),
    ...(found.example === null ? [] : part("example", found.example)),
    ...part("remedy", found.remedy),
  ];
}

function unknown(text: string): StackError {
  const near = /\s/.test(text.trim()) ? similarCodes(text) : [nearest(text, explainableCodes())];
  const names = near.filter((one) => one !== null);
  return new StackError({
    code: "cli/not-explained",
    kind: "usage",
    message: `nothing is known of "${text.slice(0, 120)}"`,
    hint:
      names.length > 0
        ? `near it: ${names.map((name) => `\`iommukit explain ${name}\``).join(", ")}`
        : "`iommukit explain` without an argument lists all codes",
  });
}
