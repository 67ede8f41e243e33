/**
 * Reads trace text: `trace` and `trace_pipe` of tracefs, `trace-cmd report`, `perf script`.
 *
 * Target: 1 M lines/s from gzip to result (bench "read ftrace"). No allocation per event: lines are
 * parsed in the chunk they lie in and given out as one record. The event's own text is that of
 * include/trace/events/iommu.h, as of Linux 3.11 (without the end of the range) and since.
 */
import { ascii, Cursor } from "./ascii.ts";
import { Interner } from "./interner.ts";
import { LineSplitter } from "./line-splitter.ts";
import { ReadingNotes } from "./notes.ts";
import { TraceEvent, type TraceEventSink, TraceKind } from "./trace-event.ts";
import { readTraceHead, TraceHead } from "./trace-head.ts";

const TWO_52 = 2 ** 52;
const HASH = 0x23;
const SPACE = 0x20;
const TAB = 0x09;
const OPEN = 0x5b;

const prefix = ascii("IOMMU:");
const iovaIs = ascii(" iova=0x");
const dash = ascii(" - 0x");
const paddrIs = ascii(" paddr=0x");
const sizeIs = ascii(" size=");
const unmappedIs = ascii(" unmapped_size=");
const groupIs = ascii(" groupID=");
const deviceIs = ascii(" device=");
const flagsIs = ascii(" flags=0x");

const kindByName = new Map<string, number>([
  ["map", TraceKind.map],
  ["unmap", TraceKind.unmap],
  ["attach_device_to_domain", TraceKind.attach],
  ["add_device_to_group", TraceKind.addDevice],
  ["remove_device_from_group", TraceKind.removeDevice],
  ["io_page_fault", TraceKind.fault],
]);

const decoder = new TextDecoder("utf-8");

/** Reads trace text; call `push` for each chunk and `end` once. */
export class TraceTextReader {
  readonly notes: ReadingNotes = new ReadingNotes();
  /** CPUs that the recording says the machine has, 0 when it does not say. */
  cpus = 0;
  /** The clock does not count seconds: `timeUs` holds its ticks. */
  ticks = false;
  readonly #splitter = new LineSplitter(this);
  readonly #sink: TraceEventSink;
  readonly #event = new TraceEvent();
  readonly #head = new TraceHead();
  readonly #cursor = new Cursor();
  readonly #comms = new Interner();
  readonly #devices = new Interner();
  readonly #names = new Interner(1000);
  /** Kind of each event name, −1 for one that is only counted. */
  readonly #kinds: number[] = [];
  #lastUs = -1;
  #lastNs = 0;

  constructor(sink: TraceEventSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    this.#splitter.push(chunk);
  }

  end(): void {
    this.#splitter.end();
    this.notes.lines = this.#splitter.lines;
  }

  /** Name of a task by its number in an event. */
  commName(index: number): string {
    return this.#comms.name(index);
  }

  /** Name of a device by its number in an event. */
  deviceName(index: number): string {
    return this.#devices.name(index);
  }

  /** Names of the events that are counted but not used, with how often they came. */
  unusedEvents(): { readonly name: string; readonly count: number }[] {
    return this.#names.counts();
  }

  /** {@link LineSink.longLine} */
  longLine(line: number): void {
    this.notes.unreadableLine(line, "too long");
  }

  /** {@link LineSink.line} */
  line(bytes: Uint8Array, start: number, end: number, line: number, terminated: boolean): void {
    if (start === end) return;
    if (bytes[start] === HASH) {
      this.#comment(bytes, start, end, line);
      return;
    }
    const cursor = this.#cursor;
    cursor.set(bytes, start, end);
    const head = this.#head;
    if (!readTraceHead(cursor, head)) {
      this.#otherLine(bytes, start, end, line);
      return;
    }
    const name = this.#names.intern(bytes, head.nameStart, head.nameEnd);
    const kind = this.#kinds[name] ?? this.#addKind(name);
    const event = this.#event;
    cursor.at = head.textStart;
    if (kind < 0 || !cursor.takeWord(prefix)) {
      if (this.#isLostMarker(bytes, head.textStart, end)) this.#otherLine(bytes, start, end, line);
      else if (head.nameEnd === head.nameStart && !terminated)
        this.notes.unreadableLine(line, "torn");
      else this.#names.count(name);
      return;
    }
    event.kind = kind;
    event.line = line;
    event.timeUs = head.timeUs;
    event.timeNs = head.timeNs;
    event.cpu = head.cpu;
    event.pid = head.pid;
    event.context = head.context;
    if (!this.#readText(kind, line, terminated)) return;
    event.comm = this.#comms.intern(bytes, head.commStart, head.commEnd);
    if (head.ticks) this.ticks = true;
    this.#checkTime(event);
    this.notes.events += 1;
    this.#sink(event);
  }

  #addKind(name: number): number {
    const kind = kindByName.get(this.#names.name(name)) ?? -1;
    this.#kinds[name] = kind;
    return kind;
  }

  #checkTime(event: TraceEvent): void {
    const { timeUs, timeNs } = event;
    if (timeUs < this.#lastUs || (timeUs === this.#lastUs && timeNs < this.#lastNs)) {
      this.notes.backwards += 1;
      if (this.notes.backwardsLine === 0) this.notes.backwardsLine = event.line;
    }
    this.#lastUs = timeUs;
    this.#lastNs = timeNs;
  }

  #readText(kind: number, line: number, terminated: boolean): boolean {
    switch (kind) {
      case TraceKind.map:
        return this.#readMap(line, terminated);
      case TraceKind.unmap:
        return this.#readUnmap(line, terminated);
      case TraceKind.fault:
        return this.#readFault(line);
      default:
        return this.#readDevice(kind, line);
    }
  }

  /** Reads ` iova=0x… - 0x…`, the second address being optional. */
  #readRange(): boolean {
    const { cursor, event } = { cursor: this.#cursor, event: this.#event };
    if (!cursor.takeWord(iovaIs) || !cursor.takeHex()) return false;
    event.iovaPfn = cursor.pfn;
    event.iovaOffset = cursor.offset;
    this.#hasEnd = cursor.takeWord(dash);
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
  #readSize(line: number): boolean {
    const cursor = this.#cursor;
    if (!cursor.takeWord(sizeIs)) return this.#bad(line, "torn");
    if (!cursor.takeDecimalBytes()) return this.#bad(line, "number too large");
    const event = this.#event;
    event.pages = cursor.pfn;
    event.pagesRest = cursor.offset;
    if (!this.#hasEnd) return true;
    const offset = event.iovaOffset + event.pagesRest;
    const carry = offset >= 4096 ? 1 : 0;
    let pfn = event.iovaPfn + event.pages + carry;
    if (pfn >= TWO_52) pfn -= TWO_52;
    if (pfn === this.#endPfn && offset - carry * 4096 === this.#endOffset) return true;
    return this.#bad(line, "range and size disagree");
  }

  /** After the last number a line may hold nothing but blanks. */
  #atEnd(line: number): boolean {
    const cursor = this.#cursor;
    if (cursor.at < cursor.end) cursor.skipBlanks();
    return cursor.at === cursor.end || this.#bad(line, "torn");
  }

  #readMap(line: number, terminated: boolean): boolean {
    const { cursor, event } = { cursor: this.#cursor, event: this.#event };
    if (!this.#readRange()) return this.#bad(line, "torn");
    if (!cursor.takeWord(paddrIs) || !cursor.takeHex()) return this.#bad(line, "torn");
    event.physPfn = cursor.pfn;
    event.physOffset = cursor.offset;
    if (!this.#readSize(line) || !this.#atEnd(line)) return false;
    event.unmappedPages = 0;
    event.unmappedRest = 0;
    return terminated || this.#hasEnd || this.#bad(line, "torn");
  }

  #readUnmap(line: number, terminated: boolean): boolean {
    const { cursor, event } = { cursor: this.#cursor, event: this.#event };
    if (!this.#readRange()) return this.#bad(line, "torn");
    if (!this.#readSize(line)) return false;
    if (!cursor.takeWord(unmappedIs) || !cursor.takeDecimalBytes()) return this.#bad(line, "torn");
    event.unmappedPages = cursor.pfn;
    event.unmappedRest = cursor.offset;
    event.physPfn = 0;
    event.physOffset = 0;
    if (!this.#atEnd(line)) return false;
    // A cut last line may have lost digits of the last number.
    const whole = event.unmappedPages === event.pages && event.unmappedRest === event.pagesRest;
    return terminated || whole || this.#bad(line, "torn");
  }

  /** `IOMMU:DRIVER DEVICE iova=0x… flags=0x…`, without a blank after the colon. */
  #readFault(line: number): boolean {
    const { cursor, event } = { cursor: this.#cursor, event: this.#event };
    cursor.skipBlanks();
    this.#takeToken();
    cursor.skipBlanks();
    const start = cursor.at;
    this.#takeToken();
    const end = cursor.at;
    if (!cursor.takeWord(iovaIs) || !cursor.takeHex()) return this.#bad(line, "torn");
    this.#clearRange();
    event.iovaPfn = cursor.pfn;
    event.iovaOffset = cursor.offset;
    if (!cursor.takeWord(flagsIs) || !cursor.takeHex()) return this.#bad(line, "torn");
    event.flags = cursor.offset;
    event.device = this.#devices.intern(cursor.bytes, start, end);
    return this.#atEnd(line);
  }

  /** `IOMMU: groupID=%d device=%s` or `IOMMU: device=%s`. */
  #readDevice(kind: number, line: number): boolean {
    const { cursor, event } = { cursor: this.#cursor, event: this.#event };
    this.#clearRange();
    event.group = 0;
    if (kind !== TraceKind.attach) {
      if (!cursor.takeWord(groupIs) || !cursor.takeDecimal()) return this.#bad(line, "torn");
      event.group = cursor.value;
    }
    if (!cursor.takeWord(deviceIs)) return this.#bad(line, "torn");
    const start = cursor.at;
    this.#takeToken();
    if (cursor.at === start) return this.#bad(line, "torn");
    event.device = this.#devices.intern(cursor.bytes, start, cursor.at);
    return this.#atEnd(line);
  }

  #clearRange(): void {
    const event = this.#event;
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
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    while (at < end && bytes[at] !== SPACE && bytes[at] !== TAB) at += 1;
    cursor.at = at;
  }

  #bad(line: number, problem: "torn" | "range and size disagree" | "number too large"): false {
    this.notes.unreadableLine(line, problem);
    return false;
  }

  #comment(bytes: Uint8Array, start: number, end: number, line: number): void {
    const text = decoder.decode(bytes.subarray(start, Math.min(end, start + 200)));
    const counts =
      /^# entries-in-buffer\/entries-written: (\d{1,15})\/(\d{1,15})\s+#P:(\d{1,5})/.exec(text);
    if (counts === null) return;
    this.cpus = Number(counts[3]);
    const lost = Number(counts[2]) - Number(counts[1]);
    if (lost > 0) this.notes.lost(line, lost);
  }

  #isLostMarker(bytes: Uint8Array, start: number, end: number): boolean {
    return bytes[start] === OPEN || (end - start > 11 && bytes[start] === 0x50);
  }

  /** A line that is no event: a marker of lost events, a header, or rubbish. */
  #otherLine(bytes: Uint8Array, start: number, end: number, line: number): void {
    const text = decoder.decode(bytes.subarray(start, Math.min(end, start + 200))).trim();
    if (text === "") return;
    const lost =
      /\[LOST (?:(\d{1,15}) )?EVENTS\]/.exec(text) ??
      /\[(?:(\d{1,15}) )?EVENTS DROPPED\]/.exec(text) ??
      /PERF_RECORD_LOST(?:_SAMPLES)?\b[ :]*(?:lost )?(\d{1,15})?/.exec(text);
    if (lost !== null) {
      this.notes.lost(line, Number(lost[1] ?? 0));
      return;
    }
    const cpus = /^cpus=(\d{1,5})$/.exec(text);
    if (cpus !== null) {
      this.cpus = Number(cpus[1]);
      return;
    }
    if (/^(version = \d+|CPU \d+ is empty|[0-9a-f]{8,16} .*)$/.test(text)) return;
    this.notes.unreadableLine(line, "torn");
  }
}
