/** Groups on real translation units: what an attach does to the DMA of the devices. */
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { PagePool } from "../memory/page-pool.ts";
import { CountingMeter } from "../meter.ts";
import {
  attachGroup,
  attachPasid,
  claimGroup,
  detachGroup,
  detachPasid,
  releaseGroup,
} from "./attach.ts";
import { storeType } from "./default-domain.ts";
import { IommuDevice } from "./device.ts";
import { type DomainTrace, DomainType, type IommuDomain } from "./domain.ts";
import { amdV1 } from "./formats/amd-v1.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { IommuGroups } from "./groups.ts";
import { HardwareDomain } from "./hardware-domain.ts";
import { HardwareOps, type HardwareOpsOptions } from "./hardware-ops.ts";
import { makePool, makeUnit, reach } from "./hardware-world.suite.ts";
import { type MergeKey, mayMerge } from "./merge-rules.ts";
import { PageTable } from "./page-table.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { ReservedType, vtdRegions } from "./reserved-regions.ts";
import { Outcome, Translation, type TranslationUnit } from "./translation-unit.ts";

const user = {};

/** Two VT-d units on two nodes, with groups of one device each: rids 1 and 2 near, 3 far. */
function setup(options: Partial<HardwareOpsOptions> & { pool?: PagePool; snoop?: boolean } = {}) {
  const meter = new CountingMeter();
  const formats = [vtdSecondStage({ levels: 4 }).name];
  const near = makeUnit(meter, { formats });
  const farOptions = { formats, name: "dmar1", node: 1, snoopControl: options.snoop ?? true };
  const far = makeUnit(meter, farOptions);
  const pool = options.pool ?? makePool();
  const maps: string[] = [];
  const trace: DomainTrace = {
    map: (iova, phys, pages) => maps.push(`${iova} ${phys} ${pages}`),
    unmap() {},
  };
  const unitOf = (device: IommuDevice): TranslationUnit => (device.rid === 3 ? far : near);
  const ops = new HardwareOps({
    name: "intel-iommu",
    unitOf,
    createDomain(_device, unit) {
      const table = PageTable.create({
        format: vtdSecondStage({ levels: 4 }),
        pool,
        node: unit.node,
      });
      return table === null ? null : { table };
    },
    blocksFirst: true,
    trace,
    ...options,
  });
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  const devices = [1, 2, 3].map(
    (rid) => new IommuDevice({ name: `d${rid}`, ops, rid, maxPasids: 8 }),
  );
  const errnos = devices.map((device) => groups.add(device));
  const group = (rid: number) => groups.of(devices[rid - 1]!)!;
  return { meter, near, far, pool, maps, ops, groups, devices, errnos, group };
}

function hardwareOf(domain: IommuDomain): HardwareDomain {
  expect(domain.driver).toBeInstanceOf(HardwareDomain);
  return domain.driver as HardwareDomain;
}

describe("a group on hardware", () => {
  it("reaches through its default domain, nothing while claimed, and the user's domain after", () => {
    const { near, group } = setup();
    const own = group(1);
    own.defaultDomain!.map(5, 50, 1, PROT_RW);
    expect([reach(near, 1, 5), reach(near, 2, 5)]).toEqual([50, -1]);
    expect(claimGroup(own, user)).toBe(Errno.OK);
    expect(reach(near, 1, 5)).toBe(-1);
    const users = own.allocDomain(DomainType.UNMANAGED) as IommuDomain;
    users.map(5, 99, 1, PROT_RW);
    expect(attachGroup(own, users)).toBe(Errno.OK);
    expect(reach(near, 1, 5)).toBe(99);
    detachGroup(own);
    expect(reach(near, 1, 5)).toBe(-1);
    releaseGroup(own);
    expect(reach(near, 1, 5)).toBe(50);
    own.freeDomain(users);
  });

  it("reaches everything after its type became identity, and mappings after DMA again", () => {
    const { near, group } = setup();
    expect(storeType(group(1), "identity", true)).toBe(Errno.OK);
    expect(reach(near, 1, 2 ** 40)).toBe(2 ** 40);
    expect(storeType(group(1), "DMA", true)).toBe(Errno.OK);
    expect(reach(near, 1, 2 ** 40)).toBe(-1);
  });

  it("keeps its tables on the node of its unit, and gives them back when it goes", () => {
    const pool = new PagePool([
      { node: 0, basePfn: 0x10_0000, frameCount: 1024 },
      { node: 1, basePfn: 0x20_0000, frameCount: 1024 },
    ]);
    const { groups, devices, group } = setup({ pool });
    expect([pool.usedFramesOf(0), pool.usedFramesOf(1)]).toEqual([2, 1]);
    group(3).defaultDomain!.map(1, 1, 1, PROT_RW);
    expect([pool.usedFramesOf(0), pool.usedFramesOf(1)]).toEqual([2, 4]);
    for (const device of devices) groups.remove(device);
    expect(pool.usedFrames).toBe(0);
  });

  it("has direct regions mapped to themselves from the first moment on", () => {
    const rmrr = [{ start: 0x9000_0000n, last: 0x9000_ffffn }];
    const reservedRegions = () => vtdRegions(0x020000, rmrr);
    const { near, group } = setup({ reservedRegions });
    expect([reach(near, 1, 0x9_0005), reach(near, 1, 0x9_0010)]).toEqual([0x9_0005, -1]);
    expect(claimGroup(group(1), user)).toBe(Errno.EINVAL);
    expect(reach(near, 1, 0x9_0005)).toBe(0x9_0005);
    expect(
      group(1)
        .reservedRegions()
        .map(({ type }) => type),
    ).toEqual([ReservedType.DIRECT, ReservedType.MSI]);
  });

  it("puts PASIDs on domains of their own", () => {
    const { near, ops, group } = setup();
    const domain = group(1).allocDomain(DomainType.UNMANAGED) as IommuDomain;
    domain.map(5, 77, 1, PROT_RW);
    expect(attachPasid(group(1), domain, 3)).toBe(Errno.OK);
    const out = new Translation();
    expect(near.translate(1, 3, 5, Prot.READ, out)).toBe(Outcome.MEMORY);
    expect([out.physPfn, reach(near, 1, 5)]).toEqual([77, -1]);
    expect(attachPasid(group(1), ops.identityDomain!, 4)).toBe(Errno.EOPNOTSUPP);
    detachPasid(group(1), 3);
    expect(near.translate(1, 3, 5, Prot.READ, out)).toBe(Outcome.FAULT);
    group(1).freeDomain(domain);
  });
});

describe("an attach that is refused", () => {
  const strange = (group: ReturnType<ReturnType<typeof setup>["group"]>, pool: PagePool) => {
    const domain = group.allocDomain(DomainType.UNMANAGED) as IommuDomain;
    // A domain of the right driver with a table that the unit cannot walk.
    const table = new PageTable({ format: amdV1(), pool, node: 0 });
    Object.assign(domain, { driver: new HardwareDomain({ table }) });
    return domain;
  };

  it("of VT-d leaves the device blocked until the core attaches it to the old domain again", () => {
    const seen: number[] = [];
    const world = setup();
    const { near, ops, pool, devices, group } = world;
    group(1).defaultDomain!.map(5, 50, 1, PROT_RW);
    const domain = strange(group(1), pool);
    expect(ops.attach(devices[0]!, domain)).toBe(Errno.EINVAL);
    seen.push(reach(near, 1, 5));
    expect(ops.attach(devices[0]!, group(1).defaultDomain!)).toBe(Errno.OK);
    expect(attachGroup(group(1), domain)).toBe(Errno.EINVAL);
    seen.push(reach(near, 1, 5));
    expect(seen).toEqual([-1, 50]);
  });

  it("of others leaves the device where it was", () => {
    const { near, ops, pool, devices, group } = setup({ blocksFirst: false });
    group(1).defaultDomain!.map(5, 50, 1, PROT_RW);
    expect(ops.attach(devices[0]!, strange(group(1), pool))).toBe(Errno.EINVAL);
    expect(reach(near, 1, 5)).toBe(50);
  });

  it("for want of a unit is ENODEV, for want of a table ENOMEM, of a domain number ENOSPC", () => {
    const lost = setup({ unitOf: () => null });
    expect(lost.ops.allocPaging(lost.devices[0]!, false)).toBe(Errno.ENODEV);
    // A default domain that cannot be had is EINVAL whatever the reason.
    expect(lost.errnos).toEqual([Errno.EINVAL, Errno.EINVAL, Errno.EINVAL]);
    const poor = setup({ createDomain: () => null });
    expect(poor.ops.allocPaging(poor.devices[0]!, false)).toBe(Errno.ENOMEM);
    const meter = new CountingMeter();
    const unit = makeUnit(meter, { domainIds: 3 });
    const crowded = setup({ unitOf: () => unit });
    expect(crowded.errnos).toEqual([0, 0, Errno.ENOSPC]);
    expect(reach(unit, 3, 5)).toBe(-1);
    expect(crowded.groups.all).toHaveLength(2);
  });

  it("whichever allocation of a type change fails, the group keeps or changes its domain as a whole", () => {
    const { near, pool, group } = setup();
    group(1).defaultDomain!.map(5, 50, 1, PROT_RW);
    pool.failAfter(0);
    expect(storeType(group(1), "identity", true)).toBe(Errno.OK);
    expect(storeType(group(1), "DMA", true)).toBe(Errno.ENOMEM);
    expect(reach(near, 1, 7)).toBe(7);
    pool.failAfter(Number.POSITIVE_INFINITY);
    expect(storeType(group(1), "DMA", true)).toBe(Errno.OK);
    expect(reach(near, 1, 7)).toBe(-1);
  });
});

describe("a container with two groups", () => {
  const keyOf = (domain: IommuDomain, byDriver: object): MergeKey => {
    const hardware = hardwareOf(domain);
    const { coherencyEnforced, unitNode } = hardware;
    return { operations: byDriver, coherencyEnforced, node: unitNode };
  };

  /** Attaches groups as a container does: on a domain that it has if the rules let it, else new. */
  function attachAll(world: ReturnType<typeof setup>, rids: number[], byNode: number) {
    const domains: IommuDomain[] = [];
    for (const rid of rids) {
      const group = world.group(rid);
      expect(claimGroup(group, user)).toBe(Errno.OK);
      const fresh = group.allocDomain(DomainType.UNMANAGED) as IommuDomain;
      expect(attachGroup(group, fresh)).toBe(Errno.OK);
      hardwareOf(fresh).enforceCacheCoherency();
      const known = domains.find((domain) =>
        mayMerge(keyOf(domain, world.ops), keyOf(fresh, world.ops), byNode),
      );
      if (known === undefined) {
        domains.push(fresh);
        continue;
      }
      detachGroup(group);
      expect(attachGroup(group, known)).toBe(Errno.OK);
      group.freeDomain(fresh);
    }
    return domains;
  }

  const mapAll = (world: ReturnType<typeof setup>, domains: IommuDomain[]) => {
    world.maps.length = 0;
    for (const domain of domains) domain.map(0x100, 0x500, 4, PROT_RW);
    expect([reach(world.near, 1, 0x101), reach(world.far, 3, 0x101)]).toEqual([0x501, 0x501]);
    return world.maps.length;
  };

  it("row 35: of the same driver and coherency has one domain; a map is one iommu_map", () => {
    const world = setup();
    const domains = attachAll(world, [1, 3], 0);
    expect(domains).toHaveLength(1);
    expect(mapAll(world, domains)).toBe(1);
  });

  it("row 36: of different coherency has two domains; a map is two", () => {
    const world = setup({ snoop: false });
    const domains = attachAll(world, [1, 3], 0);
    expect(domains).toHaveLength(2);
    expect(mapAll(world, domains)).toBe(2);
  });

  it("row 37: by node has two on nodes 0 and 1, one without, and two for equal nodes by 2", () => {
    expect(attachAll(setup(), [1, 3], 1)).toHaveLength(2);
    expect(attachAll(setup(), [1, 3], 0)).toHaveLength(1);
    expect(attachAll(setup(), [1, 2], 1)).toHaveLength(1);
    expect(attachAll(setup(), [1, 2], 2)).toHaveLength(2);
  });

  it("never merges domains of different drivers or kinds of tables", () => {
    const key = { operations: "vtd-second-stage", coherencyEnforced: true, node: 0 };
    expect(mayMerge(key, key, 0)).toBe(true);
    expect(mayMerge(key, { ...key, operations: "vtd-first-stage" }, 0)).toBe(false);
    expect(mayMerge({ ...key, node: -1 }, { ...key, node: -1 }, 1)).toBe(true);
  });
});
