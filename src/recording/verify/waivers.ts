/**
 * Every waiver there is: why a row of a recording may differ from what our stack does and yet not
 * count against it, each with the clause that says so. Departures of peer devices are the quirks of
 * src/virtio/iommu/quirks.ts under their own names; the rest is what a recording cannot tell.
 */
import { QUIRKS, type QuirkName } from "../../virtio/iommu/quirks.ts";

/** A waiver. */
export interface Waiver {
  readonly name: string;
  /** Where the right to differ is written. */
  readonly clause: string;
  /** What differs, in one line. */
  readonly does: string;
}

/** Waivers that are no quirk of a peer. */
export const RECORDING_WAIVERS = {
  "trace-names-no-domain": {
    clause: "include/trace/events/iommu.h: map and unmap carry neither device nor domain",
    does: "a mapping shares addresses with another one, and both were unmapped as a whole: two domains",
  },
  "trace-lost-events": {
    clause: "kernel/trace/trace.c: the ring buffer overwrites what is not read in time",
    does: "an event does not fit what was recorded, in a recording that says it lost events",
  },
  "trace-begins-later": {
    clause: "kernel/trace/trace.c: tracing_on starts a recording at any time",
    does: "a call has no events in a trace whose first event is that of a later call",
  },
  "trace-user-chosen-iova": {
    clause: "drivers/vfio/vfio_iommu_type1.c: in a domain of VFIO the user chooses the addresses",
    does: "an address that the DMA API never gives, mapped by a task that maps whole guests",
  },
  "log-other-thread": {
    clause: "QEMU docs/devel/tracing.rst: threads write to one log, each when it gets there",
    does: "a translation stands on the other side of the request that changed it",
  },
} as const satisfies Record<string, Omit<Waiver, "name">>;

/** Name of a waiver that is no quirk. */
export type RecordingWaiverName = keyof typeof RECORDING_WAIVERS;

/** Name of any waiver. */
export type WaiverName = RecordingWaiverName | QuirkName;

/** All waivers by name. */
export const WAIVERS: readonly Waiver[] = [
  ...Object.entries(RECORDING_WAIVERS).map(([name, waiver]) => ({ name, ...waiver })),
  ...Object.entries(QUIRKS).map(([name, { clause, does }]) => ({ name, clause, does })),
];

const byName = new Map(WAIVERS.map((waiver) => [waiver.name, waiver]));

/** Finds a waiver; `undefined` for a name that is none. */
export function waiverOf(name: string): Waiver | undefined {
  return byName.get(name);
}
