/**
 * Reads JSON lines of VFIO mappings with their times: which memory was mapped and unmapped again,
 * one line for each, after a line about the BAR.
 *
 *     {"bar": 2, "size": "0x400000000", "flags": 7}
 *     {"kind": "bar", "size": "0x200000", "errno": 0, "map_s": 0.005480, "unmap_s": 0.002236}
 *     {"kind": "anon", "thp": 0, "size": "0x200000", "errno": 0, "map_s": 0.014, "unmap_s": 0.001}
 *
 * `unmap_errno` and `unmapped` tell of the UNMAP_DMA where they stand. The times are those of the
 * recorded machine and are not looked at.
 */
import { addressOf } from "../units.ts";
import { JsonLine, JsonValue } from "./json-line.ts";
import { LineSplitter } from "./line-splitter.ts";
import { type LineProblem, ReadingNotes } from "./notes.ts";

/** The BAR that was mapped. Sizes are in bytes. */
export interface RecordedBar {
  readonly line: number;
  readonly index: number;
  readonly pages: number;
  /** Of VFIO_DEVICE_GET_REGION_INFO. */
  readonly flags: number;
}

/** One mapping. */
export interface TimedMapping {
  readonly line: number;
  readonly kind: "bar" | "anon";
  /** Whether the memory may be made of huge pages; null where the line does not say. */
  readonly isHuge: boolean | null;
  readonly pages: number;
  /** Of MAP_DMA. */
  readonly errno: number;
  /** Of UNMAP_DMA, and the bytes that it told of; null where not recorded. */
  readonly unmapErrno: number | null;
  readonly unmapped: bigint | null;
}

/** Receives the lines. */
export interface MapTimeSink {
  bar(bar: RecordedBar): void;
  mapping(mapping: TimedMapping): void;
}

const Slot = {
  bar: 0,
  size: 1,
  flags: 2,
  kind: 3,
  thp: 4,
  errno: 5,
  unmap_errno: 6,
  unmapped: 7,
  map_s: 8,
} as const;

/** What a line may lack, but not hold in another form. */
const MAY_MISS = [Slot.thp, Slot.unmap_errno, Slot.unmapped] as const;

const LF = 0x0a;
const CR = 0x0d;
const WRONG = "a field is missing or wrong";
const decoder = new TextDecoder("utf-8");

/** Reads them; call `push` for each chunk and `end` once. */
export class MapTimeReader {
  readonly notes: ReadingNotes = new ReadingNotes();
  readonly #splitter = new LineSplitter(this);
  readonly #sink: MapTimeSink;
  readonly #json = new JsonLine(Object.keys(Slot));

  constructor(sink: MapTimeSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    this.#splitter.push(chunk);
  }

  end(): void {
    this.#splitter.end();
    this.notes.lines = this.#splitter.lines;
  }

  /** {@link LineSink.longLine} */
  longLine(line: number): void {
    this.notes.unreadableLine(line, "too long");
  }

  /** {@link LineSink.line} */
  line(bytes: Uint8Array, start: number, end: number, line: number): void {
    if (bytes.subarray(start, end).every((byte) => byte <= 0x20 && byte !== LF && byte !== CR)) {
      return;
    }
    const isObject = this.#json.read(bytes, start, end) === end;
    const problem = isObject ? this.#object(bytes, line) : "torn";
    if (problem !== null) this.notes.unreadableLine(line, problem);
  }

  /** Gives an object out; what is wrong with it if that is not possible. */
  #object(bytes: Uint8Array, line: number): LineProblem | null {
    const json = this.#json;
    if (json.repeated >= 0) return "a key stands twice";
    const pages = this.#pagesAt(Slot.size);
    if (json.value(Slot.bar) === JsonValue.NUMBER) {
      if (pages === null || !json.hasNumber(Slot.flags)) return WRONG;
      const index = json.number(Slot.bar);
      this.#sink.bar({ line, index, pages, flags: json.number(Slot.flags) });
      return null;
    }
    if (json.value(Slot.kind) !== JsonValue.TEXT) return "not a known row";
    const text = decoder.decode(bytes.subarray(json.textStart(Slot.kind), json.textEnd(Slot.kind)));
    if (text !== "bar" && text !== "anon") return "not a known row";
    if (pages === null || !json.hasNumber(Slot.errno)) return WRONG;
    if (MAY_MISS.some((slot) => json.value(slot) !== JsonValue.NONE && !json.hasNumber(slot))) {
      return WRONG;
    }
    this.notes.events += 1;
    this.#sink.mapping({
      line,
      kind: text,
      isHuge: json.hasNumber(Slot.thp) ? json.number(Slot.thp) !== 0 : null,
      pages,
      errno: json.number(Slot.errno),
      unmapErrno: json.hasNumber(Slot.unmap_errno) ? json.number(Slot.unmap_errno) : null,
      unmapped: json.hasNumber(Slot.unmapped)
        ? addressOf(json.pfn(Slot.unmapped)) + BigInt(json.offset(Slot.unmapped))
        : null,
    });
    return null;
  }

  /** A slot's number as whole pages, null when it is none. */
  #pagesAt(slot: number): number | null {
    const json = this.#json;
    return json.hasNumber(slot) && json.offset(slot) === 0 ? json.pfn(slot) : null;
  }
}
