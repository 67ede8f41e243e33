/**
 * The Page Request Interface of a PCI function: its registers, its groups in flight, what an answer
 * does to it.
 *
 * A function may have as many requests in flight as software allocates, in up to 512 groups. An
 * answer of "Response Failure" stops it until it is enabled anew; an answer that no group waits for
 * sets UPRGI. Source: PCI Express Base specification, 10.4 "Page Request Services", 10.5.2 "Page
 * Request Extended Capability"; include/uapi/linux/pci_regs.h, PCI_PRI_*; drivers/pci/ats.c:
 * pci_enable_pri, pci_disable_pri, pci_reset_pri.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { NO_PASID } from "../tag-array.ts";
import { PageResponse } from "./page-request.ts";

/** Bits of the control register. */
export const PriControl = { ENABLE: 1, RESET: 2 } as const;

/** Bits of the status register. */
export const PriStatus = {
  /** An answer was "Response Failure". */
  RF: 1,
  /** An answer was for a group that is not in flight. */
  UPRGI: 2,
  /** Nothing is sent any more, and nothing is in flight. */
  STOPPED: 0x100,
  /** Answers to requests with PASID have to carry it. */
  PASID_REQUIRED: 0x8000,
} as const;

/** Groups that a 9-bit index can tell apart. */
export const PRG_COUNT = 512;

/** Where page request messages go: the root complex. */
export interface PageRequestSink {
  /**
   * @param perm - bits of `PageRequestPerm`; a last request that needs neither READ nor WRITE is a
   *   stop marker
   */
  pageRequest(
    rid: number,
    pasid: number,
    iovaPfn: number,
    perm: number,
    prgIndex: number,
    isLast: boolean,
  ): void;
}

/** Told the answer to a group. */
export type OnPageResponse = (code: PageResponse) => void;

interface Flight {
  readonly requests: number;
  readonly pasid: number;
  readonly answered: OnPageResponse;
}

/** What a function's interface is made of. */
export interface PriOptions {
  /** Requester: bus << 8 | devfn. */
  readonly rid: number;
  /** Outstanding Page Request Capacity: requests that the function can ever have in flight. */
  readonly capacity: number;
  readonly pasidRequired?: boolean;
  readonly sink: PageRequestSink;
}

/** A page request interface. */
export class PriInterface {
  readonly rid: number;
  readonly capacity: number;
  /** Outstanding Page Request Allocation. */
  allocation = 0;
  readonly #sink: PageRequestSink;
  readonly #fixedStatus: number;
  readonly #flights = new Map<number, Flight>();
  #isEnabled = false;
  #failures = 0;
  #outstanding = 0;
  #nextIndex = 0;

  constructor(options: PriOptions) {
    assert(options.capacity >= 1, "a function can have a request in flight");
    this.rid = options.rid;
    this.capacity = options.capacity;
    this.#sink = options.sink;
    this.#fixedStatus = options.pasidRequired === true ? PriStatus.PASID_REQUIRED : 0;
  }

  get isEnabled(): boolean {
    return this.#isEnabled;
  }

  /** Whether it may send: enabled, and not told to stop. */
  get canSend(): boolean {
    return this.#isEnabled && (this.#failures & PriStatus.RF) === 0;
  }

  /** Requests without an answer. */
  get outstanding(): number {
    return this.#outstanding;
  }

  /** Groups without an answer. */
  get groupsOutstanding(): number {
    return this.#flights.size;
  }

  /** Requests that a group sent now could have. */
  get room(): number {
    if (!this.canSend || this.#flights.size === PRG_COUNT) return 0;
    return Math.max(Math.min(this.allocation, this.capacity) - this.#outstanding, 0);
  }

  /** The status register; STOPPED only counts while nothing may be sent. */
  get status(): number {
    const stopped = !this.canSend && this.#outstanding === 0 ? PriStatus.STOPPED : 0;
    return this.#failures | stopped | this.#fixedStatus;
  }

  /** Writes the status register: a one clears RF or UPRGI. */
  writeStatus(value: number): void {
    this.#failures &= ~value;
  }

  /** Writes the control register. RESET forgets what is in flight, if the interface is off. */
  writeControl(value: number): void {
    const isEnabled = (value & PriControl.ENABLE) !== 0;
    if (isEnabled && !this.#isEnabled) this.#failures = 0;
    this.#isEnabled = isEnabled;
    if (!isEnabled && (value & PriControl.RESET) !== 0) this.#endAll(PageResponse.INVALID);
  }

  /**
   * Sends a group, one request for each frame.
   *
   * @param pfns - at most {@link room}
   * @returns its index, or −1 when there is no room
   */
  send(pasid: number, pfns: readonly number[], perm: number, answered: OnPageResponse): number {
    assert(pfns.length > 0, "a group has a request");
    if (pfns.length > this.room) return -1;
    while (this.#flights.has(this.#nextIndex)) this.#nextIndex = (this.#nextIndex + 1) % PRG_COUNT;
    const index = this.#nextIndex;
    this.#nextIndex = (index + 1) % PRG_COUNT;
    this.#flights.set(index, { requests: pfns.length, pasid, answered });
    this.#outstanding += pfns.length;
    const { rid } = this;
    for (let at = 0; at < pfns.length; at += 1) {
      this.#sink.pageRequest(rid, pasid, pfns[at]!, perm, index, at === pfns.length - 1);
    }
    return index;
  }

  /** Sends a stop marker: no request before it belongs to what the PASID is used for next. */
  sendStopMarker(pasid: number): void {
    if (this.canSend) this.#sink.pageRequest(this.rid, pasid, 0, 0, 0, true);
  }

  /** Takes a page request group response. */
  respond(pasid: number, prgIndex: number, code: PageResponse): void {
    // After a failure the function expects no answer and ignores those that come.
    if ((this.#failures & PriStatus.RF) !== 0) return;
    const flight = this.#flights.get(prgIndex);
    const needsPasid = this.#fixedStatus !== 0 && flight !== undefined && flight.pasid !== NO_PASID;
    if (flight === undefined || (needsPasid && flight.pasid !== pasid)) {
      this.#failures |= PriStatus.UPRGI;
      return;
    }
    if (code === PageResponse.FAILURE) {
      this.#failures |= PriStatus.RF;
      this.#endAll(code);
      return;
    }
    this.#flights.delete(prgIndex);
    this.#outstanding -= flight.requests;
    flight.answered(code);
  }

  #endAll(code: PageResponse): void {
    const flights = [...this.#flights.values()];
    this.#flights.clear();
    this.#outstanding = 0;
    for (const flight of flights) flight.answered(code);
  }
}

/** Switches an interface on. @returns EBUSY while it is on or not stopped yet */
export function enablePri(pri: PriInterface, requests: number): number {
  if (pri.isEnabled || (pri.status & PriStatus.STOPPED) === 0) return Errno.EBUSY;
  pri.allocation = Math.min(requests, pri.capacity);
  pri.writeControl(PriControl.ENABLE);
  return Errno.OK;
}

/** Switches an interface off; what is in flight is still answered. */
export function disablePri(pri: PriInterface): void {
  pri.writeControl(0);
}

/** Makes an interface that is off forget what is in flight. @returns EBUSY while it is on */
export function resetPri(pri: PriInterface): number {
  if (pri.isEnabled) return Errno.EBUSY;
  pri.writeControl(PriControl.RESET);
  return Errno.OK;
}
