/**
 * The queue of I/O page faults of one IOMMU: the devices on it, and the work that handlers put off.
 *
 * The kernel gives each IOMMU an unordered workqueue. Here the caller runs it, one group at a time,
 * and says which comes next; without that it is the oldest. Source: drivers/iommu/io-pgfault.c:
 * iopf_queue_alloc, iopf_queue_add_device, iopf_queue_remove_device, iopf_queue_discard_partial,
 * iopf_queue_flush_dev.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDevice } from "../device.ts";
import {
  abandonFaults,
  type FaultGroup,
  FaultParam,
  type GroupWork,
  type IopfAllocation,
  type WorkQueue,
} from "./fault-group.ts";

interface Work {
  readonly group: FaultGroup;
  readonly run: GroupWork;
}

/** Chooses one of `count` groups that wait, 0 being the oldest. */
export type PickWork = (count: number) => number;

/** How a queue is made. */
export interface IopfQueueOptions {
  /** Asked before each allocation; false is a lack of memory. */
  readonly allow?: (what: IopfAllocation) => boolean;
}

/** A queue. */
export class IopfQueue implements WorkQueue {
  readonly #allow: (what: IopfAllocation) => boolean;
  readonly #devices = new Map<IommuDevice, FaultParam>();
  /** A ring in disguise: entries before `#first` are done. */
  readonly #works: (Work | null)[] = [];
  #first = 0;

  constructor(options: IopfQueueOptions = {}) {
    this.#allow = options.allow ?? (() => true);
  }

  /** Groups whose work waits. */
  get workCount(): number {
    return this.#works.length - this.#first;
  }

  allows(what: IopfAllocation): boolean {
    return this.#allow(what);
  }

  /**
   * Lets a device report faults.
   *
   * @returns ENODEV when its IOMMU cannot answer page requests, EBUSY when it is on a queue, ENOMEM
   */
  addDevice(device: IommuDevice): number {
    const { ops } = device;
    if (ops?.pageResponse === undefined) return Errno.ENODEV;
    if (device.faultParam !== null) return Errno.EBUSY;
    if (!this.#allow("param")) return Errno.ENOMEM;
    const param = new FaultParam(device.name, this, (last, code) => {
      ops.pageResponse!(device, last, code);
    });
    device.faultParam = param;
    this.#devices.set(device, param);
    return Errno.OK;
  }

  /** Ends {@link addDevice}: what waits is answered with INVALID, its work is dropped. */
  removeDevice(device: IommuDevice): void {
    const param = this.#devices.get(device);
    assert(param !== undefined, "a device removed is on the queue");
    this.#devices.delete(device);
    device.faultParam = null;
    abandonFaults(param);
    this.#dropWorks((work) => work.group.param === param);
  }

  /** Forgets all requests of incomplete groups, after the hardware's queue lost some. */
  discardPartials(): number {
    let discarded = 0;
    for (const param of this.#devices.values()) {
      discarded += param.partial.length;
      param.partial.length = 0;
    }
    return discarded;
  }

  put(group: FaultGroup, run: GroupWork): number {
    this.#works.push({ group, run });
    return Errno.OK;
  }

  /** Does the work of one group. @returns false when none waits */
  runOne(pick?: PickWork): boolean {
    const count = this.workCount;
    if (count === 0) return false;
    const index = pick === undefined ? 0 : pick(count);
    assert(index >= 0 && index < count, "one of the waiting groups is picked");
    const works = this.#works;
    const at = this.#first + index;
    const { group, run } = works[at]!;
    // The picked one leaves, those before it move up; FIFO moves nothing.
    for (let each = at; each > this.#first; each -= 1) works[each] = works[each - 1]!;
    works[this.#first] = null;
    this.#first += 1;
    if (this.#first === works.length || this.#first >= 1024) {
      works.splice(0, this.#first);
      this.#first = 0;
    }
    if (group.isPending) run(group);
    return true;
  }

  /** Does all work there is, also what is added meanwhile, at most `limit` groups. @returns groups */
  run(limit = Number.POSITIVE_INFINITY, pick?: PickWork): number {
    let done = 0;
    while (done < limit && this.runOne(pick)) done += 1;
    return done;
  }

  /** Does the work that waits for one device, before it may forget a PASID. */
  flushDevice(device: IommuDevice): void {
    const param = this.#devices.get(device);
    if (param === undefined) return;
    const own = this.#dropWorks((work) => work.group.param === param);
    for (const { group, run } of own) if (group.isPending) run(group);
  }

  #dropWorks(isDropped: (work: Work) => boolean): Work[] {
    const all = this.#works.slice(this.#first) as Work[];
    const dropped = all.filter(isDropped);
    this.#works.splice(0, this.#works.length, ...all.filter((work) => !isDropped(work)));
    this.#first = 0;
    return dropped;
  }
}
