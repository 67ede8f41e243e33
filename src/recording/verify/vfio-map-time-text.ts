/** Recorded VFIO mappings and their events in the words of rows, and what can be said of them. */
import { errnoName } from "../../errno.ts";
import { addressOf, hex, PFN_LAST } from "../../units.ts";
import type { FrameRun } from "../../vfio/process/frame-source.ts";
import { type EventsOfCalls, isInWindow } from "../events-of-calls.ts";
import type { MapEvents } from "../map-events.ts";
import type { TimedMapping } from "../vfio-map-time.ts";

/** An event in the words of a row. */
export interface EventText {
  readonly line: number;
  readonly text: string;
}

/** Letters in which two names begin alike. */
export function commonStart(a: string, b: string): number {
  let count = 0;
  while (count < a.length && a[count] === b[count]) count += 1;
  return count;
}

/** Whether a trace holds unmap events of the task where its calls map. */
export function hasUnmaps(events: MapEvents, { window }: EventsOfCalls): boolean {
  for (let index = 0; index < events.count; index += 1) {
    if (events.physPfns[index]! < 0 && isInWindow(events, window, index)) return true;
  }
  return false;
}

/** Whether frames can be those of a process: inside the space, and none of them twice. */
export function areFrames(runs: readonly FrameRun[]): boolean {
  const sorted = [...runs].sort((a, b) => a.pfn - b.pfn);
  return sorted.every(({ pfn, pages }, index) => {
    const next = sorted[index + 1];
    return (
      pfn >= 1 && pfn + pages - 1 <= PFN_LAST && (next === undefined || pfn + pages <= next.pfn)
    );
  });
}

export function mapText(pages: number, physPfn: number): string {
  return `map of ${hex(addressOf(pages))} bytes at ${hex(addressOf(physPfn))}`;
}

export function unmapText(pages: number, iovaPfn: number, doneBytes: number): string {
  const text = `unmap of ${hex(addressOf(pages))} bytes at ${hex(addressOf(iovaPfn))}`;
  return doneBytes === pages * 4096 ? text : `${text} that removed ${hex(BigInt(doneBytes))}`;
}

export function mappingText({ kind, isHuge, pages }: TimedMapping): string {
  const huge = isHuge === true ? " with huge pages" : "";
  return `${kind === "bar" ? "BAR" : "anonymous memory"}${huge}, ${hex(addressOf(pages))} bytes`;
}

export function answerText(
  mapping: TimedMapping,
  errno: number,
  unmapErrno: number,
  unmapped: bigint,
): string {
  const parts = [`map ${errnoName(errno)}`];
  if (mapping.unmapErrno !== null) parts.push(`unmap ${errnoName(unmapErrno)}`);
  if (mapping.unmapped !== null) parts.push(`unmapped ${hex(unmapped)}`);
  return parts.join(", ");
}
