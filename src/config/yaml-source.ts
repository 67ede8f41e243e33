/**
 * YAML text as plain values whose positions are known, so that a complaint names line and column.
 *
 * YAML 1.2 core schema; whole numbers become `bigint`, so that 64-bit addresses stay exact.
 */
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import { type Position, StackError } from "../errors.ts";

/** Characters of a file that is read. */
const TEXT_MAX = 64 << 20;
/** Aliases are expanded so many times at most: a small file must not become a large value. */
const ALIASES_MAX = 100;

/** Where a value stands in a document: keys and positions in lists. */
export type ValuePath = readonly (string | number)[];

/** A parsed document. */
export class YamlSource {
  readonly file: string;
  readonly value: unknown;
  readonly #contents: Node | null;
  readonly #lines: LineCounter;

  constructor(file: string, value: unknown, contents: Node | null, lines: LineCounter) {
    this.file = file;
    this.value = value;
    this.#contents = contents;
    this.#lines = lines;
  }

  /** Where a value stands; of a key that is missing, where its map begins. */
  positionOf(path: ValuePath): Position {
    return this.#find(path, false);
  }

  /** Where the key of a value stands. */
  positionOfKey(path: ValuePath): Position {
    return this.#find(path, true);
  }

  #find(path: ValuePath, wantsKey: boolean): Position {
    let node: unknown = this.#contents;
    let offset = offsetOf(node) ?? 0;
    for (const [at, part] of path.entries()) {
      let next: unknown;
      if (isMap(node)) {
        const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === `${part}`);
        const isLast = at === path.length - 1;
        next = wantsKey && isLast ? pair?.key : (pair?.value ?? pair?.key);
      } else if (isSeq(node)) next = node.items[Number(part)];
      if (next === undefined || next === null) break;
      node = next;
      offset = offsetOf(node) ?? offset;
    }
    const { line, col } = this.#lines.linePos(offset);
    return { file: this.file, line, column: col };
  }
}

function offsetOf(node: unknown): number | null {
  const range = (node as Node | null)?.range;
  return range?.[0] ?? null;
}

/**
 * Parses one document.
 *
 * @throws StackError `config/yaml-syntax` with its position
 */
export function parseYaml(text: string, file: string): YamlSource {
  if (text.length > TEXT_MAX) throw syntax(file, "the file is longer than 64 MiB", undefined);
  const lines = new LineCounter();
  try {
    const document = parseDocument(text, {
      lineCounter: lines,
      intAsBigInt: true,
      uniqueKeys: true,
      prettyErrors: false,
      version: "1.2",
    });
    const [error] = document.errors;
    if (error !== undefined) {
      const { line, col } = lines.linePos(error.pos[0]);
      throw syntax(file, error.message.split("\n")[0]!, { line, column: col });
    }
    const value: unknown = document.toJS({ maxAliasCount: ALIASES_MAX });
    return new YamlSource(file, value, document.contents as Node | null, lines);
  } catch (cause) {
    if (cause instanceof StackError) throw cause;
    // Nested too deeply for the parser's own recursion, or expanded beyond the bound above.
    const what = cause instanceof RangeError ? "it is nested too deeply" : (cause as Error).message;
    throw syntax(file, what, undefined);
  }
}

function syntax(
  file: string,
  message: string,
  place: { readonly line: number; readonly column: number } | undefined,
): StackError {
  return new StackError({
    code: "config/yaml-syntax",
    kind: "input",
    message: `this is not YAML that can be read: ${message.replace(/\.$/, "")}`,
    at: { file, ...place },
    hint: "YAML 1.2; a list begins with `- `, a map is `key: value`",
  });
}
