/** Random hosts, attached and detached in random order, against what a list of mappings says. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import type { HardwareDomain } from "../../iommu/hardware-domain.ts";
import { type ReservedRegion, ReservedType } from "../../iommu/reserved-regions.ts";
import { ADDRESS_LAST, addressOf } from "../../units.ts";
import type { Container } from "../container.ts";
import { buildHost, type Host } from "../host/host.ts";
import type { DevicePlan, UnitPlan } from "../host/host-plan.ts";
import {
  map,
  open,
  openGroup,
  RuledMemory,
  reach,
  setContainer,
  unmap,
  user,
} from "../host/world.suite.ts";
import { VfioRequest } from "../requests.ts";
import type { IovaRange } from "./allowed-ranges.ts";
import { apertureOf } from "./iova-ranges.ts";
import type { Type1 } from "./type1.ts";

const unitPlan = fc.record({
  kind: fc.constantFrom("vtd" as const, "vtd" as const, "amd" as const, "smmu" as const),
  node: fc.integer({ min: -1, max: 1 }),
  narrow: fc.boolean(),
  strict: fc.boolean(),
  snoopControl: fc.boolean(),
});

const devicePlan = fc.record({
  unit: fc.nat(3),
  node: fc.integer({ min: -1, max: 1 }),
  /** 1 MiB of firmware's at this MiB, none for 0. */
  direct: fc.constantFrom(0, 0, 0, 1, 2),
  isGraphics: fc.boolean(),
});

const command = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("attach" as const), at: fc.nat(5) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("detach" as const), at: fc.nat(5) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("map" as const),
      at: fc.constantFrom(0, 0x80, 0x200, 0x8000, 0xfec00, 0xfef00, 0x400_0000, 0xfd0_0000),
      pages: fc.constantFrom(1, 3, 0x80, 0x200),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("unmap" as const), at: fc.nat(7) }) },
);

const world = fc.record({
  units: fc.array(unitPlan, { minLength: 1, maxLength: 4 }),
  devices: fc.array(devicePlan, { minLength: 1, maxLength: 6 }),
  byNode: fc.constantFrom(null, 0, 1, 2),
  commands: fc.array(command, { maxLength: 24 }),
});

type Parts = typeof world extends fc.Arbitrary<infer T> ? T : never;

const MIB = 2n ** 20n;
const addressOfDevice = (index: number) => `0000:${(16 + index).toString(16)}:00.0`;

function build({ units, devices, byNode }: Parts): Host {
  const plans = units.map((unit, index): UnitPlan => {
    const { kind, node, snoopControl } = unit;
    const level = unit.narrow ? 3 : 4;
    const both = ["vtd-second-stage-3", "vtd-second-stage-4"];
    const vtd = { format: `vtd-second-stage-${level}`, ...(unit.strict ? {} : { formats: both }) };
    return { name: `u${index}`, kind, node, snoopControl, ...(kind === "vtd" ? vtd : {}) };
  });
  return buildHost(
    {
      nodes: [{ memory: 2 ** 24 }, { memory: 2 ** 24 }],
      units: plans,
      devices: devices.map((device, index): DevicePlan => {
        const start = BigInt(device.direct) * MIB;
        const directRanges = device.direct === 0 ? [] : [{ start, last: start + MIB - 1n }];
        return {
          address: addressOfDevice(index),
          unit: `u${device.unit % units.length}`,
          node: device.node,
          classCode: device.isGraphics ? 0x03_0000 : 0x01_0802,
          directRanges,
        };
      }),
    },
    { type1: { attachGroupByNode: byNode } },
  );
}

/** What is left of all apertures without all regions, page by page of interest. */
function isAllowed(type1: Type1, regions: readonly ReservedRegion[], address: bigint): boolean {
  const apertures = type1.domains.map((each) => apertureOf(each.domain));
  if (apertures.some((each) => address < each.start || address > each.last)) return false;
  return !regions.some(
    (region) =>
      region.type !== ReservedType.DIRECT_RELAXABLE &&
      region.start <= address &&
      address <= region.last,
  );
}

const contains = (ranges: readonly IovaRange[], address: bigint) =>
  ranges.some((range) => range.start <= address && address <= range.last);

/** Runs the commands, and after each compares with the list. */
class Trial {
  readonly host: Host;
  readonly task;
  readonly fd: number;
  readonly memory = new RuledMemory((vpn) => vpn + 8 * Math.floor(vpn / 0x60));
  readonly groups = new Map<number, number>();
  readonly attached = new Set<number>();
  readonly mappings = new Map<number, number>();
  /** Whether a group left while its domain stayed: then ends may be too narrow, as in Linux. */
  isNarrowed = false;

  constructor(parts: Parts) {
    this.host = build(parts);
    this.task = user(this.memory);
    this.fd = open(this.host, this.task, "/dev/vfio/vfio");
  }

  get type1(): Type1 | null {
    return (this.task.descriptors.find(this.fd)!.operations as Container).state?.type1 ?? null;
  }

  attach(index: number): void {
    const address = addressOfDevice(index);
    if (!this.host.devices.has(address) || this.attached.has(index)) return;
    const group = this.groups.get(index) ?? openGroup(this.host, this.task, address);
    this.groups.set(index, group);
    let errno = setContainer(this.task, group, this.fd);
    if (errno === Errno.OK && this.type1 === null) {
      errno = this.task.ioctl(this.fd, VfioRequest.SET_IOMMU, 3).errno;
      if (errno !== Errno.OK) this.task.ioctl(group, VfioRequest.GROUP_UNSET_CONTAINER);
    }
    if (errno === Errno.OK) this.attached.add(index);
    else expect([Errno.EINVAL]).toContain(errno);
  }

  detach(index: number): void {
    if (!this.attached.delete(index)) return;
    const domains = this.type1!.domains.length;
    const group = this.groups.get(index)!;
    expect(this.task.ioctl(group, VfioRequest.GROUP_UNSET_CONTAINER).errno).toBe(Errno.OK);
    if (this.attached.size === 0) {
      this.mappings.clear();
      this.isNarrowed = false;
    } else if (this.type1!.domains.length === domains) {
      this.isNarrowed = true;
    } else {
      // The span begins and ends anew with the apertures that are left.
      this.isNarrowed = false;
    }
  }

  map(iovaPfn: number, pages: number): void {
    if (this.type1 === null) return;
    const { errno } = map(this.task, this.fd, iovaPfn, pages, iovaPfn % 0x1_0000);
    if (errno === Errno.OK) this.mappings.set(iovaPfn, pages);
  }

  unmap(at: number): void {
    const chosen = [...this.mappings][at];
    if (chosen === undefined) return;
    expect(unmap(this.task, this.fd, chosen[0], chosen[1]).errno).toBe(Errno.OK);
    this.mappings.delete(chosen[0]);
  }

  /** Frame by frame what the mappings say. */
  expected(): Map<number, number> {
    const frames = new Map<number, number>();
    for (const [iovaPfn, pages] of this.mappings) {
      for (let page = 0; page < pages; page += 1) {
        frames.set(iovaPfn + page, this.memory.frameAt((iovaPfn % 0x1_0000) + page));
      }
    }
    return frames;
  }

  check(): void {
    const { type1 } = this;
    if (type1 === null) {
      expect([this.memory.pinned, this.task.process.lockedPages]).toEqual([0, 0]);
      return;
    }
    const expected = this.expected();
    expect(this.memory.pinned).toBe(expected.size);
    expect(this.task.process.lockedPages).toBe(expected.size);
    const members = type1.domains.flatMap((domain) => domain.groups);
    expect(members.length).toBe(this.attached.size);
    for (const { domain, groups, coherencyEnforced } of type1.domains) {
      expect(framesOf(domain.driver as HardwareDomain)).toEqual(expected);
      for (const { group } of groups) {
        const own = group.allocDomain(1);
        if (typeof own === "number") throw new Error("a domain of its own can be had");
        // Formats may differ within a driver; the operations may not.
        expect(own.operations).toBe(domain.operations);
        group.freeDomain(own);
        expect(group.domain).toBe(domain);
      }
      expect((domain.driver as HardwareDomain).coherencyEnforced).toBe(coherencyEnforced);
    }
    this.checkRanges(type1);
    this.checkReach(expected);
  }

  checkRanges(type1: Type1): void {
    const { ranges } = type1.allowed;
    const regions = type1.domains.flatMap((domain) =>
      domain.groups.flatMap((member) => member.group.reservedRegions()),
    );
    const corners = [...regions, ...ranges, ...type1.domains.map((d) => apertureOf(d.domain))];
    for (const { start, last } of corners) {
      for (const address of [start - 1n, start, last, last + 1n]) {
        if (address < 0n || address > ADDRESS_LAST) continue;
        const isInside = contains(ranges, address);
        const isNaive = isAllowed(type1, regions, address);
        const isBeyondEnds = address < ranges[0]!.start || address > ranges.at(-1)!.last;
        if (this.isNarrowed && isBeyondEnds) expect(isInside).toBe(false);
        else expect([address, isInside]).toEqual([address, isNaive]);
      }
    }
    for (const mapping of type1.mappings) {
      expect(contains(ranges, addressOf(mapping.iovaPfn))).toBe(true);
    }
  }

  checkReach(expected: ReadonlyMap<number, number>): void {
    for (const index of this.attached) {
      const address = addressOfDevice(index);
      for (const [iovaPfn, pages] of this.mappings) {
        for (const at of [iovaPfn - 1, iovaPfn, iovaPfn + pages - 1, iovaPfn + pages]) {
          if (at >= 0) expect(reach(this.host, address, at)).toBe(expected.get(at) ?? -1);
        }
      }
    }
    for (const index of this.groups.keys()) {
      if (!this.attached.has(index)) expect(reach(this.host, addressOfDevice(index), 0)).toBe(-1);
    }
  }
}

function framesOf({ table }: HardwareDomain): Map<number, number> {
  const frames = new Map<number, number>();
  table.forEachLeaf(({ iovaPfn, physPfn, pageShift }) => {
    for (let page = 0; page < 2 ** (pageShift - 12); page += 1) {
      frames.set(iovaPfn + page, physPfn + page);
    }
  });
  return frames;
}

describe("a container on a random host", () => {
  it("translates what its mappings say, in every domain, after every attach and detach", () => {
    fc.assert(
      fc.property(world, (parts) => {
        const trial = new Trial(parts);
        const boot = trial.host.tablePages();
        for (const each of parts.commands) {
          if (each.kind === "attach") trial.attach(each.at);
          else if (each.kind === "detach") trial.detach(each.at);
          else if (each.kind === "map") trial.map(each.at, each.pages);
          else trial.unmap(each.at);
          trial.check();
        }
        trial.task.descriptors.closeAll();
        expect(trial.host.tablePages()).toEqual(boot);
        expect(trial.memory.pinned).toBe(0);
      }),
      { numRuns: 150, seed: 1 },
    );
  });
});
