/** Groups of a system, also against the groups that a recorded kernel formed. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { AssertionError } from "../errors.ts";
import { bootPolicy } from "./boot-policy.ts";
import { showType } from "./default-domain.ts";
import { IommuDevice } from "./device.ts";
import { DomainType } from "./domain.ts";
import { FakeOps, makeGroup } from "./group-world.suite.ts";
import { IommuGroups } from "./groups.ts";
import { classOf, type RecordedFunction, readFunctions } from "./pci-config.suite.ts";
import {
  MSI_WINDOW,
  ReservedType,
  regionsText,
  virtioRegions,
  vtdRegions,
} from "./reserved-regions.ts";

import type { ScriptedDriver } from "./scripted-driver.suite.ts";

interface RecordedGroup {
  readonly id: number;
  readonly devices: string[];
  readonly type: string;
  readonly reservedRegions: string;
}

interface RecordedHost {
  readonly name: string;
  readonly isVtd: boolean;
  readonly commandLine: string;
  readonly log: string[];
  readonly probed: string[];
  readonly functions: RecordedFunction[];
  readonly groups: RecordedGroup[];
}

function viewOf(words: Record<string, string>): DataView {
  const view = new DataView(new ArrayBuffer(4096));
  for (const [offset, bytes] of Object.entries(words)) {
    const start = Number.parseInt(offset, 16);
    for (let at = 0; at < bytes.length / 2; at += 1) {
      view.setUint8(start + at, Number.parseInt(bytes.slice(2 * at, 2 * at + 2), 16));
    }
  }
  return view;
}

function readVector(name: string): RecordedHost {
  const text = readFileSync(new URL(`vectors/${name}.json`, import.meta.url), "utf8");
  const vector = JSON.parse(text);
  const functions = vector.functions.map((each: { config: Record<string, string> }) => {
    return { ...each, config: viewOf(each.config) };
  });
  return { ...vector, name, isVtd: name.includes("intel"), functions };
}

/** Reads a recorded `/sys` tree, with its log and command line beside it. */
function readTree(folder: string, name: string): RecordedHost {
  const read = (path: string) => readFileSync(`${folder}/${path}`, "utf8");
  const functions: RecordedFunction[] = [];
  const visit = (path: string, parent: string | null) => {
    for (const entry of readdirSync(`${folder}/${path}`)) {
      if (!/^\w{4}:\w\w:\w\w\.\w$/.test(entry)) continue;
      const bytes = readFileSync(`${folder}/${path}/${entry}/config`);
      const config = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      functions.push({ name: entry, parent, config });
      visit(`${path}/${entry}`, entry);
    }
  };
  const roots = readdirSync(`${folder}/sys/devices`).filter((entry) => entry.startsWith("pci"));
  for (const root of roots) visit(`sys/devices/${root}`, null);
  const log = read("dmesg.txt");
  const groups = "sys/kernel/iommu_groups";
  return {
    name,
    isVtd: existsSync(`${folder}/sys/class/iommu/dmar0`),
    commandLine: read("proc/cmdline").trim(),
    log: [...log.matchAll(/\] iommu: (D.*)/g)].map((match) => match[1]!),
    probed: [...log.matchAll(/pci (\S+): Adding to iommu group/g)].map((match) => match[1]!),
    functions,
    groups: readdirSync(`${folder}/${groups}`)
      .map((id) => ({
        id: Number(id),
        devices: readdirSync(`${folder}/${groups}/${id}/devices`).sort(),
        type: read(`${groups}/${id}/type`).trim(),
        reservedRegions: read(`${groups}/${id}/reserved_regions`),
      }))
      .sort((a, b) => a.id - b.id),
  };
}

const hosts = ["q35-2node-intel-iommu", "q35-2node-virtio-iommu"].map(readVector);
const shared = new URL("../../../shared/data/hosts/", import.meta.url).pathname;
if (existsSync(shared)) {
  for (const name of readdirSync(shared)) hosts.push(readTree(shared + name, `tree of ${name}`));
}

describe.each(hosts)("the recorded host $name", (host) => {
  const policy = bootPolicy({
    architecture: "x86",
    ...(/iommu\.strict=1/.test(host.commandLine) ? { strict: true } : {}),
  });

  it("has the groups, types and reserved regions that the kernel gave it", () => {
    const functions = readFunctions(host.functions);
    const ops = new FakeOps();
    for (const { name, config } of host.functions) {
      const regions = host.isVtd ? vtdRegions(classOf(config), []) : virtioRegions([MSI_WINDOW]);
      ops.regions.set(name, regions);
    }
    const groups = new IommuGroups({ defaultType: policy.defaultType }, functions);
    const errno = groups.probe(
      host.probed.map((name) => ({
        device: new IommuDevice({ name, ops }),
        pciIndex: host.functions.findIndex((each) => each.name === name),
      })),
    );
    expect(errno).toBe(Errno.OK);
    const formed = groups.all.map((group) => ({
      id: group.id,
      devices: group.devices.map((device) => device.name).sort(),
      type: showType(group),
      reservedRegions: regionsText(group.reservedRegions()),
    }));
    expect(host.groups.length).toBeGreaterThan(10);
    expect(formed).toEqual(host.groups);
  });

  it("logged its default domain type as the boot policy says", () => {
    expect(policy.log).toEqual(host.log);
  });
});

describe("probing a bus", () => {
  it("adds all devices to groups first, then attaches group by group, as recorded traces show", () => {
    const { events } = makeGroup(["00:1f.0", "00:1f.2", "00:1f.3"]);
    expect(events).toEqual([
      "add 0 00:1f.0",
      "add 0 00:1f.2",
      "add 0 00:1f.3",
      "attach 00:1f.0",
      "attach 00:1f.2",
      "attach 00:1f.3",
    ]);
  });

  it("lets the default domain see what all members demand", () => {
    const ops = new FakeOps();
    ops.demands.set("b", DomainType.IDENTITY);
    const { group } = makeGroup(["a", "b"], { ops, system: { defaultType: DomainType.DMA_FQ } });
    expect(showType(group)).toBe("identity");
  });

  it("maps direct regions before the device that needs them is attached", () => {
    const ops = new FakeOps();
    ops.script = { empty: true, gathers: true };
    ops.regions.set("b", [{ type: ReservedType.DIRECT, start: 0n, last: 0xffffn, prot: 3 }]);
    const seen: number[] = [];
    ops.attach = (device, domain) => {
      const calls = (domain.driver as unknown as { calls: string[] }).calls;
      seen.push(calls.filter((call) => call.startsWith("map")).length);
      ops.at.set(device.name, domain);
      return Errno.OK;
    };
    makeGroup(["a", "b"], { ops });
    expect(seen).toEqual([1, 1]);
  });
});

describe("a device that comes later", () => {
  it("gets a group of its own with the lowest free number, and attaches to its default", () => {
    const ops = new FakeOps();
    const groups = new IommuGroups({ defaultType: DomainType.DMA });
    const devices = ["a", "b", "c", "d"].map((name) => new IommuDevice({ name, ops }));
    for (const device of devices.slice(0, 3)) expect(groups.add(device)).toBe(Errno.OK);
    expect(groups.all.map((group) => group.id)).toEqual([0, 1, 2]);
    const old = groups.of(devices[1]!)!.defaultDomain;
    groups.remove(devices[1]!);
    expect(ops.at.get("b")).toBe(ops.blockedDomain);
    expect(ops.freed).toEqual([old]);
    expect(groups.of(devices[1]!)).toBe(null);
    groups.add(devices[3]!);
    expect(groups.of(devices[3]!)!.id).toBe(1);
    expect(() => groups.add(devices[3]!)).toThrow(AssertionError);
  });

  it("joins the others of its IOMMU where all share one group", () => {
    const ops = new FakeOps();
    const groups = new IommuGroups({ defaultType: DomainType.DMA });
    const devices = ["a", "b"].map((name) => new IommuDevice({ name, ops }));
    for (const device of devices) expect(groups.addToSingle(device)).toBe(Errno.OK);
    expect(groups.of(devices[0]!)).toBe(groups.of(devices[1]!));
    for (const device of devices) groups.remove(device);
    expect([groups.all, ops.freed.length]).toEqual([[], 1]);
    expect(groups.addToSingle(devices[0]!)).toBe(Errno.OK);
  });

  it("attaches to whatever its group is attached to, or has no group", () => {
    const { ops, groups, group, events } = makeGroup(["a", "b"]);
    const [, b] = group.devices;
    groups.remove(b!);
    expect(group.devices).toHaveLength(1);
    events.length = 0;
    ops.successes = 0;
    expect(groups.add(b!, 1)).toBe(Errno.ENOMEM);
    expect(events).toEqual(["add 0 b", "remove 0 b"]);
    expect(groups.of(b!)).toBe(null);
    expect(groups.add(b!, 1)).toBe(Errno.OK);
    expect(groups.of(b!)).toBe(group);
    expect(ops.at.get("b")).toBe(group.domain);
  });

  it("has its direct regions mapped into the domain that its group has", () => {
    const ops = new FakeOps();
    ops.script = { empty: true, gathers: true };
    const { groups, group } = makeGroup(["a", "b"], { ops });
    const [, b] = group.devices;
    groups.remove(b!);
    ops.regions.set("b", [{ type: ReservedType.DIRECT, start: 0x1000n, last: 0x1fffn, prot: 3 }]);
    groups.add(b!, 1);
    expect(b!.requireDirect).toBe(true);
    expect((group.domain!.driver as ScriptedDriver).calls).toContain("map 1 1 1x2^12");
  });

  it("that needs direct mappings is not left blocked when it goes", () => {
    const ops = new FakeOps();
    ops.regions.set("a", [{ type: ReservedType.DIRECT, start: 0x1000n, last: 0x1fffn, prot: 3 }]);
    const { groups, group } = makeGroup(["a"], { ops });
    groups.remove(group.devices[0]!);
    expect(ops.at.get("a")).toBe(ops.identityDomain);
  });

  it("without an IOMMU gets no group", () => {
    const groups = new IommuGroups({ defaultType: DomainType.DMA });
    const device = new IommuDevice({ name: "x", ops: null });
    expect(groups.add(device)).toBe(Errno.ENODEV);
    expect(groups.all).toEqual([]);
  });

  it("without an IOMMU gets a group made by hand, with the next id and no domain", () => {
    const { groups, group, events } = makeGroup(["a"]);
    const device = new IommuDevice({ name: "x", ops: null });
    const bare = groups.addBare(device);
    expect([group.id, bare.id, bare.domain, bare.defaultDomain]).toEqual([0, 1, null, null]);
    expect(groups.of(device)).toBe(bare);
    groups.remove(device);
    expect(groups.all).toEqual([group]);
    expect(events.slice(-2)).toEqual(["add 1 x", "remove 1 x"]);
  });

  it("row 38: has isolated interrupts only if all members of its group have", () => {
    const one = { name: "a", ops: null };
    expect(makeGroup([one, { ...one, name: "b" }]).group.hasIsolatedMsi).toBe(true);
    // A user of such a group gets EPERM unless unsafe interrupts are allowed.
    const open = makeGroup([one, { ...one, name: "b", isolatedMsi: false }]);
    expect(open.group.hasIsolatedMsi).toBe(false);
  });
});
