/**
 * A devicetree as plain data: nodes with properties, whose values are bytes until somebody knows
 * better.
 *
 * Names hold one character a byte. Source: Devicetree Specification 0.4, 2.2.
 */

/** A property. */
export interface DtProperty {
  readonly name: string;
  readonly value: Uint8Array;
  /** Bytes from the start of the blob to its token; −1 in a tree that was not read from one. */
  readonly at: number;
  /** Bytes from the start of the strings to its name; −1 likewise. */
  readonly nameAt: number;
}

/** A node. */
export interface DtNode {
  /** With unit address: `pcie@10000000`; the root's is empty. */
  readonly name: string;
  readonly properties: readonly DtProperty[];
  readonly children: readonly DtNode[];
  /** Bytes from the start of the blob to its first token; −1 likewise. */
  readonly at: number;
  /** Bytes to its last token; −1 likewise. */
  readonly endAt: number;
}

/** Memory that the kernel must leave alone. */
export interface DtReservation {
  readonly address: bigint;
  readonly bytes: bigint;
}

/** A whole tree. */
export interface DevicetreeParts {
  readonly reservations: readonly DtReservation[];
  /** Physical id of the CPU that starts. */
  readonly bootCpu: number;
  readonly root: DtNode;
}

/** A node that is not from a blob. */
export function dtNode(
  name: string,
  values: Readonly<Record<string, Uint8Array | null>>,
  children: readonly DtNode[] = [],
): DtNode {
  const properties: DtProperty[] = [];
  for (const [key, value] of Object.entries(values)) {
    if (value !== null) properties.push({ name: key, value, at: -1, nameAt: -1 });
  }
  return { name, properties, children, at: -1, endAt: -1 };
}

/** The value of a property; null when the node has none of that name. */
export function bytesOf(node: DtNode, name: string): Uint8Array | null {
  return propertyOf(node, name)?.value ?? null;
}

/** A property by name. Of two with one name Linux finds the first. */
export function propertyOf(node: DtNode, name: string): DtProperty | null {
  return node.properties.find((one) => one.name === name) ?? null;
}

/** Big-endian 32-bit cells; bytes beyond the last whole cell are left out. */
export function cellsOf(value: Uint8Array): number[] {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  return Array.from({ length: value.length >>> 2 }, (_, index) => view.getUint32(4 * index));
}

/** A property's only or first cell; null when it is missing or too short. */
export function cellOf(node: DtNode, name: string): number | null {
  const value = bytesOf(node, name);
  return value === null || value.length < 4 ? null : cellsOf(value.subarray(0, 4))[0]!;
}

/** A list of strings; what follows the last NUL is left out. */
export function stringsOf(node: DtNode, name: string): string[] {
  const value = bytesOf(node, name);
  if (value === null) return [];
  return String.fromCharCode(...value.subarray(0, TEXT_MAX))
    .split("\0")
    .slice(0, -1);
}

/** Bytes of text that are looked at. */
const TEXT_MAX = 4096;

/** Cells as a value. */
export function cells(...numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * numbers.length);
  const view = new DataView(bytes.buffer);
  for (const [index, number] of numbers.entries()) view.setUint32(4 * index, number);
  return bytes;
}

/** Strings as a value. */
export function strings(...texts: readonly string[]): Uint8Array {
  return Uint8Array.from(texts.map((text) => `${text}\0`).join(""), (one) => one.charCodeAt(0));
}

/** A 64-bit number as two cells. */
export function twoCells(number: bigint): [high: number, low: number] {
  return [Number(number >> 32n), Number(number & 0xffff_ffffn)];
}

/** A node with the nodes above it. */
export interface DtPlace {
  readonly node: DtNode;
  /** Null for the root. */
  readonly parent: DtPlace | null;
}

/** All nodes with their places, each before its children. */
export function placesOf(root: DtNode): DtPlace[] {
  const places: DtPlace[] = [{ node: root, parent: null }];
  for (let index = 0; index < places.length; index += 1) {
    const place = places[index]!;
    for (const node of place.node.children) places.push({ node, parent: place });
  }
  return places;
}

/** The path of a node. */
export function pathOf(place: DtPlace): string {
  const names: string[] = [];
  for (let at: DtPlace = place; at.parent !== null; at = at.parent) names.push(at.node.name);
  return `/${names.reverse().join("/")}`;
}
