/**
 * The ioctls of /dev/iommu with their raw structures.
 *
 * A structure begins with its size, so that it can grow at its end: one that is shorter than ever
 * is EINVAL, one with more than is known must be zero there (E2BIG), and what an older caller does
 * not give is zero. Source: drivers/iommu/iommufd/main.c: iommufd_fops_ioctl, iommufd_ioctl_ops;
 * include/linux/uaccess.h:copy_struct_from_user.
 */
import { Errno } from "../../errno.ts";
import { type Layout, viewOf } from "../../wire/layout.ts";
import type { UserMemory } from "../uapi/user-memory.ts";
import { markDirtyBits, probeBitmap } from "./dirty-bits.ts";
import type { Iommufd } from "./iommufd.ts";
import { checkAllowed, type IovaSpan } from "./iova-space.ts";
import type { MappableFile } from "./map.ts";
import * as uapi from "./uapi.ts";
import { IommufdRequest } from "./uapi.ts";

/** What the rest of the kernel does for a call. */
export interface IoctlContext {
  /** What pointers in structures lead to. */
  readonly memory: UserMemory;
  /** What can be mapped of a descriptor; null when it is not open. */
  fileOf(fd: number): MappableFile | null;
  /** Makes a file of a fault object. @returns its descriptor, or −errno */
  openFault(faultId: number): number;
}

/** What a command gives: an errno, and besides the fields that it writes. */
interface Reply {
  readonly errno: number;
}

interface Command {
  readonly shape: Layout<uapi.Fields>;
  /** Bytes that the structure has had from the start. */
  readonly bytesMin: number;
  readonly run: (iommufd: Iommufd, call: never, context: IoctlContext) => Reply;
  /** An errno after which the fields are written all the same. */
  readonly answersAlso?: number;
}

/** Describes a command; `last` is the field that its first version ended with. */
function command<F extends uapi.Fields>(
  shape: Layout<F>,
  last: keyof F,
  run: (iommufd: Iommufd, call: uapi.Input<F>, context: IoctlContext) => Reply,
): Command {
  const { at, kind } = shape.fields[last]!;
  const bytes = { u8: 1, u16: 2, u32: 4, u64: 8, bytes: 3 }[kind];
  return { shape: shape as unknown as Command["shape"], bytesMin: at + bytes, run };
}

const commands = new Map<number, Command>([
  [
    IommufdRequest.DESTROY,
    command(uapi.Destroy, "id", (fd, { id = 0 }) => ({ errno: fd.destroy(id) })),
  ],
  [
    IommufdRequest.IOAS_ALLOC,
    command(uapi.IoasAlloc, "outIoasId", (fd, call) => {
      const { errno, ioasId } = fd.ioasAlloc(call);
      return { errno, outIoasId: ioasId };
    }),
  ],
  [IommufdRequest.IOAS_ALLOW_IOVAS, command(uapi.IoasAllowIovas, "allowedIovas", allowIovas)],
  [
    IommufdRequest.IOAS_COPY,
    command(uapi.IoasCopy, "srcIova", (fd, call) => {
      const { errno, iova } = fd.ioasCopy(call);
      return { errno, dstIova: iova };
    }),
  ],
  [
    IommufdRequest.IOAS_IOVA_RANGES,
    {
      ...command(uapi.IoasIovaRanges, "outIovaAlignment", iovaRanges),
      answersAlso: Errno.EMSGSIZE,
    },
  ],
  [IommufdRequest.IOAS_MAP, command(uapi.IoasMap, "iova", (fd, call) => fd.ioasMap(call))],
  [
    IommufdRequest.IOAS_MAP_FILE,
    command(uapi.IoasMapFile, "iova", (fd, call, context) => {
      return fd.ioasMapFile(call, context.fileOf(call.fd ?? 0));
    }),
  ],
  [IommufdRequest.IOAS_UNMAP, command(uapi.IoasUnmap, "length", (fd, call) => fd.ioasUnmap(call))],
  [
    IommufdRequest.IOAS_CHANGE_PROCESS,
    command(uapi.IoasChangeProcess, "reserved0", (fd, { reserved0 = 0 }) => {
      return { errno: reserved0 === 0 ? fd.ioasChangeProcess() : Errno.EOPNOTSUPP };
    }),
  ],
  [IommufdRequest.OPTION, command(uapi.Option, "val64", (fd, call) => fd.option(call))],
  [
    IommufdRequest.VFIO_IOAS,
    command(uapi.VfioIoas, "reserved0", (fd, call) => fd.vfioIoasOption(call)),
  ],
  [
    IommufdRequest.HWPT_ALLOC,
    command(uapi.HwptAlloc, "reserved0", (fd, call) => {
      const { errno, hwptId } = fd.hwptAlloc(call);
      return { errno, outHwptId: hwptId };
    }),
  ],
  [
    IommufdRequest.GET_HW_INFO,
    command(uapi.HwInfo, "reserved0", (fd, call) => {
      const { errno, capabilities, maxPasidLog2 } = fd.getHwInfo(call);
      const outputs = { outCapabilities: capabilities, outMaxPasidLog2: maxPasidLog2 };
      return { errno, dataLen: 0, outDataType: 0, ...outputs };
    }),
  ],
  [
    IommufdRequest.HWPT_SET_DIRTY_TRACKING,
    command(uapi.HwptSetDirtyTracking, "reserved0", (fd, call) => {
      return { errno: fd.hwptSetDirtyTracking(call) };
    }),
  ],
  [IommufdRequest.HWPT_GET_DIRTY_BITMAP, command(uapi.HwptGetDirtyBitmap, "data", dirtyBitmap)],
  [
    IommufdRequest.FAULT_QUEUE_ALLOC,
    command(uapi.FaultAlloc, "outFaultFd", (fd, call, context) => {
      const { errno, faultId } = fd.faultQueueAlloc(call);
      if (errno !== Errno.OK) return { errno };
      const file = context.openFault(faultId);
      if (file >= 0) return { errno, outFaultId: faultId, outFaultFd: file };
      fd.destroy(faultId);
      return { errno: -file };
    }),
  ],
]);

/** What hardware that this stack models has no use for: tables of guests and their queues. */
const unsupported: ReadonlyMap<number, number> = new Map([
  [IommufdRequest.HWPT_INVALIDATE, 32],
  [IommufdRequest.VIOMMU_ALLOC, 24],
  [IommufdRequest.VDEVICE_ALLOC, 24],
  [IommufdRequest.VEVENTQ_ALLOC, 24],
  [IommufdRequest.HW_QUEUE_ALLOC, 40],
]);

/** Whether a request is one of /dev/iommu's own numbers. */
export function isIommufdRequest(request: number): boolean {
  const nr = request & 0xff;
  return nr >= 0x80 && nr <= 0x94;
}

/**
 * Serves a request.
 *
 * @param bytes - what lies at the argument's address; beyond is EFAULT
 * @returns an errno, and the structure as the kernel leaves it (null when it wrote nothing)
 */
export function iommufdIoctl(
  iommufd: Iommufd,
  context: IoctlContext,
  request: number,
  bytes: Uint8Array,
): { readonly errno: number; readonly bytes: Uint8Array | null } {
  if (bytes.length < 4) return failed(Errno.EFAULT);
  const size = viewOf(bytes).getUint32(0, true);
  const found = commands.get(request);
  if (found === undefined) {
    const least = unsupported.get(request);
    if (least === undefined) return failed(Errno.ENOTTY);
    return failed(size < least ? Errno.EINVAL : Errno.EOPNOTSUPP);
  }
  const { shape, bytesMin } = found;
  if (size < bytesMin) return failed(Errno.EINVAL);
  // Bytes that the kernel does not know are looked at before any is missed.
  for (let at = shape.bytes; at < Math.min(size, bytes.length); at += 1) {
    if (bytes[at] !== 0) return failed(Errno.E2BIG);
  }
  if (size > bytes.length) return failed(Errno.EFAULT);
  const copy = new Uint8Array(shape.bytes);
  copy.set(bytes.subarray(0, Math.min(size, shape.bytes)));
  const view = viewOf(copy);
  const reply = found.run(iommufd, shape.decode(view) as never, context);
  if (reply.errno !== Errno.OK && reply.errno !== found.answersAlso) return failed(reply.errno);
  for (const [name, value] of Object.entries(reply)) {
    if (name !== "errno") shape.set[name]!(view, 0, value as never);
  }
  const out = bytes.slice();
  out.set(copy.subarray(0, Math.min(size, shape.bytes)));
  return { errno: reply.errno, bytes: out };
}

function failed(errno: number) {
  return { errno, bytes: null };
}

function allowIovas(
  iommufd: Iommufd,
  call: uapi.Input<typeof uapi.IoasAllowIovas.fields>,
  { memory }: IoctlContext,
): Reply {
  const { ioasId = 0, numIovas = 0, allowedIovas = 0n } = call;
  if ((call.reserved0 ?? 0) !== 0) return { errno: Errno.EOPNOTSUPP };
  const ioas = iommufd.ioas(ioasId);
  if (ioas === null) return { errno: Errno.ENOENT };
  const ranges: IovaSpan[] = [];
  const entry = new Uint8Array(uapi.IovaRange.bytes);
  let address = allowedIovas;
  for (let index = 0; index < numIovas; index += 1) {
    const isThere = memory.read(address, entry);
    // What was read so far is judged first, as the kernel takes range by range.
    if (!isThere) return { errno: checkAllowed(ranges) || Errno.EFAULT };
    const { start, last } = uapi.IovaRange.decode(viewOf(entry));
    ranges.push({ start, last });
    if (start >= last) return { errno: Errno.EINVAL };
    address += BigInt(uapi.IovaRange.bytes);
  }
  return { errno: iommufd.ioasAllowIovas(ioasId, ranges) };
}

function iovaRanges(
  iommufd: Iommufd,
  call: uapi.Input<typeof uapi.IoasIovaRanges.fields>,
  { memory }: IoctlContext,
): Reply {
  const { ioasId = 0, numIovas = 0, allowedIovas = 0n } = call;
  if ((call.reserved0 ?? 0) !== 0) return { errno: Errno.EOPNOTSUPP };
  const { errno, ranges, alignment } = iommufd.ioasIovaRanges(ioasId);
  if (errno !== Errno.OK) return { errno };
  const shown = ranges.slice(0, numIovas);
  for (const [index, range] of shown.entries()) {
    const address = allowedIovas + BigInt(index * uapi.IovaRange.bytes);
    if (!memory.write(address, uapi.IovaRange.bytesOf(range))) return { errno: Errno.EFAULT };
  }
  const outputs = { numIovas: ranges.length, outIovaAlignment: BigInt(alignment) };
  return { errno: ranges.length > numIovas ? Errno.EMSGSIZE : Errno.OK, ...outputs };
}

function dirtyBitmap(
  iommufd: Iommufd,
  call: uapi.Input<typeof uapi.HwptGetDirtyBitmap.fields>,
  { memory }: IoctlContext,
): Reply {
  const { data = 0n } = call;
  const found: { first: bigint; count: bigint }[] = [];
  const probe = () => probeBitmap(memory, data, call.length ?? 0n, call.pageSize ?? 0n);
  const errno = iommufd.hwptGetDirtyBitmap(
    call,
    (first, count) => found.push({ first, count }),
    probe,
  );
  if (errno !== Errno.OK) return { errno };
  for (const { first, count } of found) {
    if (!markDirtyBits(memory, data, first, count)) return { errno: Errno.EFAULT };
  }
  return { errno };
}
