/**
 * The kinds of recording there are, and how each is told by a line of it. A further kind is a
 * further row of {@link recordingKinds}.
 */
import { Cursor, Literal } from "./ascii.ts";
import { readTraceHead, TraceHead } from "./trace-head.ts";

/** Which reader reads a kind. */
export type RecordingFamily = "trace" | "qemu-log" | "requests" | "vfio-type1" | "vfio-map-time";

/** One kind of recording. */
export interface RecordingKind {
  /** Public interface: the `kind` of a result. */
  readonly name: string;
  readonly family: RecordingFamily;
  /** What it is, for messages. */
  readonly title: string;
  /** Whether a line, anywhere near the start, can only be of this kind. */
  matches(bytes: Uint8Array, start: number, end: number): boolean;
}

const cursor = new Cursor();
const head = new TraceHead();
const BLANK = 0x20;
const COLON = 0x3a;
const BRACE = 0x7b;

/** Bytes of a line that a search for a word looks at. */
const SEARCH_BYTES_MAX = 4096;

function startsWith(bytes: Uint8Array, start: number, end: number, word: Literal): boolean {
  cursor.set(bytes, start, end);
  return cursor.take(word);
}

function includes(bytes: Uint8Array, start: number, end: number, word: Literal): boolean {
  const last = Math.min(end, start + SEARCH_BYTES_MAX) - word.bytes.length;
  for (let at = start; at <= last; at += 1) {
    if (bytes[at] === word.bytes[0] && startsWith(bytes, at, end, word)) return true;
  }
  return false;
}

function isEventLine(bytes: Uint8Array, start: number, end: number): boolean {
  cursor.set(bytes, start, end);
  return readTraceHead(cursor, head) && head.nameEnd > head.nameStart;
}

const cpusIs = new Literal("cpus=");
const versionIs = new Literal("version = ");
const tracerIs = new Literal("# tracer: ");
const entriesIs = new Literal("# entries-in-buffer/");
const lostOnCpu = new Literal("CPU:");
const lostEvents = new Literal("EVENTS]");
const droppedEvents = new Literal("EVENTS DROPPED]");
const traceName = new Literal("virtio_iommu_");
const requestKey = new Literal('"req"');
const usedKey = new Literal('"used_len"');
const configKey = new Literal('"config"');
const featuresKey = new Literal('"device_features"');
const opKey = new Literal('"op"');
const groupFlagsKey = new Literal('"group_flags"');
const pageSizesKey = new Literal('"pgsizes"');
const iovaKey = new Literal('"iova"');
const errnoKey = new Literal('"errno"');
const extensionKey = new Literal('"ext"');
const kindKey = new Literal('"kind"');
const mapSecondsKey = new Literal('"map_s"');
const barKey = new Literal('"bar"');
const sizeKey = new Literal('"size"');

/** All kinds; the first that matches a line wins. */
export const recordingKinds: readonly RecordingKind[] = [
  {
    name: "qemu-virtio-iommu-log",
    family: "qemu-log",
    title: "log of QEMU's virtio_iommu_* trace events",
    matches(bytes, start, end) {
      let at = start;
      // The back end's prefix `pid@sec.usec:` holds neither blanks nor letters.
      while (at < end && at - start < 48 && bytes[at]! < 0x61 && bytes[at] !== BLANK) at += 1;
      return startsWith(bytes, at, end, traceName) && (at === start || bytes[at - 1] === COLON);
    },
  },
  {
    name: "virtio-iommu-requests",
    family: "requests",
    title: "JSON lines of virtio-iommu requests",
    matches(bytes, start, end) {
      if (bytes[start] !== BRACE) return false;
      return (
        (includes(bytes, start, end, configKey) && includes(bytes, start, end, featuresKey)) ||
        (includes(bytes, start, end, requestKey) && includes(bytes, start, end, usedKey))
      );
    },
  },
  {
    name: "vfio-type1",
    family: "vfio-type1",
    title: "JSON lines of VFIO type1 calls",
    matches(bytes, start, end) {
      if (bytes[start] !== BRACE || !includes(bytes, start, end, opKey)) return false;
      return (
        includes(bytes, start, end, groupFlagsKey) ||
        includes(bytes, start, end, pageSizesKey) ||
        includes(bytes, start, end, extensionKey) ||
        (includes(bytes, start, end, iovaKey) && includes(bytes, start, end, errnoKey))
      );
    },
  },
  {
    name: "vfio-map-time",
    family: "vfio-map-time",
    title: "JSON lines of VFIO mappings with their times",
    matches(bytes, start, end) {
      if (bytes[start] !== BRACE || !includes(bytes, start, end, sizeKey)) return false;
      return (
        includes(bytes, start, end, barKey) ||
        (includes(bytes, start, end, kindKey) && includes(bytes, start, end, mapSecondsKey))
      );
    },
  },
  {
    name: "perf-script",
    family: "trace",
    title: "text of perf script",
    matches(bytes, start, end) {
      if (!isEventLine(bytes, start, end)) return false;
      return bytes[head.nameStart - 1] === COLON;
    },
  },
  {
    name: "trace-cmd",
    family: "trace",
    title: "text of trace-cmd report",
    matches(bytes, start, end) {
      if (startsWith(bytes, start, end, cpusIs)) return true;
      if (startsWith(bytes, start, end, versionIs)) return true;
      if (includes(bytes, start, end, droppedEvents)) return bytes[start] !== BRACE;
      // The name is padded to a column.
      return isEventLine(bytes, start, end) && head.textStart - head.nameEnd > 2;
    },
  },
  {
    name: "ftrace",
    family: "trace",
    title: "text of tracefs' trace or trace_pipe",
    matches(bytes, start, end) {
      if (startsWith(bytes, start, end, tracerIs)) return true;
      if (startsWith(bytes, start, end, entriesIs)) return true;
      if (startsWith(bytes, start, end, lostOnCpu)) return includes(bytes, start, end, lostEvents);
      return isEventLine(bytes, start, end);
    },
  },
];

/** The kind that a line shows, null when it shows none. */
export function kindOfLine(bytes: Uint8Array, start: number, end: number): RecordingKind | null {
  let first = start;
  while (first < end && (bytes[first] === BLANK || bytes[first] === 0x09)) first += 1;
  return recordingKinds.find((kind) => kind.matches(bytes, first, end)) ?? null;
}
