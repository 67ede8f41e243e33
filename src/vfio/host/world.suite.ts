/** Hosts, processes and users that the tests of this room build their cases from. */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import { Outcome, Translation } from "../../iommu/translation-unit.ts";
import { type IoctlResult, VfioTask } from "../file.ts";
import type { PinRun, ProcessMemory } from "../process/process-memory.ts";
import { UserProcess } from "../process/user-process.ts";
import { GroupStatus, VfioRequest } from "../requests.ts";
import { DmaMap, DmaUnmap, Type1Request } from "../uapi/type1.ts";
import type { Host } from "./host.ts";
import type { DevicePlan, HostPlan, UnitPlan } from "./host-plan.ts";

const MIB = 2 ** 20;

/** Memory whose frames follow a rule, and which counts its pins. */
export class RuledMemory implements ProcessMemory {
  readonly pins = new Map<number, number>();
  /** Calls of pinRun that succeed before one fails with `errno`. */
  successes = Number.POSITIVE_INFINITY;
  errno: number = Errno.EFAULT;
  readonly #frameOf: (vpn: number) => number;

  constructor(frameOf: (vpn: number) => number = (vpn) => 0x10_0000 + vpn) {
    this.#frameOf = frameOf;
  }

  frameAt(vpn: number): number {
    return this.#frameOf(vpn);
  }

  /** Pins held on all frames. */
  get pinned(): number {
    let sum = 0;
    for (const pins of this.pins.values()) sum += pins;
    return sum;
  }

  pinRun(vpn: number, pages: number, _isWrite: boolean, _batch: number, out: PinRun): number {
    this.successes -= 1;
    if (this.successes < 0) return this.errno;
    out.pfn = this.#frameOf(vpn);
    out.pages = 1;
    while (out.pages < pages && this.#frameOf(vpn + out.pages) === out.pfn + out.pages) {
      out.pages += 1;
    }
    out.isReserved = false;
    out.nextErrno = 0;
    for (let index = 0; index < out.pages; index += 1) {
      this.pins.set(out.pfn + index, (this.pins.get(out.pfn + index) ?? 0) + 1);
    }
    return Errno.OK;
  }

  unpin(pfn: number, pages: number): void {
    for (let index = 0; index < pages; index += 1) {
      const pins = this.pins.get(pfn + index) ?? 0;
      assert(pins > 0, "a page unpinned was pinned");
      if (pins === 1) this.pins.delete(pfn + index);
      else this.pins.set(pfn + index, pins - 1);
    }
  }

  addNotifier(): void {}

  removeNotifier(): void {}
}

/** A user with memory. */
export function user(memory = new RuledMemory(), canRawIo = false): VfioTask {
  return new VfioTask({ process: new UserProcess({ memory }), canRawIo });
}

/** Two nodes with a VT-d unit each, and two devices behind each unit; options replace parts. */
export function twoNodePlan(
  options: {
    near?: Partial<UnitPlan>;
    far?: Partial<UnitPlan>;
    devices?: readonly DevicePlan[];
    plan?: Partial<HostPlan>;
  } = {},
): HostPlan {
  return {
    nodes: [{ memory: 16 * MIB }, { memory: 16 * MIB }],
    units: [
      { name: "dmar0", node: 0, ...options.near },
      { name: "dmar1", node: 1, ...options.far },
    ],
    devices: options.devices ?? [
      { address: "0000:10:00.0", unit: "dmar0" },
      { address: "0000:11:00.0", unit: "dmar0" },
      { address: "0000:90:00.0", unit: "dmar1" },
      { address: "0000:91:00.0", unit: "dmar1" },
    ],
    ...options.plan,
  };
}

/** The bytes of an int. */
export function int(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}

/** The bytes of a string, with its end. */
export function text(value: string): Uint8Array {
  return Uint8Array.from([...`${value}\0`], (letter) => letter.charCodeAt(0));
}

/** The bytes of GROUP_GET_STATUS. */
export function status(argsz = 8): Uint8Array {
  return GroupStatus.bytesOf({ argsz, flags: 0 });
}

/** Opens a file below /dev/vfio that must open. */
export function open(host: Host, task: VfioTask, path: string): number {
  const { errno, value } = host.vfio.open(task, path);
  assert(errno === Errno.OK, `${path} opens`);
  return value;
}

/** Opens a device's group. */
export function openGroup(host: Host, task: VfioTask, address: string): number {
  return open(host, task, host.groupPath(address)!);
}

/** Gives a group to a container, both by descriptor. */
export function setContainer(task: VfioTask, group: number, container: number): number {
  return task.ioctl(group, VfioRequest.GROUP_SET_CONTAINER, int(container)).errno;
}

/** MAP_DMA, read and write. */
export function map(
  task: VfioTask,
  fd: number,
  iovaPfn: number,
  pages: number,
  vpn = iovaPfn,
): IoctlResult {
  const [vaddr, iova, size] = [vpn, iovaPfn, pages].map((value) => BigInt(value) << 12n);
  const bytes = DmaMap.bytesOf({ argsz: 32, flags: 3, vaddr: vaddr!, iova: iova!, size: size! });
  return task.ioctl(fd, Type1Request.MAP_DMA, bytes);
}

/** UNMAP_DMA. */
export function unmap(task: VfioTask, fd: number, iovaPfn: number, pages: number): IoctlResult {
  const [iova, size] = [iovaPfn, pages].map((value) => BigInt(value) << 12n);
  const bytes = DmaUnmap.bytesOf({ argsz: 24, flags: 0, iova: iova!, size: size! });
  return task.ioctl(fd, Type1Request.UNMAP_DMA, bytes);
}

/** The frame that a device's write reaches, −1 for a fault. */
export function reach(host: Host, address: string, iovaPfn: number): number {
  const { unit, iommuDevice } = host.device(address);
  const out = new Translation();
  const outcome = unit!.translate(iommuDevice.rid, NO_PASID, iovaPfn, 2, out);
  return outcome === Outcome.MEMORY ? out.physPfn : -1;
}
