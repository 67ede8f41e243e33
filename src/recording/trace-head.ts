/**
 * The part of a trace line before the event's own text, in the three forms that exist:
 *
 *     fio-614     [000] d.h..    90.080400: unmap: …        ftrace `trace`, `trace_pipe`
 *     fio-614   (  614) [000] d.h..    90.080400: unmap: …  … with option record-tgid
 *     fio-614   [000] d.h..    90.080400: unmap:   …        trace-cmd report
 *     fio   614 [000]    90.080400: iommu:unmap: …          perf script
 *
 * Sources: kernel/trace/trace_output.c (trace_print_context, trace_print_lat_fmt);
 * tools/perf/builtin-script.c (perf_sample__fprintf_start); trace-cmd's trace-read.c.
 *
 * A task's name may hold any byte, brackets and blanks included, so the line is read outwards from
 * the first `[digits]` that has a process number before it.
 */
import { type Cursor, isDigit } from "./ascii.ts";
import { ContextFlag } from "./trace-event.ts";

const LF = 0x0a;
const SPACE = 0x20;
const TAB = 0x09;
const DASH = 0x2d;
const SLASH = 0x2f;
const COLON = 0x3a;
const OPEN = 0x28;
const CLOSE = 0x29;
const BRACKET = 0x5b;
const BRACKET_CLOSE = 0x5d;
const DOT = 0x2e;

/** Bytes of a task's name: include/linux/sched.h, TASK_COMM_LEN. More is two lines in one. */
const COMM_BYTES_MAX = 16;

/** Columns in front of the CPU: so many brackets of a line are worth a look. */
const TASK_COLUMNS_MAX = 1024;

/** Places of the parts of a line. */
export class TraceHead {
  commStart = 0;
  commEnd = 0;
  pid = 0;
  cpu = 0;
  context = 0;
  timeUs = 0;
  timeNs = 0;
  /** The time had no fraction: the clock counts something else than seconds. */
  ticks = false;
  /** Event name without its system; `nameEnd` is exclusive. Empty for a line without one. */
  nameStart = 0;
  nameEnd = 0;
  /** First byte of the event's text. */
  textStart = 0;
  /** Column of the CPU's bracket in this line, and in the last line that was an event. */
  column = 0;
  columnBefore = 0;
}

/**
 * Reads the head of a line. Stops at a LF, so that the cursor may be set to more than the line.
 *
 * @param cursor - set to the line
 * @returns false when the line is no event line
 */
export function readTraceHead(cursor: Cursor, head: TraceHead): boolean {
  const { bytes, end } = cursor;
  const start = cursor.at;
  let at = start + head.columnBefore;
  // Lines of one recording mostly have the bracket in the same column.
  if (at < end && bytes[at] === BRACKET && readAround(cursor, head, start, at)) {
    at = head.commStart;
    while (at < head.commEnd && bytes[at] !== LF) at += 1;
    if (at === head.commEnd) return true;
  }
  at = start;
  for (;;) {
    let byte = 0;
    while (at < end) {
      byte = bytes[at]!;
      if (byte === BRACKET || byte === LF) break;
      at += 1;
    }
    if (at >= end || byte === LF) return false;
    if (readAround(cursor, head, start, at)) return true;
    at += 1;
  }
}

/** Reads a whole head around a bracket that may be the CPU's. */
function readAround(cursor: Cursor, head: TraceHead, start: number, at: number): boolean {
  if (!readBracket(cursor, head, start, at)) return false;
  cursor.skipBlanks();
  readContext(cursor, head);
  return readTime(cursor, head) && readName(cursor, head);
}

/** Reads the task and the CPU around a bracket that may be the CPU's. */
function readBracket(cursor: Cursor, head: TraceHead, start: number, at: number): boolean {
  cursor.at = at + 1;
  if (!cursor.takeDecimal()) return false;
  const after = cursor.at;
  if (after >= cursor.end || cursor.bytes[after] !== BRACKET_CLOSE) return false;
  head.cpu = cursor.value;
  if (!readTask(cursor.bytes, start, at, head)) return false;
  cursor.at = after + 1;
  head.column = at - start;
  return true;
}

/** Reads `COMM-PID`, `COMM-PID (TGID)`, `COMM PID` or `COMM PID/TID`, backwards from `end`. */
function readTask(bytes: Uint8Array, start: number, end: number, head: TraceHead): boolean {
  if (end - start > TASK_COLUMNS_MAX) return false;
  let at = skipBlanksBack(bytes, start, end);
  if (at > start && bytes[at - 1] === CLOSE) {
    at -= 1;
    // Digits, or dashes where the group is not known.
    while (at > start && (isDigit(bytes[at - 1]!) || bytes[at - 1] === DASH)) at -= 1;
    at = skipBlanksBack(bytes, start, at);
    if (at === start || bytes[at - 1] !== OPEN) return false;
    at = skipBlanksBack(bytes, start, at - 1);
  }
  const pidEnd = at;
  while (at > start && isDigit(bytes[at - 1]!) && pidEnd - at < 11) at -= 1;
  if (at === pidEnd || at === start) return false;
  let pid = 0;
  for (let digit = at; digit < pidEnd; digit += 1) pid = pid * 10 + (bytes[digit]! - 0x30);
  head.pid = pid;
  if (bytes[at - 1] === SLASH) {
    at -= 1;
    while (at > start && isDigit(bytes[at - 1]!)) at -= 1;
    if (at === start) return false;
  }
  const before = bytes[at - 1];
  if (before !== DASH && before !== SPACE && before !== TAB) return false;
  head.commEnd = before === DASH ? at - 1 : skipBlanksBack(bytes, start, at);
  const { commEnd } = head;
  head.commStart = skipBlanksTo(bytes, start, commEnd);
  if (commEnd - head.commStart <= COMM_BYTES_MAX) return true;
  // `trace-cmd report` of several files puts the file's name and a colon in front.
  let name = head.commStart;
  while (name < commEnd && bytes[name]! > SPACE) name += 1;
  if (bytes[name - 1] !== COLON) return false;
  head.commStart = skipBlanksTo(bytes, name, commEnd);
  return commEnd - head.commStart <= COMM_BYTES_MAX;
}

function skipBlanksTo(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && (bytes[at] === SPACE || bytes[at] === TAB)) at += 1;
  return at;
}

function skipBlanksBack(bytes: Uint8Array, start: number, end: number): number {
  let at = end;
  while (at > start && (bytes[at - 1] === SPACE || bytes[at - 1] === TAB)) at -= 1;
  return at;
}

/** Flag bits by the letter in the first and in the third column. */
const irqsFlags = new Uint8Array(256);
irqsFlags["d".charCodeAt(0)] = ContextFlag.irqsOff;
irqsFlags["b".charCodeAt(0)] = ContextFlag.bottomHalvesOff;
irqsFlags["D".charCodeAt(0)] = ContextFlag.irqsOff | ContextFlag.bottomHalvesOff;
const interruptFlags = new Uint8Array(256);
interruptFlags["h".charCodeAt(0)] = ContextFlag.hardIrq;
interruptFlags["s".charCodeAt(0)] = ContextFlag.softIrq;
interruptFlags["H".charCodeAt(0)] = ContextFlag.hardIrq | ContextFlag.softIrq;
interruptFlags["z".charCodeAt(0)] = ContextFlag.nmi;
interruptFlags["Z".charCodeAt(0)] = ContextFlag.nmi | ContextFlag.hardIrq;

/** Columns of flags there are at most, with room for more. */
const FLAG_COLUMNS_MAX = 8;

/** Reads the flag columns, if the line has them. */
function readContext(cursor: Cursor, head: TraceHead): void {
  const { bytes, end, at } = cursor;
  if (at >= end || isDigit(bytes[at]!)) {
    head.context = ContextFlag.unknown;
    return;
  }
  let next = at;
  while (next < end && bytes[next]! > SPACE && next - at < FLAG_COLUMNS_MAX) next += 1;
  let context = irqsFlags[bytes[at]!]!;
  if (next - at > 1 && bytes[at + 1] !== DOT) context |= ContextFlag.needResched;
  if (next - at > 2) context |= interruptFlags[bytes[at + 2]!]!;
  head.context = context;
  cursor.at = next;
  cursor.skipBlanks();
}

/** Reads `SECONDS.FRACTION:` with up to nine digits of fraction, or `TICKS:`. */
function readTime(cursor: Cursor, head: TraceHead): boolean {
  if (!cursor.takeDecimal()) return false;
  const seconds = cursor.value;
  const { bytes, end } = cursor;
  let at = cursor.at;
  if (at < end && bytes[at] === DOT) {
    at += 1;
    const first = at;
    let fraction = 0;
    while (at < end && isDigit(bytes[at]!) && at - first < 9) {
      fraction = fraction * 10 + (bytes[at]! - 0x30);
      at += 1;
    }
    if (at === first || seconds > 9e9) return false;
    if (at - first === 6) {
      head.timeUs = seconds * 1_000_000 + fraction;
      head.timeNs = 0;
    } else {
      for (let digits = at - first; digits < 9; digits += 1) fraction *= 10;
      const micros = Math.floor(fraction / 1000);
      head.timeUs = seconds * 1_000_000 + micros;
      head.timeNs = fraction - micros * 1000;
    }
    head.ticks = false;
  } else {
    head.timeUs = seconds;
    head.timeNs = 0;
    head.ticks = true;
  }
  if (at >= end || bytes[at] !== COLON) return false;
  cursor.at = at + 1;
  return true;
}

/** Reads `NAME:` or `SYSTEM:NAME:`, after an optional sample period. */
function readName(cursor: Cursor, head: TraceHead): boolean {
  cursor.skipBlanks();
  const { bytes, end } = cursor;
  let start = cursor.at;
  let at = start;
  while (at < end && isDigit(bytes[at]!)) at += 1;
  if (at > start && at < end && bytes[at] === SPACE) {
    cursor.at = at;
    cursor.skipBlanks();
    start = cursor.at;
    at = start;
  } else {
    at = start;
  }
  let name = start;
  while (at < end) {
    const byte = bytes[at]!;
    if (byte <= SPACE) break;
    at += 1;
    if (byte === COLON && at < end && bytes[at]! > SPACE) name = at;
  }
  if (at === start) return false;
  const hasColon = bytes[at - 1] === COLON;
  head.nameStart = hasColon ? name : start;
  head.nameEnd = hasColon ? at - 1 : start;
  cursor.at = at;
  cursor.skipBlanks();
  head.textStart = cursor.at;
  return true;
}
