/**
 * Reads JSON lines of VFIO type1 calls: see vfio-type1-row.ts for the lines.
 *
 * Target: 1 M lines/s. A call is taken apart by hand; only the lines that tell about the container
 * go through JSON.parse.
 */
import { Interner } from "./interner.ts";
import { JsonLine, JsonValue } from "./json-line.ts";
import { LINE_BYTES_MAX, LineSplitter } from "./line-splitter.ts";
import { type LineProblem, ReadingNotes } from "./notes.ts";
import { parseInfo, parseOpen } from "./vfio-type1-head.ts";
import { VfioCall, VfioOp, type VfioOpen, type VfioRegion } from "./vfio-type1-row.ts";

/** Receives the lines; a call is only valid during its own. */
export interface VfioSink {
  open(open: VfioOpen): void;
  call(call: VfioCall): void;
}

const Slot = {
  op: 0,
  argsz: 1,
  flags: 2,
  region: 3,
  offset: 4,
  iova: 5,
  size: 6,
  errno: 7,
  unmapped: 8,
  ext: 9,
  ret: 10,
  pgsize: 11,
  bitmap_size: 12,
  bitmap: 13,
  request: 14,
  dma_avail: 15,
} as const;
type Slot = (typeof Slot)[keyof typeof Slot];

const opNames: Readonly<Record<string, VfioOp>> = {
  map: VfioOp.MAP,
  unmap: VfioOp.UNMAP,
  check_extension: VfioOp.CHECK_EXTENSION,
  dirty: VfioOp.DIRTY,
  ioctl: VfioOp.IOCTL,
  info: VfioOp.INFO,
  final: VfioOp.FINAL,
};

/** What each call cannot do without. */
const needed: Readonly<Record<VfioOp, readonly Slot[]>> = {
  [VfioOp.MAP]: [Slot.argsz, Slot.flags, Slot.offset, Slot.iova, Slot.size, Slot.errno],
  [VfioOp.UNMAP]: [Slot.flags, Slot.iova, Slot.size, Slot.errno, Slot.unmapped],
  [VfioOp.CHECK_EXTENSION]: [Slot.ext, Slot.ret],
  [VfioOp.DIRTY]: [Slot.argsz, Slot.flags, Slot.errno],
  [VfioOp.IOCTL]: [Slot.request, Slot.errno],
  [VfioOp.INFO]: [],
  [VfioOp.FINAL]: [Slot.dma_avail],
};

/** Fields of 32 bits, whatever the call. */
const narrow: readonly Slot[] = [
  Slot.argsz,
  Slot.flags,
  Slot.errno,
  Slot.ext,
  Slot.ret,
  Slot.request,
  Slot.dma_avail,
];

/** Sizes of the structures where a line does not say: without and with a bitmap behind it. */
const UNMAP_BYTES = 24;
const UNMAP_BITMAP_BYTES = 48;
/** VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP */
const DIRTY_GET = 4;
const UNMAP_GET = 1;
const U32_LAST = 0xffff_ffff;
/** Bytes of a bitmap that is handed in; the largest that the kernel takes is 256 MiB. */
export const BITMAP_BYTES_MAX = 2 ** 28 + 8;
const LF = 0x0a;
const CR = 0x0d;

const decoder = new TextDecoder("utf-8");

/** Reads recorded calls; call `push` for each chunk and `end` once. */
export class VfioType1Reader {
  readonly notes: ReadingNotes = new ReadingNotes();
  readonly #splitter = new LineSplitter(this);
  readonly #sink: VfioSink;
  readonly #json = new JsonLine(Object.keys(Slot));
  readonly #call = new VfioCall();
  readonly #names = new Interner(256);
  /** Op of each interned name, −1 for one that is none. */
  readonly #ops: number[] = [];
  /** Region of each interned name, −1 for one that is none. */
  #regions: number[] = [];
  #known: readonly VfioRegion[] = [];
  /** The field that makes a line useless, where it is known. */
  #field: string | undefined;

  constructor(sink: VfioSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    this.#splitter.push(chunk);
  }

  end(): void {
    this.#splitter.end();
    this.notes.lines = this.#splitter.lines;
  }

  /** Calls of kinds that are not known, with their counts. */
  unknownCalls(): { readonly name: string; readonly count: number }[] {
    return this.#names.counts();
  }

  /** {@link LineSink.longLine} */
  longLine(line: number): void {
    this.notes.unreadableLine(line, "too long");
  }

  /** {@link LineSink.quickLine} */
  quickLine(bytes: Uint8Array, start: number, limit: number, line: number): number {
    let at = this.#json.read(bytes, start, limit);
    if (at < 0) return -1;
    const end = at;
    if (at < limit && bytes[at] === CR) at += 1;
    if (at >= limit || bytes[at] !== LF || at - start > LINE_BYTES_MAX) return -1;
    this.#object(bytes, start, end, line);
    return at + 1;
  }

  /** {@link LineSink.line} */
  line(bytes: Uint8Array, start: number, end: number, line: number): void {
    const at = this.#json.read(bytes, start, end);
    if (at === end) this.#object(bytes, start, end, line);
    else if (!isBlank(bytes, start, end)) this.notes.unreadableLine(line, "torn");
  }

  #object(bytes: Uint8Array, start: number, end: number, line: number): void {
    const problem = this.#read(bytes, start, end, line);
    if (problem === null) return;
    this.notes.unreadableLine(line, problem, this.#field);
    this.#field = undefined;
  }

  /** Gives an object out; what is wrong with it if that is not possible. */
  #read(bytes: Uint8Array, start: number, end: number, line: number): LineProblem | null {
    const json = this.#json;
    if (json.repeated >= 0) return "a key stands twice";
    if (json.value(Slot.op) !== JsonValue.TEXT) return "not a known row";
    const name = this.#names.intern(bytes, json.textStart(Slot.op), json.textEnd(Slot.op));
    this.#ops[name] ??= opNames[this.#names.name(name)] ?? -1;
    const op = this.#ops[name]!;
    if (op < 0) {
      if (this.#names.name(name) !== "open") return this.#unknown(name);
      const open = parseOpen(decoder.decode(bytes.subarray(start, end)), line);
      if (typeof open === "string") return this.#wrong(open);
      this.#known = open.regions;
      this.#regions = [];
      this.#sink.open(open);
      return null;
    }
    const call = this.#call;
    call.line = line;
    call.op = op as VfioOp;
    if (op === VfioOp.INFO) {
      const info = parseInfo(decoder.decode(bytes.subarray(start, end)));
      if (typeof info === "string") return this.#wrong(info);
      call.info = info;
    } else if (!this.#hasFields(op as VfioOp) || !this.#fill(bytes)) {
      return "a field is missing or wrong";
    }
    this.notes.events += 1;
    this.#sink.call(call);
    return null;
  }

  #wrong(field: string): LineProblem {
    this.#field = field;
    return "a field is missing or wrong";
  }

  #unknown(name: number): null {
    this.#names.count(name);
    return null;
  }

  #hasFields(op: VfioOp): boolean {
    const json = this.#json;
    for (const slot of needed[op]) {
      if (!json.hasNumber(slot)) return false;
    }
    for (const slot of narrow) {
      if (json.hasNumber(slot) && json.number(slot) > U32_LAST) return false;
    }
    if (op === VfioOp.DIRTY && (json.number(Slot.flags) & DIRTY_GET) !== 0) {
      return json.hasNumber(Slot.iova) && json.hasNumber(Slot.size) && json.hasNumber(Slot.pgsize);
    }
    return true;
  }

  #fill(bytes: Uint8Array): boolean {
    const json = this.#json;
    const call = this.#call;
    call.errno = json.number(Slot.errno);
    call.flags = json.number(Slot.flags);
    call.iovaPfn = json.pfn(Slot.iova);
    call.iovaOffset = json.offset(Slot.iova);
    call.sizePfn = json.pfn(Slot.size);
    call.sizeOffset = json.offset(Slot.size);
    call.argsz = json.number(Slot.argsz);
    switch (call.op) {
      case VfioOp.MAP:
        call.offsetPfn = json.pfn(Slot.offset);
        call.offsetOffset = json.offset(Slot.offset);
        call.region = this.#regionOf(bytes);
        return call.region >= 0;
      case VfioOp.UNMAP:
        call.unmappedPfn = json.pfn(Slot.unmapped);
        call.unmappedOffset = json.offset(Slot.unmapped);
        if (!this.#fillBitmap(bytes)) return false;
        if (!json.hasNumber(Slot.argsz)) {
          call.argsz = call.hasBitmap ? UNMAP_BITMAP_BYTES : UNMAP_BYTES;
        }
        return true;
      case VfioOp.DIRTY:
        return this.#fillBitmap(bytes);
      case VfioOp.CHECK_EXTENSION:
        call.extension = json.number(Slot.ext);
        call.answer = json.number(Slot.ret);
        return true;
      case VfioOp.IOCTL:
        call.request = json.number(Slot.request);
        return true;
      default:
        call.dmaAvail = json.number(Slot.dma_avail);
        return true;
    }
  }

  /** The region that a map call names, −1 for none. */
  #regionOf(bytes: Uint8Array): number {
    const json = this.#json;
    if (json.value(Slot.region) !== JsonValue.TEXT) return -1;
    // Before any program was told of; whoever takes the call says so.
    if (this.#known.length === 0) return 0;
    const name = this.#names.intern(bytes, json.textStart(Slot.region), json.textEnd(Slot.region));
    const known = this.#regions[name];
    if (known !== undefined) return known;
    const text = this.#names.name(name);
    const index = this.#known.findIndex((region) => region.name === text);
    this.#regions[name] = index;
    return index;
  }

  #fillBitmap(bytes: Uint8Array): boolean {
    const json = this.#json;
    const call = this.#call;
    call.hasBitmap = json.hasNumber(Slot.pgsize);
    call.bitmap = null;
    const flag = call.op === VfioOp.UNMAP ? UNMAP_GET : DIRTY_GET;
    const isTold = call.errno === 0 && (call.flags & flag) !== 0;
    if (!call.hasBitmap) return !isTold;
    if (!json.hasNumber(Slot.bitmap_size)) return false;
    call.pgsizePfn = json.pfn(Slot.pgsize);
    call.pgsizeOffset = json.offset(Slot.pgsize);
    call.bitmapBytes = json.number(Slot.bitmap_size);
    if (call.bitmapBytes > BITMAP_BYTES_MAX) return false;
    // A call that gives a bitmap and succeeds gives all of it.
    if (json.value(Slot.bitmap) === JsonValue.NONE) return !isTold;
    if (json.value(Slot.bitmap) !== JsonValue.TEXT) return false;
    const text = decoder.decode(
      bytes.subarray(json.textStart(Slot.bitmap), json.textEnd(Slot.bitmap)),
    );
    if (!/^([0-9a-f]{2})*$/i.test(text)) return false;
    if (text.length !== call.bitmapBytes * 2) return false;
    call.bitmap = Uint8Array.from({ length: text.length / 2 }, (_, index) =>
      Number.parseInt(text.slice(index * 2, index * 2 + 2), 16),
    );
    return true;
  }
}

function isBlank(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) {
    if (bytes[at] !== 0x20 && bytes[at] !== 0x09) return false;
  }
  return true;
}
