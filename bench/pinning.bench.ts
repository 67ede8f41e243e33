/** Pinning of a process's memory: 16 GiB of scattered pages, and long runs. */
import { NULL_METER } from "../src/meter.ts";
import { AddressSpace } from "../src/vfio/process/address-space.ts";
import { contiguousFrames, scatteredFrames } from "../src/vfio/process/frame-source.ts";
import { createPinRun } from "../src/vfio/process/process-memory.ts";
import type { Benchmark } from "./harness.ts";

const PAGES_16_GIB = 2 ** 22;
const BATCH_PAGES = 512;
const VPN = 2 ** 24;

function mix(hash: number, value: number): number {
  return Math.imul(hash ^ value, 0x0100_0193);
}

function createSpace(pages: number, unitPages: number): AddressSpace {
  const stretch = { basePfn: 2 ** 20, pages: pages * 2 };
  const frames =
    unitPages === 0
      ? contiguousFrames(stretch)
      : scatteredFrames({ ...stretch, unitPages, seed: 1 });
  const space = new AddressSpace({ frames, meter: NULL_METER });
  space.mmap({ vpn: VPN, pages, backing: { kind: "anonymous", isHuge: unitPages >= BATCH_PAGES } });
  return space;
}

const run = createPinRun();

/** Pins all there is and unpins it again, run by run. */
function pinAll(space: AddressSpace, pages: number): number {
  let hash = 0;
  for (let page = 0; page < pages; ) {
    const errno = space.pinRun(VPN + page, pages - page, true, BATCH_PAGES, run);
    if (errno !== 0) return errno;
    hash = mix(hash, run.pfn);
    page += run.pages;
  }
  return hash;
}

function unpinAll(space: AddressSpace, pages: number): void {
  for (let page = 0; page < pages; page += 1) space.unpin(space.frameAt(VPN + page), 1, true);
}

function pinTouched(unitPages: number, label: string, target: Benchmark["target"]): Benchmark {
  return {
    name: `pinning/${label}`,
    unit: "page",
    target: target ?? null,
    prepare(scale) {
      const units = Math.max(2 ** 12, Math.round(PAGES_16_GIB * scale));
      const space = createSpace(units, unitPages);
      space.touch(VPN, units, true);
      const round = () => pinAll(space, units);
      return { units, round };
    },
  };
}

/** Memory that nobody touched yet: each page is faulted in by its pin. */
const pinFresh: Benchmark = {
  name: "pinning/pin-fault-16-gib scattered",
  unit: "page",
  prepare(scale) {
    const units = Math.max(2 ** 12, Math.round(PAGES_16_GIB * scale));
    const round = () => pinAll(createSpace(units, 1), units);
    return { units, round };
  },
};

/** What a mapping costs and gives back: pinned and unpinned. */
const pinUnpin: Benchmark = {
  name: "pinning/pin-unpin-16-gib scattered",
  unit: "page",
  prepare(scale) {
    const units = Math.max(2 ** 12, Math.round(PAGES_16_GIB * scale));
    const space = createSpace(units, 1);
    space.touch(VPN, units, true);
    const round = () => {
      const hash = pinAll(space, units);
      unpinAll(space, units);
      return hash;
    };
    return { units, round };
  },
};

export const benchmarks: readonly Benchmark[] = [
  pinTouched(1, "pin-16-gib scattered", { perSecond: 20e6 }),
  pinTouched(BATCH_PAGES, "pin-16-gib huge-pages", null),
  pinTouched(0, "pin-16-gib contiguous", null),
  pinFresh,
  pinUnpin,
];
