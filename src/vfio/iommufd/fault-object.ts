/**
 * A fault object: page requests of devices whose page tables were made with it go to the user, who
 * reads them from a file and writes the answers to it.
 *
 * Source: drivers/iommu/iommufd/eventq.c: iommufd_fault_iopf_handler, iommufd_fault_fops_read,
 * iommufd_fault_fops_write, iommufd_auto_response_faults, iommufd_fault_destroy,
 * iommufd_compose_fault_message.
 */
import { Errno } from "../../errno.ts";
import { LowestFree } from "../../iommu/domain-ids.ts";
import type { FaultGroup, IopfHandler } from "../../iommu/iopf/fault-group.ts";
import { type AttachHandle, PageRequestFlag, PageResponse } from "../../iommu/iopf/page-request.ts";
import { addressOf } from "../../units.ts";
import { viewOf } from "../../wire/layout.ts";
import { isBytes } from "../uapi/user-memory.ts";
import type { IommufdObject } from "./objects.ts";
import { HwptPageResponse, HwptPgfault } from "./uapi.ts";

/** Groups that may wait for their answers at once; hardware bounds them by its credits. */
const RESPONSES_MAX = 2 ** 20;

/** A page request as the user reads it. */
export interface FaultRecord {
  readonly flags: number;
  readonly devId: number;
  readonly pasid: number;
  readonly grpid: number;
  readonly perm: number;
  readonly addr: bigint;
  readonly length: number;
  readonly cookie: number;
}

/** What a device is attached with: the user knows the device by its number. */
export interface FaultHandle extends AttachHandle {
  readonly device: { readonly id: number };
}

/** Flags that the user sees: PASID valid, last page. */
const FLAGS_SHOWN = PageRequestFlag.PASID_VALID | PageRequestFlag.LAST_PAGE;

/** The object. */
export class FaultObject implements IommufdObject, IopfHandler {
  readonly kind = "fault";
  id = 0;
  users = 0;
  /** Groups that were not read yet. */
  #deliver: FaultGroup[] = [];
  /** Groups that were read and wait for an answer, by cookie. */
  readonly #responses = new Map<number, FaultGroup>();
  readonly #cookies = new LowestFree(RESPONSES_MAX);

  constructor() {
    // Cookies count from 1.
    this.#cookies.take();
  }

  /** Whether there is something to read (POLLIN). */
  get isReadable(): boolean {
    return this.#deliver.length > 0;
  }

  /** Groups that were read and not answered. */
  get unanswered(): number {
    return this.#responses.size;
  }

  handle(group: FaultGroup): number {
    this.#deliver.push(group);
    return Errno.OK;
  }

  /**
   * Takes the next group, unless it has more requests than there is room for.
   *
   * @returns its records, or null
   */
  next(roomRecords: number): FaultRecord[] | null {
    const group = this.#deliver[0];
    if (group === undefined || group.requests.length > roomRecords) return null;
    const cookie = this.#cookies.take();
    if (cookie < 0) return null;
    this.#deliver.shift();
    group.cookie = cookie;
    this.#responses.set(cookie, group);
    const devId = (group.handle as FaultHandle).device.id;
    return group.requests.map((request) => ({
      flags: request.flags & FLAGS_SHOWN,
      devId,
      pasid: (request.flags & PageRequestFlag.PASID_VALID) === 0 ? 0 : request.pasid,
      grpid: request.grpid,
      perm: request.perm,
      addr: addressOf(request.iovaPfn, request.iovaOffset),
      length: 0,
      cookie,
    }));
  }

  /** Answers a group that was read. @returns EINVAL for another code or cookie than there are */
  respond(cookie: number, code: number): number {
    if (code !== PageResponse.SUCCESS && code !== PageResponse.INVALID) return Errno.EINVAL;
    const group = this.#responses.get(cookie);
    if (group === undefined) return Errno.EINVAL;
    this.#forget(cookie);
    group.respond(code);
    return Errno.OK;
  }

  /**
   * read(2): whole groups of 40-byte records, as many as fit.
   *
   * @param count - bytes that there is room for, not a buffer: the bytes read are what comes back
   * @returns the bytes, none when nothing waits; or an errno: ESPIPE when the count is no multiple
   *   of a record, EINVAL when it is no count or the first group does not fit
   */
  read(count: number): Uint8Array | number {
    if (!Number.isSafeInteger(count) || count < 0) return Errno.EINVAL;
    if (count % HwptPgfault.bytes !== 0) return Errno.ESPIPE;
    const room = count / HwptPgfault.bytes;
    const records: FaultRecord[] = [];
    for (;;) {
      const group = this.next(room - records.length);
      if (group === null) break;
      records.push(...group);
    }
    if (records.length === 0 && this.isReadable) return Errno.EINVAL;
    const out = new Uint8Array(records.length * HwptPgfault.bytes);
    const view = viewOf(out);
    for (const [index, record] of records.entries()) {
      HwptPgfault.encode(record, view, index * HwptPgfault.bytes);
    }
    return out;
  }

  /**
   * write(2): 8-byte answers.
   *
   * @returns how many bytes were taken; an errno when already the first is wrong: ESPIPE for a size
   *   that is no multiple, EINVAL, EFAULT for what are no bytes
   */
  write(bytes: Uint8Array): { readonly errno: number; readonly done: number } {
    if (!isBytes(bytes)) return { errno: Errno.EFAULT, done: 0 };
    const step = HwptPageResponse.bytes;
    if (bytes.length % step !== 0) return { errno: Errno.ESPIPE, done: 0 };
    const view = viewOf(bytes);
    let done = 0;
    while (done < bytes.length) {
      const cookie = HwptPageResponse.get.cookie(view, done);
      const errno = this.respond(cookie, HwptPageResponse.get.code(view, done));
      if (errno !== Errno.OK) return { errno: done === 0 ? errno : Errno.OK, done };
      done += step;
    }
    return { errno: Errno.OK, done };
  }

  /** Answers everything that came through an attachment with INVALID, because it ends. */
  abandon(handle: FaultHandle): void {
    const rest: FaultGroup[] = [];
    const own: FaultGroup[] = [];
    for (const group of this.#deliver) (group.handle === handle ? own : rest).push(group);
    this.#deliver = rest;
    for (const [cookie, group] of this.#responses) {
      if (group.handle !== handle) continue;
      this.#forget(cookie);
      group.respond(PageResponse.INVALID);
    }
    for (const group of own) group.respond(PageResponse.INVALID);
  }

  destroy(): void {
    const groups = [...this.#deliver, ...this.#responses.values()];
    this.#deliver = [];
    for (const cookie of [...this.#responses.keys()]) this.#forget(cookie);
    for (const group of groups) group.respond(PageResponse.INVALID);
  }

  #forget(cookie: number): void {
    this.#responses.delete(cookie);
    this.#cookies.give(cookie);
  }
}
