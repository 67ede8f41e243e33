/**
 * A group of page requests that waits for its answer, and what is known of the device that asked.
 *
 * Each group is answered once: by its handler, or because the device leaves. Whoever comes second
 * changes nothing. Source: drivers/iommu/io-pgfault.c: iopf_group_response, iopf_free_group;
 * include/linux/iommu.h: struct iopf_group, struct iommu_fault_param.
 */
import { assert } from "../../errors.ts";
import {
  type AttachHandle,
  type PageRequest,
  PageRequestFlag,
  PageResponse,
} from "./page-request.ts";

/** Takes groups of page requests on behalf of a domain. */
export interface IopfHandler {
  /**
   * @returns an errno; after 0 the handler owns the group and answers it, now or later, after any
   *   other it is answered with FAILURE
   */
  handle(group: FaultGroup): number;
}

/** Work that a handler puts off to the queue of the IOMMU: it answers the group, or keeps it. */
export type GroupWork = (group: FaultGroup) => void;

/** What memory may be asked for while a fault is reported. */
export type IopfAllocation = "param" | "partial" | "group";

/** Where a device's groups wait for what handlers put off. */
export interface WorkQueue {
  /** Whether memory can be had. */
  allows(what: IopfAllocation): boolean;
  /** @returns an errno, 0 on success */
  put(group: FaultGroup, work: GroupWork): number;
}

/** Sends a device the answer to a group. `last` is the group's last request. */
export type SendResponse = (last: PageRequest, code: PageResponse) => void;

/** Most requests of incomplete groups that are kept for a device; a real one has far fewer. */
export const PARTIALS_MAX = 8192;
/** Most groups of a device without an answer: what an SMMU's 16-bit tags can tell apart. */
export const PENDING_MAX = 65536;

/** What the core keeps of a device that can fault. */
export class FaultParam {
  readonly deviceName: string;
  readonly queue: WorkQueue;
  /** Requests of groups that are not complete, in order of arrival. */
  readonly partial: PageRequest[] = [];
  /** Groups without an answer; an answer moves the last one into the place of its own. */
  readonly pending: FaultGroup[] = [];
  readonly send: SendResponse;

  constructor(deviceName: string, queue: WorkQueue, send: SendResponse) {
    this.deviceName = deviceName;
    this.queue = queue;
    this.send = send;
  }

  /** Moves the partial requests of a group out, in order of arrival. */
  takePartials(grpid: number): PageRequest[] {
    const { partial } = this;
    const taken: PageRequest[] = [];
    let kept = 0;
    for (const request of partial) {
      if (request.grpid === grpid) taken.push(request);
      else partial[kept++] = request;
    }
    partial.length = kept;
    return taken;
  }
}

/** A complete group. */
export class FaultGroup {
  readonly param: FaultParam;
  readonly handle: AttachHandle | null;
  /** All requests; the last one completed the group and names it. */
  readonly requests: readonly PageRequest[];
  /** Free for the handler's use. */
  cookie = 0;
  /** Place among the pending groups, −1 once answered. */
  #place: number;

  constructor(param: FaultParam, handle: AttachHandle | null, requests: readonly PageRequest[]) {
    assert(requests.length >= 1, "a group has a last request");
    const { flags } = requests[requests.length - 1]!;
    assert((flags & PageRequestFlag.LAST_PAGE) !== 0, "the last request completes its group");
    this.param = param;
    this.handle = handle;
    this.requests = requests;
    this.#place = param.pending.push(this) - 1;
  }

  get last(): PageRequest {
    return this.requests[this.requests.length - 1]!;
  }

  /** Whether the device still waits. */
  get isPending(): boolean {
    return this.#place >= 0;
  }

  /** Answers the device, unless that was done before. @returns whether it was sent now */
  respond(code: PageResponse): boolean {
    if (this.#place < 0) return false;
    const { pending } = this.param;
    const last = pending.pop()!;
    if (last !== this) {
      pending[this.#place] = last;
      last.#place = this.#place;
    }
    this.#place = -1;
    this.param.send(this.last, code);
    return true;
  }

  /** Has work done from the queue of the device's IOMMU. @returns an errno */
  defer(work: GroupWork): number {
    return this.param.queue.put(this, work);
  }
}

/** Answers all pending groups of a device with INVALID and forgets its partial requests. */
export function abandonFaults(param: FaultParam): void {
  param.partial.length = 0;
  for (const group of [...param.pending]) group.respond(PageResponse.INVALID);
}
