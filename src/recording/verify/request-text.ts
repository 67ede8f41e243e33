/** A virtio-iommu request, an answer, or an address as text for a divergence. */

import { hex } from "../../units.ts";
import { RequestType, statusName } from "../../virtio/iommu/protocol.ts";

/** Bytes of a request that is no known one that are printed. */
const RAW_BYTES_MAX = 16;

/** An address given as frame and offset. */
export function addressText(pfn: number, offset: number): string {
  return hex(BigInt(pfn) * 4096n + BigInt(offset));
}

/** The readable part of a request. */
export function requestText(request: Uint8Array, bytes: number): string {
  const view = new DataView(request.buffer, request.byteOffset, request.length);
  const word = (at: number): number => (at + 4 <= bytes ? view.getUint32(at, true) : 0);
  const long = (at: number): string => hex(at + 8 <= bytes ? view.getBigUint64(at, true) : 0n);
  switch (bytes === 0 ? 0 : request[0]) {
    case RequestType.ATTACH:
      return `ATTACH domain=${word(4)} endpoint=${word(8)} flags=${hex(word(12))}`;
    case RequestType.DETACH:
      return `DETACH domain=${word(4)} endpoint=${word(8)}`;
    case RequestType.MAP:
      return (
        `MAP domain=${word(4)} ${long(8)}-${long(16)} to ${long(24)} ` + `flags=${hex(word(32))}`
      );
    case RequestType.UNMAP:
      return `UNMAP domain=${word(4)} ${long(8)}-${long(16)}`;
    case RequestType.PROBE:
      return `PROBE endpoint=${word(4)}`;
    default: {
      const raw = [...request.subarray(0, Math.min(bytes, RAW_BYTES_MAX))];
      return `${bytes} bytes ${raw.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    }
  }
}

/** An answer: its status and length. @param status - −1 when none was written */
export function answerText(status: number, usedBytes: number): string {
  if (usedBytes === 0) return "no answer";
  const name = status < 0 ? "no status" : statusName(status);
  return `${name} in ${usedBytes} bytes`;
}
