/**
 * Capabilities that any function may have: MSI-X, and PCI Express for one that sits on such a bus.
 *
 * Source: PCI Local Bus specification 3.0, 6.8.2; PCI Express Base specification 6.0, 7.5.3;
 * include/uapi/linux/pci_regs.h.
 */
import { assert } from "../errors.ts";
import type { Capability } from "./config-space.ts";

/** IDs. */
export const CapabilityId = { VENDOR: 0x09, EXPRESS: 0x10, MSIX: 0x11 } as const;

/** Bytes of a vector's entry in the MSI-X table. */
export const MSIX_ENTRY_BYTES = 16;
/** Where {@link msixCapability} puts the pending bits, behind the table in the same BAR. */
const MSIX_VECTORS_MAX = 2048;
const EXPRESS_BYTES = 60;

/** Where the pending bits of a table start in its BAR. */
export function msixPendingAt(vectors: number): number {
  return Math.max(0x800, 2 ** Math.ceil(Math.log2(vectors * MSIX_ENTRY_BYTES)));
}

/** Size of a BAR for a table and its pending bits. */
export function msixBarBytes(vectors: number): number {
  return Math.max(0x1000, 2 * msixPendingAt(vectors));
}

/** MSI-X with table and pending bits in a BAR of their own, so that others can be mapped. */
export function msixCapability(vectors: number, bar: number): Capability {
  assert(vectors >= 1 && vectors <= MSIX_VECTORS_MAX, "MSI-X has 1 … 2048 vectors");
  const view = new DataView(new ArrayBuffer(12));
  view.setUint8(0, CapabilityId.MSIX);
  view.setUint16(2, vectors - 1, true);
  view.setUint32(4, bar, true);
  view.setUint32(8, msixPendingAt(vectors) | bar, true);
  const writable = new Uint8Array(12);
  // Function mask and enable.
  writable[3] = 0xc0;
  return { bytes: new Uint8Array(view.buffer), writable };
}

/** PCI Express, version 2, of an endpoint without a reset of its own. */
export function expressCapability(): Capability {
  const view = new DataView(new ArrayBuffer(EXPRESS_BYTES));
  view.setUint8(0, CapabilityId.EXPRESS);
  view.setUint16(2, 2, true);
  // Role-based error reporting; 2.5 GT/s by one lane, as link and as link capability.
  view.setUint32(4, 0x8000, true);
  view.setUint32(0x0c, 0x11, true);
  view.setUint16(0x12, 0x11, true);
  const writable = new Uint8Array(EXPRESS_BYTES);
  // Device control without the bit that starts a reset.
  writable[8] = 0xff;
  writable[9] = 0x7f;
  return { bytes: new Uint8Array(view.buffer), writable };
}
