/**
 * Writes a devicetree as source text, which dtc compiles to the same tree.
 *
 * A value does not say what it is: text when it is made of printable strings, cells when its length
 * is a multiple of four, else bytes. Phandles that a known property refers to are shown by label.
 */
import { StackError } from "../../errors.ts";
import { hex } from "../../units.ts";
import { bytesOf, cellOf, cellsOf, type DevicetreeParts, type DtNode, placesOf } from "./tree.ts";

/** Properties whose every n-th cell, from the given one, is a phandle. */
const phandleCells: Readonly<Record<string, readonly [first: number, step: number]>> = {
  "interrupt-parent": [0, 1],
  "iommu-map": [1, 4],
  "msi-map": [1, 4],
  "msi-parent": [0, Number.POSITIVE_INFINITY],
  iommus: [0, Number.POSITIVE_INFINITY],
};

/** Writes a tree as text. @throws StackError `devicetree/name` when a name cannot be written */
export function writeSource(tree: DevicetreeParts): string {
  const labels = labelsOf(tree.root);
  const lines = ["/dts-v1/;", ""];
  for (const { address, bytes } of tree.reservations) {
    lines.push(`/memreserve/ ${hex(address, 16)} ${hex(bytes, 16)};`);
  }
  if (tree.reservations.length > 0) lines.push("");
  writeNode({ ...tree.root, name: "/" }, "", labels, lines);
  return `${lines.join("\n")}\n`;
}

/** A label for each phandle of exactly one node, whose name gives it. */
function labelsOf(root: DtNode): Map<number, string> {
  const byPhandle = new Map<number, string>();
  const twice = new Set<number>();
  const used = new Set<string>();
  const counts = new Map<string, number>();
  for (const { node } of placesOf(root)) {
    const phandle = cellOf(node, "phandle");
    if (phandle === null || bytesOf(node, "phandle")!.length !== 4) continue;
    if (byPhandle.has(phandle)) twice.add(phandle);
    const stem = node.name.replace(/@.*/, "").replace(/[^A-Za-z0-9]/g, "_");
    const base = /^[A-Za-z]/.test(stem) ? stem : `node_${stem}`;
    let label = base;
    let count = counts.get(base) ?? 2;
    for (; used.has(label); count += 1) label = `${base}${count}`;
    counts.set(base, count);
    used.add(label);
    byPhandle.set(phandle, label);
  }
  for (const phandle of twice) byPhandle.delete(phandle);
  return byPhandle;
}

function writeNode(
  node: DtNode,
  indent: string,
  labels: ReadonlyMap<number, string>,
  lines: string[],
): void {
  const phandle = cellOf(node, "phandle");
  const label = phandle === null ? undefined : labels.get(phandle);
  const name = node.name === "/" ? "/" : checked(node.name);
  lines.push(`${indent}${label === undefined || name === "/" ? "" : `${label}: `}${name} {`);
  const inner = `${indent}\t`;
  for (const { name: property, value } of node.properties) {
    const key = checked(property);
    const text = valueText(property, value, labels);
    lines.push(text === "" ? `${inner}${key};` : `${inner}${key} = ${text};`);
  }
  for (const child of node.children) {
    if (lines.at(-1) !== "") lines.push("");
    writeNode(child, inner, labels, lines);
  }
  lines.push(`${indent}};`);
}

/** A name that dtc reads; property names can have all of these, too. */
function checked(name: string): string {
  if (/^[A-Za-z0-9,._+*#?@-]+$/.test(name)) return name;
  throw new StackError({
    code: "devicetree/name",
    kind: "input",
    message: `Devicetree source has no way to write the name ${JSON.stringify(name)}`,
    hint: "letters, digits and , . _ + - * # ? @ make a name",
  });
}

/** A value as source, as {@link writeSource} shows it. */
export function valueText(
  property: string,
  value: Uint8Array,
  labels: ReadonlyMap<number, string> = new Map(),
): string {
  if (value.length === 0) return "";
  const texts = textsOf(value);
  if (texts !== null) return texts.map((text) => JSON.stringify(text)).join(", ");
  if (value.length % 4 !== 0) {
    const bytes = Array.from(value, (one) => hex(one, 2).slice(2));
    return `[${bytes.join(" ")}]`;
  }
  const [first, step] = phandleCells[property] ?? [-1, 1];
  const words = cellsOf(value).map((cell, index) => {
    const isPhandle =
      index === first || (first >= 0 && index > first && (index - first) % step === 0);
    const label = isPhandle ? labels.get(cell) : undefined;
    return label === undefined ? hex(cell) : `&${label}`;
  });
  return `<${words.join(" ")}>`;
}

/** Strings, when a value is made of nothing but printable ones, none of them empty. */
function textsOf(value: Uint8Array): string[] | null {
  if (value.at(-1) !== 0 || value[0] === 0) return null;
  for (let index = 0; index < value.length; index += 1) {
    const byte = value[index]!;
    const isEnd = byte === 0 && value[index - 1] !== 0;
    if (!isEnd && (byte < 0x20 || byte > 0x7e)) return null;
  }
  const texts: string[] = [];
  let start = 0;
  for (let at = value.indexOf(0); at >= 0; at = value.indexOf(0, start)) {
    texts.push(Array.from(value.subarray(start, at), (one) => String.fromCharCode(one)).join(""));
    start = at + 1;
  }
  return texts;
}
