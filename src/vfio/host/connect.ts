/**
 * What a VMM does with devices: opens their groups, puts them in a container, maps memory. In the
 * order of QEMU (hw/vfio, vfio_container_connect): the container's type is set with the first group,
 * the others come one after the other.
 */
import { Errno, errnoName } from "../../errno.ts";
import { assert, StackError } from "../../errors.ts";
import { Container } from "../container.ts";
import type { VfioTask } from "../file.ts";
import { VfioExtension, VfioRequest } from "../requests.ts";
import type { Type1 } from "../type1/type1.ts";
import { DmaMap, MapFlag, Type1Request } from "../uapi/type1.ts";
import type { Host } from "./host.ts";

/** Devices in a container. */
export interface Connection {
  /** Adds devices, as when they come after memory was mapped. @throws as {@link connect} */
  join(addresses: readonly string[]): void;
  /** Descriptor of the container. */
  readonly fd: number;
  readonly container: Container;
  /** State of its back end. */
  readonly type1: Type1;
  /** Descriptor of each group, in the order of the devices. */
  readonly groups: readonly number[];
}

/**
 * Connects devices to a new container of type1 v2.
 *
 * @param addresses - PCI addresses, at least one
 * @throws StackError `vfio/not-connected` with the step and the errno; what was opened stays open
 */
export function connect(host: Host, task: VfioTask, addresses: readonly string[]): Connection {
  assert(addresses.length >= 1, "a container needs a group");
  const { value: fd, errno } = host.vfio.open(task, "/dev/vfio/vfio");
  if (errno !== Errno.OK) throw notConnected("/dev/vfio/vfio", "open", errno);
  const groups = new Map<string, number>();
  const join = (more: readonly string[]) => {
    for (const address of more) addDevice(host, task, fd, groups, address);
  };
  join(addresses);
  const container = task.descriptors.find(fd)!.operations;
  assert(container instanceof Container, "the file opened is a container");
  return {
    join,
    fd,
    container,
    type1: container.state!.type1!,
    get groups() {
      return [...groups.values()];
    },
  };
}

function addDevice(
  host: Host,
  task: VfioTask,
  fd: number,
  groups: Map<string, number>,
  address: string,
): void {
  const path = host.groupPath(address);
  if (path === null) throw notConnected(address, "find the group of", Errno.ENOENT);
  // Another device of the group is here already.
  if (groups.has(path)) return;
  const opened = host.vfio.open(task, path);
  if (opened.errno !== Errno.OK) throw notConnected(path, "open", opened.errno);
  const set = task.ioctl(opened.value, VfioRequest.GROUP_SET_CONTAINER, intBytes(fd));
  if (set.errno !== Errno.OK) throw notConnected(address, "set the container of", set.errno);
  if (groups.size === 0) {
    const type = task.ioctl(fd, VfioRequest.SET_IOMMU, VfioExtension.TYPE1_V2);
    if (type.errno !== Errno.OK) throw notConnected(address, "set type1 for", type.errno);
  }
  groups.set(path, opened.value);
}

/** Memory to map for reading and writing; all in bytes. */
export interface GuestMemory {
  readonly iova: bigint;
  readonly vaddr: bigint;
  readonly size: bigint;
}

/** MAP_DMA. @returns an errno */
export function mapMemory(task: VfioTask, fd: number, memory: GuestMemory): number {
  const flags = MapFlag.READ | MapFlag.WRITE;
  const bytes = DmaMap.bytesOf({ argsz: DmaMap.bytes, flags, ...memory });
  return task.ioctl(fd, Type1Request.MAP_DMA, bytes).errno;
}

function intBytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}

const hints = new Map<number, string>([
  [Errno.EPERM, "a kernel driver has a device of the group, or interrupts are not isolated"],
  [Errno.EBUSY, "somebody else has the group open"],
  [Errno.EINVAL, "firmware ranges, existing mappings or the aperture stand against it"],
  [Errno.ENOENT, "bind the device to vfio-pci, and give it an IOMMU"],
]);

function notConnected(what: string, step: string, errno: number): StackError {
  const hint = hints.get(errno);
  return new StackError({
    code: "vfio/not-connected",
    kind: "input",
    message: `Cannot ${step} ${what}: ${errnoName(errno)}`,
    ...(hint === undefined ? {} : { hint }),
  });
}
