/**
 * Chains of capabilities, as GET_INFO calls of VFIO append them to their structures.
 *
 * Source: drivers/vfio/vfio_main.c: vfio_info_cap_add, vfio_info_cap_shift; include/uapi/linux/
 * vfio.h, struct vfio_info_cap_header. Each capability is padded to 8 bytes; `next` counts from
 * the start of the structure that the chain belongs to.
 */
import { alignUp } from "../../units.ts";
import { viewOf } from "../../wire/layout.ts";
import { CapabilityHeader } from "./type1.ts";

/** A capability: its bytes begin with the header, of which `next` is not looked at. */
export interface Capability {
  readonly id: number;
  readonly version: number;
  readonly bytes: Uint8Array;
}

/** Bytes of a chain. */
export function chainBytes(capabilities: readonly Capability[]): number {
  return capabilities.reduce((sum, each) => sum + alignUp(each.bytes.length, 8), 0);
}

/** A chain that follows `offset` bytes of structure. */
export function encodeChain(capabilities: readonly Capability[], offset: number): Uint8Array {
  const out = new Uint8Array(chainBytes(capabilities));
  const view = viewOf(out);
  let at = 0;
  capabilities.forEach((capability, index) => {
    const end = at + alignUp(capability.bytes.length, 8);
    out.set(capability.bytes, at);
    CapabilityHeader.set.id(view, at, capability.id);
    CapabilityHeader.set.version(view, at, capability.version);
    const isLast = index === capabilities.length - 1;
    CapabilityHeader.set.next(view, at, isLast ? 0 : offset + end);
    at = end;
  });
  return out;
}

/**
 * Reads a chain, as a user of the kernel does.
 *
 * @param bytes - the whole structure
 * @param first - its `cap_offset`; 0 for no chain
 * @returns the capabilities up to one that lies outside or that was there before
 */
export function decodeChain(bytes: Uint8Array, first: number): Capability[] {
  const view = viewOf(bytes);
  const starts: number[] = [];
  for (let at = first; at !== 0; ) {
    if (at + CapabilityHeader.bytes > bytes.length || starts.includes(at)) break;
    starts.push(at);
    at = CapabilityHeader.get.next(view, at);
  }
  const bounds = [...starts, bytes.length].sort((a, b) => a - b);
  return starts.map((at) => ({
    id: CapabilityHeader.get.id(view, at),
    version: CapabilityHeader.get.version(view, at),
    bytes: bytes.slice(at, bounds[bounds.lastIndexOf(at) + 1]),
  }));
}
