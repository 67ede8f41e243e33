/** Findings of `check` as lines for a terminal and as JSON: schema `iommukit/check@1`. */
import { type Finding, findingKinds } from "../host/findings.ts";
import { type Style, wrap } from "./table.ts";

/** The one object that `--json` prints. */
export function checkJson(findings: readonly Finding[]): {
  readonly schema: "iommukit/check@1";
  readonly result: { readonly findings: readonly Finding[] };
} {
  return { schema: "iommukit/check@1", result: { findings } };
}

/** Renders findings: what it is, what it was seen by, the next command. */
export function renderCheck(findings: readonly Finding[], width: number, style: Style): string[] {
  if (findings.length === 0) return ["nothing found"];
  const lines: string[] = [];
  for (const { code, severity, message, evidence, next } of findings) {
    lines.push(
      `${style("title", `${severity}: ${findingKinds[code].title}`)}  ${style("name", code)}`,
    );
    lines.push(...wrap(message, width, "  "));
    for (const line of evidence) lines.push(...wrap(`- ${line}`, width, "    "));
    if (next !== null) lines.push(`  next: ${next}`);
  }
  const count = (severity: string) => findings.filter((one) => one.severity === severity).length;
  const total = ["error", "warning", "note"]
    .map((severity) => `${count(severity)} ${severity}${count(severity) === 1 ? "" : "s"}`)
    .join(", ");
  return [...lines, "", `${total}; \`iommukit explain CODE\` tells more`];
}
