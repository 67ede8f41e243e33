/** How the driver brings a device up: rules V10 to V12, V185 to V187 of the reference. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { NULL_METER } from "../../meter.ts";
import { CommonFeature, DeviceStatus } from "../features.ts";
import type { QueueAreas } from "../virtqueue-layout.ts";
import { ViommuDriver } from "./driver.ts";
import { DriverArea } from "./driver-area.ts";
import {
  AREA_BYTES,
  AREA_START,
  DEFAULT_CONFIG,
  DriverWorld,
  ScriptedDevice,
} from "./driver-scripted.suite.ts";
import { LINUX_7_2 } from "./driver-settings.ts";
import { type DriverTransport, LocalTransport } from "./driver-transport.ts";
import { FEATURES_ALL, featureSet } from "./protocol.ts";

/** Writes down what the driver does to its transport. */
function recorded(inner: DriverTransport, log: string[]): DriverTransport {
  return {
    readStatus: () => inner.readStatus(),
    writeStatus: (status) => {
      log.push(`status ${status}`);
      inner.writeStatus(status);
    },
    deviceFeatures: (word) => inner.deviceFeatures(word),
    writeFeatures: (word, features) => {
      log.push(`features ${word}`);
      inner.writeFeatures(word, features);
    },
    readConfig32: (offset) => {
      if (log.at(-1) !== "config") log.push("config");
      return inner.readConfig32(offset);
    },
    queueSizeMax: (queueIndex) => inner.queueSizeMax(queueIndex),
    enableQueue: (queueIndex: number, areas: QueueAreas) => {
      log.push(`enable ${queueIndex}`);
      return inner.enableQueue(queueIndex, areas);
    },
    notify: (queueIndex) => {
      log.push(`notify ${queueIndex}`);
      inner.notify(queueIndex);
    },
    wait: (queueIndex) => inner.wait(queueIndex),
    onInterrupt: null,
  };
}

it("V185, V187: reset, status steps, features, queues, config, DRIVER_OK, then the first kick", () => {
  const memory = new GuestMemory();
  memory.addRegion({ start: AREA_START, bytes: AREA_BYTES });
  const device = new ScriptedDevice(memory, DEFAULT_CONFIG);
  const log: string[] = [];
  const started = ViommuDriver.start({
    area: new DriverArea(memory, AREA_START, AREA_BYTES),
    transport: recorded(new LocalTransport(device), log),
    settings: LINUX_7_2,
    meter: NULL_METER,
    allocationFails: () => false,
  });
  expect(started.errno).toBe(0);
  expect(log).toEqual([
    "status 0",
    "status 1",
    "status 3",
    "features 0",
    "features 1",
    "status 11",
    "enable 0",
    "enable 1",
    "config",
    "status 15",
    "notify 1",
  ]);
});

describe("features", () => {
  it("V11: what is offered and known is accepted, BYPASS never (V3)", () => {
    const world = new DriverWorld({ features: FEATURES_ALL | featureSet("BYPASS") | 0x80 });
    const ring = CommonFeature.INDIRECT_DESC | CommonFeature.EVENT_IDX;
    expect(world.device.accepted).toEqual([FEATURES_ALL | ring, CommonFeature.VERSION_1]);
  });

  it("V12: without MAP_UNMAP, or without VERSION_1, the device is refused: ENODEV", () => {
    for (const config of [
      { features: FEATURES_ALL & ~featureSet("MAP_UNMAP") },
      { featuresHigh: 0 },
    ]) {
      const world = new DriverWorld(config);
      expect(world.started.errno).toBe(Errno.ENODEV);
      expect(world.transport.readStatus() & DeviceStatus.FAILED).not.toBe(0);
      expect(world.transport.readStatus() & DeviceStatus.DRIVER_OK).toBe(0);
    }
  });

  it("a device that does not keep FEATURES_OK is refused: ENODEV", () => {
    const world = new DriverWorld({}, LINUX_7_2, {
      prepare: (device) => {
        device.refusesFeatures = true;
      },
    });
    expect(world.started.errno).toBe(Errno.ENODEV);
  });

  it("without INPUT_RANGE and DOMAIN_RANGE everything is allowed", () => {
    const world = new DriverWorld({ features: featureSet("MAP_UNMAP"), domainFirst: 7 });
    const { device } = world.driver;
    expect([device.firstDomain, device.lastDomain]).toEqual([0, 0xffff_ffff]);
    expect(device.geometry.apertureStartPfn).toBe(0);
    expect(device.geometry.apertureLastPfn).toBe(2 ** 52 - 1);
    expect(device.probeBytes).toBe(0);
    expect(world.endpoint(8).regions).toEqual([]);
    expect(world.device.takeLog()).toEqual([]);
  });
});

describe("V25: the aperture", () => {
  const aperture = (inputStart: bigint, inputLast: bigint): number[] => {
    const { geometry } = new DriverWorld({ inputStart, inputLast }).driver.device;
    return [geometry.apertureStartPfn, geometry.apertureLastPfn];
  };

  it("is the whole frames of the input range", () => {
    expect(aperture(0n, 0xfffn)).toEqual([0, 0]);
    expect(aperture(0x1001n, 0x3ffen)).toEqual([2, 2]);
    expect(aperture(0n, 2n ** 64n - 1n)).toEqual([0, 2 ** 52 - 1]);
    expect(aperture(2n ** 63n, 2n ** 64n - 2n)).toEqual([2 ** 51, 2 ** 52 - 2]);
  });

  it("of an inverted range is empty", () => {
    const [start, last] = aperture(0x1_0000n, 0x1000n);
    expect(start).toBeGreaterThan(last!);
  });
});

describe("queues", () => {
  it("are as large as the device offers, a power of two", () => {
    for (const [offered, used] of [
      [1024, 1024],
      [256, 256],
      [100, 64],
      [2, 2],
    ] as const) {
      const world = new DriverWorld({ queueSizes: [offered, 8] });
      expect(world.driver.requests.inFlight).toBe(0);
      expect(world.device.queues.queues[0]!.size).toBe(used);
    }
  });

  it("that do not exist: ENOENT", () => {
    expect(new DriverWorld({ queueSizes: [64] }).started.errno).toBe(Errno.ENOENT);
    expect(new DriverWorld({ queueSizes: [0, 64] }).started.errno).toBe(Errno.ENOENT);
  });
});

describe("memory", () => {
  it("an area too small at any point of the start gives ENOMEM, and large enough it works", () => {
    let failures = 0;
    for (let areaBytes = 0; ; areaBytes += 512) {
      const world = new DriverWorld({}, LINUX_7_2, { areaBytes });
      if (world.started.errno === 0) break;
      expect(world.started.errno).toBe(Errno.ENOMEM);
      expect(world.transport.readStatus() & DeviceStatus.DRIVER_OK).toBe(0);
      failures += 1;
    }
    expect(failures).toBeGreaterThan(10);
  });

  it("a properties area larger than the driver allocates: ENOMEM", () => {
    expect(new DriverWorld({ probeSize: 65_537 }).started.errno).toBe(Errno.ENOMEM);
    expect(new DriverWorld({ probeSize: 0xffff_fff0 }).started.errno).toBe(Errno.ENOMEM);
  });
});

it("the transport keeps a started device's features, and DRIVER_OK needs FEATURES_OK", () => {
  const memory = new GuestMemory();
  const device = new ScriptedDevice(memory, DEFAULT_CONFIG);
  const transport = new LocalTransport(device);
  transport.writeStatus(DeviceStatus.DRIVER_OK);
  expect(device.queues.isLive).toBe(false);
  expect(transport.readStatus()).toBe(0);
  transport.writeFeatures(0, 5);
  transport.writeStatus(DeviceStatus.FEATURES_OK);
  transport.writeFeatures(0, 7);
  transport.writeStatus(DeviceStatus.DRIVER_OK);
  expect(device.accepted).toEqual([5, 0]);
  expect(device.queues.isLive).toBe(true);
  transport.writeStatus(0);
  expect(transport.readStatus()).toBe(0);
  expect(device.queues.isLive).toBe(false);
  expect(transport.queueSizeMax(9)).toBe(0);
  expect(transport.enableQueue(9, { size: 1, descriptor: 0, driver: 0, device: 0 })).toBe(false);
});
