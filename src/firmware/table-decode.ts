/**
 * Reads a description by its declared format, tolerantly: what is wrong becomes a finding with its
 * offset, and the bytes concerned are kept as they are. Bounded: every step consumes bytes, the
 * number of items is limited, and formats nest to a fixed depth.
 */
import { assert } from "../errors.ts";
import { hex } from "../units.ts";
import type { Findings } from "./table-finding.ts";
import type { PartFormat, Place, RecordList, StructureFormat, Values } from "./table-format.ts";
import type { Bytes, Item, Structure } from "./table-item.ts";

/** Items of one file at most; what lies behind stays bytes. A full VIOT has 65 535 nodes. */
export const ITEMS_MAX = 2 ** 18;

/** Reads a whole table that stands inside another. */
export type TableReader = (at: number, end: number) => Structure | null;

/** Decodes the structures of one file. */
export class TableDecoder {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly findings: Findings;
  readonly #readTable: TableReader;
  #items = 0;

  /** @param bytes - the whole file; kept, so it must not change afterwards */
  constructor(bytes: Uint8Array, findings: Findings, readTable: TableReader = () => null) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.findings = findings;
    this.#readTable = readTable;
  }

  /** Reads the structure in `[at, end)`, which holds at least its fixed part. */
  structure(format: StructureFormat, at: number, end: number): Structure {
    assert(at + format.layout.bytes <= end, `${format.kind} holds its fixed part`);
    assert(end <= this.bytes.length, "a structure ends inside the file");
    this.#items += 1;
    const values = format.layout.decode(this.view, at);
    const items = this.#partsOf(format, values, at, end);
    return { kind: "structure", format, at, length: end - at, values, items };
  }

  /** Bytes without further meaning. */
  raw(name: string, at: number, end: number): Bytes {
    return { kind: "bytes", name, at, length: end - at, bytes: this.bytes.subarray(at, end) };
  }

  #partsOf(format: StructureFormat, values: Values, at: number, end: number): Item[] {
    const fixedEnd = at + format.layout.bytes;
    if (fixedEnd === end) {
      if (format.parts.length === 0) return [];
    } else if (format.parts.length === 0) {
      return [this.raw("unknown", fixedEnd, end)];
    }
    const runs: Item[][] = [];
    for (const part of format.parts) {
      const run = this.#readPart(format, part, values, { at, fixedEnd, end }, runs);
      if (run.length > 0) runs.push(run);
    }
    runs.sort((a, b) => a[0]!.at - b[0]!.at);
    return this.#fillGaps(runs, fixedEnd, end);
  }

  /** Joins runs of items and keeps the bytes between them. */
  #fillGaps(runs: readonly Item[][], start: number, end: number): Item[] {
    const items: Item[] = [];
    let cursor = start;
    for (const run of runs) {
      const first = run[0]!;
      const last = run.at(-1)!;
      if (first.at > cursor) items.push(this.raw("padding", cursor, first.at));
      for (const item of run) items.push(item);
      cursor = last.at + last.length;
    }
    if (cursor < end) items.push(this.raw("padding", cursor, end));
    return items;
  }

  #readPart(
    format: StructureFormat,
    part: PartFormat,
    values: Values,
    span: { at: number; fixedEnd: number; end: number },
    taken: readonly Item[][],
  ): Item[] {
    const start = span.at + numberAt(part.at, values);
    const count = part.part === "array" && part.count !== "rest" ? part.count : null;
    if (count !== null && numberAt(count, values) === 0) return [];
    if (part.part === "array" && part.since !== undefined) {
      if (Number(values[part.since[0]]) < part.since[1]) return [];
    }
    const isOptional = part.part === "array" && part.isOptional === true;
    if (start < span.fixedEnd || start >= span.end) {
      // Nothing left for a part that runs to the end is an empty list, not a mistake.
      if (start === span.end && count === null) return [];
      if (!isOptional) this.#misplaced(format, part, span.at, start);
      return [];
    }
    const next = firstTakenFrom(taken, start);
    if (next <= start) {
      if (!isOptional) this.#misplaced(format, part, span.at, start);
      return [];
    }
    return this.#readPlaced(format, part, values, start, Math.min(next, span.end));
  }

  #misplaced(format: StructureFormat, part: PartFormat, at: number, start: number): void {
    const what = part.part === "array" ? part.of.title : part.part;
    this.findings.add({
      code: "firmware/part-misplaced",
      severity: "error",
      at,
      message: `${format.title}: its ${what} would start at ${hex(start)}, outside or on other data`,
    });
  }

  #readPlaced(
    format: StructureFormat,
    part: PartFormat,
    values: Values,
    start: number,
    end: number,
  ): Item[] {
    switch (part.part) {
      case "array":
        return this.#readArray(format, part, values, start, end);
      case "records":
        return this.#readRecords(part.list, start, end);
      case "text":
        return this.#readText(format, part.name, start, end);
      case "bytes": {
        const wanted = part.length === "rest" ? end - start : numberAt(part.length, values);
        if (wanted > end - start) this.#cut(format, part.name, start, wanted, end);
        return wanted === 0 ? [] : [this.raw(part.name, start, Math.min(end, start + wanted))];
      }
      case "table": {
        const table = this.#readTable(start, end);
        return table === null ? [] : [table];
      }
    }
  }

  #readArray(
    format: StructureFormat,
    part: PartFormat & { part: "array" },
    values: Values,
    start: number,
    end: number,
  ): Item[] {
    const stride = part.of.layout.bytes;
    const fitting = Math.floor((end - start) / stride);
    const wanted = part.count === "rest" ? fitting : numberAt(part.count, values);
    if (wanted > fitting) {
      if (part.isOptional === true) return [];
      this.#cut(format, `${wanted} × ${part.of.title}`, start, wanted * stride, end);
    }
    const items: Item[] = [];
    const count = Math.min(wanted, fitting);
    for (let index = 0; index < count && this.#hasRoom(start + index * stride); index += 1) {
      items.push(this.structure(part.of, start + index * stride, start + (index + 1) * stride));
    }
    return items;
  }

  #cut(format: StructureFormat, what: string, start: number, bytes: number, end: number): void {
    this.findings.add({
      code: "firmware/part-past-end",
      severity: "error",
      at: start,
      message: `${format.title}: ${what} takes ${bytes} bytes, of which ${end - start} exist`,
    });
  }

  #readText(format: StructureFormat, name: string, start: number, end: number): Item[] {
    // Only as far as the structure goes: many names without an end must not cost a scan each.
    const length = this.bytes.subarray(start, end).indexOf(0);
    const nul = start + length;
    if (length < 0) {
      this.findings.add({
        code: "firmware/name-unterminated",
        severity: "error",
        at: start,
        message: `${format.title}: no NUL byte ends the ${name}`,
      });
      return [];
    }
    let text = "";
    for (let at = start; at < nul; at += 1) text += String.fromCharCode(this.bytes[at]!);
    return [{ kind: "text", name, at: start, length: nul + 1 - start, text }];
  }

  #readRecords(list: RecordList, start: number, end: number): Item[] {
    const items: Item[] = [];
    let cursor = start;
    while (cursor < end && this.#hasRoom(cursor)) {
      const length = this.#recordLength(list, cursor, end);
      if (length === 0) break;
      items.push(this.#readRecord(list, cursor, cursor + length));
      cursor += length;
    }
    if (cursor < end) items.push(this.raw("not decoded", cursor, end));
    return items;
  }

  /** Length of a record that can be read, or 0 after saying why the list ends here. */
  #recordLength(list: RecordList, at: number, end: number): number {
    const left = end - at;
    const least = list.head.layout.bytes;
    const add = (code: "stub" | "record-length", message: string) =>
      this.findings.add({
        code: `firmware/${code}`,
        severity: "error",
        at,
        message: `${list.title}: ${message}; the ${left} bytes from here on are not decoded`,
      });
    if (left < least) {
      add("stub", `${left} bytes are too few for a record`);
      return 0;
    }
    const length = list.lengthOf(this.view, at, end);
    const type = hex(list.typeOf(this.view, at));
    if (length < least) {
      const known = length === 0 ? "has no length" : `has length ${length}`;
      add("record-length", `a record of type ${type} ${known}, below the least of ${least}`);
      return 0;
    }
    if (length > left) {
      add("record-length", `a record of type ${type} and length ${length} passes the end`);
      return 0;
    }
    return length;
  }

  #readRecord(list: RecordList, at: number, end: number): Item {
    const type = list.typeOf(this.view, at);
    let best: StructureFormat | null = null;
    let isKnown = false;
    for (const format of list.formats) {
      if (format.type !== type) continue;
      isKnown = true;
      if (format.layout.bytes > end - at) continue;
      if (best === null || format.layout.bytes > best.layout.bytes) best = format;
    }
    if (best !== null) return this.structure(best, at, end);
    if (isKnown) {
      this.findings.add({
        code: "firmware/record-short",
        severity: "error",
        at,
        message: `${list.title}: a record of type ${hex(type)} has only ${end - at} bytes`,
      });
    }
    return this.structure(list.head, at, end);
  }

  #hasRoom(at: number): boolean {
    if (this.#items < ITEMS_MAX) return true;
    this.findings.add({
      code: "firmware/too-many-items",
      severity: "warning",
      at,
      message: `More than ${ITEMS_MAX} structures; the rest is not decoded`,
    });
    return false;
  }
}

function numberAt(place: Place, values: Values): number {
  if (typeof place === "number") return place;
  const value = values[place];
  assert(typeof value === "number", `${place} is a number`);
  return value;
}

/** Where the first taken run at or behind `start` begins; `start` itself when it lies in one. */
function firstTakenFrom(taken: readonly Item[][], start: number): number {
  let next = Number.POSITIVE_INFINITY;
  for (const run of taken) {
    const last = run.at(-1)!;
    const from = run[0]!.at;
    if (last.at + last.length <= start) continue;
    next = Math.min(next, Math.max(from, start));
  }
  return next;
}
