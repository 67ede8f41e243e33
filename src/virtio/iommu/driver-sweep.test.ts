/**
 * One life of a driver with its n-th allocation failing, for every n, and with every size of queue:
 * nothing throws, nothing leaks, and what the device has mapped is what the driver remembers.
 */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { DeviceStatus } from "../features.ts";
import type { AnyDomain, Endpoint } from "./driver.ts";
import { DriverWorld, type ScriptedConfig } from "./driver-scripted.suite.ts";
import { type DriverSettings, LINUX_6_4, LINUX_7_2 } from "./driver-settings.ts";
import { FEATURES_ALL, featureSet } from "./protocol.ts";

/** What a device has mapped, by domain, built from the requests it got. */
function mappedBy(log: readonly string[]): Map<string, Map<number, number>> {
  const domains = new Map<string, Map<number, number>>();
  for (const request of log) {
    const map = /^MAP (\d+) 0x([0-9a-f]+)-0x([0-9a-f]+) > 0x([0-9a-f]+)/.exec(request);
    const unmap = /^UNMAP (\d+) 0x([0-9a-f]+)-0x([0-9a-f]+)/.exec(request);
    const [, id = "", start = "0", last = "0", phys = "0"] = map ?? unmap ?? [];
    if (id === "") continue;
    const pages = domains.get(id) ?? new Map<number, number>();
    domains.set(id, pages);
    const from = Number.parseInt(start, 16) / 4096;
    for (let pfn = from; pfn <= Number.parseInt(last, 16) / 4096; pfn += 1) {
      if (map !== null) pages.set(pfn, Number.parseInt(phys, 16) / 4096 + pfn - from);
      else pages.delete(pfn);
    }
  }
  return domains;
}

/** A life of a driver: what every step gave. */
function live(world: DriverWorld): { outcomes: number[]; frames: number[] } {
  const outcomes: number[] = [];
  const { driver } = world;
  const note = <T>(result: { errno: number; value: T | null }): T | null => {
    outcomes.push(result.errno);
    return result.value;
  };
  const endpoint: Endpoint | null = note(driver.addEndpoint([8]));
  const domain = note(driver.createDomain());
  const identity: AnyDomain | null =
    endpoint === null ? null : note(driver.identityDomain(endpoint));
  if (domain === null || endpoint === null) return { outcomes, frames: [] };
  const core = new IommuDomain(DomainType.UNMANAGED, domain);
  outcomes.push(core.map(100, 1100, 3, PROT_RW));
  outcomes.push(driver.attach(endpoint, domain));
  const isAttached = endpoint.domain === domain;
  for (let at = 0; at < 40; at += 1) outcomes.push(core.map(200 + 2 * at, 7 * at, 2, PROT_RW));
  // An UNMAP that could not be queued leaves its frames in the device: the driver forgot them.
  let isLost = false;
  for (let at = 0; at < 20; at += 1) {
    const wasMapped = core.iovaToPhys(200 + 4 * at) >= 0;
    const unmapped = core.unmap(200 + 4 * at, 2);
    if (wasMapped && unmapped === 0) isLost = true;
    outcomes.push(unmapped);
  }
  const frames: number[] = [];
  for (let pfn = 90; pfn < 300; pfn += 1) frames.push(core.iovaToPhys(pfn));
  if (isAttached) {
    const device = mappedBy(world.device.log).get(String(domain.id)) ?? new Map();
    const differing = frames.filter((known, at) => {
      return (known !== -1 || !isLost) && (device.get(90 + at) ?? -1) !== known;
    });
    expect(differing).toEqual([]);
  }
  if (identity !== null) outcomes.push(driver.attach(endpoint, identity));
  outcomes.push(driver.removeEndpoint(endpoint));
  driver.freeDomain(domain);
  expect(driver.requests.inFlight).toBe(0);
  expect(driver.requests.dead).toBe(Errno.OK);
  return { outcomes, frames };
}

/** Fills the queue to the brim: a slot or a descriptor that leaked would show. */
function hasEverySlot(world: DriverWorld, capacity: number): void {
  const { requests } = world.driver;
  for (let at = 0; at < capacity; at += 1) requests.addUnmap(1, at, at);
  expect(requests.inFlight).toBe(capacity);
  expect(requests.sync()).toBe(Errno.OK);
}

describe("the n-th allocation fails", () => {
  const noBypass = { features: FEATURES_ALL & ~featureSet("BYPASS_CONFIG") };
  const cases: [string, Partial<ScriptedConfig>, DriverSettings][] = [
    ["as of 7.2", {}, LINUX_7_2],
    ["as of 6.4", {}, LINUX_6_4],
    ["without bypass domains", noBypass, LINUX_7_2],
  ];
  for (const [name, config, settings] of cases) {
    it(`${name}: each shows as ENOMEM or as an unmap of 0, and nothing else`, () => {
      const sound = new DriverWorld(config, settings);
      const before = sound.allocations;
      const expected = live(sound).outcomes;
      const count = sound.allocations - before;
      expect(count).toBeGreaterThan(100);
      for (let nth = 1; nth <= count; nth += 1) {
        const world = new DriverWorld(config, settings);
        world.failingAllocation = before + nth;
        const { outcomes } = live(world);
        const differing = outcomes.filter((outcome, at) => outcome !== expected[at]);
        // A failed DETACH goes by as a warning; every other failure is seen by its caller.
        expect(differing.length, `allocation ${nth}`).toBeGreaterThan(0);
        expect(differing.every((outcome) => outcome === Errno.ENOMEM || outcome === 0)).toBe(true);
        world.failingAllocation = 0;
        hasEverySlot(world, 64);
      }
    });
  }

  it("at the start: ENOMEM and FAILED", () => {
    const count = new DriverWorld().allocations;
    expect(count).toBeGreaterThan(0);
    for (let failingAllocation = 1; failingAllocation <= count; failingAllocation += 1) {
      const world = new DriverWorld({}, LINUX_7_2, { failingAllocation });
      expect(world.started.errno).toBe(Errno.ENOMEM);
      expect(world.transport.readStatus() & DeviceStatus.FAILED).not.toBe(0);
    }
  });
});

describe("a queue that is full again and again", () => {
  it("gives the same outcomes and mappings as one that never is", () => {
    const expected = live(new DriverWorld({ queueSizes: [256, 8] }));
    for (const size of [2, 4, 8, 16]) {
      for (const ringFeatures of [0, 0x1000_0000, 0x2000_0000, 0x3000_0000]) {
        const world = new DriverWorld({ queueSizes: [size, 8], ringFeatures });
        expect(live(world)).toEqual(expected);
        hasEverySlot(world, (ringFeatures & 0x1000_0000) === 0 ? size / 2 : size);
      }
    }
  });
});
