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
}

/**
 * Reads the head of a line.
 *
 * @param cursor - set to the line
 * @returns false when the line is no event line
 */
export function readTraceHead(cursor: Cursor, head: TraceHead): boolean {
  const { bytes, end } = cursor;
  const start = cursor.at;
  let at = start;
  for (;;) {
    while (at < end && bytes[at] !== BRACKET) at += 1;
    if (at >= end) return false;
    cursor.at = at + 1;
    if (cursor.takeDecimal() && bytes[cursor.at] === BRACKET_CLOSE && cursor.at < end) {
      head.cpu = cursor.value;
      const after = cursor.at + 1;
      if (readTask(bytes, start, at, head)) {
        cursor.at = after;
        break;
      }
    }
    at += 1;
  }
  cursor.skipBlanks();
  readContext(cursor, head);
  return readTime(cursor, head) && readName(cursor, head);
}

/** Reads `COMM-PID`, `COMM-PID (TGID)`, `COMM PID` or `COMM PID/TID`, backwards from `end`. */
function readTask(bytes: Uint8Array, start: number, end: number, head: TraceHead): boolean {
  let at = skipBlanksBack(bytes, start, end);
  if (at > start && bytes[at - 1] === CLOSE) {
    while (at > start && bytes[at - 1] !== OPEN) at -= 1;
    if (at === start) return false;
    at = skipBlanksBack(bytes, start, at - 1);
  }
  let pid = 0;
  let scale = 1;
  const digitsEnd = at;
  while (at > start && isDigit(bytes[at - 1]!) && scale < 1e11) {
    at -= 1;
    pid += (bytes[at]! - 0x30) * scale;
    scale *= 10;
  }
  if (at === digitsEnd || at === start) return false;
  head.pid = pid;
  if (bytes[at - 1] === SLASH) {
    at -= 1;
    while (at > start && isDigit(bytes[at - 1]!)) at -= 1;
    if (at === start) return false;
  }
  const before = bytes[at - 1];
  if (before !== DASH && before !== SPACE && before !== TAB) return false;
  head.commEnd = before === DASH ? at - 1 : skipBlanksBack(bytes, start, at);
  let first = start;
  while (first < head.commEnd && (bytes[first] === SPACE || bytes[first] === TAB)) first += 1;
  head.commStart = first;
  return true;
}

function skipBlanksBack(bytes: Uint8Array, start: number, end: number): number {
  let at = end;
  while (at > start && (bytes[at - 1] === SPACE || bytes[at - 1] === TAB)) at -= 1;
  return at;
}

/** Reads the flag columns, if the line has them. */
function readContext(cursor: Cursor, head: TraceHead): void {
  const { bytes, end, at } = cursor;
  if (at >= end || isDigit(bytes[at]!)) {
    head.context = ContextFlag.unknown;
    return;
  }
  let context = 0;
  const irqs = bytes[at]!;
  if (irqs === 0x64) context |= ContextFlag.irqsOff;
  else if (irqs === 0x62) context |= ContextFlag.bottomHalvesOff;
  else if (irqs === 0x44) context |= ContextFlag.irqsOff | ContextFlag.bottomHalvesOff;
  if (at + 1 < end && bytes[at + 1] !== DOT) context |= ContextFlag.needResched;
  const interrupt = at + 2 < end ? bytes[at + 2]! : DOT;
  if (interrupt === 0x68) context |= ContextFlag.hardIrq;
  else if (interrupt === 0x73) context |= ContextFlag.softIrq;
  else if (interrupt === 0x48) context |= ContextFlag.hardIrq | ContextFlag.softIrq;
  else if (interrupt === 0x7a) context |= ContextFlag.nmi;
  else if (interrupt === 0x5a) context |= ContextFlag.nmi | ContextFlag.hardIrq;
  head.context = context;
  let next = at;
  while (next < end && bytes[next] !== SPACE && next - at < 8) next += 1;
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
    let nanoseconds = 0;
    while (at < end && isDigit(bytes[at]!) && at - first < 9) {
      nanoseconds = nanoseconds * 10 + (bytes[at]! - 0x30);
      at += 1;
    }
    if (at === first || seconds > 9e9) return false;
    for (let digits = at - first; digits < 9; digits += 1) nanoseconds *= 10;
    const micros = Math.floor(nanoseconds / 1000);
    head.timeUs = seconds * 1_000_000 + micros;
    head.timeNs = nanoseconds - micros * 1000;
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
  while (at < end && bytes[at] !== SPACE) {
    if (bytes[at] === COLON && at + 1 < end && bytes[at + 1] !== SPACE) name = at + 1;
    at += 1;
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
