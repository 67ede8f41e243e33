/** The by-node rule of attach_group_by_node with its corner cases, and what Linux 7.2 does. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { Iommufd } from "../iommufd/iommufd.ts";
import { MapFlag } from "../iommufd/uapi.ts";
import { UserProcess } from "../process/user-process.ts";
import { VfioRequest } from "../requests.ts";
import { connect } from "./connect.ts";
import { buildHost } from "./host.ts";
import type { DevicePlan, HostPlan, UnitPlan } from "./host-plan.ts";
import { deviceAccess, readsByUnit, walkedNodes } from "./walks.ts";
import { map, open, openGroup, RuledMemory, setContainer, user } from "./world.suite.ts";

const MIB = 2 ** 20;

/** A host with a device behind each unit: `d0` behind the first, and so on. */
function hostOf(
  units: readonly Omit<UnitPlan, "name">[],
  byNode: number | null,
  options: { kernel?: "7.2" | "6.6"; deviceNodes?: readonly number[]; cpuNode?: number } = {},
) {
  const devices: DevicePlan[] = units.map((_, index) => {
    const node = options.deviceNodes?.[index];
    return {
      address: addressOf(index),
      unit: `u${index}`,
      ...(node === undefined ? {} : { node }),
    };
  });
  const plan: HostPlan = {
    nodes: [{ memory: 16 * MIB }, { memory: 16 * MIB }],
    units: units.map((unit, index) => ({ ...unit, name: `u${index}` })),
    devices,
    ...(options.kernel === undefined ? {} : { kernel: options.kernel }),
  };
  const host = buildHost(plan, { type1: { attachGroupByNode: byNode } });
  host.pool.cpuNode = options.cpuNode ?? 0;
  return host;
}

const addressOf = (index: number) => `0000:${(16 + index).toString(16)}:00.0`;
const addresses = (count: number) => Array.from({ length: count }, (_, index) => addressOf(index));

/** Domains as lists of group ids, the one made last in front. */
const sharing = (type1: ReturnType<typeof connect>["type1"]) =>
  type1.domains.map((domain) => domain.groups.map((member) => member.group.id));

describe("attach_group_by_node", () => {
  it("of any value but 0 and 1 keeps every group apart", () => {
    for (const byNode of [2, 3, 0xffff_ffff]) {
      const host = hostOf([{ node: 0 }, { node: 0 }, { node: 1 }], byNode);
      expect(sharing(connect(host, user(), addresses(3)).type1)).toEqual([[2], [1], [0]]);
    }
  });

  it("of 1 makes a domain a node, in whatever order groups come", () => {
    const host = hostOf([{ node: 1 }, { node: 0 }, { node: 1 }, { node: 0 }], 1);
    expect(sharing(connect(host, user(), addresses(4)).type1)).toEqual([
      [3, 1],
      [2, 0],
    ]);
  });

  it("of 1 merges two units of unknown node, but not a third: by then the first device's counts", () => {
    const unknown = { node: -1 };
    const known = hostOf([unknown, unknown, unknown], 1, { deviceNodes: [0, 0, 0] });
    expect(sharing(connect(known, user(), addresses(3)).type1)).toEqual([[2], [1, 0]]);
    const nobodyKnows = hostOf([unknown, unknown, unknown], 1);
    expect(sharing(connect(nobodyKnows, user(), addresses(3)).type1)).toEqual([[2, 1, 0]]);
  });

  it("of 1 merges everything on drivers that keep no node: it reads 0 for all", () => {
    for (const kind of ["amd", "smmu"] as const) {
      const host = hostOf(
        [
          { node: 0, kind },
          { node: 1, kind },
          { node: -1, kind },
        ],
        1,
      );
      expect(sharing(connect(host, user(), addresses(3)).type1)).toEqual([[2, 1, 0]]);
    }
  });

  it("of 1 never asks again after a detach, though the nodes have come to agree", () => {
    // Units 0 and 2 are of unknown node, their devices on node 1, where unit 1 is.
    const host = hostOf([{ node: -1 }, { node: 1 }, { node: -1 }, { node: 1 }], 1, {
      deviceNodes: [1, 1, 1, 1],
    });
    const task = user();
    const { fd, type1, groups } = connect(host, task, addresses(2));
    const nodes = () => type1.domains.map((domain) => domain.domain.driver!.nid);
    expect([sharing(type1), nodes()]).toEqual([
      [[1], [0]],
      [1, -1],
    ]);
    const third = openGroup(host, task, addressOf(2));
    expect(setContainer(task, third, fd)).toBe(Errno.OK);
    // The third came to the first's domain, which fell back to that device's node.
    expect([sharing(type1), nodes()]).toEqual([
      [[1], [2, 0]],
      [1, 1],
    ]);
    expect(task.ioctl(third, VfioRequest.GROUP_UNSET_CONTAINER).errno).toBe(Errno.OK);
    expect([sharing(type1), nodes()]).toEqual([
      [[1], [0]],
      [1, 1],
    ]);
    // Whoever comes next is put on the one made last.
    setContainer(task, openGroup(host, task, addressOf(3)), fd);
    expect(sharing(type1)).toEqual([[3, 1], [0]]);
    task.ioctl(groups[1]!, VfioRequest.GROUP_UNSET_CONTAINER);
    expect(sharing(type1)).toEqual([[3], [0]]);
  });

  it("of 1 compares the unit that came last, also where a domain was shared across nodes", () => {
    const host = hostOf([{ node: 0 }, { node: -1 }, { node: 0 }, { node: 1 }], 1, {
      deviceNodes: [-1, -1, -1, -1],
    });
    const { type1 } = connect(host, user(), addresses(4));
    expect(sharing(type1)).toEqual([[3], [1], [2, 0]]);
  });
});

describe("tables", () => {
  const twoNodes = [{ node: 0 }, { node: 1 }] as const;
  /** The nodes that a walk reads for each device, after one 4 KiB mapping made with all attached. */
  const walks = (host: ReturnType<typeof hostOf>, order: readonly number[]) => {
    const task = user();
    const { fd } = connect(host, task, order.map(addressOf));
    expect(map(task, fd, 0x12_3456, 1, 0x1000).errno).toBe(Errno.OK);
    return order.toSorted().map((index) => walkedNodes(host, addressOf(index), 0x12_3456));
  };

  it("of 6.6 with the rule come from the unit attached last, the root from the CPU's node", () => {
    const of = (byNode: number, order: number[], cpuNode = 0) =>
      walks(hostOf(twoNodes, byNode, { kernel: "6.6", cpuNode }), order);
    expect(of(0, [0, 1])).toEqual([
      [0, 1, 1, 1],
      [0, 1, 1, 1],
    ]);
    expect(of(0, [1, 0], 1)).toEqual([
      [1, 0, 0, 0],
      [1, 0, 0, 0],
    ]);
    // By node each unit walks its own, but for a root that the CPU's node served.
    expect(of(1, [0, 1], 1)).toEqual([
      [1, 0, 0, 0],
      [1, 1, 1, 1],
    ]);
  });

  it("of 6.6 with the rule are not moved: what was mapped before a unit came stays", () => {
    const host = hostOf(twoNodes, 0, { kernel: "6.6" });
    const task = user();
    const { fd } = connect(host, task, [addressOf(0)]);
    map(task, fd, 0, 1);
    setContainer(task, openGroup(host, task, addressOf(1)), fd);
    map(task, fd, 2 ** 18, 1);
    expect(walkedNodes(host, addressOf(0), 0)).toEqual([0, 0, 0, 0]);
    expect(walkedNodes(host, addressOf(0), 2 ** 18)).toEqual([0, 0, 1, 1]);
    expect(walkedNodes(host, addressOf(1), 0)).toEqual([0, 0, 0, 0]);
  });

  it("of 6.6 without it come from the CPU's node, so that the thread which maps decides", () => {
    for (const cpuNode of [0, 1]) {
      const host = hostOf(twoNodes, null, { kernel: "6.6", cpuNode });
      const task = user();
      // As a VMM does: memory is mapped with the first device, the others come after it.
      const { fd, join, type1 } = connect(host, task, [addressOf(0)]);
      map(task, fd, 0, 1);
      join([addressOf(1)]);
      expect(type1.domains.length).toBe(1);
      const all = [cpuNode, cpuNode, cpuNode, cpuNode];
      expect(walkedNodes(host, addressOf(0), 0)).toEqual(all);
      expect(walkedNodes(host, addressOf(1), 0)).toEqual(all);
    }
  });

  it("of 6.6 without it come from the first device's node once a second unit came", () => {
    const of = (order: number[]) =>
      walks(hostOf(twoNodes, null, { kernel: "6.6", cpuNode: 1 }), order);
    expect(of([0, 1])).toEqual([
      [1, 0, 0, 0],
      [1, 0, 0, 0],
    ]);
    expect(of([1, 0])).toEqual([
      [1, 1, 1, 1],
      [1, 1, 1, 1],
    ]);
  });

  it("in 7.2 come from the node of the first group's device, for good", () => {
    const of = (order: number[]) => walks(hostOf(twoNodes, null), order);
    expect(of([0, 1])).toEqual([
      [0, 0, 0, 0],
      [0, 0, 0, 0],
    ]);
    expect(of([1, 0])).toEqual([
      [1, 1, 1, 1],
      [1, 1, 1, 1],
    ]);
  });

  it("in 7.2 are those of the group added last where SET_IOMMU came after all of them", () => {
    const host = hostOf(twoNodes, null);
    const task = user();
    const fd = open(host, task, "/dev/vfio/vfio");
    for (const address of addresses(2)) setContainer(task, openGroup(host, task, address), fd);
    task.ioctl(fd, VfioRequest.SET_IOMMU, 3);
    map(task, fd, 0, 1);
    expect(walkedNodes(host, addressOf(0), 0)).toEqual([1, 1, 1, 1]);
  });

  it("in 7.2 outlive the group that chose their node", () => {
    const host = hostOf(twoNodes, null);
    const task = user();
    const { fd, groups } = connect(host, task, addresses(2));
    task.ioctl(groups[0]!, VfioRequest.GROUP_UNSET_CONTAINER);
    map(task, fd, 0, 1);
    expect(walkedNodes(host, addressOf(1), 0)).toEqual([0, 0, 0, 0]);
    // The first device is back on its own default domain, which is empty.
    expect(walkedNodes(host, addressOf(0), 0)).toEqual([0]);
  });

  it("of an SMMU come from its own node, of AMD from the device's", () => {
    const of = (kind: "amd" | "smmu") => {
      const host = hostOf([{ node: 1, kind }], null, { deviceNodes: [0] });
      return walks(host, [0])[0]!.at(-1);
    };
    expect([of("smmu"), of("amd")]).toEqual([1, 0]);
  });

  it("fall back to the other node when theirs is full", () => {
    const host = hostOf(twoNodes, 1);
    while (host.pool.usedFramesOf(1) < (16 * MIB) / 4096) host.pool.allocate(1);
    expect(walks(host, [0, 1])).toEqual([
      [0, 0, 0, 0],
      [0, 0, 0, 0],
    ]);
  });
});

describe("one container per node", () => {
  it("makes all walks local without a patch, and charges the memory once for each container", () => {
    const host = hostOf([{ node: 0 }, { node: 1 }], null);
    const memory = new RuledMemory();
    const task = user(memory);
    for (const address of addresses(2)) {
      const { fd } = connect(host, task, [address]);
      expect(map(task, fd, 0, 64).errno).toBe(Errno.OK);
    }
    expect(walkedNodes(host, addressOf(0), 7)).toEqual([0, 0, 0, 0]);
    expect(walkedNodes(host, addressOf(1), 7)).toEqual([1, 1, 1, 1]);
    expect([task.process.lockedPages, memory.pinned]).toEqual([128, 128]);
  });

  it("costs what two domains of one container cost in tables, which charges once", () => {
    const pages = (byNode: number, containers: readonly number[][]) => {
      const host = hostOf([{ node: 0 }, { node: 1 }], byNode);
      const before = host.tablePages();
      const task = user();
      for (const members of containers) {
        const { fd } = connect(host, task, members.map(addressOf));
        map(task, fd, 0, 4096, 1);
      }
      const grown = host.tablePages().map((count, node) => count - before[node]!);
      return [grown, task.process.lockedPages];
    };
    expect(pages(1, [[0, 1]])).toEqual([[11, 11], 4096]);
    expect(pages(0, [[0], [1]])).toEqual([[11, 11], 8192]);
    expect(pages(0, [[0, 1]])).toEqual([[11, 0], 4096]);
  });
});

describe("an address space of iommufd", () => {
  const spaceOf = (tableOf: (address: string) => string | null) => {
    const host = hostOf([{ node: 0 }, { node: 1 }, { node: 1 }], null);
    const memory = new RuledMemory();
    const iommufd = new Iommufd({ process: new UserProcess({ memory }) });
    const { ioasId } = iommufd.ioasAlloc();
    const tables = new Map<string, number>();
    for (const address of addresses(3)) {
      const { iommuDevice } = host.device(address);
      const { devId } = iommufd.bind(iommuDevice, host.groups.of(iommuDevice)!);
      const key = tableOf(address);
      if (key !== null && !tables.has(key)) {
        tables.set(key, iommufd.hwptAlloc({ devId, ptId: ioasId }).hwptId);
      }
      const target = key === null ? ioasId : tables.get(key)!;
      expect(iommufd.attach(devId, target).errno).toBe(Errno.OK);
    }
    const { FIXED_IOVA, READABLE, WRITEABLE } = MapFlag;
    const flags = FIXED_IOVA | READABLE | WRITEABLE;
    const call = { ioasId, flags, iova: 0n, userVa: 0x1000n, length: 0x4_0000n };
    expect(iommufd.ioasMap(call).errno).toBe(Errno.OK);
    return { host, memory, walks: addresses(3).map((each) => walkedNodes(host, each, 7)) };
  };

  it("with a table for each node has local walks, and pins once", () => {
    const ofNode = ({ walks, memory }: ReturnType<typeof spaceOf>) => [walks, memory.pinned];
    expect(ofNode(spaceOf((address) => (address === addressOf(0) ? "0" : "1")))).toEqual([
      [
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
      ],
      64,
    ]);
    expect(ofNode(spaceOf((address) => address))[1]).toBe(64);
  });

  it("that devices are attached to without naming a table has one for all, as a container", () => {
    const { walks, host } = spaceOf(() => null);
    expect(walks).toEqual([
      [0, 0, 0, 0],
      [0, 0, 0, 0],
      [0, 0, 0, 0],
    ]);
    const domains = addresses(3).map(
      (each) => host.groups.of(host.device(each).iommuDevice)!.domain,
    );
    expect(new Set(domains).size).toBe(1);
  });
});

describe("the totals of reads", () => {
  it("tell local from remote for each unit, with caches as they are", () => {
    const host = hostOf([{ node: 0 }, { node: 1 }], 0);
    const task = user();
    const { fd } = connect(host, task, addresses(2));
    map(task, fd, 0, 1024, 1);
    for (const address of addresses(2)) {
      for (const iovaPfn of [0, 1, 512])
        expect(deviceAccess(host, address, iovaPfn, 1)).toBeGreaterThan(0);
      expect(deviceAccess(host, address, 4096, 1)).toBe(-1);
    }
    // A full walk is 4 reads, with the table above cached 1, under another leaf table 2; the fault
    // ends at the entry of the table above, 1.
    const reads = readsByUnit(host);
    expect(reads.get("u0")).toEqual({ byNode: [8, 0], local: 8, remote: 0 });
    expect(reads.get("u1")).toEqual({ byNode: [8, 0], local: 0, remote: 8 });
    host.reads.reset();
    expect(readsByUnit(host).get("u1")).toEqual({ byNode: [0, 0], local: 0, remote: 0 });
  });
});
