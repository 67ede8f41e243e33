/**
 * Reading of one chain out of the rings and tables that a driver, who may be hostile, has written:
 * each descriptor is read once, and no more of them than the queue has.
 *
 * Source: virtio specification 1.3, "Split Virtqueues"; V133–V145 of the reference "virtio-iommu".
 * Speed: bench/virtqueue.bench.ts.
 */
import type { DeviceMemory } from "../memory/device-memory.ts";
import { addressOfHalves } from "../memory/guest-memory.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import {
  CHAIN_BYTES_MAX,
  DESCRIPTOR_BYTES,
  DescriptorFlag,
  type QueueFaultReason,
} from "./virtqueue-layout.ts";
import type { SplitRing } from "./virtqueue-ring.ts";
import type { Chain } from "./virtqueue-segments.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;
const NOT_NEGOTIATED = "indirect-not-negotiated";

/** Reads chains. */
export class ChainReader {
  /** Why the last chain is malformed. */
  reason: QueueFaultReason = "head-range";
  /** The value that is wrong. */
  value = 0;
  /** Indirect tables that lie in more than one piece are read from here. */
  #scratch: MemoryView | null = null;

  /** Reads a chain's descriptors, each once, into the list. @returns false when it is malformed */
  read(ring: SplitRing, head: number, hasIndirect: boolean, chain: Chain): boolean {
    const { memory, size } = ring;
    chain.clear();
    let words = ring.table;
    let base = ring.tableAt;
    let limit = size;
    let index = head;
    let isIndirect = false;
    // A table's pointer is not counted, its entries are: so a loop ends after `size` steps.
    for (let steps = 0; steps < size; ) {
      let at = base + 4 * index;
      if (ring.isPaged && !isIndirect) {
        at = ring.descriptorAt(index);
        words = ring.table;
      }
      const low = words[at]!;
      const high = words[at + 1]!;
      const length = words[at + 2]!;
      const last = words[at + 3]!;
      const flags = last & 0xffff;
      if ((flags & INDIRECT) !== 0) {
        const reason = hasIndirect ? tableFault(length, flags, size, isIndirect) : NOT_NEGOTIATED;
        if (reason !== null) return this.#malformed(reason, index);
        const table = this.#tableAt(memory, low, high, length);
        if (table === null) return this.#malformed("indirect-outside-memory", index);
        words = table.u32;
        base = table === this.#scratch ? 0 : memory.at >> 2;
        limit = length / DESCRIPTOR_BYTES;
        index = 0;
        isIndirect = true;
        continue;
      }
      steps += 1;
      const isWritable = (flags & WRITE) !== 0;
      if (!isWritable && chain.count > chain.readableCount)
        return this.#malformed("readable-after-writable", index);
      if (length > 0) {
        // Behind an IOMMU a buffer that is refused fails its request, not the queue.
        if (
          !ring.isPaged &&
          memory.locateHalves(low, high, length, false) === null &&
          !memory.contains(addressOfHalves(low, high), length)
        )
          return this.#malformed("buffer-outside-memory", index);
        chain.addHalves(low, high, length);
        if (isWritable) chain.writableBytes += length;
        else {
          chain.readableBytes += length;
          chain.readableCount += 1;
        }
      }
      if ((flags & NEXT) === 0) {
        if (chain.readableBytes + chain.writableBytes <= CHAIN_BYTES_MAX) return true;
        return this.#malformed("chain-bytes", head);
      }
      index = last >>> 16;
      if (index >= limit) return this.#malformed("next-range", index);
    }
    return this.#malformed("chain-too-long", head);
  }

  /** An indirect table in one piece, at `memory.at`, or a copy of it; null outside memory. */
  #tableAt(memory: DeviceMemory, low: number, high: number, length: number): MemoryView | null {
    const view = memory.locateHalves(low, high, length, false);
    if (view !== null && (memory.at & 3) === 0) return view;
    if (this.#scratch === null || this.#scratch.u8.length < length) this.#scratch = newView(length);
    return memory.copyOutHalves(low, high, this.#scratch, 0, length) ? this.#scratch : null;
  }

  #malformed(reason: QueueFaultReason, value: number): false {
    this.reason = reason;
    this.value = value;
    return false;
  }
}

/** Why a descriptor cannot lead to an indirect table, or null. */
function tableFault(
  length: number,
  flags: number,
  size: number,
  isIndirect: boolean,
): QueueFaultReason | null {
  if (isIndirect) return "indirect-nested";
  if ((flags & NEXT) !== 0) return "indirect-with-next";
  if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return "indirect-length";
  return length > DESCRIPTOR_BYTES * size ? "indirect-length" : null;
}
