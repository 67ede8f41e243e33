/**
 * Memory of a recorded process: the regions that its calls name, each far from the others, and the
 * bitmaps that calls hand in.
 */
import { assert } from "../../errors.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { contiguousFrames } from "../../vfio/process/frame-source.ts";
import type { UserMemory } from "../../vfio/uapi/user-memory.ts";
import type { PageSort, VfioRegion } from "../vfio-type1-row.ts";

/** First page of the first region, and the distance to the next. */
const FIRST_VPN = 0x7_0000_0000;
const REGION_SPACING = 2 ** 21;
const FIRST_PFN = 0x10_0000;
const FRAMES = 2 ** 30;

/** First virtual page of a region. */
export function regionVpn(index: number): number {
  return FIRST_VPN + index * REGION_SPACING;
}

/** A process's memory with some regions. */
export function recordedMemory(regions: readonly VfioRegion[]): AddressSpace {
  const space = new AddressSpace({
    frames: contiguousFrames({ basePfn: FIRST_PFN, pages: FRAMES }),
  });
  for (const [index, { pages, sorts }] of regions.entries()) {
    assert(pages < REGION_SPACING, "regions lie apart");
    let first = 0;
    for (let page = 1; page <= pages; page += 1) {
      if (page < pages && sortAt(sorts, page) === sortAt(sorts, first)) continue;
      const sort = sortAt(sorts, first);
      if (sort !== "x") mapPages(space, regionVpn(index) + first, page - first, sort);
      first = page;
      if (sorts.length === 1) break;
    }
  }
  return space;
}

function sortAt(sorts: readonly PageSort[], page: number): PageSort {
  return sorts.length === 1 ? sorts[0]! : sorts[page]!;
}

function mapPages(space: AddressSpace, vpn: number, pages: number, sort: PageSort): void {
  const errno = space.mmap({
    vpn,
    pages,
    backing: { kind: "anonymous", isHuge: false },
    isReadable: sort !== "n",
    isWritable: sort === "w",
  });
  assert(errno === 0, "a region is mapped");
}

/** Bytes of a bitmap that are kept; what a call writes behind them is taken and forgotten. */
const KEPT_BYTES = 64 * 1024;

/** Where calls find the bitmap that they are handed. */
export class BitmapMemory implements UserMemory {
  /** Its address. */
  static readonly ADDRESS = 0x7000_0000_0000n;
  readonly bytes: Uint8Array = new Uint8Array(KEPT_BYTES);
  #used = 0;

  /** Fills it with zeros. */
  clear(): void {
    this.bytes.fill(0, 0, this.#used);
    this.#used = 0;
  }

  read(address: bigint, out: Uint8Array): boolean {
    const at = Number(address - BitmapMemory.ADDRESS);
    out.fill(0);
    if (at >= 0 && at < KEPT_BYTES) out.set(this.bytes.subarray(at, at + out.length));
    return at >= 0;
  }

  write(address: bigint, bytes: Uint8Array): boolean {
    const at = Number(address - BitmapMemory.ADDRESS);
    if (at < 0) return false;
    const kept = Math.max(0, Math.min(bytes.length, KEPT_BYTES - at));
    this.bytes.set(bytes.subarray(0, kept), Math.min(at, KEPT_BYTES));
    this.#used = Math.max(this.#used, Math.min(KEPT_BYTES, at + kept));
    return true;
  }
}
