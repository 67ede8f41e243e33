/**
 * Translation of an endpoint's access by the virtio-iommu device.
 *
 * Source: virtio specification 1.3, "IOMMU device", "Device operations" and "Fault reporting";
 * V67–V71, V107–V114, V119, V123. An access is checked for its whole length before any of it is
 * handed out; what is handed out is a list, since neither one mapping nor physical contiguity can be
 * expected.
 */
import { NONE, type RangeMap } from "../../iommu/range-map.ts";
import { Step } from "../../meter.ts";
import { PAGE_BYTES, PFN_LAST } from "../../units.ts";
import type { DeviceState, EndpointState, Region } from "./device-state.ts";
import { FaultReason, Feature } from "./protocol.ts";

/** Bits of an access; the same as those of a mapping and of a fault record. */
export const Access = { READ: 1, WRITE: 2 } as const;

/** What became of an access. */
export const Translation = {
  /** Every byte translates; the visitor saw where to. */
  OK: 0,
  /** Refused: `fault` tells why, and a record waits for the event queue. */
  FAULT: 1,
  /** A message-signalled interrupt, not an access to memory (V113). */
  MSI: 2,
} as const;
export type Translation = (typeof Translation)[keyof typeof Translation];

/** Takes the pieces of an access, in order: physical frame, offset, and bytes. */
export interface SegmentVisitor {
  segment(pfn: number, offset: number, bytes: number): void;
}

/** Why and where the last refused access failed. */
export interface TranslationFault {
  /** A value of {@link FaultReason}. */
  reason: number;
  /** The first byte that is refused. */
  pfn: number;
  offset: number;
}

/** Whether an endpoint's accesses pass through untranslated (V107). */
export function isBypassed(state: DeviceState, endpoint: EndpointState): boolean {
  if (endpoint.domain !== null) return endpoint.domain.isBypass;
  if (state.isOffered(Feature.BYPASS_CONFIG)) return state.bypass;
  return state.isNegotiated(Feature.BYPASS);
}

/** Translates accesses; one of these belongs to a device. */
export class Translator {
  readonly fault: TranslationFault = { reason: 0, pfn: 0, offset: 0 };
  readonly #state: DeviceState;

  constructor(state: DeviceState) {
    this.#state = state;
  }

  /**
   * Translates `bytes` bytes from (pfn, offset) on.
   *
   * @param access - bits of {@link Access}: the rights that every byte must have
   * @param bytes - 0 … 2^53 − 1; nothing is asked of an access of 0 bytes
   */
  translate(
    endpointId: number,
    pfn: number,
    offset: number,
    bytes: number,
    access: number,
    visitor: SegmentVisitor,
  ): Translation {
    const state = this.#state;
    const endpoint = state.endpoints.get(endpointId);
    // [P] An endpoint that the device does not manage cannot be named in a record (V114, V117).
    if (endpoint === undefined) return this.#refuse(FaultReason.UNKNOWN, pfn, offset);
    if (bytes === 0) return Translation.OK;
    const end = offset + bytes - 1;
    const lastPfn = pfn + Math.floor(end / PAGE_BYTES);
    const lastOffset = end % PAGE_BYTES;
    const domain = endpoint.domain;
    if (domain === null && !isBypassed(state, endpoint))
      return this.#report(FaultReason.DOMAIN, access, endpointId, pfn, offset);
    // [P] An access past the end of the space is refused as a whole.
    if (lastPfn > PFN_LAST)
      return this.#report(FaultReason.MAPPING, access, endpointId, pfn, offset);
    if (domain === null) {
      visitor.segment(pfn, offset, bytes);
      return Translation.OK;
    }
    const region = firstRegion(endpoint.regions, pfn, offset, lastPfn, lastOffset);
    if (region !== null) {
      if (region.isMsi && isInside(region, pfn, offset, lastPfn, lastOffset))
        return Translation.MSI;
      // [P] V113 holds in a bypass domain too, and for an access that is partly an interrupt. In
      // other domains nothing is mapped here, unless a quirk allows it, and the walk below would
      // stop at the same byte.
      if (domain.isBypass || state.quirks !== 0) {
        const isBefore = isBelow(region.startPfn, region.startOffset, pfn, offset);
        const at = isBefore ? pfn : region.startPfn;
        const atOffset = isBefore ? offset : region.startOffset;
        return this.#report(FaultReason.MAPPING, access, endpointId, at, atOffset);
      }
    }
    if (domain.isBypass) {
      visitor.segment(pfn, offset, bytes);
      return Translation.OK;
    }
    const { mappings } = domain;
    const first = mappings.find(pfn, offset);
    if (!this.#covers(mappings, first, pfn, offset, lastPfn, lastOffset, access))
      return this.#report(
        FaultReason.MAPPING,
        access,
        endpointId,
        this.fault.pfn,
        this.fault.offset,
      );
    visit(mappings, first, pfn, offset, bytes, visitor);
    return Translation.OK;
  }

  /** Whether mappings from `first` on hold every byte with the rights; else where they do not. */
  #covers(
    mappings: RangeMap,
    first: number,
    pfn: number,
    offset: number,
    lastPfn: number,
    lastOffset: number,
    access: number,
  ): boolean {
    const fault = this.fault;
    let position = first;
    let atPfn = pfn;
    let atOffset = offset;
    for (;;) {
      fault.pfn = atPfn;
      fault.offset = atOffset;
      if (position === NONE) return false;
      if (mappings.startPfn(position) > atPfn) return false;
      if (mappings.startPfn(position) === atPfn && mappings.startOffset(position) > atOffset)
        return false;
      if ((mappings.flags(position) & access) !== access) return false;
      const endPfn = mappings.lastPfn(position);
      const endOffset = mappings.lastOffset(position);
      if (!isBelow(endPfn, endOffset, lastPfn, lastOffset)) return true;
      atPfn = endOffset === PAGE_BYTES - 1 ? endPfn + 1 : endPfn;
      atOffset = (endOffset + 1) % PAGE_BYTES;
      position = mappings.next(position);
    }
  }

  /**
   * Records that an access failed behind the translation: nothing answers at the address that it
   * leads to. [P] V119: neither domain nor mapping is at fault, so the reason is UNKNOWN.
   */
  reportUnanswered(endpointId: number, pfn: number, offset: number, access: number): void {
    if (this.#state.endpoints.has(endpointId))
      this.#report(FaultReason.UNKNOWN, access, endpointId, pfn, offset);
  }

  #report(
    reason: number,
    access: number,
    endpointId: number,
    pfn: number,
    offset: number,
  ): Translation {
    const state = this.#state;
    state.faults.push(reason, access, endpointId, pfn, offset);
    state.meter.step(Step.fault, 1, 0);
    for (const listener of state.listeners) listener.faulted?.();
    return this.#refuse(reason, pfn, offset);
  }

  #refuse(reason: number, pfn: number, offset: number): Translation {
    this.fault.reason = reason;
    this.fault.pfn = pfn;
    this.fault.offset = offset;
    return Translation.FAULT;
  }
}

function isBelow(aPfn: number, aOffset: number, bPfn: number, bOffset: number): boolean {
  return aPfn < bPfn || (aPfn === bPfn && aOffset < bOffset);
}

/** The lowest region that an access meets, or null. */
function firstRegion(
  regions: readonly Region[],
  pfn: number,
  offset: number,
  lastPfn: number,
  lastOffset: number,
): Region | null {
  let first: Region | null = null;
  for (const region of regions) {
    if (isBelow(region.lastPfn, region.lastOffset, pfn, offset)) continue;
    if (isBelow(lastPfn, lastOffset, region.startPfn, region.startOffset)) continue;
    if (first === null || region.startPfn < first.startPfn) first = region;
    else if (region.startPfn === first.startPfn && region.startOffset < first.startOffset)
      first = region;
  }
  return first;
}

function isInside(
  region: Region,
  pfn: number,
  offset: number,
  lastPfn: number,
  lastOffset: number,
): boolean {
  return (
    !isBelow(pfn, offset, region.startPfn, region.startOffset) &&
    !isBelow(region.lastPfn, region.lastOffset, lastPfn, lastOffset)
  );
}

/** Hands the pieces of an access out that mappings cover from `first` on. */
function visit(
  mappings: RangeMap,
  first: number,
  pfn: number,
  offset: number,
  bytes: number,
  visitor: SegmentVisitor,
): void {
  let position = first;
  let atPfn = pfn;
  let atOffset = offset;
  let left = bytes;
  for (;;) {
    const endPfn = mappings.lastPfn(position);
    const endOffset = mappings.lastOffset(position);
    // Compared in frames first, since a mapping may have more bytes than a number holds exactly.
    const pages = endPfn - atPfn;
    const here =
      pages > left / PAGE_BYTES + 1
        ? left
        : Math.min(left, pages * PAGE_BYTES + endOffset - atOffset + 1);
    const into = atOffset - mappings.startOffset(position) + mappings.valueOffset(position);
    const carry = Math.floor(into / PAGE_BYTES);
    const physPfn = mappings.valuePfn(position) + (atPfn - mappings.startPfn(position)) + carry;
    visitor.segment(physPfn, into - carry * PAGE_BYTES, here);
    left -= here;
    if (left === 0) return;
    atPfn = endOffset === PAGE_BYTES - 1 ? endPfn + 1 : endPfn;
    atOffset = (endOffset + 1) % PAGE_BYTES;
    position = mappings.next(position);
  }
}
