/**
 * Recorded calls as the raw structures that go into a container, written into buffers that are used
 * again for each call.
 */

import { PFN_LAST } from "../../units.ts";
import {
  Bitmap,
  DirtyBitmapGet,
  DirtyPages,
  DmaMap,
  DmaUnmap,
  Type1Request,
} from "../../vfio/uapi/type1.ts";
import { viewOf } from "../../wire/layout.ts";
import type { VfioCall } from "../vfio-type1-row.ts";
import type { RecordedContainer } from "./recorded-container.ts";
import { BitmapMemory, regionVpn } from "./recorded-memory.ts";

/** Bytes behind the pointer of a call that is no known one. */
const OTHER_BYTES = 256;

/** Makes the calls; what an unmap left in its structure is kept until the next one. */
export class Type1Structures {
  unmappedPfn = 0;
  unmappedOffset = 0;
  readonly #map = new Uint8Array(DmaMap.bytes);
  readonly #unmap = new Uint8Array(DmaUnmap.bytes + Bitmap.bytes);
  readonly #dirty = new Uint8Array(DirtyPages.bytes + DirtyBitmapGet.bytes);
  readonly #mapView = viewOf(this.#map);
  readonly #unmapView = viewOf(this.#unmap);
  readonly #dirtyView = viewOf(this.#dirty);

  /** MAP_DMA. @returns the errno */
  map(container: RecordedContainer, call: VfioCall): number {
    const view = this.#mapView;
    // The region's address is a whole page, and sums wrap as the program's do.
    const vpn = (regionVpn(call.region) + call.offsetPfn) % (PFN_LAST + 1);
    DmaMap.set.argsz(view, 0, call.argsz);
    DmaMap.set.flags(view, 0, call.flags);
    DmaMap.setAddress.vaddr(view, 0, vpn, call.offsetOffset);
    DmaMap.setAddress.iova(view, 0, call.iovaPfn, call.iovaOffset);
    DmaMap.setAddress.size(view, 0, call.sizePfn, call.sizeOffset);
    return container.ioctl(Type1Request.MAP_DMA, this.#map).errno;
  }

  /** UNMAP_DMA. @returns the errno */
  unmap(container: RecordedContainer, call: VfioCall): number {
    const view = this.#unmapView;
    DmaUnmap.set.argsz(view, 0, call.argsz);
    DmaUnmap.set.flags(view, 0, call.flags);
    DmaUnmap.setAddress.iova(view, 0, call.iovaPfn, call.iovaOffset);
    DmaUnmap.setAddress.size(view, 0, call.sizePfn, call.sizeOffset);
    writeBitmap(view, DmaUnmap.bytes, call);
    const { errno, bytes } = container.ioctl(Type1Request.UNMAP_DMA, this.#unmap);
    const after = bytes === null ? view : viewOf(bytes);
    this.unmappedPfn = DmaUnmap.pfn.size(after, 0);
    this.unmappedOffset = DmaUnmap.pageOffset.size(after, 0);
    return errno;
  }

  /** DIRTY_PAGES. @returns the errno */
  dirty(container: RecordedContainer, call: VfioCall): number {
    const view = this.#dirtyView;
    const at = DirtyPages.bytes;
    DirtyPages.set.argsz(view, 0, call.argsz);
    DirtyPages.set.flags(view, 0, call.flags);
    DirtyBitmapGet.setAddress.iova(view, at, call.iovaPfn, call.iovaOffset);
    DirtyBitmapGet.setAddress.size(view, at, call.sizePfn, call.sizeOffset);
    writeBitmap(view, at + DirtyBitmapGet.at.bitmap, call);
    return container.ioctl(Type1Request.DIRTY_PAGES, this.#dirty).errno;
  }

  /** Any other call, with a pointer to bytes that say they are a structure. @returns the errno */
  other(container: RecordedContainer, call: VfioCall): number {
    const bytes = new Uint8Array(OTHER_BYTES);
    viewOf(bytes).setUint32(0, OTHER_BYTES / 4, true);
    return container.ioctl(call.request, bytes).errno;
  }
}

function writeBitmap(view: DataView, at: number, call: VfioCall): void {
  const { hasBitmap } = call;
  Bitmap.setAddress.pgsize(
    view,
    at,
    hasBitmap ? call.pgsizePfn : 0,
    hasBitmap ? call.pgsizeOffset : 0,
  );
  const bytes = hasBitmap ? call.bitmapBytes : 0;
  Bitmap.setAddress.size(view, at, Math.floor(bytes / 4096), bytes % 4096);
  Bitmap.set.data(view, at, hasBitmap ? BitmapMemory.ADDRESS : 0n);
}
