/**
 * The text of an IOMMU event behind its name, as include/trace/events/iommu.h prints it: in Linux
 * since 3.11 without the end of a range, and later with it. Judges nothing by what lies behind a LF.
 */
import { type Cursor, Literal } from "./ascii.ts";
import type { LineProblem } from "./notes.ts";
import { type TraceEvent, TraceKind } from "./trace-event.ts";

const TWO_52 = 2 ** 52;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;

const iovaIs = new Literal(" iova=0x");
const dash = new Literal(" - 0x");
const paddrIs = new Literal(" paddr=0x");
const sizeIs = new Literal(" size=");
const unmappedIs = new Literal(" unmapped_size=");
const groupIs = new Literal(" groupID=");
const deviceIs = new Literal(" device=");
const flagsIs = new Literal(" flags=0x");

/** Reads texts of events into a record. */
export class TracePayload {
  /** Why the last text could not be read. */
  problem: LineProblem = "torn";
  /** Where the device's name stands in the last text that has one; `deviceEnd` is exclusive. */
  deviceStart = 0;
  deviceEnd = 0;
  /** Set to the line and to the text's first byte. */
  readonly cursor: Cursor;
  readonly event: TraceEvent;

  constructor(cursor: Cursor, event: TraceEvent) {
    this.cursor = cursor;
    this.event = event;
  }

  /**
   * Reads the text of an event, from the cursor on, up to the end of the line.
   *
   * @returns false when it is none; `problem` says why
   */
  read(kind: number): boolean {
    this.problem = "torn";
    return this.#readFields(kind) && this.#atEnd();
  }

  #readFields(kind: number): boolean {
    switch (kind) {
      case TraceKind.map:
        return this.#readMap();
      case TraceKind.unmap:
        return this.#readUnmap();
      case TraceKind.fault:
        return this.#readFault();
      default:
        return this.#readDevice(kind);
    }
  }

  /** Reads ` iova=0x… - 0x…`, the second address being optional. */
  #readRange(): boolean {
    const cursor = this.cursor;
    const event = this.event;
    if (!cursor.take(iovaIs) || !cursor.takeHex()) return false;
    event.iovaPfn = cursor.pfn;
    event.iovaOffset = cursor.offset;
    this.#hasEnd = cursor.take(dash);
    if (!this.#hasEnd) return true;
    if (!cursor.takeHex()) return false;
    this.#endPfn = cursor.pfn;
    this.#endOffset = cursor.offset;
    return true;
  }

  #hasEnd = false;
  #endPfn = 0;
  #endOffset = 0;

  /** Reads ` size=…` and compares it with the end of the range, which is exclusive. */
  #readSize(): boolean {
    const cursor = this.cursor;
    if (!cursor.take(sizeIs)) return false;
    if (!cursor.takeDecimalBytes()) {
      this.problem = "number too large";
      return false;
    }
    const event = this.event;
    event.pages = cursor.pfn;
    event.pagesRest = cursor.offset;
    if (!this.#hasEnd) return true;
    const offset = event.iovaOffset + event.pagesRest;
    const carry = offset >= 4096 ? 1 : 0;
    let pfn = event.iovaPfn + event.pages + carry;
    if (pfn >= TWO_52) pfn -= TWO_52;
    if (pfn === this.#endPfn && offset - carry * 4096 === this.#endOffset) return true;
    this.problem = "range and size disagree";
    return false;
  }

  /** After the last number a line may hold nothing but blanks. */
  #atEnd(): boolean {
    const cursor = this.cursor;
    cursor.skipBlanks();
    const { bytes, at, end } = cursor;
    if (at === end || bytes[at] === LF) return true;
    return bytes[at] === CR && (at + 1 === end || bytes[at + 1] === LF);
  }

  #readMap(): boolean {
    const cursor = this.cursor;
    const event = this.event;
    if (!this.#readRange() || !cursor.take(paddrIs) || !cursor.takeHex()) return false;
    event.physPfn = cursor.pfn;
    event.physOffset = cursor.offset;
    event.unmappedPages = 0;
    event.unmappedRest = 0;
    return this.#readSize();
  }

  #readUnmap(): boolean {
    const cursor = this.cursor;
    const event = this.event;
    if (!this.#readRange() || !this.#readSize() || !cursor.take(unmappedIs)) return false;
    if (!cursor.takeDecimalBytes()) return false;
    event.unmappedPages = cursor.pfn;
    event.unmappedRest = cursor.offset;
    event.physPfn = 0;
    event.physOffset = 0;
    return true;
  }

  /** Whether an event at the cut end of a recording cannot have lost digits of its last number. */
  isWhole(): boolean {
    const event = this.event;
    switch (event.kind) {
      case TraceKind.map:
        return this.#hasEnd;
      case TraceKind.unmap:
        return event.unmappedPages === event.pages && event.unmappedRest === event.pagesRest;
      default:
        return false;
    }
  }

  /** `IOMMU:DRIVER DEVICE iova=0x… flags=0x…`, without a blank after the colon. */
  #readFault(): boolean {
    const cursor = this.cursor;
    const event = this.event;
    cursor.skipBlanks();
    this.#takeToken();
    cursor.skipBlanks();
    const start = cursor.at;
    this.#takeToken();
    const end = cursor.at;
    if (!cursor.take(iovaIs) || !cursor.takeHex()) return false;
    this.#clearRange();
    event.iovaPfn = cursor.pfn;
    event.iovaOffset = cursor.offset;
    if (!cursor.take(flagsIs) || !cursor.takeHex()) return false;
    event.flags = cursor.offset;
    this.deviceStart = start;
    this.deviceEnd = end;
    return true;
  }

  /** `IOMMU: groupID=%d device=%s` or `IOMMU: device=%s`. */
  #readDevice(kind: number): boolean {
    const cursor = this.cursor;
    const event = this.event;
    this.#clearRange();
    event.group = 0;
    if (kind !== TraceKind.attach) {
      if (!cursor.take(groupIs) || !cursor.takeDecimal()) return false;
      event.group = cursor.value;
    }
    if (!cursor.take(deviceIs)) return false;
    const start = cursor.at;
    this.#takeToken();
    if (cursor.at === start) return false;
    this.deviceStart = start;
    this.deviceEnd = cursor.at;
    return true;
  }

  #clearRange(): void {
    const event = this.event;
    event.iovaPfn = 0;
    event.iovaOffset = 0;
    event.physPfn = 0;
    event.physOffset = 0;
    event.pages = 0;
    event.pagesRest = 0;
    event.unmappedPages = 0;
    event.unmappedRest = 0;
  }

  #takeToken(): void {
    const cursor = this.cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    while (at < end && bytes[at]! > SPACE) at += 1;
    cursor.at = at;
  }
}
