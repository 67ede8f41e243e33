/**
 * An SMMU whose streams stall: a DMA that misses is held in the unit under a tag, an event tells
 * the driver, and a resume command has it tried again or ends it.
 *
 * Only so many DMAs can be held; further ones wait in the device. An event that finds the ring full
 * is written when there is room, because a held DMA must not be forgotten. With a guest's own first
 * stage in front, an event says which of the stages missed.
 *
 *     word 0  event 7:0 · substream valid 11 · substream 31:12    word 1  stream
 *     word 2  tag 15:0 · stalled 31    word 3  instruction 2 · read 3 · stage 2 7
 *     words 4, 5  address    words 6, 7  intermediate address of a stage-2 fault
 *
 * Source: Arm SMMUv3 specification (IHI 0070), 3.12.2 "Stall model", 4.6.1 CMD_RESUME, 4.6.2
 * CMD_STALL_TERM, 7.2 "Event queue recorded faults and events"; drivers/iommu/arm/arm-smmu-v3/
 * arm-smmu-v3.c: arm_smmu_handle_event, arm_smmu_page_response. Linux 7.2 does not tell handlers
 * which stage missed; the flag STAGE2, and the intermediate address, are the proposal's of 2021.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";
import { highHalfOf, isPowerOfTwo, lowHalfOf, pfnOfHalves } from "../../units.ts";
import type { IommuDevice } from "../device.ts";
import { FaultReason } from "../fault-queue.ts";
import type { IommuGroup } from "../group.ts";
import type { PageTable } from "../page-table.ts";
import { Prot } from "../prot.ts";
import { WalkFault, WalkResult } from "../table-walk.ts";
import { NO_PASID } from "../tag-array.ts";
import { Outcome, Translation, type TranslationUnit } from "../translation-unit.ts";
import type { IopfQueue } from "./iopf-queue.ts";
import {
  type PageRequest,
  PageRequestFlag,
  PageRequestPerm,
  PageResponse,
} from "./page-request.ts";
import { reportDeviceFault } from "./report.ts";

/** How an access ended, beside `Outcome`. */
export const StallOutcome = {
  /** It is held, and its owner will be told. */
  STALLED: 16,
  /** It was not taken, because no more can be held: to be offered again. */
  BUSY: 17,
} as const;

/** The owner of a DMA that is held. */
export interface StalledDma {
  /** @param outcome - `Outcome.MEMORY` after a retry that went through, `Outcome.FAULT` if ended */
  resumed(outcome: number): void;
}

/** How a unit stalls. */
export interface StallQueueOptions {
  readonly unit: TranslationUnit;
  readonly iopf: IopfQueue;
  /** DMAs that can be held at once (STALL_MAX), 1 … 65536. */
  readonly stallMax: number;
  /** Entries of the event ring, a power of two; 128 (a page) without it. */
  readonly entries?: number;
  /** A guest's first stage in front of a device or PASID; null for none. */
  readonly stage1Of?: (rid: number, pasid: number) => PageTable | null;
  readonly meter?: Meter;
}

/** A held DMA; one record serves all that have the same tag in turn. */
class Held {
  /** Null while the tag is free. */
  dma: StalledDma | null = null;
  rid = 0;
  pasid = NO_PASID;
  iovaPfn = 0;
  offset = 0;
  access = 0;
  /** Event that tells of it, as it was when the access missed last. */
  event = 0;
  isStage2 = false;
  ipaPfn = 0;
}

interface Stream {
  readonly group: IommuGroup;
  readonly device: IommuDevice;
}

const ENTRY_WORDS = 8;
const EVENT_TRANSLATION = 0x10;
const EVENT_ADDRESS_SIZE = 0x11;
const EVENT_PERMISSION = 0x13;
const SUBSTREAM_VALID = 0x800;
const STALL = 0x8000_0000;
const READ = 8;
const STAGE_2 = 0x80;

/** The event queue and the held DMAs of a unit. */
export class StallQueue {
  readonly iopf: IopfQueue;
  readonly stallMax: number;
  /** The ring, in the layout of the hardware. */
  readonly ring: Uint32Array;
  /** Events reported so far. */
  reported = 0;
  readonly #unit: TranslationUnit;
  readonly #stage1Of: (rid: number, pasid: number) => PageTable | null;
  readonly #meter: Meter;
  readonly #mask: number;
  readonly #streams = new Map<number, Stream>();
  readonly #held: Held[] = [];
  readonly #freeTags: number[] = [];
  /** Tags whose events wait for room in the ring. */
  readonly #unrecorded: number[] = [];
  readonly #walk = new WalkResult();
  readonly #retried = new Translation();
  #heldCount = 0;
  #head = 0;
  #count = 0;
  /** The fault of the access looked at last. */
  #event = 0;
  #isStage2 = false;
  #ipaPfn = 0;

  constructor(options: StallQueueOptions) {
    const { stallMax, entries = 128 } = options;
    assert(stallMax >= 1 && stallMax <= 65536, "1 … 65536 DMAs are held");
    assert(isPowerOfTwo(entries) && entries <= 65536, "a ring has 1 … 65536 places");
    this.iopf = options.iopf;
    this.stallMax = stallMax;
    this.ring = new Uint32Array(entries * ENTRY_WORDS);
    this.#mask = entries - 1;
    this.#unit = options.unit;
    this.#stage1Of = options.stage1Of ?? (() => null);
    this.#meter = options.meter ?? NULL_METER;
  }

  /** DMAs held. */
  get heldCount(): number {
    return this.#heldCount;
  }

  /** Events that the driver has not taken. */
  get eventCount(): number {
    return this.#count + this.#unrecorded.length;
  }

  /** Has a device's DMA stall from now on. @returns an errno, as `IopfQueue.addDevice` */
  enableDevice(group: IommuGroup, device: IommuDevice): number {
    const errno = this.iopf.addDevice(device);
    if (errno === Errno.OK) this.#streams.set(device.rid, { group, device });
    return errno;
  }

  /** Ends {@link enableDevice}: its groups are answered with INVALID, what is held is ended. */
  disableDevice(device: IommuDevice): void {
    this.#streams.delete(device.rid);
    this.iopf.removeDevice(device);
    // Nobody is to hear of what ended: its tag will be another's.
    for (let index = 0; index < this.#count; index += 1) {
      const at = ((this.#head + index) & this.#mask) * ENTRY_WORDS;
      if (this.ring[at + 1] === device.rid) this.ring[at] = 0;
    }
    const waits = this.#unrecorded.filter((tag) => this.#held[tag]!.rid !== device.rid);
    this.#unrecorded.splice(0, this.#unrecorded.length, ...waits);
    for (let tag = 0; tag < this.#held.length; tag += 1) {
      const held = this.#held[tag]!;
      if (held.dma !== null && held.rid === device.rid) this.#release(tag, Outcome.FAULT);
    }
  }

  /**
   * Takes an access of a device to a frame.
   *
   * @param out - the translation, of `Outcome.MEMORY`
   * @param dma - told later when the access is held
   * @returns one of `Outcome`, or of {@link StallOutcome}
   */
  access(
    rid: number,
    pasid: number,
    iovaPfn: number,
    offset: number,
    access: number,
    out: Translation,
    dma: StalledDma,
  ): number {
    const outcome = this.#translate(rid, pasid, iovaPfn, access, out);
    if (outcome !== Outcome.FAULT) return outcome;
    if (this.#event === 0 || !this.#streams.has(rid)) {
      this.#meter.step(Step.fault, 1, 0);
      this.#unit.faults.put(out.fault, rid, pasid, iovaPfn, access);
      return outcome;
    }
    if (this.#heldCount === this.stallMax) return StallOutcome.BUSY;
    const tag = this.#takeTag();
    const held = this.#held[tag]!;
    held.dma = dma;
    held.rid = rid;
    held.pasid = pasid;
    held.iovaPfn = iovaPfn;
    held.offset = offset;
    held.access = access;
    this.#heldCount += 1;
    this.#record(tag, held);
    return StallOutcome.STALLED;
  }

  /** The driver's thread: takes the events there are now and reports them. @returns how many */
  drain(): number {
    const taken = this.#count;
    for (let index = 0; index < taken; index += 1) {
      const at = this.#head * ENTRY_WORDS;
      this.#head = (this.#head + 1) & this.#mask;
      this.#count -= 1;
      this.#report(at);
    }
    if (this.#unrecorded.length > 0) {
      const late = this.#unrecorded.splice(0, this.#mask + 1 - this.#count);
      for (const tag of late) this.#write(tag);
    }
    return taken;
  }

  /** Answers a group: what the driver of the unit does as `pageResponse`. */
  respond(device: IommuDevice, last: PageRequest, code: PageResponse): void {
    this.#meter.step(Step.pageResponse, 1, 0);
    const tag = last.grpid;
    const held = this.#held[tag] ?? null;
    // A resume command names stream and tag; one that fits nothing held does nothing.
    if (held === null || held.dma === null || held.rid !== device.rid) return;
    if (code !== PageResponse.SUCCESS) {
      this.#release(tag, Outcome.FAULT);
      return;
    }
    const { rid, pasid, iovaPfn, access } = held;
    const outcome = this.#translate(rid, pasid, iovaPfn, access, this.#retried);
    // It may miss again, for example when the page went away meanwhile: then it is held as before.
    if (outcome === Outcome.FAULT && this.#event !== 0) this.#record(tag, held);
    else this.#release(tag, outcome);
  }

  #translate(rid: number, pasid: number, iovaPfn: number, access: number, out: Translation) {
    const stage1 = this.#stage1Of(rid, pasid);
    this.#event = 0;
    this.#isStage2 = false;
    this.#ipaPfn = 0;
    if (stage1 === null) return this.#stage(rid, pasid, iovaPfn, access, out);
    const walk = this.#walk;
    const found = stage1.walk(iovaPfn, walk);
    if (!found || (walk.prot & access) !== access) {
      const isMiss = !found && walk.fault === WalkFault.NOT_PRESENT;
      this.#event = found ? EVENT_PERMISSION : isMiss ? EVENT_TRANSLATION : 0;
      out.fault = found ? FaultReason.NO_WRITE : FaultReason.NOT_PRESENT;
      return Outcome.FAULT;
    }
    this.#isStage2 = true;
    this.#ipaPfn = walk.physPfn;
    return this.#stage(rid, NO_PASID, walk.physPfn, access, out);
  }

  /** The unit's own stage, and whether its fault is one that stalls. */
  #stage(rid: number, pasid: number, pfn: number, access: number, out: Translation): number {
    const outcome = this.#unit.translateUnrecorded(rid, pasid, pfn, access, out);
    if (outcome === Outcome.FAULT) this.#event = eventOf(out.fault);
    return outcome;
  }

  #takeTag(): number {
    const tag = this.#freeTags.pop();
    if (tag !== undefined) return tag;
    this.#held.push(new Held());
    return this.#held.length - 1;
  }

  #release(tag: number, outcome: number): void {
    const held = this.#held[tag]!;
    const dma = held.dma!;
    held.dma = null;
    this.#freeTags.push(tag);
    this.#heldCount -= 1;
    dma.resumed(outcome);
  }

  #record(tag: number, held: Held): void {
    held.event = this.#event;
    held.isStage2 = this.#isStage2;
    held.ipaPfn = this.#ipaPfn;
    if (this.#count > this.#mask) this.#unrecorded.push(tag);
    else this.#write(tag);
  }

  #write(tag: number): void {
    const { ring } = this;
    const at = ((this.#head + this.#count) & this.#mask) * ENTRY_WORDS;
    const held = this.#held[tag]!;
    const { rid, pasid, iovaPfn, offset, access } = held;
    ring[at] = held.event | (pasid === NO_PASID ? 0 : SUBSTREAM_VALID | (pasid << 12));
    ring[at + 1] = rid;
    ring[at + 2] = tag | STALL;
    ring[at + 3] = ((access & Prot.WRITE) === 0 ? READ : 0) | (held.isStage2 ? STAGE_2 : 0);
    ring[at + 4] = lowHalfOf(iovaPfn) | offset;
    ring[at + 5] = highHalfOf(iovaPfn);
    ring[at + 6] = lowHalfOf(held.ipaPfn);
    ring[at + 7] = highHalfOf(held.ipaPfn);
    this.#count += 1;
  }

  #report(at: number): void {
    const { ring } = this;
    const stream = this.#streams.get(ring[at + 1]!);
    if (ring[at] === 0 || stream === undefined) return;
    const word0 = ring[at]!;
    const word3 = ring[at + 3]!;
    const hasPasid = (word0 & SUBSTREAM_VALID) !== 0;
    const isStage2 = (word3 & STAGE_2) !== 0;
    const address = isStage2 ? at + 6 : at + 4;
    const request: PageRequest = {
      flags:
        PageRequestFlag.LAST_PAGE |
        (hasPasid ? PageRequestFlag.PASID_VALID : 0) |
        (isStage2 ? PageRequestFlag.STAGE2 : 0),
      pasid: hasPasid ? word0 >>> 12 : NO_PASID,
      grpid: ring[at + 2]! & 0xffff,
      perm: (word3 & READ) === 0 ? PageRequestPerm.WRITE : PageRequestPerm.READ,
      iovaPfn: pfnOfHalves(ring[address]!, ring[address + 1]!),
      iovaOffset: ring[at + 4]! & 0xfff,
    };
    this.reported += 1;
    this.#meter.step(Step.pageRequest, 1, 0);
    reportDeviceFault(stream.group, stream.device, request);
  }
}

/** The event that a fault is, of those that may stall; 0 for the others. */
function eventOf(fault: FaultReason): number {
  switch (fault) {
    case FaultReason.NOT_PRESENT:
      return EVENT_TRANSLATION;
    case FaultReason.NO_READ:
    case FaultReason.NO_WRITE:
      return EVENT_PERMISSION;
    case FaultReason.ADDRESS_WIDTH:
      return EVENT_ADDRESS_SIZE;
    default:
      return 0;
  }
}
