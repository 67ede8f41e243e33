/**
 * The accelerator of a Kunpeng 920 behind its SMMU, on a process's address space and in a VM.
 *
 * Source of what was fitted: S. Lu, "Add IOPF support for VFIO passthrough", v2, 9 March 2021
 * (20210309062207.505-1), speeds in KB/s, and v3, 9 April 2021, slow-downs.
 */
import { PriceList } from "../price-list.ts";
import type { AcceleratorMachine } from "../workload/accelerator-run.ts";

const series = "S. Lu, Add IOPF support for VFIO passthrough, v2 and v3, 2021";

/** @param handlerNs - average time in the fault handler, one page mapped, as published */
function prices(handlerNs: number): PriceList {
  const page = { eachNs: 0, remoteUnitNs: 0, on: "fault handler", fittedOn: null } as const;
  const clearNs = 4096 / 13.7;
  const pinNs = 0.28e9 / (16 * 2 ** 18);
  const unpinNs = 0.312e9 / (16 * 2 ** 18);
  return new PriceList([
    {
      ...page,
      step: "pageFault",
      unitNs: clearNs,
      source: "clear_pages(): 13.7 GB/s in steps of 4 KiB (another machine, Milan)",
    },
    {
      ...page,
      step: "pagePin",
      unitNs: pinNs,
      source:
        "20250630072518.31846-1: 16 GiB pinned and mapped in 4 KiB pages, by page (another machine)",
    },
    { ...page, step: "pageUnpin", unitNs: unpinNs, source: "the same, unmapped and unpinned" },
    {
      ...page,
      step: "pageResponse",
      eachNs: handlerNs - clearNs / 2 - pinNs - unpinNs,
      unitNs: 0,
      // Half of the pages, the outputs, are cleared by the fault.
      source: `${series}: ${handlerNs} ns in the handler, less what its page costs`,
    },
  ]);
}

/** What both have: the speed of many messages without faults, 9 158 721 KB/s for 1000. */
const accelerator = { bytesPerSecond: 9.238e9 * 1.024, queue: [] } as const;

/** On a process's address space (SVA). */
export const sharedAccelerator: AcceleratorMachine = {
  ...accelerator,
  kind: "sva",
  prices: prices(2000),
  // 951 672 KB/s for one message of 1 MiB.
  startUpNs: 965_000,
  // Fitted on the slow-down of host SVA, 1 message.
  reportNs: 8_110,
  messages: 1,
  inFlight: { alone: 1, together: 1 },
};

/** In a VM, with the faults of VFIO. */
export const passedAccelerator: AcceleratorMachine = {
  ...accelerator,
  kind: "vfio",
  prices: prices(1600),
  // Fitted on the slow-down of VFIO, 1 message.
  startUpNs: 2_790_000,
  reportNs: 8_110,
  messages: 2,
  // Alone, a fault takes as long as on the host: 10.5 us by the speeds of v2. With more messages
  // 3.8 us are left of that, so that faults lie side by side; four is the whole number for it.
  inFlight: { alone: 1, together: 4 },
  // Six pages that the guest's driver uses, in three places: the 6 of 518, and the 3 of 13.
  queue: [
    { at: 0, pages: 2 },
    { at: 0x800, pages: 2 },
    { at: 0x1000, pages: 2 },
  ],
};
