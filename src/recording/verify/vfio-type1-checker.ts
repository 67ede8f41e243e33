/**
 * Verifies recorded VFIO type1 calls: a container of ours, behind an IOMMU with the recorded one's
 * ranges and page sizes, gets each call as the raw structure, and must answer as the kernel did.
 *
 * A row is a line: errno of every call; of an unmap the size that the structure holds afterwards;
 * the whole of GET_INFO; values of check_extension; bits of dirty bitmaps; what is left to map.
 */
import { errnoName } from "../../errno.ts";
import { StackError, unreachable } from "../../errors.ts";
import { addressOf, hex } from "../../units.ts";
import { VfioExtension } from "../../vfio/requests.ts";
import { Type1Info, Type1Request } from "../../vfio/uapi/type1.ts";
import { viewOf } from "../../wire/layout.ts";
import { VfioType1Reader } from "../vfio-type1-reader.ts";
import { type VfioCall, type VfioInfo, VfioOp, type VfioOpen } from "../vfio-type1-row.ts";
import type { Checker, CheckOutcome } from "./checker.ts";
import { problemText, readingRemarks } from "./reading-remarks.ts";
import { RecordedContainer } from "./recorded-container.ts";
import { BitmapMemory, recordedMemory } from "./recorded-memory.ts";
import { RowTally } from "./result.ts";
import { infoText, readInfo } from "./vfio-info-text.ts";
import { Type1Structures } from "./vfio-structures.ts";

/** Bytes that programs hand to GET_INFO. */
const INFO_BYTES = 4096;
/** Mappings of a container whose recording does not tell (dma_entry_limit). */
const DMA_ENTRY_LIMIT = 65535;

const HEAD_HINT =
  'the first two lines are {"op":"open", "type", "memlock", "api", "group_flags"} and {"op":"info", "flags", "pgsizes", "caps"}';

/** The verifier. */
export class VfioType1Checker implements Checker {
  readonly #file: string;
  readonly #tally = new RowTally();
  readonly #reader = new VfioType1Reader(this);
  readonly #bitmaps = new BitmapMemory();
  readonly #structures = new Type1Structures();
  #open: VfioOpen | null = null;
  #container: RecordedContainer | null = null;
  /** Answer to DMA_CC: the hardware's, so the recording's first one is taken for it. */
  #coherent: boolean | null = null;

  constructor(file: string) {
    this.#file = file;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  get lines(): number {
    return this.#reader.notes.events;
  }

  end(): CheckOutcome {
    this.#reader.end();
    const unknown = this.#reader.unknownCalls();
    return {
      tally: this.#tally,
      inferredBefore: 0,
      lostEvents: 0,
      lostMarkers: 0,
      diagnostics: readingRemarks(this.#file, this.#reader.notes, unknown, "error"),
    };
  }

  /** {@link VfioSink.open} */
  open(open: VfioOpen): void {
    this.#open = open;
    this.#container = null;
    this.#coherent = open.isCoherent;
  }

  /** {@link VfioSink.call} */
  call(call: VfioCall): void {
    if (this.#container === null && call.op === VfioOp.INFO) this.#begin(call.info!);
    const container = this.#container;
    if (container === null) throw this.#headless(call.line);
    switch (call.op) {
      case VfioOp.MAP:
        this.#compareErrno(call, this.#structures.map(container, call));
        break;
      case VfioOp.UNMAP:
        this.#unmap(container, call);
        break;
      case VfioOp.CHECK_EXTENSION:
        this.#checkExtension(container, call);
        break;
      case VfioOp.DIRTY:
        this.#dirty(container, call);
        break;
      case VfioOp.IOCTL:
        this.#compareErrno(call, this.#structures.other(container, call));
        break;
      case VfioOp.INFO:
        this.#info(container, call);
        break;
      case VfioOp.FINAL:
        this.#final(container, call);
        break;
      default:
        unreachable(call.op);
    }
  }

  /** Rebuilds the container that the first two lines tell of. */
  #begin(info: VfioInfo): void {
    const open = this.#open;
    if (open === null) return;
    const ranges = info.capabilities.find((each) => each.kind === "iova-ranges");
    const avail = info.capabilities.find((each) => each.kind === "dma-avail");
    const container = new RecordedContainer({
      iommu: {
        pageSizes: info.pageSizes,
        allowed: ranges?.ranges ?? [],
        isCoherent: open.isCoherent ?? false,
      },
      type: open.type,
      dmaEntryLimit: avail?.available ?? DMA_ENTRY_LIMIT,
      memory: recordedMemory(open.regions),
      memlockBytes: open.memlockBytes,
      userMemory: this.#bitmaps,
    });
    this.#container = container;
    const expected = `api ${open.api}, group flags ${open.groupFlags}, SET_IOMMU OK`;
    const set = errnoName(container.setIommuErrno);
    const got = `api ${container.apiVersion}, group flags ${container.groupFlags}, SET_IOMMU ${set}`;
    this.#compare(open.line, expected, got, () => `container of type ${open.type}`);
  }

  #headless(line: number): StackError {
    const isOpen = this.#open !== null;
    const start = this.#open?.line ?? 0;
    const bad = this.#reader.notes.unreadableLines.find((note) => note.line > start);
    if (bad !== undefined) {
      return new StackError({
        code: "recording/no-container-line",
        kind: "input",
        message: `The line that should tell ${isOpen ? "the container's ranges" : "how the container was opened"} is of no use: ${problemText(bad)}`,
        at: { file: this.#file, line: bad.line },
        hint: HEAD_HINT,
      });
    }
    return new StackError({
      code: "recording/no-container-line",
      kind: "input",
      message: `A call stands before the line that tells ${isOpen ? "the container's ranges" : "how the container was opened"}`,
      at: { file: this.#file, line },
      hint: HEAD_HINT,
    });
  }

  #compare(line: number, expected: string, got: string, what: () => string): void {
    if (expected === got) this.#tally.match();
    else this.#tally.diverge(line, null, () => [expected, got, what()]);
  }

  #compareErrno(call: VfioCall, errno: number): void {
    if (errno === call.errno) {
      this.#tally.match();
      return;
    }
    this.#tally.diverge(call.line, null, () => [
      errnoName(call.errno),
      errnoName(errno),
      callText(call, this.#open!),
    ]);
  }

  #unmap(container: RecordedContainer, call: VfioCall): void {
    this.#bitmaps.clear();
    const structures = this.#structures;
    const errno = structures.unmap(container, call);
    const bit = errno === 0 && call.errno === 0 ? this.#differingByte(call) : -1;
    const isSame =
      errno === call.errno &&
      structures.unmappedPfn === call.unmappedPfn &&
      structures.unmappedOffset === call.unmappedOffset &&
      bit < 0;
    if (isSame) {
      this.#tally.match();
      return;
    }
    this.#tally.diverge(call.line, null, () => {
      const size = sizeText(call.unmappedPfn, call.unmappedOffset);
      const ours = sizeText(structures.unmappedPfn, structures.unmappedOffset);
      return [
        `${errnoName(call.errno)} size ${size}`,
        `${errnoName(errno)} size ${ours}${this.#bitText(call, bit)}`,
        callText(call, this.#open!),
      ];
    });
  }

  #dirty(container: RecordedContainer, call: VfioCall): void {
    this.#bitmaps.clear();
    const errno = this.#structures.dirty(container, call);
    const bit = errno === 0 && call.errno === 0 ? this.#differingByte(call) : -1;
    if (errno === call.errno && bit < 0) {
      this.#tally.match();
      return;
    }
    this.#tally.diverge(call.line, null, () => [
      errnoName(call.errno),
      `${errnoName(errno)}${this.#bitText(call, bit)}`,
      callText(call, this.#open!),
    ]);
  }

  /** First byte of the recorded bitmap that ours does not have, −1 for none. */
  #differingByte(call: VfioCall): number {
    if (call.bitmap === null) return -1;
    const { bytes } = this.#bitmaps;
    const end = Math.min(bytes.length, call.bitmap.length);
    return call.bitmap.findIndex((byte, at) => at < end && byte !== bytes[at]);
  }

  #bitText(call: VfioCall, at: number): string {
    if (at < 0 || call.bitmap === null) return "";
    const [want, have] = [call.bitmap[at]!, this.#bitmaps.bytes[at]!];
    return `, byte ${at} of the bitmap is ${hex(have)} instead of ${hex(want)}`;
  }

  #checkExtension(container: RecordedContainer, call: VfioCall): void {
    let ours = container.checkExtension(call.extension);
    if (call.extension === VfioExtension.DMA_CC) {
      if (this.#coherent === null) {
        this.#coherent = call.answer > 0;
        return;
      }
      if (this.#open!.isCoherent === null) ours = this.#coherent ? 1 : 0;
    }
    this.#compare(
      call.line,
      String(call.answer),
      String(ours),
      () => `extension ${call.extension}`,
    );
  }

  #info(container: RecordedContainer, call: VfioCall): void {
    const asked = call.info!;
    const got = readInfo(...getInfo(container, asked.argsz ?? INFO_BYTES), asked);
    const what = () => `GET_INFO${asked.argsz === null ? "" : ` argsz=${asked.argsz}`}`;
    this.#compare(call.line, infoText(asked), infoText(got), what);
  }

  #final(container: RecordedContainer, call: VfioCall): void {
    const nothing: VfioInfo = {
      argsz: null,
      errno: 0,
      argszAfter: null,
      flags: 0,
      pageSizes: 0n,
      capOffset: null,
      capabilities: [],
    };
    const { capabilities } = readInfo(...getInfo(container, INFO_BYTES), nothing);
    const avail = capabilities.find((each) => each.kind === "dma-avail")?.available;
    const got = avail === undefined ? "nothing" : String(avail);
    this.#compare(call.line, String(call.dmaAvail), got, () => "dma_avail at the end");
  }
}

/** What GET_INFO leaves of a buffer of zeros that says it has `argsz` bytes, and its errno. */
function getInfo(container: RecordedContainer, argsz: number): [Uint8Array, number] {
  const bytes = new Uint8Array(INFO_BYTES);
  Type1Info.set.argsz(viewOf(bytes), 0, argsz);
  const told = container.ioctl(Type1Request.GET_INFO, bytes);
  return [told.bytes ?? bytes, told.errno];
}

function sizeText(pfn: number, offset: number): string {
  return hex(addressOf(pfn) + BigInt(offset));
}

/** A call as text. */
function callText(call: VfioCall, open: VfioOpen): string {
  const range = `iova=${sizeText(call.iovaPfn, call.iovaOffset)} size=${sizeText(call.sizePfn, call.sizeOffset)}`;
  switch (call.op) {
    case VfioOp.MAP: {
      const offset = sizeText(call.offsetPfn, call.offsetOffset);
      const from = `${open.regions[call.region]!.name}+${offset}`;
      return `MAP_DMA argsz=${call.argsz} flags=${call.flags} ${from} ${range}`;
    }
    case VfioOp.UNMAP:
      return `UNMAP_DMA argsz=${call.argsz} flags=${call.flags} ${range}`;
    case VfioOp.DIRTY:
      return `DIRTY_PAGES argsz=${call.argsz} flags=${call.flags}${call.hasBitmap ? ` ${range}` : ""}`;
    default:
      return `ioctl ${hex(call.request)}`;
  }
}
