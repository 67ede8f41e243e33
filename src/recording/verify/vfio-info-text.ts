/**
 * What GET_INFO gave, read out of the structure and as text: two answers are the same when their
 * texts are.
 */
import { errnoName } from "../../errno.ts";
import { hex } from "../../units.ts";
import { decodeChain } from "../../vfio/uapi/capability-chain.ts";
import {
  CapabilityId,
  DmaAvailCapability,
  IovaRangeCapability,
  IovaRangeEntry,
  MigrationCapability,
  Type1Info,
} from "../../vfio/uapi/type1.ts";
import { viewOf } from "../../wire/layout.ts";
import type { VfioCapability, VfioInfo } from "../vfio-type1-row.ts";

/**
 * Reads the structure that GET_INFO left.
 *
 * @param asked - the recorded call: what it did not tell is left out here as well
 */
export function readInfo(bytes: Uint8Array, errno: number, asked: VfioInfo): VfioInfo {
  const view = viewOf(bytes);
  const capOffset = Type1Info.get.capOffset(view, 0);
  const isDone = errno === 0;
  return {
    argsz: asked.argsz,
    errno,
    argszAfter: asked.argszAfter === null ? null : Type1Info.get.argsz(view, 0),
    flags: isDone ? Type1Info.get.flags(view, 0) : 0,
    pageSizes: isDone ? Type1Info.get.iovaPgsizes(view, 0) : 0n,
    capOffset: asked.capOffset === null ? null : capOffset,
    capabilities: isDone ? decodeChain(bytes, capOffset).map(readCapability) : [],
  };
}

function readCapability(capability: {
  readonly id: number;
  readonly version: number;
  readonly bytes: Uint8Array;
}): VfioCapability {
  const { id, version, bytes } = capability;
  const view = viewOf(bytes);
  if (id === CapabilityId.MIGRATION && bytes.length >= MigrationCapability.bytes) {
    const pageSizes = MigrationCapability.get.pgsizeBitmap(view, 0);
    const bitmapBytesMax = MigrationCapability.get.maxDirtyBitmapSize(view, 0);
    return { kind: "migration", version, pageSizes, bitmapBytesMax };
  }
  if (id === CapabilityId.DMA_AVAIL && bytes.length >= DmaAvailCapability.bytes) {
    return { kind: "dma-avail", version, available: DmaAvailCapability.get.avail(view, 0) };
  }
  if (id === CapabilityId.IOVA_RANGE && bytes.length >= IovaRangeCapability.bytes) {
    const room = Math.floor((bytes.length - IovaRangeCapability.bytes) / IovaRangeEntry.bytes);
    const count = Math.min(room, IovaRangeCapability.get.nrIovas(view, 0));
    const ranges = Array.from({ length: count }, (_, index) => {
      const at = IovaRangeCapability.bytes + index * IovaRangeEntry.bytes;
      return { start: IovaRangeEntry.get.start(view, at), last: IovaRangeEntry.get.end(view, at) };
    });
    return { kind: "iova-ranges", version, ranges };
  }
  return { kind: "unknown", version, id };
}

/** Prints an answer; what the recording does not tell is left out. */
export function infoText(info: VfioInfo): string {
  const parts = [errnoName(info.errno)];
  if (info.argszAfter !== null) parts.push(`argsz=${info.argszAfter}`);
  if (info.errno === 0) parts.push(`flags=${info.flags}`, `pgsizes=${hex(info.pageSizes)}`);
  if (info.capOffset !== null) parts.push(`cap_offset=${info.capOffset}`);
  return [...parts, ...info.capabilities.map(capabilityText)].join(" ");
}

function capabilityText(capability: VfioCapability): string {
  const version = capability.version === 1 ? "" : ` v${capability.version}`;
  switch (capability.kind) {
    case "migration":
      return `migration${version}(pgsizes=${hex(capability.pageSizes)} max=${hex(capability.bitmapBytesMax)})`;
    case "dma-avail":
      return `dma_avail${version}(${capability.available})`;
    case "iova-ranges":
      return `iova_ranges${version}(${capability.ranges
        .map(({ start, last }) => `${hex(start)}-${hex(last)}`)
        .join(" ")})`;
    default:
      return `capability ${capability.id}${version}`;
  }
}
