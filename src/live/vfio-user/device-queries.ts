/**
 * What a client asks about a device: DEVICE_GET_INFO, DEVICE_GET_REGION_INFO,
 * DEVICE_GET_REGION_IO_FDS, DEVICE_GET_IRQ_INFO, DEVICE_FEATURE.
 *
 * Source: vfio-user protocol specification, version 0.0, the sections of the five; limits of the
 * answers: QEMU, hw/vfio-user/device.c, hw/vfio-user/pci.c.
 */
import { Errno } from "../../errno.ts";
import { type PciFunction, REGION_COUNT } from "../../pci/function.ts";
import { type Interrupts, IrqIndex } from "./interrupts.ts";
import type { MappableRegion } from "./mappable-region.ts";
import type { Message } from "./message.ts";
import {
  CapabilityHead,
  DeviceFlag,
  DeviceInfo,
  IrqInfo,
  IrqInfoFlag,
  RegionFlag,
  RegionInfo,
  RegionIoFds,
  SPARSE_MMAP,
  SparseArea,
  SparseMmap,
} from "./messages.ts";
import { Limit } from "./protocol.ts";
import type { ReplyWriter } from "./reply-writer.ts";

/** DEVICE_GET_INFO. */
export function getInfo(message: Message, reply: ReplyWriter): number {
  if (DeviceInfo.get.argsz(message.view, message.at) < DeviceInfo.bytes) return Errno.EINVAL;
  const value = {
    argsz: DeviceInfo.bytes,
    flags: DeviceFlag.RESET | DeviceFlag.PCI,
    regions: REGION_COUNT,
    interrupts: IrqIndex.COUNT,
  };
  DeviceInfo.encode(value, reply.view, reply.add(DeviceInfo.bytes));
  return Errno.OK;
}

/** DEVICE_GET_REGION_INFO. */
export function getRegionInfo(
  message: Message,
  reply: ReplyWriter,
  pci: PciFunction,
  mappable: readonly MappableRegion[],
): number {
  const argsz = RegionInfo.get.argsz(message.view, message.at);
  const index = RegionInfo.get.index(message.view, message.at);
  if (argsz < RegionInfo.bytes || index >= REGION_COUNT) return Errno.EINVAL;
  const region = pci.regions.find((each) => each.index === index);
  const shared = mappable.find((each) => each.index === index);
  const areas = shared?.areas ?? [];
  const needed = RegionInfo.bytes + capabilityBytes(areas.length);
  const hasCapability = areas.length > 0 && argsz >= needed;
  const value = {
    argsz: needed,
    flags:
      (region?.readable === true ? RegionFlag.READ : 0) |
      (region?.writable === true ? RegionFlag.WRITE : 0) |
      (shared === undefined ? 0 : RegionFlag.MMAP) |
      (hasCapability ? RegionFlag.CAPS : 0),
    index,
    capabilityOffset: hasCapability ? RegionInfo.bytes : 0,
    size: BigInt(region?.bytes ?? 0),
    offset: 0n,
  };
  RegionInfo.encode(value, reply.view, reply.add(RegionInfo.bytes));
  if (hasCapability) addAreas(reply, areas);
  // A client that has to ask again, with more room, gets the descriptor then.
  if (shared !== undefined && argsz >= needed) reply.carry(shared.fd);
  return Errno.OK;
}

/** DEVICE_GET_REGION_IO_FDS: no region has any, every doorbell comes as a message. */
export function getRegionIoFds(message: Message, reply: ReplyWriter, pci: PciFunction): number {
  const { argsz, flags, index, count } = RegionIoFds.decode(message.view, message.at);
  if (argsz < RegionIoFds.bytes || argsz > Limit.TRANSFER_BYTES) return Errno.EINVAL;
  if (flags !== 0 || count !== 0) return Errno.EINVAL;
  if (!pci.regions.some((region) => region.index === index && region.bytes > 0))
    return Errno.EINVAL;
  const value = { argsz: RegionIoFds.bytes, flags: 0, index, count: 0 };
  RegionIoFds.encode(value, reply.view, reply.add(RegionIoFds.bytes));
  return Errno.OK;
}

/** DEVICE_GET_IRQ_INFO. */
export function getIrqInfo(message: Message, reply: ReplyWriter, interrupts: Interrupts): number {
  const index = IrqInfo.get.index(message.view, message.at);
  if (IrqInfo.get.argsz(message.view, message.at) < IrqInfo.bytes) return Errno.EINVAL;
  if (index >= IrqIndex.COUNT) return Errno.EINVAL;
  const value = {
    argsz: IrqInfo.bytes,
    flags: IrqInfoFlag.EVENTFD,
    index,
    count: interrupts.vectorsOf(index),
  };
  IrqInfo.encode(value, reply.view, reply.add(IrqInfo.bytes));
  return Errno.OK;
}

function capabilityBytes(areas: number): number {
  if (areas === 0) return 0;
  return CapabilityHead.bytes + SparseMmap.bytes + areas * SparseArea.bytes;
}

function addAreas(reply: ReplyWriter, areas: NonNullable<MappableRegion["areas"]>): void {
  let at = reply.add(capabilityBytes(areas.length));
  CapabilityHead.encode({ id: SPARSE_MMAP, version: 1, next: 0 }, reply.view, at);
  at += CapabilityHead.bytes;
  SparseMmap.encode({ areas: areas.length }, reply.view, at);
  at += SparseMmap.bytes;
  for (const { offset, bytes } of areas) {
    SparseArea.encode({ offset: BigInt(offset), size: BigInt(bytes) }, reply.view, at);
    at += SparseArea.bytes;
  }
}
