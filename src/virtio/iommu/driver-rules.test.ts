/** Rules V189 and V192 to V197 of the reference "virtio-iommu", section 11, each with its number. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { IotlbGather } from "../../iommu/gather.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { DriverWorld } from "./driver-scripted.suite.ts";
import { ALL_CORRECTIONS, LINUX_7_2 } from "./driver-settings.ts";
import { Status } from "./protocol.ts";

const gather = new IotlbGather();

it("V189: mappings outlive the last endpoint and come back with the next", () => {
  const world = new DriverWorld();
  const { domain, endpoint } = world.attached();
  domain.map(16, 9, 12, 1, PROT_RW);
  expect(world.driver.detach(endpoint)).toBe(Errno.OK);
  domain.map(17, 10, 12, 1, PROT_RW);
  expect(domain.unmap(16, 12, 1, gather)).toBe(1);
  world.device.takeLog();
  expect(world.driver.attach(endpoint, domain)).toBe(Errno.OK);
  expect(world.device.takeLog()).toEqual(["ATTACH 1 ep 8", "MAP 1 0x11000-0x11fff > 0xa000 rw"]);
});

it("V192: lazy mode is up to the domain's type; a DMA domain waits for every unmap", () => {
  const world = new DriverWorld();
  const { domain } = world.attached();
  const core = new IommuDomain(DomainType.DMA, domain);
  core.map(16, 9, 1, PROT_RW);
  core.unmap(16, 1);
  expect(world.driver.requests.inFlight).toBe(0);
  core.map(16, 9, 1, PROT_RW);
  const queued = new IotlbGather();
  queued.queued = true;
  expect(core.unmapFast(16, 1, queued)).toBe(1);
  core.iotlbSync(queued);
  expect(world.driver.requests.inFlight).toBe(1);
  core.flushIotlbAll();
  expect(world.driver.requests.inFlight).toBe(0);
});

describe("V193: a device that does not answer at once", () => {
  /** A world whose device wakes up after so many looks. */
  const answersAfter = (looks: number, pollsMax: number): DriverWorld => {
    const world = new DriverWorld({}, { ...LINUX_7_2, pollsMax });
    world.device.isAsleep = true;
    let seen = 0;
    const wait = world.transport.wait.bind(world.transport);
    world.transport.wait = (queueIndex) => {
      seen += 1;
      if (seen === looks) world.device.isAsleep = false;
      wait(queueIndex);
      return true;
    };
    return world;
  };

  it("is polled until it does", () => {
    const world = answersAfter(20, 21);
    expect(world.driver.requests.addUnmap(1, 0, 0)).toBe(Errno.OK);
    expect(world.driver.requests.sync()).toBe(Errno.OK);
    expect(world.device.takeLog()).toEqual(["UNMAP 1 0x0-0xfff"]);
  });

  it("is given up after a bound, where Linux would spin for ever", () => {
    const world = answersAfter(20, 19);
    expect(world.driver.requests.addUnmap(1, 0, 0)).toBe(Errno.OK);
    expect(world.driver.requests.sync()).toBe(Errno.ETIMEDOUT);
    expect(world.driver.requests.addUnmap(1, 1, 1)).toBe(Errno.ETIMEDOUT);
    expect(world.driver.requests.sendProbe(8, new Uint8Array(64))).toBe(Errno.ETIMEDOUT);
  });
});

it("V195: with the correction a failed replay detaches the endpoint again", () => {
  const world = new DriverWorld({}, { ...LINUX_7_2, corrections: ALL_CORRECTIONS });
  const { domain, endpoint } = world.attached();
  const next = world.value(world.driver.createDomain());
  next.map(16, 9, 12, 1, PROT_RW);
  world.device.answer = (request) => ({
    status: request.startsWith("MAP") ? Status.NOMEM : Status.OK,
  });
  expect(world.driver.attach(endpoint, next)).toBe(Errno.ENOMEM);
  expect(world.device.takeLog()).toEqual([
    "ATTACH 2 ep 8",
    "MAP 2 0x10000-0x10fff > 0x9000 rw",
    "DETACH 2 ep 8",
  ]);
  expect(endpoint.domain).toBe(null);
  expect([domain.endpointCount, next.endpointCount]).toEqual([0, 0]);
});

describe("V196: a request queue that the device breaks", () => {
  it("by an id nobody waits for: EIO from then on, until the recovery", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    world.device.isAsleep = true;
    domain.map(16, 9, 12, 1, PROT_RW);
    const { areas, usedPosition } = world.device.queues.queues[0]!;
    const { device, size } = areas!;
    world.memory.writeU32(device + 4 + 8 * (usedPosition % size), size - 1);
    world.memory.writeU16(device + 2, usedPosition + 1);
    expect(domain.iotlbSyncMap(16, 1)).toBe(Errno.EIO);
    expect(domain.map(17, 9, 12, 1, PROT_RW)).toBe(Errno.EIO);
    expect(domain.mappingCount).toBe(1);
    expect(domain.unmap(16, 12, 1, gather)).toBe(0);
    world.device.isAsleep = false;
    expect(world.driver.recover()).toBe(Errno.OK);
  });

  it("by taking its memory away: EIO", () => {
    const world = new DriverWorld();
    const { domain } = world.attached();
    domain.map(16, 9, 12, 1, PROT_RW);
    for (const { start } of world.memory.regions) world.memory.removeRegion(start);
    expect(domain.map(17, 9, 12, 1, PROT_RW)).toBe(Errno.EIO);
    expect(domain.iotlbSyncMap(16, 1)).toBe(Errno.EIO);
    expect(world.driver.requests.sendProbe(8, new Uint8Array(64))).toBe(Errno.EIO);
  });
});

it("V197: of an answer shorter than expected nothing is believed, not even its status", () => {
  const world = new DriverWorld();
  const endpoint = world.endpoint(8);
  const domain = world.value(world.driver.createDomain());
  world.device.answer = () => ({ used: 3, status: Status.NOENT });
  expect(world.driver.attach(endpoint, domain)).toBe(Errno.OK);
  const bytes = Array.from({ length: 64 }, () => 0xff);
  world.device.answer = () => ({ used: 67, bytes });
  expect(world.endpoint(9).regions).toEqual([]);
});
