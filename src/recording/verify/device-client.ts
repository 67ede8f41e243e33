/** A device under test, asked by numbers: requests are written out and handed to it. */
import type { MemoryView } from "../../memory/memory-view.ts";
import { newView } from "../../memory/memory-view.ts";
import { highHalfOf, lowHalfOf } from "../../units.ts";
import type { VirtioIommuDevice } from "../../virtio/iommu/device.ts";
import {
  AttachRequest,
  DetachRequest,
  MapRequest,
  ProbeRequest,
  PropertyType,
  RequestType,
  ResvMemProperty,
  Status,
  TAIL_BYTES,
  UnmapRequest,
} from "../../virtio/iommu/protocol.ts";

/** A range by its first and last address, each as frame and offset. */
export interface ByteRange {
  readonly startPfn: number;
  readonly startOffset: number;
  readonly lastPfn: number;
  readonly lastOffset: number;
}

/** Whether two ranges are the same. */
export function isSameRange(a: ByteRange, b: ByteRange): boolean {
  return (
    a.startPfn === b.startPfn &&
    a.startOffset === b.startOffset &&
    a.lastPfn === b.lastPfn &&
    a.lastOffset === b.lastOffset
  );
}

/** A reserved region of a PROBE reply. */
export interface ReservedProperty {
  readonly subtype: number;
  readonly start: bigint;
  readonly last: bigint;
}

/** Sends requests to a device and gives their statuses. */
export class DeviceClient {
  readonly #device: VirtioIommuDevice;
  readonly #request: MemoryView = newView(ProbeRequest.bytes);
  readonly #reply: MemoryView;

  constructor(device: VirtioIommuDevice) {
    this.#device = device;
    this.#reply = newView(device.replyBytesMax);
  }

  attach(domain: number, endpoint: number): Status {
    const words = this.#request.u32;
    words[0] = RequestType.ATTACH;
    words[1] = domain;
    words[2] = endpoint;
    words[3] = 0;
    words[4] = 0;
    return this.#send(AttachRequest.bytes);
  }

  detach(domain: number, endpoint: number): Status {
    const words = this.#request.u32;
    words[0] = RequestType.DETACH;
    words[1] = domain;
    words[2] = endpoint;
    words[3] = 0;
    words[4] = 0;
    return this.#send(DetachRequest.bytes);
  }

  map(domain: number, range: ByteRange, physPfn: number, physOffset: number, flags: number) {
    const words = this.#request.u32;
    words[0] = RequestType.MAP;
    words[1] = domain;
    this.#setRange(range);
    words[6] = lowHalfOf(physPfn) + physOffset;
    words[7] = highHalfOf(physPfn);
    words[8] = flags;
    return this.#send(MapRequest.bytes);
  }

  unmap(domain: number, range: ByteRange): Status {
    const words = this.#request.u32;
    words[0] = RequestType.UNMAP;
    words[1] = domain;
    this.#setRange(range);
    words[6] = 0;
    return this.#send(UnmapRequest.bytes);
  }

  /** Asks for the reserved regions of an endpoint; null when it is unknown. */
  probe(endpoint: number): ReservedProperty[] | null {
    const words = this.#request.u32;
    words.fill(0);
    words[0] = RequestType.PROBE;
    words[1] = endpoint;
    const { u8 } = this.#reply;
    const used = this.#device.handle(this.#request, ProbeRequest.bytes, this.#reply, u8.length);
    if (used < TAIL_BYTES || u8[used - TAIL_BYTES] !== Status.OK) return null;
    const view = new DataView(u8.buffer, u8.byteOffset, used - TAIL_BYTES);
    const properties: ReservedProperty[] = [];
    for (let at = 0; at + ResvMemProperty.bytes <= view.byteLength; at += ResvMemProperty.bytes) {
      const { type, subtype, start, last } = ResvMemProperty.decode(view, at);
      if (type !== PropertyType.RESV_MEM) break;
      properties.push({ subtype, start, last });
    }
    return properties;
  }

  #setRange(range: ByteRange): void {
    const words = this.#request.u32;
    words[2] = lowHalfOf(range.startPfn) + range.startOffset;
    words[3] = highHalfOf(range.startPfn);
    words[4] = lowHalfOf(range.lastPfn) + range.lastOffset;
    words[5] = highHalfOf(range.lastPfn);
  }

  #send(bytes: number): Status {
    const used = this.#device.handle(this.#request, bytes, this.#reply, TAIL_BYTES);
    return used === TAIL_BYTES ? (this.#reply.u8[0] as Status) : Status.IOERR;
  }
}
