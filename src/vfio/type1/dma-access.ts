/**
 * A driver of a mediated device reads or writes memory by I/O virtual address: vfio_dma_rw.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_dma_rw, vfio_iommu_type1_dma_rw_chunk.
 */
import { Errno } from "../../errno.ts";
import { Prot } from "../../iommu/prot.ts";
import { addressOf, offsetOf, pfnOf } from "../../units.ts";
import type { UserProcess } from "../process/user-process.ts";
import type { UserMemory } from "../uapi/user-memory.ts";
import { markDirty } from "./dirty.ts";
import type { DmaMapping } from "./mapping.ts";
import type { Type1 } from "./type1.ts";

/** A copy of bytes. */
export interface DmaAccess {
  /** First I/O virtual address. */
  readonly iova: bigint;
  /** What is written, or what receives the bytes read. */
  readonly bytes: Uint8Array;
  readonly isWrite: boolean;
  /** Whose memory it can be; null for a kernel thread, which takes on any. */
  readonly process: UserProcess | null;
}

/**
 * Copies mapping by mapping up to the first that refuses.
 *
 * @param user - the memory of the process that mapped
 * @returns EBUSY (memory is moving), EINVAL (nothing mapped), EPERM (rights; reading is needed even
 *   to write), EFAULT
 */
export function accessMemory(type1: Type1, access: DmaAccess, user: UserMemory): number {
  if (type1.vaddrInvalidCount > 0) return Errno.EBUSY;
  const { bytes } = access;
  let done = 0;
  while (done < bytes.length) {
    const iova = access.iova + BigInt(done);
    if (iova < 0n || iova > 0xffff_ffff_ffff_ffffn) return Errno.EINVAL;
    const mapping = type1.mappings.find(pfnOf(iova));
    if (mapping === null) return Errno.EINVAL;
    if (!isAllowed(mapping, access.isWrite)) return Errno.EPERM;
    const { process } = access;
    if (process !== null && process.memory !== mapping.process.memory) return Errno.EFAULT;
    const offset = iova - addressOf(mapping.iovaPfn);
    const left = (BigInt(mapping.pages) << 12n) - offset;
    const rest = bytes.length - done;
    const count = left < BigInt(rest) ? Number(left) : rest;
    const piece = bytes.subarray(done, done + count);
    const address = addressOf(mapping.vpn) + offset;
    const isDone = access.isWrite ? user.write(address, piece) : user.read(address, piece);
    if (!isDone) return Errno.EFAULT;
    if (access.isWrite) noteWrite(type1, mapping, iova, count);
    done += count;
  }
  return Errno.OK;
}

function isAllowed(mapping: DmaMapping, isWrite: boolean): boolean {
  if ((mapping.prot & Prot.READ) === 0) return false;
  return !isWrite || (mapping.prot & Prot.WRITE) !== 0;
}

function noteWrite(type1: Type1, mapping: DmaMapping, iova: bigint, count: number): void {
  const page = pfnOf(iova) - mapping.iovaPfn;
  const lastPage = page + Math.floor((offsetOf(iova) + count - 1) / 4096);
  markDirty(type1, mapping, page, lastPage - page + 1);
}
