/**
 * Reads trace text: `trace` and `trace_pipe` of tracefs, `trace-cmd report`, `perf script`.
 *
 * Target: 1 M lines/s from gzip to result (bench "read ftrace"). No allocation per event: lines are
 * parsed in the chunk they lie in and given out as one record. The event's own text is that of
 * include/trace/events/iommu.h, as of Linux 3.11 (without the end of the range) and since.
 */
import { ascii, Cursor, Literal } from "./ascii.ts";
import { Interner } from "./interner.ts";
import { LINE_BYTES_MAX, LineSplitter } from "./line-splitter.ts";
import { ReadingNotes } from "./notes.ts";
import { TraceEvent, type TraceEventSink, TraceKind } from "./trace-event.ts";
import { readTraceHead, TraceHead } from "./trace-head.ts";
import { TracePayload } from "./trace-payload.ts";

const LF = 0x0a;
const CR = 0x0d;
const HASH = 0x23;
const ARROW = 0x3c;
const OPEN = 0x5b;
const LETTER_A = 0x61;
const LETTER_M = 0x6d;
const LETTER_N = 0x6e;
const LETTER_P = 0x70;
const LETTER_U = 0x75;

const prefix = new Literal("IOMMU:");
const rawStart = new Literal("iova=0x");
const perfRecord = new Literal("PERF_RECORD_");
const functionName = ascii("(function)");

/** What a line turned out to be. */
const Outcome = { event: 0, unused: 1, other: 2, bad: 3 } as const;

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
  readonly #payload = new TracePayload(this.#cursor, this.#event);
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
    const outcome = this.#parse(bytes, start, end, line);
    if (outcome === Outcome.event && (terminated || this.#payload.isWhole())) this.#emit();
    else if (outcome === Outcome.event) this.notes.unreadableLine(line, "torn");
    else if (outcome === Outcome.unused) this.#names.count(this.#name);
    else if (outcome === Outcome.bad) this.notes.unreadableLine(line, this.#payload.problem);
    else this.#otherLine(bytes, start, end, line);
  }

  /** {@link LineSink.quickLine} */
  quickLine(bytes: Uint8Array, start: number, limit: number, line: number): number {
    if (bytes[start] === HASH) return -1;
    const outcome = this.#parse(bytes, start, limit, line);
    let end = this.#cursor.at;
    if (outcome === Outcome.event) {
      if (end < limit && bytes[end] === CR) end += 1;
      if (end >= limit || end - start > LINE_BYTES_MAX) return -1;
      this.#emit();
      return end + 1;
    }
    if (outcome !== Outcome.unused) return -1;
    end = bytes.indexOf(LF, end);
    if (end < 0 || end - start > LINE_BYTES_MAX) return -1;
    this.#names.count(this.#name);
    return end + 1;
  }

  #name = 0;

  /** Takes a line apart into the record. Judges nothing by what lies behind a LF. */
  #parse(bytes: Uint8Array, start: number, end: number, line: number): number {
    const cursor = this.#cursor;
    cursor.set(bytes, start, end);
    const head = this.#head;
    if (!readTraceHead(cursor, head)) return Outcome.other;
    const { nameStart, nameEnd, textStart } = head;
    if (nameStart === nameEnd) return this.#parseNameless(bytes, textStart, end);
    const kind = this.#kindOf(bytes, nameStart, nameEnd);
    cursor.at = textStart;
    if (kind < 0 || !(cursor.take(prefix) || this.#isRaw(textStart))) {
      if (textStart < end && bytes[textStart] === OPEN) return Outcome.other;
      cursor.at = textStart;
      this.#name = this.#names.intern(bytes, nameStart, nameEnd);
      return Outcome.unused;
    }
    const event = this.#event;
    event.kind = kind;
    event.line = line;
    event.timeUs = head.timeUs;
    event.timeNs = head.timeNs;
    event.cpu = head.cpu;
    event.pid = head.pid;
    event.context = head.context;
    return this.#payload.read(kind) ? Outcome.event : Outcome.bad;
  }

  /** `trace-cmd report -R` prints fields without the event's own text: ` iova=0x… size=…`. */
  #isRaw(textStart: number): boolean {
    const cursor = this.#cursor;
    cursor.at = textStart;
    const isRaw = cursor.take(rawStart);
    cursor.at = textStart - 1;
    return isRaw;
  }

  /** A line with time but no `NAME:`: the function tracer's, or a marker of perf. */
  #parseNameless(bytes: Uint8Array, textStart: number, end: number): number {
    const cursor = this.#cursor;
    cursor.at = this.#head.nameStart;
    if (cursor.take(perfRecord) || textStart >= end) return Outcome.other;
    cursor.at = textStart;
    this.#name = this.#names.intern(functionName, 0, functionName.length);
    return bytes[textStart] === ARROW ? Outcome.unused : Outcome.other;
  }

  #kindOf(bytes: Uint8Array, start: number, end: number): number {
    const at = end - 3;
    if (bytes[at] === LETTER_M && bytes[at + 1] === LETTER_A && bytes[at + 2] === LETTER_P) {
      if (at === start) return TraceKind.map;
      if (at === start + 2 && bytes[start] === LETTER_U && bytes[start + 1] === LETTER_N) {
        return TraceKind.unmap;
      }
    }
    const name = this.#names.intern(bytes, start, end);
    return this.#kinds[name] ?? this.#addKind(name);
  }

  #emit(): void {
    const event = this.#event;
    const head = this.#head;
    event.comm = this.#comms.intern(this.#cursor.bytes, head.commStart, head.commEnd);
    if (event.kind > TraceKind.unmap) {
      const { deviceStart, deviceEnd } = this.#payload;
      event.device = this.#devices.intern(this.#cursor.bytes, deviceStart, deviceEnd);
    }
    if (head.ticks) this.ticks = true;
    head.columnBefore = head.column;
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

  #comment(bytes: Uint8Array, start: number, end: number, line: number): void {
    const text = decoder.decode(bytes.subarray(start, Math.min(end, start + 200)));
    const counts =
      /^# entries-in-buffer\/entries-written: (\d{1,15})\/(\d{1,15})\s+#P:(\d{1,5})/.exec(text);
    if (counts === null) return;
    this.cpus = Number(counts[3]);
    const lost = Number(counts[2]) - Number(counts[1]);
    if (lost > 0) this.notes.lost(line, lost);
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
    // Headers of trace-cmd; a call chain of perf: address, symbol, (file).
    if (/^(version = \d+|CPU \d+ is empty|[0-9a-f]{4,16} [^()]+ \(.*\))$/.test(text)) return;
    this.notes.unreadableLine(line, "torn");
  }
}
