/**
 * How the driver brings its device up: reset, features, queues, config space, DRIVER_OK, in the
 * order that the specification demands.
 *
 * Source: virtio specification 1.3, "Device Initialization"; drivers/iommu/virtio-iommu.c of Linux
 * 7.2, viommu_probe; rules V185, V187 and V190 of the reference "virtio-iommu".
 */
import { Errno } from "../../errno.ts";
import type { Meter } from "../../meter.ts";
import { log2Floor, PAGE_SHIFT, PFN_LAST } from "../../units.ts";
import { CommonFeature, DeviceStatus } from "../features.ts";
import { DriverQueue, driverQueueFault } from "../virtqueue-driver.ts";
import {
  descriptorBytes,
  deviceBytes,
  driverBytes,
  QUEUE_SIZE_MAX,
  type QueueAreas,
} from "../virtqueue-layout.ts";
import type { DriverArea } from "./driver-area.ts";
import type { DomainGeometry } from "./driver-domain.ts";
import { EventQueue } from "./driver-events.ts";
import { RequestQueue } from "./driver-requests.ts";
import type { DriverSettings } from "./driver-settings.ts";
import { RequestSlots } from "./driver-slots.ts";
import type { DriverTransport } from "./driver-transport.ts";
import { Config, FEATURES_ALL, featureSet, IommuQueue, MapFlag } from "./protocol.ts";

/** Entries of an indirect table: a request has two buffers. */
const TABLE_ENTRIES = 2;

/** What a driver works with. */
export interface DriverParts {
  /** Guest memory for rings and requests. */
  readonly area: DriverArea;
  readonly transport: DriverTransport;
  readonly settings: DriverSettings;
  readonly meter: Meter;
  readonly allocationFails: () => boolean;
}

/** A device that is up. */
export interface StartedDevice {
  readonly requests: RequestQueue;
  readonly events: EventQueue;
  readonly geometry: DomainGeometry;
  /** Whether the smallest page of the device is larger than the CPU's. */
  readonly isGranuleTooLarge: boolean;
  readonly apertureStart: bigint;
  readonly apertureLast: bigint;
  readonly firstDomain: number;
  readonly lastDomain: number;
  /** 0 without PROBE. */
  readonly probeBytes: number;
  readonly hasBypassConfig: boolean;
}

/**
 * Brings the device up; on failure it is left with FAILED set.
 *
 * @returns the device, or an errno: ENODEV, ENOENT (no queue), EINVAL, ENOMEM
 */
export function startDevice(parts: DriverParts): StartedDevice | Errno {
  const { transport } = parts;
  transport.writeStatus(0);
  transport.writeStatus(DeviceStatus.ACKNOWLEDGE);
  transport.writeStatus(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
  const started = start(parts);
  if (typeof started === "number")
    transport.writeStatus(transport.readStatus() | DeviceStatus.FAILED);
  return started;
}

function start(parts: DriverParts): StartedDevice | Errno {
  const { transport, settings, area } = parts;
  const ringFeatures = CommonFeature.INDIRECT_DESC | CommonFeature.EVENT_IDX;
  const features = transport.deviceFeatures(0) & (FEATURES_ALL | ringFeatures);
  if ((transport.deviceFeatures(1) & CommonFeature.VERSION_1) === 0) return Errno.ENODEV;
  transport.writeFeatures(0, features >>> 0);
  transport.writeFeatures(1, CommonFeature.VERSION_1);
  const negotiated = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK;
  transport.writeStatus(negotiated);
  if ((transport.readStatus() & DeviceStatus.FEATURES_OK) === 0) return Errno.ENODEV;
  if ((features & featureSet("MAP_UNMAP")) === 0) return Errno.ENODEV;

  area.clear();
  const requestRing = makeQueue(parts, IommuQueue.REQUEST, features, false);
  if (typeof requestRing === "number") return requestRing;
  const eventRing = makeQueue(parts, IommuQueue.EVENT, features, true);
  if (typeof eventRing === "number") return eventRing;

  const config = readConfig(transport, features, settings);
  if (typeof config === "number") return config;
  const slots = RequestSlots.create(area, requestRing.size + 1, config.probeBytes);
  const events = EventQueue.create(eventRing, area, transport, settings);
  if (slots === null || events === null) return Errno.ENOMEM;
  transport.writeStatus(negotiated | DeviceStatus.DRIVER_OK);
  events.fill();
  return { ...config, requests: new RequestQueue({ ...parts, queue: requestRing, slots }), events };
}

function makeQueue(
  parts: DriverParts,
  queueIndex: number,
  features: number,
  callbacks: boolean,
): DriverQueue | Errno {
  const { area, transport } = parts;
  const sizeMax = Math.min(transport.queueSizeMax(queueIndex), QUEUE_SIZE_MAX);
  if (!(sizeMax >= 1)) return Errno.ENOENT;
  if (parts.allocationFails()) return Errno.ENOMEM;
  const size = 2 ** log2Floor(sizeMax);
  const areas: QueueAreas = {
    size,
    descriptor: area.take(descriptorBytes(size), 16),
    driver: area.take(driverBytes(size), 2),
    device: area.take(deviceBytes(size), 4),
  };
  const hasIndirect = (features & CommonFeature.INDIRECT_DESC) !== 0;
  const tables = hasIndirect ? area.take(descriptorBytes(size * TABLE_ENTRIES), 16) : -1;
  const options = {
    areas,
    eventIndex: (features & CommonFeature.EVENT_IDX) !== 0,
    indirect: tables < 0 ? null : { start: tables, entries: TABLE_ENTRIES },
    callbacks,
  };
  if ((hasIndirect && tables < 0) || driverQueueFault(area.memory, options) !== null)
    return Errno.ENOMEM;
  const queue = new DriverQueue(area.memory, options);
  return transport.enableQueue(queueIndex, areas) ? queue : Errno.ENOENT;
}

type DeviceConfig = Omit<StartedDevice, "requests" | "events">;

function readConfig(
  transport: DriverTransport,
  features: number,
  settings: DriverSettings,
): DeviceConfig | Errno {
  const has = (
    name: "INPUT_RANGE" | "DOMAIN_RANGE" | "PROBE" | "MMIO" | "BYPASS_CONFIG",
  ): boolean => (features & featureSet(name)) !== 0;
  const read64 = (at: number): bigint =>
    (BigInt(transport.readConfig32(at + 4)) << 32n) | BigInt(transport.readConfig32(at));
  const pageSizeMask = read64(Config.at.pageSizeMask);
  if (pageSizeMask === 0n) return Errno.EINVAL;
  const probeBytes = has("PROBE") ? transport.readConfig32(Config.at.probeSize) : 0;
  if (probeBytes > settings.probeBytesMax) return Errno.ENOMEM;
  const apertureStart = has("INPUT_RANGE") ? read64(Config.at.inputStart) : 0n;
  const apertureLast = has("INPUT_RANGE") ? read64(Config.at.inputLast) : 2n ** 64n - 1n;
  const pageShifts = pageShiftsOf(pageSizeMask);
  return {
    geometry: {
      pageShifts,
      apertureStartPfn: Number((apertureStart + 0xfffn) >> 12n),
      apertureLastPfn: Math.min(Number((apertureLast + 1n) >> 12n) - 1, PFN_LAST),
      mapFlags: MapFlag.READ | MapFlag.WRITE | (has("MMIO") ? MapFlag.MMIO : 0),
    },
    isGranuleTooLarge: pageShifts[0]! > PAGE_SHIFT,
    apertureStart,
    apertureLast,
    firstDomain: has("DOMAIN_RANGE") ? transport.readConfig32(Config.at.domainFirst) : 0,
    lastDomain: has("DOMAIN_RANGE") ? transport.readConfig32(Config.at.domainLast) : 0xffff_ffff,
    probeBytes,
    hasBypassConfig: has("BYPASS_CONFIG"),
  };
}

/** Page sizes in whole frames: a size below 4 KiB means that 4 KiB can be mapped as well. */
function pageShiftsOf(mask: bigint): number[] {
  const shifts: number[] = [];
  const isFine = (mask & 0xfffn) !== 0n;
  for (let shift = PAGE_SHIFT; shift < 64; shift += 1) {
    const isSet = ((mask >> BigInt(shift)) & 1n) === 1n;
    if (isSet || (shift === PAGE_SHIFT && isFine)) shifts.push(shift);
  }
  return shifts;
}
