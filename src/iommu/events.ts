/**
 * The text of the kernel's `iommu:*` trace events, after the event's name.
 *
 * Ends of ranges are exclusive there, and wrap to 0 at the top of the address space; sizes are
 * decimal bytes. Source: include/trace/events/iommu.h.
 */
import { hex, PAGE_BYTES } from "../units.ts";

const address = (bytes: bigint) => hex(BigInt.asUintN(64, bytes), 16);
const bytesOf = (frames: number) => BigInt(frames) * BigInt(PAGE_BYTES);

/** `add_device_to_group` and `remove_device_from_group`. */
export function groupEventText(groupId: number, device: string): string {
  return `IOMMU: groupID=${groupId} device=${device}`;
}

/** `attach_device_to_domain`. */
export function attachEventText(device: string): string {
  return `IOMMU: device=${device}`;
}

/**
 * `map`.
 *
 * @param pages - frames really mapped, 0 after a failure
 */
export function mapEventText(iovaPfn: number, physPfn: number, pages: number): string {
  const iova = bytesOf(iovaPfn);
  const size = bytesOf(pages);
  const range = `${address(iova)} - ${address(iova + size)}`;
  return `IOMMU: iova=${range} paddr=${address(bytesOf(physPfn))} size=${size}`;
}

/**
 * `unmap`.
 *
 * @param pages - frames asked for
 * @param unmappedPages - frames really unmapped
 */
export function unmapEventText(iovaPfn: number, pages: number, unmappedPages: number): string {
  const iova = bytesOf(iovaPfn);
  const size = bytesOf(pages);
  const range = `${address(iova)} - ${address(iova + size)}`;
  return `IOMMU: iova=${range} size=${size} unmapped_size=${bytesOf(unmappedPages)}`;
}

/** `io_page_fault`. */
export function faultEventText(driver: string, device: string, iova: bigint, flags: number) {
  return `IOMMU:${driver} ${device} iova=${address(iova)} flags=${hex(flags, 4)}`;
}
