/**
 * Reads QEMU logs made with `-trace 'virtio_iommu_*'`, plain or with the prefix `pid@sec.usec:` of
 * the log back end (QEMU scripts/tracetool/backend/log.py).
 *
 * Target: 1 M lines/s from gzip to result. The texts are declared once, as data; a compiled step
 * list takes a line apart without a string.
 */
import { Cursor, isDigit, Literal } from "./ascii.ts";
import { Interner } from "./interner.ts";
import { LineSplitter } from "./line-splitter.ts";
import { ReadingNotes } from "./notes.ts";
import { QemuEvent, type QemuEventSink, QemuKind } from "./qemu-event.ts";

/** Kind and text of each event; `%field` is a number of the record, `%_` a word that is skipped. */
const formats: readonly (readonly [name: string, kind: number, text: string])[] = [
  ["attach", QemuKind.attach, "domain=%domain endpoint=%endpoint"],
  ["detach", QemuKind.detach, "domain=%domain endpoint=%endpoint"],
  [
    "map",
    QemuKind.map,
    "domain=%domain virt_start=0x%start virt_end=0x%last phys_start=0x%phys flags=%flags",
  ],
  ["unmap", QemuKind.unmap, "domain=%domain virt_start=0x%start virt_end=0x%last"],
  ["unmap_done", QemuKind.unmapDone, "domain=%domain virt_start=0x%start virt_end=0x%last"],
  ["translate", QemuKind.translate, "mr=%_ rid=%endpoint addr=0x%start flag=%flags"],
  ["translate_out", QemuKind.translateOut, "0x%start -> 0x%phys for sid=%endpoint"],
  [
    "get_config",
    QemuKind.getConfig,
    "page_size_mask=0x%mask input range start=0x%start input range end=0x%last " +
      "domain range start=%domainFirst domain range end=%domainLast " +
      "probe_size=0x%probeSize bypass=0x%bypass",
  ],
  ["set_config", QemuKind.setConfig, "bypass=0x%bypass"],
  [
    "fill_resv_property",
    QemuKind.reserved,
    "dev= %endpoint, type=%flags start=0x%start end=0x%last",
  ],
  [
    "report_fault",
    QemuKind.fault,
    "FAULT reason=%reason flags=%flags endpoint=%endpoint address =0x%start",
  ],
  ["device_status", QemuKind.status, "driver status = %flags"],
  ["device_reset", QemuKind.deviceReset, "reset!"],
  ["device_reset_exit", QemuKind.deviceReset, "reset!"],
  ["system_reset", QemuKind.systemReset, "system reset!"],
  ["get_features", QemuKind.features, "device supports features=0x%mask"],
  ["init_iommu_mr", QemuKind.region, "init virtio-iommu-memory-region-%_"],
  ["freeze_granule", QemuKind.granule, "granule set to 0x%mask"],
];

/** Fields of the record by their name in a text, and how they are written. */
const Field = {
  domain: 0,
  endpoint: 1,
  flags: 2,
  domainFirst: 3,
  domainLast: 4,
  reason: 5,
  start: 6,
  last: 7,
  phys: 8,
  mask: 9,
  probeSize: 10,
  bypass: 11,
  _: 12,
} as const;
const HEX_FROM = Field.start;

interface Step {
  readonly word: Literal;
  /** One of {@link Field}, −1 when the text ends with the word. */
  readonly field: number;
}

interface Format {
  readonly kind: number;
  readonly steps: readonly Step[];
}

function compile(kind: number, text: string): Format {
  const steps: Step[] = [];
  const pattern = /([^%]*)(?:%([a-zA-Z_]+))?/y;
  while (pattern.lastIndex < text.length) {
    const [, word = "", field] = pattern.exec(text)!;
    const number = field === undefined ? -1 : Field[field as keyof typeof Field];
    steps.push({ word: new Literal(word), field: number });
  }
  return { kind, steps };
}

const formatByName = new Map(
  formats.map(([name, kind, text]) => [`virtio_iommu_${name}`, compile(kind, text)]),
);

const SPACE = 0x20;
const AT = 0x40;
const DOT = 0x2e;
const COLON = 0x3a;
const DASH = 0x2d;
const COMMA = 0x2c;
const TWO_32 = 2 ** 32;

/** Reads a log; call `push` for each chunk and `end` once. */
export class QemuLogReader {
  readonly notes: ReadingNotes = new ReadingNotes();
  readonly #splitter = new LineSplitter(this);
  readonly #sink: QemuEventSink;
  readonly #event = new QemuEvent();
  readonly #cursor = new Cursor();
  readonly #names = new Interner(1000);
  /** Format of each event name, `null` for one that is only counted. */
  readonly #formats: (Format | null)[] = [];
  #lastUs = -1;

  constructor(sink: QemuEventSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    this.#splitter.push(chunk);
  }

  end(): void {
    this.#splitter.end();
    this.notes.lines = this.#splitter.lines;
  }

  /** Names of the trace events that are counted but not used, with how often they came. */
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
    const cursor = this.#cursor;
    cursor.set(bytes, start, end);
    const event = this.#event;
    event.timeUs = -1;
    if (isDigit(bytes[start]!)) this.#readPrefix();
    const nameStart = cursor.at;
    let at = nameStart;
    while (at < end && isNameByte(bytes[at]!)) at += 1;
    // A trace line is a name and a blank; anything else is a message of QEMU or a torn line.
    const isTrace = at - nameStart > 3 && (at === end || bytes[at] === SPACE);
    if (!isTrace || !terminated) {
      this.notes.unreadableLine(line, terminated ? "not an event" : "torn");
      return;
    }
    const name = this.#names.intern(bytes, nameStart, at);
    let format = this.#formats[name];
    if (format === undefined) {
      format = formatByName.get(this.#names.name(name)) ?? null;
      this.#formats[name] = format;
    }
    if (format === null) {
      this.#names.count(name);
      return;
    }
    cursor.at = at + 1;
    if (!this.#take(format) || cursor.at !== end) {
      this.notes.unreadableLine(line, "torn");
      return;
    }
    event.kind = format.kind;
    event.line = line;
    this.notes.events += 1;
    this.#sink(event);
  }

  /** Reads `pid@sec.usec:`; leaves the cursor where it is when the line does not have it. */
  #readPrefix(): void {
    const cursor = this.#cursor;
    const { bytes, at } = cursor;
    const fits =
      cursor.takeDecimal() &&
      bytes[cursor.at] === AT &&
      this.#skipByte() &&
      cursor.takeDecimal() &&
      bytes[cursor.at] === DOT;
    const seconds = cursor.value;
    if (!fits || !this.#skipByte() || !cursor.takeDecimal() || bytes[cursor.at] !== COLON) {
      cursor.at = at;
      return;
    }
    cursor.at += 1;
    const timeUs = seconds * 1_000_000 + cursor.value;
    this.#event.timeUs = timeUs;
    if (timeUs < this.#lastUs) {
      this.notes.backwards += 1;
      if (this.notes.backwardsLine === 0) this.notes.backwardsLine = this.#splitter.lines;
    }
    this.#lastUs = timeUs;
  }

  #skipByte(): boolean {
    this.#cursor.at += 1;
    return true;
  }

  #take(format: Format): boolean {
    const cursor = this.#cursor;
    const { steps } = format;
    for (let index = 0; index < steps.length; index += 1) {
      const step = steps[index]!;
      if (!cursor.take(step.word)) return false;
      if (step.field >= 0 && !this.#takeField(step.field)) return false;
    }
    return true;
  }

  #takeField(field: number): boolean {
    const cursor = this.#cursor;
    if (field === Field._) return this.#skipToken();
    if (field >= HEX_FROM) {
      if (!cursor.takeHex()) return false;
      this.#storeHex(field);
      return true;
    }
    const negative = cursor.bytes[cursor.at] === DASH;
    if (negative) cursor.at += 1;
    if (!cursor.takeDecimal() || cursor.value >= TWO_32) return false;
    this.#storeDecimal(field, negative ? TWO_32 - cursor.value : cursor.value);
    return true;
  }

  #skipToken(): boolean {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    while (at < end && bytes[at] !== SPACE && bytes[at] !== COMMA) at += 1;
    cursor.at = at;
    return true;
  }

  #storeHex(field: number): void {
    const { pfn, offset } = this.#cursor;
    const event = this.#event;
    switch (field) {
      case Field.start:
        event.startPfn = pfn;
        event.startOffset = offset;
        break;
      case Field.last:
        event.lastPfn = pfn;
        event.lastOffset = offset;
        break;
      case Field.phys:
        event.physPfn = pfn;
        event.physOffset = offset;
        break;
      case Field.mask:
        event.maskPfn = pfn;
        event.maskOffset = offset;
        break;
      case Field.probeSize:
        event.probeSize = pfn * 4096 + offset;
        break;
      default:
        event.flags = offset;
    }
  }

  #storeDecimal(field: number, value: number): void {
    const event = this.#event;
    switch (field) {
      case Field.domain:
        event.domain = value;
        break;
      case Field.endpoint:
        event.endpoint = value;
        break;
      case Field.flags:
        event.flags = value;
        break;
      case Field.domainFirst:
        event.domainFirst = value;
        break;
      case Field.domainLast:
        event.domainLast = value;
        break;
      default:
        event.reason = value;
    }
  }
}

/** Lower-case letters, digits and `_`: what names of trace events consist of. */
function isNameByte(byte: number): boolean {
  return (byte >= 0x61 && byte <= 0x7a) || byte === 0x5f || isDigit(byte);
}
