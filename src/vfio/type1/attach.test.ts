import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IommuDevice } from "../../iommu/device.ts";
import type { Container } from "../container.ts";
import { connect } from "../host/connect.ts";
import { buildHost, type Host, type HostOptions } from "../host/host.ts";
import type { DevicePlan, HostPlan } from "../host/host-plan.ts";
import {
  map,
  open,
  openGroup,
  RuledMemory,
  reach,
  setContainer,
  twoNodePlan,
  unmap,
  user,
} from "../host/world.suite.ts";
import { VfioRequest } from "../requests.ts";
import { DmaUnmap, Type1Request, UnmapFlag } from "../uapi/type1.ts";
import { Type1Backend } from "./backend.ts";
import type { FaultingService, Type1Domain, Type1Group } from "./type1.ts";

const A = "0000:10:00.0";
const B = "0000:11:00.0";
const C = "0000:90:00.0";

/** A host, and what its groups and domains did. */
function setup(plan: HostPlan = twoNodePlan(), options: HostOptions = {}) {
  const events: string[] = [];
  const host = buildHost(plan, {
    ...options,
    groupTrace: {
      addDevice() {},
      removeDevice() {},
      attachDevice: (device) => events.push(`attach ${device}`),
    },
    domainTrace: {
      map: (iovaPfn, physPfn, pages) => events.push(`map ${iovaPfn} ${physPfn} ${pages}`),
      unmap: (iovaPfn, pages, unmapped) => events.push(`unmap ${iovaPfn} ${pages} ${unmapped}`),
    },
  });
  events.length = 0;
  return { host, task: user(), events };
}

const device = (plan: Partial<DevicePlan>): DevicePlan => ({ address: A, unit: "dmar0", ...plan });

/** A container that a mediated device made, before any group with an IOMMU. */
function mediated(host: Host, task: ReturnType<typeof user>) {
  const vfioDevice = {
    iommuDevice: new IommuDevice({ name: "mdev", ops: null }),
    isEmulated: true,
  };
  host.vfio.register(vfioDevice);
  const group = open(host, task, `/dev/vfio/${host.vfio.groupOf(vfioDevice)!.fileName}`);
  const fd = open(host, task, "/dev/vfio/vfio");
  setContainer(task, group, fd);
  task.ioctl(fd, VfioRequest.SET_IOMMU, 3);
  return { fd, group };
}

describe("attaching a group", () => {
  it("row 32: is EBUSY while the memory behind a mapping is moving", () => {
    const { host, task } = setup();
    const { fd } = connect(host, task, [A]);
    map(task, fd, 0x100, 16);
    const range = { iova: 0x10_0000n, size: 0x1_0000n };
    const bytes = DmaUnmap.bytesOf({ argsz: 24, flags: UnmapFlag.VADDR, ...range });
    expect(task.ioctl(fd, Type1Request.UNMAP_DMA, bytes).errno).toBe(Errno.OK);
    expect(setContainer(task, openGroup(host, task, C), fd)).toBe(Errno.EBUSY);
    expect(host.groups.of(host.device(C).iommuDevice)!.owner).toBe(null);
  });

  it("row 33: is EINVAL over a mapping in its interrupt window, and the ranges stay", () => {
    const { host, task } = setup();
    const { fd } = mediated(host, task);
    expect(map(task, fd, 0xfee00, 1, 0x1000).errno).toBe(Errno.OK);
    const { type1 } = (task.descriptors.find(fd)!.operations as Container).state!;
    expect(setContainer(task, openGroup(host, task, A), fd)).toBe(Errno.EINVAL);
    expect([type1!.allowed.ranges, type1!.domains]).toEqual([[], []]);
    expect(map(task, fd, 0xfee01, 1, 0x2000).errno).toBe(Errno.OK);
    unmap(task, fd, 0xfee00, 2);
    expect(setContainer(task, openGroup(host, task, B), fd)).toBe(Errno.OK);
    expect(map(task, fd, 0xfee00, 1, 0x1000).errno).toBe(Errno.EINVAL);
  });

  it("row 34: is ok over a mapping where only a relaxable region is, and cuts nothing out", () => {
    const directRanges = [{ start: 0x1000_0000n, last: 0x1fff_ffffn }];
    const graphics = device({ address: C, unit: "dmar1", classCode: 0x03_0000, directRanges });
    const { host, task } = setup(twoNodePlan({ devices: [device({}), graphics] }));
    const { fd } = connect(host, task, [A]);
    expect(map(task, fd, 0x1_0000, 16).errno).toBe(Errno.OK);
    expect(setContainer(task, openGroup(host, task, C), fd)).toBe(Errno.OK);
    expect(reach(host, C, 0x1_0001)).toBe(0x11_0001);
    expect(map(task, fd, 0x1_0100, 16).errno).toBe(Errno.OK);
  });

  it("row 35: of the same driver and coherency shares the domain; a map is one iommu_map", () => {
    const { host, task, events } = setup();
    const { fd, type1 } = connect(host, task, [A, C]);
    expect(type1.domains.map((domain) => domain.groups.length)).toEqual([2]);
    events.length = 0;
    map(task, fd, 0x100, 16);
    expect(events).toEqual([`map 256 ${0x10_0100} 16`]);
    expect([reach(host, A, 0x105), reach(host, C, 0x105)]).toEqual([0x10_0105, 0x10_0105]);
  });

  it("row 36: of other coherency gets a domain of its own, with everything replayed into it", () => {
    const { host, task, events } = setup(twoNodePlan({ far: { snoopControl: false } }));
    const { fd, type1 } = connect(host, task, [A]);
    map(task, fd, 0x100, 16);
    map(task, fd, 0x200, 4);
    events.length = 0;
    expect(setContainer(task, openGroup(host, task, C), fd)).toBe(Errno.OK);
    const replayed = [`map 256 ${0x10_0100} 16`, `map 512 ${0x10_0200} 4`];
    expect(events).toEqual([`attach ${C}`, `attach ${C}`, ...replayed]);
    events.length = 0;
    map(task, fd, 0x300, 1);
    expect(events).toEqual([`map 768 ${0x10_0300} 1`, `map 768 ${0x10_0300} 1`]);
    expect(type1.domains.map((domain) => domain.coherencyEnforced)).toEqual([false, true]);
    expect([reach(host, A, 0x203), reach(host, C, 0x203)]).toEqual([0x10_0203, 0x10_0203]);
    expect(task.process.lockedPages).toBe(21);
  });

  it("row 37: by node has two domains, without one, and by 2 two even for equal nodes", () => {
    const count = (byNode: number | null, addresses: string[]) => {
      const { host, task } = setup(twoNodePlan(), { type1: { attachGroupByNode: byNode } });
      return connect(host, task, addresses).type1.domains.length;
    };
    expect([count(1, [A, C]), count(0, [A, C]), count(null, [A, C])]).toEqual([2, 1, 1]);
    expect([count(1, [A, B]), count(2, [A, B])]).toEqual([1, 2]);
  });

  it("row 37: by node is not even tried on a domain of another node, as the trace shows", () => {
    const { host, task, events } = setup(twoNodePlan(), { type1: { attachGroupByNode: 1 } });
    const { fd } = connect(host, task, [A]);
    events.length = 0;
    setContainer(task, openGroup(host, task, C), fd);
    expect(events).toEqual([`attach ${C}`, `attach ${C}`]);
    events.length = 0;
    setContainer(task, openGroup(host, task, B), fd);
    expect(events).toEqual([`attach ${B}`, `attach ${B}`, `attach ${B}`, `attach ${B}`]);
  });

  it("row 38: is EPERM where interrupts can be forged, unless that is allowed", () => {
    const plan = twoNodePlan({ near: { isolatesMsi: false } });
    const errnoOf = (allowUnsafeInterrupts: boolean) => {
      const { host, task } = setup(plan, { type1: { allowUnsafeInterrupts } });
      const fd = open(host, task, "/dev/vfio/vfio");
      setContainer(task, openGroup(host, task, A), fd);
      return task.ioctl(fd, VfioRequest.SET_IOMMU, 3).errno;
    };
    expect([errnoOf(false), errnoOf(true)]).toEqual([Errno.EPERM, Errno.OK]);
  });

  it("twice is EINVAL", () => {
    const { host, task } = setup();
    const { container, type1 } = connect(host, task, [A]);
    const group = host.groups.of(host.device(A).iommuDevice)!;
    expect(container.state!.attachGroup(group, "iommu")).toBe(Errno.EINVAL);
    expect(type1.domains.length).toBe(1);
  });

  it("shows in the trace as blocking, own domain, and on a merge blocking and the shared one", () => {
    const { host, task, events } = setup();
    connect(host, task, [A]);
    expect(events).toEqual([`attach ${A}`, `attach ${A}`]);
    events.length = 0;
    const { fd } = connect(host, task, [B]);
    events.length = 0;
    setContainer(task, openGroup(host, task, C), fd);
    expect(events).toEqual([`attach ${C}`, `attach ${C}`, `attach ${C}`, `attach ${C}`]);
  });

  it("tries the domain made last first, and goes back to its own where the driver refuses", () => {
    // A unit that walks neither format of the others is refused by both domains.
    const plan: HostPlan = {
      nodes: [{ memory: 2 ** 24 }],
      units: [
        { name: "dmar0", node: 0, format: "vtd-second-stage-4" },
        { name: "dmar1", node: 0, format: "vtd-second-stage-5" },
        { name: "dmar2", node: 0, format: "vtd-second-stage-3" },
      ],
      devices: [
        { address: A, unit: "dmar0" },
        { address: B, unit: "dmar1" },
        { address: C, unit: "dmar2" },
      ],
    };
    const { host, task, events } = setup(plan);
    const { fd, type1 } = connect(host, task, [A, B]);
    const [second, first] = type1.domains;
    expect(second!.groups[0]!.group).toBe(host.groups.of(host.device(B).iommuDevice));
    map(task, fd, 0x100, 16);
    events.length = 0;
    expect(setContainer(task, openGroup(host, task, C), fd)).toBe(Errno.OK);
    // Blocking, own; blocking, refused, own; the same again; then the replay. The driver of VT-d
    // blocks before it refuses, and the core puts a refused device back on what it had: blocking.
    const tried = [`attach ${C}`, `attach ${C}`, `attach ${C}`];
    expect(events).toEqual([
      `attach ${C}`,
      `attach ${C}`,
      ...tried,
      ...tried,
      `map 256 ${0x10_0100} 16`,
    ]);
    expect(type1.domains.slice(1)).toEqual([second, first]);
    for (const address of [A, B, C]) expect(reach(host, address, 0x101)).toBe(0x10_0101);
  });

  it("never shares a domain between stages or drivers, nor between kinds of tables", () => {
    const units = [
      { name: "u0", node: 0, kind: "vtd" },
      { name: "u1", node: 0, kind: "vtd", format: "vtd-first-stage-4" },
      { name: "u2", node: 0, kind: "amd" },
      { name: "u3", node: 0, kind: "amd", format: "amd-v2-4" },
    ] as const;
    const formats = ["vtd-second-stage-4", "vtd-first-stage-4", "amd-v1", "amd-v2-4"];
    const addresses = units.map((_, index) => `0000:0${index + 1}:00.0`);
    const { host, task } = setup({
      nodes: [{ memory: 2 ** 24 }],
      units: units.map((unit) => ({ ...unit, formats })),
      devices: addresses.map((address, index) => ({ address, unit: units[index]!.name })),
    });
    const { fd, type1 } = connect(host, task, addresses);
    expect(type1.domains.map((domain) => domain.domain.operations)).toEqual([
      "amd/v2",
      "amd/v1",
      "intel/first-stage",
      "intel/second-stage",
    ]);
    map(task, fd, 0x200, 512);
    for (const address of addresses) expect(reach(host, address, 0x3ff)).toBe(0x10_03ff);
  });
});

describe("the allowed ranges", () => {
  const hexes = (ranges: readonly { start: bigint; last: bigint }[]) =>
    ranges.map(({ start, last }) => `${start.toString(16)}-${last.toString(16)}`);
  const three = { near: { format: "vtd-second-stage-3" }, far: {} } as const;

  it("are the apertures without the regions, and widen when the narrow domain goes", () => {
    const { host, task } = setup(twoNodePlan(three));
    const { fd, type1, groups } = connect(host, task, [A, C]);
    expect(hexes(type1.allowed.ranges)).toEqual(["0-fedfffff", "fef00000-7fffffffff"]);
    expect(map(task, fd, 2 ** 27, 1, 1).errno).toBe(Errno.EINVAL);
    task.ioctl(groups[0]!, VfioRequest.GROUP_UNSET_CONTAINER);
    expect(hexes(type1.allowed.ranges)).toEqual(["0-fedfffff", "fef00000-ffffffffffff"]);
    expect(map(task, fd, 2 ** 27, 1, 1).errno).toBe(Errno.OK);
  });

  it("shut a group out whose aperture leaves a mapping uncovered", () => {
    const { host, task } = setup(twoNodePlan(three));
    const { fd, type1 } = connect(host, task, [C]);
    map(task, fd, 2 ** 27, 1, 1);
    const before = hexes(type1.allowed.ranges);
    expect(setContainer(task, openGroup(host, task, A), fd)).toBe(Errno.EINVAL);
    expect(hexes(type1.allowed.ranges)).toEqual(before);
    unmap(task, fd, 2 ** 27, 1);
    expect(setContainer(task, openGroup(host, task, B), fd)).toBe(Errno.OK);
  });

  it("keep an end that a departed group's region cut off, unless its domain went with it", () => {
    const directRanges = [{ start: 0n, last: 0xf_ffffn }];
    const graphics = { classCode: 0x01_0800, directRanges, unit: "dmar0" };
    const plan = twoNodePlan({ devices: [device({}), { address: B, ...graphics }] });
    const { host, task } = setup(plan);
    // Firmware's range must not be blocked; where a user may have the device all the same, as
    // before Linux 6.6, the range is cut out.
    host.device(B).iommuDevice.requireDirect = false;
    const { type1, groups } = connect(host, task, [A, B]);
    expect(hexes(type1.allowed.ranges)[0]).toBe("100000-fedfffff");
    task.ioctl(groups[1]!, VfioRequest.GROUP_UNSET_CONTAINER);
    expect(hexes(type1.allowed.ranges)[0]).toBe("100000-fedfffff");
  });

  it("of a container without a domain are everything, once one was there", () => {
    const { host, task } = setup();
    const { fd } = mediated(host, task);
    expect(map(task, fd, 0xfee00, 1, 1).errno).toBe(Errno.OK);
    unmap(task, fd, 0xfee00, 1);
    const group = openGroup(host, task, A);
    setContainer(task, group, fd);
    expect(map(task, fd, 0xfee00, 1, 1).errno).toBe(Errno.EINVAL);
    task.ioctl(group, VfioRequest.GROUP_UNSET_CONTAINER);
    expect(map(task, fd, 0xfee00, 1, 1).errno).toBe(Errno.OK);
  });

  it("of an SMMU leave the doorbell out, which the domain gets a cookie for", () => {
    const plan = twoNodePlan({ near: { kind: "smmu" }, far: { kind: "smmu" } });
    const { host, task } = setup(plan);
    const { type1 } = connect(host, task, [A]);
    expect(hexes(type1.allowed.ranges)).toEqual(["0-7ffffff", "8100000-ffffffffffff"]);
    expect(type1.domains[0]!.domain.cookie).toEqual({ kind: "dma-msi", base: 0x800_0000n });
    const vtd = setup();
    expect(connect(vtd.host, vtd.task, [A]).type1.domains[0]!.domain.cookie.kind).toBe("none");
  });

  it("with 64 KiB tables take the coarser pages, and no common size the coarsest", () => {
    const plan = twoNodePlan({
      near: { kind: "smmu", format: "arm-stage1-64k-48" },
      far: { kind: "vtd" },
    });
    const { host, task } = setup(plan);
    const { fd, type1 } = connect(host, task, [A, C]);
    expect(type1.pageSizes).toBe(0x1_0000n);
    expect([map(task, fd, 8, 8).errno, map(task, fd, 16, 16).errno]).toEqual([Errno.EINVAL, 0]);
    expect([reach(host, A, 20), reach(host, C, 20)]).toEqual([0x10_0014, 0x10_0014]);
  });
});

describe("a replay", () => {
  it("takes a step for each run and not for each 4 KiB, and maps the runs as one each", () => {
    const counts = new Map<number, number>();
    const meter = {
      step: (step: number, amount: number) => counts.set(step, (counts.get(step) ?? 0) + amount),
    };
    const plan = twoNodePlan({ far: { snoopControl: false } });
    const { host, events } = setup(plan, { meter });
    // Three physical runs: [0, 2000), [2000, 3000), [3000, 4096).
    const memory = new RuledMemory((vpn) => vpn + (vpn < 2000 ? 0 : vpn < 3000 ? 0x8000 : 0x4000));
    const task = user(memory);
    const { fd } = connect(host, task, [A]);
    expect(map(task, fd, 0, 4096).errno).toBe(Errno.OK);
    counts.clear();
    events.length = 0;
    setContainer(task, openGroup(host, task, C), fd);
    expect(events.slice(2)).toEqual([
      "map 0 0 2000",
      `map 2000 ${2000 + 0x8000} 1000`,
      `map 3000 ${3000 + 0x4000} 1096`,
    ]);
    expect(memory.pinned).toBe(4096);
    expect(counts.get(40) ?? 0).toBe(0);
    expect(reach(host, C, 2999)).toBe(2999 + 0x8000);
  });

  it("pins where there was no domain yet, and that fails as a whole at a limit of locked memory", () => {
    const { host } = setup();
    const memory = new RuledMemory();
    const task = user(memory);
    task.process.memlockPages = 24;
    const { fd } = mediated(host, task);
    for (const iovaPfn of [0x100, 0x200]) map(task, fd, iovaPfn, 16);
    expect(memory.pinned).toBe(0);
    const group = openGroup(host, task, A);
    expect(setContainer(task, group, fd)).toBe(Errno.ENOMEM);
    expect([memory.pinned, task.process.lockedPages]).toEqual([0, 0]);
    task.process.memlockPages = 32;
    expect(setContainer(task, group, fd)).toBe(Errno.OK);
    expect([memory.pinned, task.process.lockedPages]).toEqual([32, 32]);
  });
});

describe("a container whose memory faults serve", () => {
  /** A service that notes who comes and goes, and refuses on demand. */
  class NotedFaults implements FaultingService {
    isEnabled = false;
    refusal: number = Errno.OK;
    readonly seen: string[] = [];

    enable(): number {
      this.isEnabled = true;
      return Errno.OK;
    }

    mappingAdded(): number {
      return Errno.OK;
    }

    mappingRemoved(): void {}

    vaddrUpdated(): void {}

    groupAttached(domain: Type1Domain, member: Type1Group): number {
      this.seen.push(`attached ${member.group.id} beside ${domain.groups.length}`);
      return this.refusal;
    }

    groupDetached(domain: Type1Domain, member: Type1Group): void {
      this.seen.push(`detached ${member.group.id} of ${domain.groups.length}`);
    }
  }

  const faulty = (snoopControl: boolean) => {
    const service = new NotedFaults();
    const backend = new Type1Backend({ createFaulting: () => service });
    const plan = twoNodePlan({ far: { snoopControl } });
    const { host, task } = setup(plan, { backends: [backend] });
    const connection = connect(host, task, [A]);
    expect(task.ioctl(connection.fd, Type1Request.ENABLE_IOPF, new Uint8Array(8)).errno).toBe(0);
    expect(map(task, connection.fd, 0x100, 16).errno).toBe(Errno.OK);
    return { host, task, service, ...connection };
  };

  it("replays nothing into a new domain, and tells who serves the faults of each group", () => {
    const { host, task, service, fd, type1 } = faulty(false);
    const group = openGroup(host, task, C);
    expect(setContainer(task, group, fd)).toBe(Errno.OK);
    expect(type1.domains.length).toBe(2);
    expect([reach(host, C, 0x101), task.process.lockedPages]).toEqual([-1, 0]);
    task.ioctl(group, VfioRequest.GROUP_UNSET_CONTAINER);
    expect(service.seen).toEqual(["attached 2 beside 0", "detached 2 of 1"]);
    expect(type1.mappings.count).toBe(1);
  });

  it("takes no group whose faults cannot be served, be its domain shared or new", () => {
    for (const snoopControl of [true, false]) {
      const { host, task, service, fd, type1 } = faulty(snoopControl);
      const pages = host.tablePages();
      const [before] = type1.domains;
      service.refusal = Errno.ENODEV;
      const group = openGroup(host, task, C);
      expect(setContainer(task, group, fd)).toBe(Errno.ENODEV);
      expect([type1.domains.length, type1.nonPinnedGroups]).toEqual([1, 1]);
      expect([type1.domains[0] === before, before!.groups.length]).toEqual([true, 1]);
      expect(host.tablePages()).toEqual(pages);
      const iommuGroup = host.groups.of(host.device(C).iommuDevice)!;
      expect(iommuGroup.domain).toBe(iommuGroup.defaultDomain);
      service.refusal = Errno.OK;
      expect(setContainer(task, group, fd)).toBe(Errno.OK);
    }
  });
});
