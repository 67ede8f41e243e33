/**
 * What a server does for each command: a table of the least a payload must hold, the descriptors
 * that may come along, and the handler.
 *
 * A handler returns an errno, 0 after it wrote the reply's payload. It takes descriptors over only
 * when it succeeds; the rest of what was sent is closed by who called.
 */
import { Errno } from "../../errno.ts";
import type { PciFunction } from "../../pci/function.ts";
import { getInfo, getIrqInfo, getRegionInfo, getRegionIoFds } from "./device-queries.ts";
import type { DmaTable } from "./dma-table.ts";
import type { Interrupts } from "./interrupts.ts";
import type { DoorbellRegion } from "./mappable-region.ts";
import type { Message } from "./message.ts";
import {
  DeviceFeature,
  DeviceInfo,
  DmaMap,
  DmaUnmap,
  DmaUnmapFlag,
  IrqInfo,
  IrqSet,
  IrqSetFlag,
  RegionAccess,
  RegionInfo,
  RegionIoFds,
  Version,
  WriteMulti,
} from "./messages.ts";
import { Command, Limit, MAJOR, MINOR } from "./protocol.ts";
import type { RegionAccesses } from "./region-access.ts";
import type { ReplyWriter } from "./reply-writer.ts";
import { ANSWER_TEXT, type ClientCapabilities, readCapabilities } from "./version.ts";

/** What commands work on. */
export interface CommandTarget {
  readonly function: PciFunction;
  readonly interrupts: Interrupts;
  readonly dma: DmaTable;
  readonly accesses: RegionAccesses;
  readonly doorbells: readonly DoorbellRegion[];
  /** Null before VERSION. */
  client: ClientCapabilities | null;
  /** Memory was mapped that devices cannot reach: address 0 of the machine among it. */
  foundUnsharedMemory(bytes: bigint): void;
  /** Memory was not mapped, because of its file. */
  refusedMemory(errno: number): void;
  /** Memory went: perhaps to come back at once in other pieces. */
  unsettle(): void;
  reset(): void;
}

/** How a command is handled. */
export interface CommandRule {
  /** Least bytes of a payload. */
  readonly bytes: number;
  /** Most descriptors. */
  readonly descriptors: number;
  handle(target: CommandTarget, message: Message, reply: ReplyWriter): number;
}

function version(target: CommandTarget, message: Message, reply: ReplyWriter): number {
  const { major, minor } = Version.decode(message.view, message.at);
  if (target.client !== null || major !== MAJOR) return Errno.EINVAL;
  const client = readCapabilities(message.payload(Version.bytes));
  if (client === null) return Errno.EINVAL;
  target.client = client;
  const at = reply.add(Version.bytes + ANSWER_TEXT.length);
  Version.encode({ major: MAJOR, minor: Math.min(minor, MINOR) }, reply.view, at);
  reply.bytes.u8.set(ANSWER_TEXT, at + Version.bytes);
  return Errno.OK;
}

function dmaMap(target: CommandTarget, message: Message): number {
  const { argsz, ...request } = DmaMap.decode(message.view, message.at);
  if (argsz < DmaMap.bytes) return Errno.EINVAL;
  const fd = message.fds[0] ?? -1;
  const errno = target.dma.map(request, fd);
  if (errno !== Errno.OK && fd >= 0) target.refusedMemory(errno);
  if (errno === Errno.OK && fd < 0 && request.address === 0n)
    target.foundUnsharedMemory(request.size);
  return errno;
}

function dmaUnmap(target: CommandTarget, message: Message, reply: ReplyWriter): number {
  const { argsz, flags, address, size } = DmaUnmap.decode(message.view, message.at);
  if (argsz < DmaUnmap.bytes || argsz > Limit.TRANSFER_BYTES) return Errno.EINVAL;
  // Which pages were written is not kept, so nobody can have asked for it to be.
  if ((flags & ~DmaUnmapFlag.ALL) !== 0) return Errno.EINVAL;
  if ((flags & DmaUnmapFlag.ALL) !== 0) {
    if (address !== 0n || size !== 0n) return Errno.EINVAL;
    target.dma.clear();
  } else {
    const errno = target.dma.unmap(address, size);
    if (errno !== Errno.OK) return errno;
  }
  target.unsettle();
  const value = { argsz: DmaUnmap.bytes, flags, address, size };
  DmaUnmap.encode(value, reply.view, reply.add(DmaUnmap.bytes));
  return Errno.OK;
}

function setIrqs(target: CommandTarget, message: Message): number {
  const { argsz, flags, index, start, count } = IrqSet.decode(message.view, message.at);
  const data = message.payload(IrqSet.bytes);
  const dataBytes = (flags & IrqSetFlag.DATA_BOOL) !== 0 ? count : 0;
  if (argsz < IrqSet.bytes + dataBytes) return Errno.EINVAL;
  return target.interrupts.set({ flags, index, start, count, data, fds: message.fds });
}

/** No feature is there, so nothing can be got, set or probed. */
function deviceFeature(): number {
  return Errno.EINVAL;
}

/** By number; a command without a rule is EINVAL. */
export const commandRules: readonly (CommandRule | undefined)[] = Object.entries({
  [Command.VERSION]: { bytes: Version.bytes, descriptors: 0, handle: version },
  [Command.DMA_MAP]: { bytes: DmaMap.bytes, descriptors: 1, handle: dmaMap },
  [Command.DMA_UNMAP]: { bytes: DmaUnmap.bytes, descriptors: 0, handle: dmaUnmap },
  [Command.DEVICE_GET_INFO]: {
    bytes: DeviceInfo.bytes,
    descriptors: 0,
    handle: (_target, message, reply) => getInfo(message, reply),
  },
  [Command.DEVICE_GET_REGION_INFO]: {
    bytes: RegionInfo.bytes,
    descriptors: 0,
    handle: (target, message, reply) =>
      getRegionInfo(message, reply, target.function, target.doorbells),
  },
  [Command.DEVICE_GET_REGION_IO_FDS]: {
    bytes: RegionIoFds.bytes,
    descriptors: 0,
    handle: (target, message, reply) => getRegionIoFds(message, reply, target.function),
  },
  [Command.DEVICE_GET_IRQ_INFO]: {
    bytes: IrqInfo.bytes,
    descriptors: 0,
    handle: (target, message, reply) => getIrqInfo(message, reply, target.interrupts),
  },
  [Command.DEVICE_SET_IRQS]: {
    bytes: IrqSet.bytes,
    descriptors: Limit.MESSAGE_DESCRIPTORS,
    handle: setIrqs,
  },
  [Command.REGION_READ]: {
    bytes: RegionAccess.bytes,
    descriptors: 0,
    handle: (target, message, reply) => {
      const countMax = Math.min(target.client?.transferBytes ?? 0, Limit.TRANSFER_BYTES);
      return target.accesses.read(message, reply, countMax);
    },
  },
  [Command.REGION_WRITE]: {
    bytes: RegionAccess.bytes,
    descriptors: 0,
    handle: (target, message, reply) => target.accesses.write(message, reply),
  },
  [Command.DEVICE_RESET]: {
    bytes: 0,
    descriptors: 0,
    handle: (target) => {
      target.reset();
      return Errno.OK;
    },
  },
  [Command.REGION_WRITE_MULTI]: {
    bytes: WriteMulti.bytes,
    descriptors: 0,
    handle: (target, message, reply) => target.accesses.writeMulti(message, reply),
  },
  [Command.DEVICE_FEATURE]: { bytes: DeviceFeature.bytes, descriptors: 0, handle: deviceFeature },
} satisfies Record<number, CommandRule>).reduce<CommandRule[]>((table, [command, rule]) => {
  table[Number(command)] = rule;
  return table;
}, []);
