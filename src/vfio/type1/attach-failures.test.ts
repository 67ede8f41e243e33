/** Whatever step of an attach fails, container, process, tables and groups are as they were. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import { DomainType, type IommuDomain } from "../../iommu/domain.ts";
import type { HardwareDomain } from "../../iommu/hardware-domain.ts";
import type { Container } from "../container.ts";
import type { VfioTask } from "../file.ts";
import { connect } from "../host/connect.ts";
import { buildHost, type Host } from "../host/host.ts";
import {
  map,
  open,
  openGroup,
  RuledMemory,
  reach,
  setContainer,
  twoNodePlan,
  user,
} from "../host/world.suite.ts";
import { VfioRequest } from "../requests.ts";
import { Type1Backend } from "./backend.ts";
import type { Type1 } from "./type1.ts";

const A = "0000:10:00.0";
const C = "0000:90:00.0";
/** The second of two functions that share a group. */
const D = "0000:90:00.1";

/** Everything that a failed attach must leave alone. */
function stateOf(host: Host, task: VfioTask, memory: RuledMemory, type1: Type1) {
  return {
    pages: host.tablePages(),
    locked: task.process.lockedPages,
    pinned: [...memory.pins].sort(([a], [b]) => a - b),
    available: type1.dmaAvail,
    nonPinned: type1.nonPinnedGroups,
    sizes: type1.pageSizes,
    ranges: [...type1.allowed.ranges],
    domains: type1.domains.map(({ domain, groups, coherencyEnforced }) => ({
      domain,
      coherencyEnforced,
      groups: groups.map((member) => member.group.id),
      leaves: leavesOf(domain),
    })),
    mappings: [...type1.mappings].map((mapping) => ({
      at: mapping.iovaPfn,
      mapped: mapping.mappedPages,
      isMapped: mapping.isMapped,
      locked: mapping.lockedPages,
      extents: mapping.extents.isComplete ? mapping.extents.runs() : -1,
    })),
    groups: host.groups.all.map(({ id, domain, blockingDomain, owner }) => {
      return { id, domain, blockingDomain, owner };
    }),
    domainIds: [...host.units.values()].map((unit) => unit.domainIds.count),
    attached: [A, C].map((address) => reach(host, address, 0x100)),
  };
}

function leavesOf(domain: IommuDomain): string[] {
  const leaves: string[] = [];
  (domain.driver as HardwareDomain).table.forEachLeaf((leaf) => leaves.push(JSON.stringify(leaf)));
  return leaves;
}

/** Failures to plant: allocations of bookkeeping, of tables, attaches of drivers, pins. */
const sources = ["bookkeeping", "tables", "attach", "pins"] as const;
type Source = (typeof sources)[number];

interface World {
  readonly host: Host;
  readonly task: VfioTask;
  readonly memory: RuledMemory;
  readonly type1: Type1;
  /** What is tried. */
  readonly attempt: () => number;
  /** Takes back what succeeded. */
  readonly undo: () => void;
  /** Makes the n-th step of a kind fail from now on; −1 makes nothing fail. */
  readonly plant: (source: Source, n: number) => void;
  /** Whether a planted failure was met. */
  readonly wasMet: () => boolean;
}

/**
 * @param mode - what meets the second group: a domain to share, another coherency, no domain
 * @param isOnce - whether a planted failure happens once, or for good
 */
function build(mode: "shared" | "own" | "first" | "smmu", isOnce: boolean): World {
  let left = Number.POSITIVE_INFINITY;
  let isMet = false;
  const step = (): boolean => {
    left -= 1;
    if (left >= 0 || (isOnce && isMet)) return true;
    isMet = true;
    return false;
  };
  let failing: Source | null = null;
  const allow = () => failing !== "bookkeeping" || step();
  const kind = mode === "smmu" ? "smmu" : "vtd";
  const host = buildHost(
    twoNodePlan({
      near: { kind },
      far: { kind, snoopControl: mode === "shared" },
      devices: [
        { address: A, unit: "dmar0" },
        { address: C, unit: "dmar1", isMultifunction: true },
        { address: D, unit: "dmar1", isMultifunction: true },
      ],
    }),
    { backends: [new Type1Backend({ allow })] },
  );
  const memory = new RuledMemory((vpn) => vpn + 16 * Math.floor(vpn / 16));
  const task = user(memory);
  const ops = host.device(A).iommuDevice.ops!;
  const driverAttach = ops.attach.bind(ops);
  ops.attach = (device, domain, old) => {
    const isPaging = domain.type === DomainType.UNMANAGED;
    if (failing === "attach" && isPaging && !step()) return Errno.ENOSPC;
    return driverAttach(device, domain, old);
  };
  const { fd, type1 } = mode === "first" ? mediated(host, task) : connect(host, task, [A]);
  for (const iovaPfn of [0x100, 0x4_0000, 0x800_0000]) map(task, fd, iovaPfn, 48, 1);
  const group = openGroup(host, task, C);
  return {
    host,
    task,
    memory,
    type1,
    attempt: () => setContainer(task, group, fd),
    undo: () => task.ioctl(group, VfioRequest.GROUP_UNSET_CONTAINER),
    plant(source, n) {
      isMet = false;
      failing = n < 0 ? null : source;
      left = n < 0 ? Number.POSITIVE_INFINITY : n;
      host.pool.failAfter(n >= 0 && source === "tables" ? n : Number.POSITIVE_INFINITY);
      memory.successes = n >= 0 && source === "pins" ? n : Number.POSITIVE_INFINITY;
    },
    wasMet: () => isMet || host.pool.injectedFailures > 0 || memory.successes < 0,
  };
}

function mediated(host: Host, task: VfioTask) {
  const device = { iommuDevice: new IommuDevice({ name: "m", ops: null }), isEmulated: true };
  host.vfio.register(device);
  const group = open(host, task, `/dev/vfio/${host.vfio.groupOf(device)!.fileName}`);
  const fd = open(host, task, "/dev/vfio/vfio");
  setContainer(task, group, fd);
  task.ioctl(fd, VfioRequest.SET_IOMMU, 3);
  const { type1 } = (task.descriptors.find(fd)!.operations as Container).state!;
  return { fd, type1: type1! };
}

const cases = (["shared", "own", "first", "smmu"] as const).flatMap((mode) =>
  [false, true].map((isOnce) => ({ mode, isOnce })),
);

describe.each(cases)("an attach ($mode domain, once: $isOnce)", ({ mode, isOnce }) => {
  it.each(sources)("that fails at the n-th step of %s leaves everything as it was", (source) => {
    const world = build(mode, isOnce);
    const { host, task, memory, type1 } = world;
    // The first claim of a group makes its blocking domain, which stays.
    world.plant("attach", 0);
    world.attempt();
    world.plant("attach", -1);
    const before = stateOf(host, task, memory, type1);
    let failures = 0;
    for (let n = 0; n < 200; n += 1) {
      world.plant(source, n);
      const errno = world.attempt();
      const wasMet = world.wasMet();
      world.plant(source, -1);
      if (!wasMet) {
        expect(errno).toBe(Errno.OK);
        break;
      }
      // A driver that refuses a domain to share is no failure: the group keeps its own.
      if (errno === Errno.OK) {
        expect([mode, source, isOnce, type1.domains.length]).toEqual(["shared", "attach", true, 2]);
        world.undo();
      }
      failures += 1;
      expect(stateOf(host, task, memory, type1)).toEqual(before);
    }
    const isPinning = mode === "first";
    if (source !== "pins" || isPinning) expect(failures).toBeGreaterThan(0);
    else expect(failures).toBe(0);
    for (const address of [C, D]) {
      expect(reach(host, address, 0x800_0000 + 47)).toBe(memory.frameAt(48));
    }
  });
});
