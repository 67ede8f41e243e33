/** A program that knows containers only, on type1 and on an iommufd, with the same calls. */
import { Errno, errnoName } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { Random } from "../../random.ts";
import { VfioTask } from "../file.ts";
import { buildHost } from "../host/host.ts";
import { int, text, twoNodePlan } from "../host/world.suite.ts";
import { UserProcess } from "../process/user-process.ts";
import { VfioRequest } from "../requests.ts";
import { DirtyPages, DmaMap, DmaUnmap, Type1Request } from "../uapi/type1.ts";
import { IommufdFile } from "./iommufd-file.ts";
import { FakeMemory } from "./iommufd-world.suite.ts";

const ADDRESS = "0000:10:00.0";
/** Holes in the process's memory. */
const HOLES = [7, 29];
/** A page of a device's memory. */
const DEVICE_PAGE = 21;

/** One side: a container with a device, opened as such programs do. */
export class Side {
  readonly task: VfioTask;
  readonly memory = new FakeMemory(4);
  readonly container: number;

  constructor(isIommufd: boolean, type: number, memlockPages: number) {
    for (const hole of HOLES) this.memory.holes.add(hole);
    this.memory.reserved.add(DEVICE_PAGE);
    const process = new UserProcess({ memory: this.memory, memlockPages });
    this.task = new VfioTask({ process });
    const { task } = this;
    const host = buildHost(twoNodePlan());
    this.container = isIommufd
      ? task.open(new IommufdFile({ openedAs: "vfio" })).value
      : host.vfio.open(task, "/dev/vfio/vfio").value;
    const group = host.vfio.open(task, host.groupPath(ADDRESS)!).value;
    const steps = [
      task.ioctl(group, VfioRequest.GROUP_SET_CONTAINER, int(this.container)),
      task.ioctl(this.container, VfioRequest.SET_IOMMU, type),
      task.ioctl(group, VfioRequest.GROUP_GET_DEVICE_FD, text(ADDRESS)),
    ];
    for (const step of steps) assert(step.errno === Errno.OK, "a container is set up");
  }

  get lockedPages(): number {
    return this.task.process.lockedPages;
  }

  call(call: Call): string {
    const { errno, value, bytes } = this.task.ioctl(this.container, call.request, call.argument);
    if (errno !== Errno.OK) return errnoName(errno);
    if (call.kind !== "unmap") return `OK ${value}`;
    return `OK size ${DmaUnmap.get.size(new DataView(bytes!.buffer), 0)}`;
  }

  /** What is pinned and charged. */
  state(): string {
    return `${this.lockedPages} locked, ${[...this.memory.pins.keys()].sort().join(" ")}`;
  }

  /** Unmaps everything. */
  clear(): void {
    const argument = DmaUnmap.bytesOf({ argsz: 24, flags: 2, iova: 0n, size: 0n });
    const { errno } = this.task.ioctl(this.container, Type1Request.UNMAP_DMA, argument);
    assert(errno === Errno.OK, "everything can be unmapped");
  }
}

/** How a difference reads in the documents: the call, type1's answer, iommufd's answer. */
export function differenceOf(call: Call, type1: string, iommufd: string): string {
  const sizes = (answer: string) => answer.replace(/ size [1-9]\d*/, " with a size");
  return [labelOf(call, type1), sizes(type1), sizes(iommufd)].join(" | ");
}

function labelOf({ kind, what, argument }: Call, type1: string): string {
  if (kind === "extension") return `CHECK_EXTENSION ${argument}`;
  if (kind === "dirty") return "DIRTY_PAGES";
  const name = kind === "map" ? "MAP_DMA" : "UNMAP_DMA";
  if (what !== "sound") return `${name}, ${what}`;
  const view = new DataView((argument as Uint8Array).buffer);
  if (kind === "map") {
    const start = DmaMap.get.vaddr(view, 0) / PAGE;
    const last = start + DmaMap.get.size(view, 0) / PAGE - 1n;
    const isDevice = start <= BigInt(DEVICE_PAGE) && BigInt(DEVICE_PAGE) <= last;
    return isDevice ? "MAP_DMA, a device's memory" : "MAP_DMA, a hole beyond the limit";
  }
  if (type1 === "EINVAL") return "UNMAP_DMA, cuts a mapping";
  return type1 === "OK size 0"
    ? "UNMAP_DMA, no mapping begins there"
    : "UNMAP_DMA, a part of a mapping";
}

/** A call of the program. */
export interface Call {
  readonly kind: "map" | "unmap" | "dirty" | "extension";
  /** What is special about it. */
  readonly what: string;
  readonly request: number;
  readonly argument: number | Uint8Array;
}

const PAGE = 4096n;

/** A random call: mostly sound, now and then not. */
export function randomCall(random: Random): Call {
  const page = () => BigInt(random.below(32)) * PAGE;
  const length = () => BigInt(1 + random.below(8)) * PAGE;
  const off = (isOff: boolean) => (isOff ? 2048n : 0n);
  switch (random.below(10)) {
    case 0:
      return extension([1, 3, 4, 6, 9, 10, 11][random.below(7)]!);
    case 1:
      return dirty([1, 2, 3][random.below(3)]!);
    case 2:
    case 3:
    case 4:
      return randomUnmap(random, page, length, off);
    default:
      return randomMap(random, page, length, off);
  }
}

function extension(argument: number): Call {
  const request = VfioRequest.CHECK_EXTENSION;
  return { kind: "extension", what: `extension ${argument}`, request, argument };
}

function dirty(flags: number): Call {
  const argument = DirtyPages.bytesOf({ argsz: 8, flags });
  return { kind: "dirty", what: "any", request: Type1Request.DIRTY_PAGES, argument };
}

type Address = () => bigint;
type Offset = (isOff: boolean) => bigint;

function randomMap(random: Random, page: Address, length: Address, off: Offset): Call {
  const odd = random.below(14);
  const what =
    ["no rights", "VADDR", "misaligned", "no length", "wrapping", "reserved", "argsz"][odd] ?? "";
  let iova = page() + off(what === "misaligned");
  if (what === "wrapping") iova = 2n ** 64n - PAGE;
  if (what === "reserved") iova = 0xfee0_0000n;
  const argument = DmaMap.bytesOf({
    argsz: what === "argsz" ? 31 : 32,
    flags: what === "no rights" ? 0 : what === "VADDR" ? 4 : 3,
    vaddr: page(),
    iova,
    size: what === "no length" ? 0n : what === "wrapping" ? 2n * PAGE : length(),
  });
  return { kind: "map", what: what || "sound", request: Type1Request.MAP_DMA, argument };
}

function randomUnmap(random: Random, page: Address, length: Address, off: Offset): Call {
  const odd = random.below(14);
  const what =
    ["GET_DIRTY", "ALL", "VADDR", "misaligned", "no length", "wrapping", "ALL with a range"][odd] ??
    "";
  let iova = page() + off(what === "misaligned");
  if (what === "wrapping") iova = 2n ** 64n - PAGE;
  if (what === "ALL") iova = 0n;
  const flags = ["GET_DIRTY", "ALL", "VADDR"].indexOf(what);
  let size = length();
  if (what === "ALL" || what === "no length") size = 0n;
  if (what === "wrapping") size = 2n * PAGE;
  if (what === "ALL with a range") iova = PAGE;
  const bits = flags >= 0 ? 1 << flags : what === "ALL with a range" ? 2 : 0;
  const argument = DmaUnmap.bytesOf({ argsz: 24, flags: bits, iova, size });
  return { kind: "unmap", what: what || "sound", request: Type1Request.UNMAP_DMA, argument };
}
