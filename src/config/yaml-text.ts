/**
 * Writes plain values as YAML: lists and maps of the outer levels line by line, small ones inside in
 * one line. `bigint` is written as hexadecimal, `undefined` members are left out.
 */

export type YamlValue =
  | string
  | number
  | bigint
  | boolean
  | readonly YamlValue[]
  | { readonly [key: string]: YamlValue | undefined };

/** Levels that are written line by line: the document, its lists, the entries' own members. */
const BLOCK_LEVELS = 3;

/** Writes a map as a document. */
export function yamlText(document: { readonly [key: string]: YamlValue | undefined }): string {
  const lines: string[] = [];
  for (const [key, value] of Object.entries(document)) {
    if (value !== undefined) member(lines, "", key, value, 1);
  }
  return `${lines.join("\n")}\n`;
}

function member(lines: string[], indent: string, key: string, value: YamlValue, level: number) {
  if (
    level < BLOCK_LEVELS &&
    Array.isArray(value) &&
    value.some((one) => typeof one !== "number")
  ) {
    lines.push(`${indent}${key}:`);
    for (const entry of value as readonly YamlValue[]) item(lines, `${indent}  `, entry, level + 1);
    return;
  }
  if (level === 1 && isMap(value) && hasMembers(value)) {
    lines.push(`${indent}${key}:`);
    for (const [name, inner] of Object.entries(value)) {
      if (inner !== undefined) member(lines, `${indent}  `, name, inner, level + 1);
    }
    return;
  }
  lines.push(`${indent}${key}: ${inline(value)}`);
}

function item(lines: string[], indent: string, value: YamlValue, level: number): void {
  if (level > 2 || !isMap(value) || !hasMembers(value)) {
    lines.push(`${indent}- ${inline(value)}`);
    return;
  }
  const start = lines.length;
  for (const [key, inner] of Object.entries(value)) {
    if (inner !== undefined) member(lines, `${indent}  `, key, inner, level);
  }
  lines[start] = `${indent}- ${lines[start]!.slice(indent.length + 2)}`;
}

function isMap(value: YamlValue): value is { readonly [key: string]: YamlValue | undefined } {
  return typeof value === "object" && !Array.isArray(value);
}

function hasMembers(map: { readonly [key: string]: YamlValue | undefined }): boolean {
  return Object.values(map).some((value) => value !== undefined);
}

/** A value in one line. */
function inline(value: YamlValue): string {
  if (typeof value === "string") return scalar(value);
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (typeof value !== "object") return String(value);
  if (!isMap(value)) return `[${value.map(inline).join(", ")}]`;
  const members = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return `{ ${members.map(([key, inner]) => `${key}: ${inline(inner!)}`).join(", ")} }`;
}

/** Text as it is where nobody can take it for anything else, else in double quotes. */
function scalar(text: string): string {
  // What begins like a number may be one; colons and dashes inside are harmless without a space.
  const isPlain =
    /^[A-Za-z_][A-Za-z0-9_.+:/-]*$/.test(text) || /^[0-9a-f]{1,8}:[0-9a-f:.-]*$/i.test(text);
  const isWord = /^(true|false|null|yes|no|on|off|y|n)$/i.test(text);
  const isRange = /^0x[0-9a-f]+-0x[0-9a-f]+$/.test(text);
  if ((isPlain && !isWord && !text.endsWith(":")) || isRange) return text;
  const escaped = (character: string) =>
    `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, escaped);
}
