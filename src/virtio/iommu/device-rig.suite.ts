/** A device and a way to send it requests as bytes and read the answers: for tests. */
import { newView } from "../../memory/memory-view.ts";
import type { Meter } from "../../meter.ts";
import { offsetOf, pfnOf } from "../../units.ts";
import { type Fields, type Layout, viewOf } from "../../wire/layout.ts";
import { VirtioIommuDevice } from "./device.ts";
import { type IommuConfig, X86_MSI_REGION } from "./device-config.ts";
import { Translation } from "./device-translate.ts";
import {
  AttachRequest,
  DetachRequest,
  FaultRecord,
  FEATURES_ALL,
  MapRequest,
  ProbeRequest,
  RequestType,
  ResvMemProperty,
  Status,
  statusName,
  UnmapRequest,
} from "./protocol.ts";

/** A piece of a translated access. */
export interface Piece {
  readonly phys: bigint;
  readonly bytes: number;
}

/** What an access gave: pieces, an interrupt, or a fault. */
export type AccessResult =
  | readonly Piece[]
  | "msi"
  | { readonly reason: number; readonly address: bigint };

/** An answer: used length, and the writable part. */
export interface Answer {
  readonly used: number;
  readonly bytes: Uint8Array;
}

/** Three endpoints with the doorbell of x86, granule 1 unless the settings say otherwise. */
export const ENDPOINTS = [8, 16, 24].map((id) => ({ id, reserved: [X86_MSI_REGION] }));

/** A device under test. */
export class Rig {
  readonly device: VirtioIommuDevice;
  readonly #readable = newView(4096);
  readonly #writable = newView(0x1_0100);

  constructor(settings: Partial<IommuConfig> = {}, features = FEATURES_ALL, meter?: Meter) {
    this.device = new VirtioIommuDevice(
      { pageSizeMask: 1n, bypass: false, endpoints: ENDPOINTS, ...settings },
      meter,
    );
    this.device.negotiate(features);
  }

  /** Sends bytes. The writable part is filled with 0xaa first, to show what is written. */
  send(request: Uint8Array, writableBytes: number): Answer {
    this.#readable.u8.fill(0xcc);
    this.#readable.u8.set(request);
    this.#writable.u8.fill(0xaa);
    const used = this.device.handle(this.#readable, request.length, this.#writable, writableBytes);
    return { used, bytes: this.#writable.u8.slice(0, writableBytes) };
  }

  /** Sends a request of fixed size and gives the name of its status. */
  status(request: Uint8Array): string {
    const { used, bytes } = this.send(request, 4);
    if (used !== 4 || bytes[1] !== 0 || bytes[2] !== 0 || bytes[3] !== 0)
      return `used ${used}: ${[...bytes].join(" ")}`;
    return statusName(bytes[0]!);
  }

  attach(domain: number, endpoint: number, flags = 0, mustBeZero = 0): string {
    return this.status(attachBytes(domain, endpoint, flags, mustBeZero));
  }

  detach(domain: number, endpoint: number): string {
    return this.status(DetachRequest.bytesOf({ type: RequestType.DETACH, domain, endpoint }));
  }

  map(domain: number, start: bigint, last: bigint, phys = start, flags = 3): string {
    return this.status(mapBytes(domain, start, last, phys, flags));
  }

  unmap(domain: number, start: bigint, last: bigint): string {
    return this.status(unmapBytes(domain, start, last));
  }

  /** Sends PROBE with room for exactly the answer. */
  probe(endpoint: number): { status: string; properties: Uint8Array; used: number } {
    const room = this.device.config.probeSize + 4;
    const request = ProbeRequest.bytesOf({ type: RequestType.PROBE, endpoint });
    const { used, bytes } = this.send(request, room);
    return {
      status: statusName(bytes[room - 4]!),
      properties: bytes.slice(0, room - 4),
      used,
    };
  }

  /** Reserved regions that PROBE tells of. */
  regions(endpoint: number): { subtype: number; start: bigint; last: bigint }[] {
    const { status, properties } = this.probe(endpoint);
    if (status !== statusName(Status.OK)) return [];
    const view = viewOf(properties);
    const regions = [];
    for (let at = 0; at + ResvMemProperty.bytes <= properties.length; ) {
      const { type, length, subtype, start, last } = ResvMemProperty.decode(view, at);
      if (type === 0) break;
      regions.push({ subtype, start, last });
      at += length + 4;
    }
    return regions;
  }

  /** Accesses memory as an endpoint does. `access`: 1 reads, 2 writes. */
  access(endpoint: number, address: bigint, bytes: number, access = 1): AccessResult {
    const pieces: Piece[] = [];
    const result = this.device.translate(
      endpoint,
      pfnOf(address),
      offsetOf(address),
      bytes,
      access,
      {
        segment(pfn, offset, count) {
          pieces.push({ phys: (BigInt(pfn) << 12n) + BigInt(offset), bytes: count });
        },
      },
    );
    if (result === Translation.MSI) return "msi";
    if (result === Translation.OK) return pieces;
    const { reason, pfn, offset } = this.device.fault;
    return { reason, address: (BigInt(pfn) << 12n) + BigInt(offset) };
  }

  /** Whether an endpoint reaches an address, and where: the physical address, or null. */
  reach(endpoint: number, address: bigint, access = 1): bigint | null {
    const result = this.access(endpoint, address, 1, access);
    return Array.isArray(result) ? (result as readonly Piece[])[0]!.phys : null;
  }

  /** Takes the fault records that wait. */
  takeFaults(): { reason: number; flags: number; endpoint: number; address: bigint }[] {
    const { faults } = this.device;
    const records = [];
    const bytes = new Uint8Array(FaultRecord.bytes);
    while (faults.count > 0) {
      bytes.fill(0xff);
      faults.encodeFirst(viewOf(bytes));
      const { reason, flags, endpoint, address, reserved } = FaultRecord.decode(viewOf(bytes));
      if (reserved.some((byte) => byte !== 0)) throw new Error("reserved bytes are zero (V117)");
      records.push({ reason, flags, endpoint, address });
      faults.removeFirst();
    }
    return records;
  }

  /** Every mapping of every domain, as text. */
  mappings(): string[] {
    return this.device.domainIds.flatMap((domain) =>
      [...this.device.mappingsOf(domain)!.entries()].map(
        ({ start, last, value, flags }) => `${domain}: ${start}-${last} -> ${value} ${flags}`,
      ),
    );
  }

  /** Everything that a request may change, as text. */
  snapshot(): string {
    const attached = this.device.config.endpoints.map(({ id }) => this.device.domainOf(id));
    return JSON.stringify([attached, this.device.domainIds, this.mappings()]);
  }
}

export function attachBytes(domain: number, endpoint: number, flags = 0, mustBeZero = 0) {
  return AttachRequest.bytesOf({ type: RequestType.ATTACH, domain, endpoint, flags, mustBeZero });
}

export function mapBytes(domain: number, start: bigint, last: bigint, phys: bigint, flags: number) {
  const type = RequestType.MAP;
  return MapRequest.bytesOf({
    type,
    domain,
    virtStart: start,
    virtEnd: last,
    physStart: phys,
    flags,
  });
}

export function unmapBytes(domain: number, start: bigint, last: bigint) {
  return UnmapRequest.bytesOf({
    type: RequestType.UNMAP,
    domain,
    virtStart: start,
    virtEnd: last,
  });
}

/** Request bytes with reserved bytes set to something. */
export function withReserved<F extends Fields>(
  layout: Layout<F>,
  request: Uint8Array,
  byte = 0x5a,
) {
  const bytes = request.slice();
  for (const position of layout.reservedAt) bytes[position] = byte;
  return bytes;
}
