/** Attaching a group that needs a domain of its own: what the container has mapped is replayed. */

import { claimGroup } from "../src/iommu/attach.ts";
import { VfioTask } from "../src/vfio/file.ts";
import { connect, mapMemory } from "../src/vfio/host/connect.ts";
import { buildHost } from "../src/vfio/host/host.ts";
import { AddressSpace } from "../src/vfio/process/address-space.ts";
import { contiguousFrames, scatteredFrames } from "../src/vfio/process/frame-source.ts";
import { UserProcess } from "../src/vfio/process/user-process.ts";
import { attachGroup } from "../src/vfio/type1/attach.ts";
import { Type1Backend } from "../src/vfio/type1/backend.ts";
import { detachGroup } from "../src/vfio/type1/detach.ts";
import type { UnmapMode } from "../src/vfio/type1/type1.ts";
import type { Benchmark } from "./harness.ts";

const NEAR = "0000:10:00.0";
const FAR = "0000:90:00.0";
const FIRST_VPN = 2 ** 24;
/** Above the interrupt window, so that any length is allowed. */
const FIRST_IOVA_PFN = 2 ** 20;

/** @param unitPages - frames side by side; 0 for all of them */
function setup(mappings: number, pages: number, unitPages: number, unmapMode: UnmapMode) {
  const host = buildHost(
    {
      nodes: [{ memory: 2 ** 28 }, { memory: 2 ** 28 }],
      units: [
        { name: "dmar0", node: 0 },
        { name: "dmar1", node: 1, snoopControl: false },
      ],
      devices: [
        { address: NEAR, unit: "dmar0" },
        { address: FAR, unit: "dmar1" },
      ],
    },
    { backends: [new Type1Backend({ unmapMode })] },
  );
  const all = mappings * pages;
  const stretch = { basePfn: 2 ** 25, pages: all };
  const frames =
    unitPages === 0
      ? contiguousFrames(stretch)
      : scatteredFrames({ ...stretch, unitPages, seed: 1 });
  const memory = new AddressSpace({ frames });
  const isHuge = unitPages === 0;
  memory.mmap({ vpn: FIRST_VPN, pages: all, backing: { kind: "anonymous", isHuge } });
  const task = new VfioTask({ process: new UserProcess({ memory }) });
  const { fd, type1 } = connect(host, task, [NEAR]);
  const bytes = (count: number) => BigInt(count) * 4096n;
  for (let index = 0; index < mappings; index += 1) {
    const page = index * pages;
    const iova = bytes(FIRST_IOVA_PFN + page);
    mapMemory(task, fd, { iova, vaddr: bytes(FIRST_VPN + page), size: bytes(pages) });
  }
  const group = host.groups.of(host.device(FAR).iommuDevice)!;
  claimGroup(group, task);
  return { host, type1, group };
}

/** Each round attaches the second group, with all it takes, and detaches it. */
function replay(
  label: string,
  parts: { mappings: number; pages: number; unitPages: number; unmapMode: UnmapMode },
  target: Benchmark["target"] = null,
): Benchmark {
  return {
    name: `vfio-attach/${label}`,
    unit: "page",
    target,
    prepare(scale) {
      const mappings = Math.max(1, Math.round(parts.mappings * scale));
      const pages = parts.mappings === 1 ? Math.round(parts.pages * scale) : parts.pages;
      const { host, type1, group } = setup(mappings, pages, parts.unitPages, parts.unmapMode);
      const round = () => {
        const errno = attachGroup(type1, group, false);
        const used = host.pool.usedFramesOf(1);
        if (errno === 0) detachGroup(type1, group);
        return errno === 0 ? used : -errno;
      };
      return { units: mappings * pages, round };
    },
  };
}

const contiguous = { mappings: 1, pages: 2 ** 22, unitPages: 0 };

export const benchmarks: readonly Benchmark[] = [
  replay("replay-16GiB-contiguous", { ...contiguous, unmapMode: "extents" }),
  replay("replay-16GiB-contiguous-by-4KiB", { ...contiguous, unmapMode: "kernel" }),
  replay("replay-4GiB-scattered", {
    mappings: 1,
    pages: 2 ** 20,
    unitPages: 1,
    unmapMode: "extents",
  }),
  replay("replay-60000-mappings", {
    mappings: 60_000,
    pages: 1,
    unitPages: 1,
    unmapMode: "extents",
  }),
];
