/**
 * The page request queue of a VT-d unit: the ring that hardware fills, the driver that empties it.
 *
 * A full ring sets the overflow bit. Until the driver clears it the hardware keeps nothing: the
 * last request of a group is answered with SUCCESS, so that the device asks again, any other is
 * dropped. The driver then throws its own partial groups away, whose rest may be lost.
 *
 *     word 0  type 7:0 · PASID present 8 · requester 31:16     word 2  R 0 · W 1 · last 2 ·
 *     word 1  PASID 19:0 · execute 20 · privileged 21                  group 11:3 · address 31:12
 *     words 4 to 7  reserved                                   word 3  address 63:32
 *
 * Source: Intel VT-d specification, 7.5 "Recoverable Fault Reporting"; drivers/iommu/intel/prq.c:
 * prq_event_thread, handle_bad_prq_event, intel_prq_report, intel_iommu_page_response;
 * drivers/iommu/intel/iommu.c:intel_iommu_enable_iopf.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";
import { highHalfOf, isPowerOfTwo, lowHalfOf, pfnOfHalves } from "../../units.ts";
import type { IommuDevice } from "../device.ts";
import type { IommuGroup } from "../group.ts";
import { NO_PASID } from "../tag-array.ts";
import type { IopfQueue } from "./iopf-queue.ts";
import {
  type PageRequest,
  PageRequestFlag,
  PageRequestPerm,
  PageResponse,
} from "./page-request.ts";
import type { PageRequestSink, PriInterface } from "./pri-interface.ts";
import { reportDeviceFault } from "./report.ts";

/** How a queue is made. */
export interface PageRequestQueueOptions {
  readonly iopf: IopfQueue;
  /** Entries of the ring, a power of two; 2048 (64 KiB) without it. One stays free. */
  readonly entries?: number;
  /** Width of canonical addresses: 48, or 57 with five levels. */
  readonly addressBits?: number;
  readonly meter?: Meter;
  /** NUMA node of the unit, 0 without it. */
  readonly node?: number;
}

/** What the driver did with the requests it found, and the hardware with those it could not keep. */
export interface PageRequestCounts {
  reported: number;
  /** Refused by the driver before anyone was asked. */
  refused: number;
  stopMarkers: number;
  /** Answered by the hardware because the ring was full or off. */
  autoAnswered: number;
  /** Dropped by the hardware without an answer, not being the last of their group. */
  dropped: number;
  overflows: number;
  discardedPartials: number;
}

interface Endpoint {
  readonly group: IommuGroup;
  readonly device: IommuDevice;
}

const ENTRY_WORDS = 8;
const TYPE_PAGE_REQUEST = 1;

/** A page request queue. */
export class PageRequestQueue implements PageRequestSink {
  readonly iopf: IopfQueue;
  readonly counts: PageRequestCounts = {
    reported: 0,
    refused: 0,
    stopMarkers: 0,
    autoAnswered: 0,
    dropped: 0,
    overflows: 0,
    discardedPartials: 0,
  };
  /** Whether the unit takes page requests at all; while not, it answers them with FAILURE. */
  isEnabled = true;
  /** The ring, in the layout of the hardware. */
  readonly ring: Uint32Array;
  readonly #mask: number;
  readonly #canonicalLast: number;
  readonly #functions = new Map<number, PriInterface>();
  readonly #endpoints = new Map<number, Endpoint>();
  readonly #meter: Meter;
  readonly #node: number;
  #head = 0;
  #tail = 0;
  #hasOverflow = false;

  constructor(options: PageRequestQueueOptions) {
    const { entries = 2048, addressBits = 48, meter = NULL_METER, node = 0 } = options;
    assert(
      isPowerOfTwo(entries) && entries >= 2 && entries <= 65536,
      "a ring has 2 … 65536 places",
    );
    this.iopf = options.iopf;
    this.ring = new Uint32Array(entries * ENTRY_WORDS);
    this.#mask = entries - 1;
    this.#canonicalLast = 2 ** (addressBits - 13) - 1;
    this.#meter = meter;
    this.#node = node;
  }

  /** Requests in the ring. */
  get count(): number {
    return (this.#tail - this.#head) & this.#mask;
  }

  /** The overflow bit (PRO). */
  get hasOverflow(): boolean {
    return this.#hasOverflow;
  }

  /** Wires a function: answers go there by requester id. */
  connect(pri: PriInterface): void {
    this.#functions.set(pri.rid, pri);
  }

  /** Lets a device fault. @returns ENODEV while its interface is off, else as `addDevice` */
  enableDevice(group: IommuGroup, device: IommuDevice): number {
    if (this.#functions.get(device.rid)?.isEnabled !== true) return Errno.ENODEV;
    const errno = this.iopf.addDevice(device);
    if (errno === Errno.OK) this.#endpoints.set(device.rid, { group, device });
    return errno;
  }

  /** Ends {@link enableDevice}; what waits is answered with INVALID. */
  disableDevice(device: IommuDevice): void {
    this.drain();
    this.iopf.removeDevice(device);
    this.#endpoints.delete(device.rid);
  }

  pageRequest(
    rid: number,
    pasid: number,
    iovaPfn: number,
    perm: number,
    prgIndex: number,
    isLast: boolean,
  ): void {
    const next = (this.#tail + 1) & this.#mask;
    if (!this.isEnabled || this.#hasOverflow || next === this.#head) {
      this.#lose(rid, pasid, prgIndex, isLast);
      return;
    }
    const { ring } = this;
    const at = this.#tail * ENTRY_WORDS;
    const hasPasid = pasid !== NO_PASID;
    const right = (mask: number) => ((perm & mask) === 0 ? 0 : 1);
    ring[at] = TYPE_PAGE_REQUEST | (hasPasid ? 0x100 : 0) | (rid << 16);
    ring[at + 1] =
      (hasPasid ? pasid : 0) |
      (right(PageRequestPerm.EXEC) << 20) |
      (right(PageRequestPerm.PRIV) << 21);
    const rights = perm & (PageRequestPerm.READ | PageRequestPerm.WRITE);
    ring[at + 2] = rights | (isLast ? 4 : 0) | (prgIndex << 3) | lowHalfOf(iovaPfn);
    ring[at + 3] = highHalfOf(iovaPfn);
    this.#tail = next;
  }

  /** The driver's thread: takes what is in the ring now and reports it. @returns requests taken */
  drain(): number {
    const { ring } = this;
    const tail = this.#tail;
    let taken = 0;
    while (this.#head !== tail) {
      const at = this.#head * ENTRY_WORDS;
      this.#take(ring[at]!, ring[at + 1]!, ring[at + 2]!, ring[at + 3]!);
      this.#head = (this.#head + 1) & this.#mask;
      taken += 1;
    }
    if (this.#hasOverflow && this.#head === this.#tail) {
      this.counts.discardedPartials += this.iopf.discardPartials();
      this.#hasOverflow = false;
    }
    return taken;
  }

  /** Answers a group: what the driver of the unit does as `pageResponse`. */
  respond(device: IommuDevice, last: PageRequest, code: PageResponse): void {
    this.#answer(device.rid, last.pasid, last.grpid, code);
  }

  #answer(rid: number, pasid: number, prgIndex: number, code: PageResponse): void {
    this.#meter.step(Step.pageResponse, 1, this.#node);
    this.#functions.get(rid)?.respond(pasid, prgIndex, code);
  }

  #lose(rid: number, pasid: number, prgIndex: number, isLast: boolean): void {
    if (this.isEnabled && !this.#hasOverflow) {
      this.#hasOverflow = true;
      this.counts.overflows += 1;
    }
    if (!isLast) {
      this.counts.dropped += 1;
      return;
    }
    this.counts.autoAnswered += 1;
    const code = this.isEnabled ? PageResponse.SUCCESS : PageResponse.FAILURE;
    this.#answer(rid, pasid, prgIndex, code);
  }

  #take(word0: number, word1: number, word2: number, word3: number): void {
    const rid = word0 >>> 16;
    const hasPasid = (word0 & 0x100) !== 0;
    const pasid = hasPasid ? word1 & 0xf_ffff : NO_PASID;
    const iovaPfn = pfnOfHalves(word2 & ~0xfff, word3);
    const rights = word2 & 3;
    const isLast = (word2 & 4) !== 0;
    const grpid = (word2 >>> 3) & 0x1ff;
    const executes = (word1 & 0x10_0000) !== 0;
    const isPrivileged = (word1 & 0x20_0000) !== 0;
    const endpoint = this.#endpoints.get(rid);
    const isBad =
      !this.#isCanonical(iovaPfn) ||
      (isPrivileged && rights !== 0) ||
      (executes && (rights & PageRequestPerm.READ) !== 0);
    const isStopMarker = !isBad && isLast && rights === 0;
    if (isStopMarker) {
      this.counts.stopMarkers += 1;
      return;
    }
    if (isBad || endpoint === undefined) {
      this.counts.refused += 1;
      if (isLast) this.#answer(rid, pasid, grpid, PageResponse.INVALID);
      return;
    }
    const flags =
      (hasPasid ? PageRequestFlag.PASID_VALID | PageRequestFlag.RESPONSE_NEEDS_PASID : 0) |
      (isLast ? PageRequestFlag.LAST_PAGE : 0);
    const perm =
      rights | (executes ? PageRequestPerm.EXEC : 0) | (isPrivileged ? PageRequestPerm.PRIV : 0);
    this.counts.reported += 1;
    this.#meter.step(Step.pageRequest, 1, this.#node);
    const request = { flags, pasid, grpid, perm, iovaPfn, iovaOffset: 0 };
    reportDeviceFault(endpoint.group, endpoint.device, request);
  }

  /** Whether all bits above the width equal its highest. */
  #isCanonical(iovaPfn: number): boolean {
    const top = 2 ** 52 - 1 - this.#canonicalLast;
    return iovaPfn <= this.#canonicalLast || iovaPfn >= top;
  }
}
