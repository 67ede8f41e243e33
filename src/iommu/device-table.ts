/**
 * What an IOMMU knows about the devices behind it: root and context tables, by requester id, with
 * the PASIDs of each.
 *
 * Source: Intel VT-d specification, 3.4 "Translation Table Entries" (root table by bus, context
 * table by device and function); virtio 1.3, 5.13.6.7 for the ranges that are set apart.
 */
import { assert } from "../errors.ts";
import type { AtsCache } from "./ats-cache.ts";
import type { PageTable } from "./page-table.ts";
import { NO_PASID, PASID_LAST } from "./tag-array.ts";

/** What the DMA of a device, or of one of its PASIDs, goes through. */
export type Attachment =
  | { readonly kind: "blocked" }
  | { readonly kind: "identity" }
  | PagedAttachment;

/** DMA goes through a page table. */
export interface PagedAttachment {
  readonly kind: "paged";
  readonly table: PageTable;
  /** The unit's number for the domain: the tag of what is cached. */
  readonly domainId: number;
  /** PASID tag of what is cached; `NO_PASID` where the unit tags by domain alone. */
  readonly pasidTag: number;
  /** Whether the unit caches that a frame is not mapped. */
  readonly cachesAbsent: boolean;
}

/** A range of I/O virtual addresses that is not translated. */
export interface AddressWindow {
  readonly firstPfn: number;
  /** Inclusive. */
  readonly lastPfn: number;
  /** `msi`: writes are interrupts and no memory access; `reserved`: every access faults. */
  readonly kind: "msi" | "reserved";
}

/** A device's entry. */
export interface DeviceEntry {
  readonly rid: number;
  /** Null while nothing was ever attached, or it was taken away. */
  attachment: Attachment | null;
  readonly byPasid: Map<number, Attachment>;
  ats: AtsCache | null;
  windows: readonly AddressWindow[];
  /** NUMA node that the device is on, −1 when nobody says. */
  node: number;
}

const RIDS = 65536;
const DEVFNS = 256;

/** Entries by requester id (bus << 8 | devfn). */
export class DeviceTable {
  readonly #byBus: (DeviceEntry | null)[][] = Array.from({ length: RIDS / DEVFNS }, () => []);
  readonly #windows: readonly AddressWindow[];

  /** @param windows - of devices that do not have their own */
  constructor(windows: readonly AddressWindow[]) {
    this.#windows = windows;
  }

  /** A device's entry, or null when nothing is known about it. */
  find(rid: number): DeviceEntry | null {
    const bus = this.#byBus[rid >>> 8];
    if (bus === undefined || bus.length === 0) return null;
    return bus[rid & 255] ?? null;
  }

  /** A device's entry, made where it is missing. */
  ensure(rid: number): DeviceEntry {
    assert(Number.isInteger(rid) && rid >= 0 && rid < RIDS, "a requester id has 16 bits");
    const bus = this.#byBus[rid >>> 8]!;
    if (bus.length === 0) for (let devfn = 0; devfn < DEVFNS; devfn += 1) bus.push(null);
    let entry = bus[rid & 255] ?? null;
    if (entry === null) {
      const byPasid = new Map<number, Attachment>();
      entry = { rid, attachment: null, byPasid, ats: null, windows: this.#windows, node: -1 };
      bus[rid & 255] = entry;
    }
    return entry;
  }

  /** What a request goes through; null when it is not attached. */
  attachmentOf(entry: DeviceEntry, pasid: number): Attachment | null {
    return pasid === NO_PASID ? entry.attachment : (entry.byPasid.get(pasid) ?? null);
  }

  /** Attaches a device, or one of its PASIDs; null takes the attachment away. */
  attach(rid: number, pasid: number, attachment: Attachment | null): DeviceEntry {
    const entry = this.ensure(rid);
    if (pasid === NO_PASID) {
      entry.attachment = attachment;
      return entry;
    }
    assert(pasid >= 0 && pasid <= PASID_LAST, "a PASID has 20 bits");
    if (attachment === null) entry.byPasid.delete(pasid);
    else entry.byPasid.set(pasid, attachment);
    return entry;
  }
}
