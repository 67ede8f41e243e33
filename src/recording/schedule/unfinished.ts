/**
 * Allocations that were still mapped when the recording ended: their size is known only by their
 * unmap, which is missing, so each segment of one looks like an allocation of its own.
 *
 * An address that was freed earlier in the recording comes back out of a cache with the size it was
 * freed with; otherwise segments that follow each other by address belong together, and the size is
 * rounded up as the allocator does.
 */
import { roundedPages } from "../../dma/iova-domain.ts";
import { OperationKind } from "../operation.ts";
import type { OperationColumns } from "../operation-columns.ts";

/** An allocation that grows by the segments that follow it. */
interface Open {
  readonly index: number;
  readonly startPfn: number;
  endPfn: number;
  /** Size it was freed with before; 0 when that is not known. */
  readonly knownPages: number;
}

/**
 * Gives unfinished allocations their size, in place.
 *
 * @returns which operations are segments of an earlier one, by index
 */
export function settleUnfinished(columns: OperationColumns): Uint8Array {
  const { count, kind, allocation, freeAt, iovaPfn, pages, pid } = columns;
  const isSegment = new Uint8Array(count);
  const freedPages = new Map<number, number>();
  const openOfTask = new Map<number, Open>();
  const opens: Open[] = [];
  for (let index = 0; index < count; index += 1) {
    const startPfn = iovaPfn[index]!;
    const isFree = kind[index] === OperationKind.free || kind[index] === OperationKind.freeBefore;
    if (isFree) freedPages.set(startPfn, pages[index]!);
    if (kind[index] !== OperationKind.allocate) continue;
    if (freeAt[allocation[index]!]! >= 0) {
      freedPages.delete(startPfn);
      continue;
    }
    const task = pid[index]!;
    const knownPages = freedPages.get(startPfn) ?? 0;
    const open = openOfTask.get(task);
    const limitPfn =
      open === undefined || open.knownPages === 0
        ? Number.POSITIVE_INFINITY
        : open.startPfn + open.knownPages;
    // What was freed as a range of its own is no segment of another one.
    const isKnown = knownPages > 0;
    if (!isKnown && open !== undefined && open.endPfn === startPfn && startPfn < limitPfn) {
      isSegment[index] = 1;
      open.endPfn = startPfn + pages[index]!;
      continue;
    }
    const fresh = {
      index,
      startPfn,
      endPfn: startPfn + pages[index]!,
      knownPages,
    };
    freedPages.delete(startPfn);
    openOfTask.set(task, fresh);
    opens.push(fresh);
  }
  for (const { index, startPfn, endPfn, knownPages } of opens) {
    const seen = endPfn - startPfn;
    pages[index] =
      knownPages >= seen ? knownPages : seen === pages[index] ? seen : roundedPages(seen);
  }
  return isSegment;
}
