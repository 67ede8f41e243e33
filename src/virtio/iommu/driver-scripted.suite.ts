/**
 * A virtio-iommu device that answers as a test tells it to, and writes down what it was asked: the
 * other side in the tests of the driver.
 */
import { expect } from "vitest";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { newView } from "../../memory/memory-view.ts";
import { CountingMeter } from "../../meter.ts";
import { CommonFeature } from "../features.ts";
import { Pop } from "../virtqueue-device.ts";
import { Chain } from "../virtqueue-segments.ts";
import { DeviceQueues } from "../virtqueue-set.ts";
import { type Endpoint, type Result, ViommuDriver } from "./driver.ts";
import { DriverArea } from "./driver-area.ts";
import type { ViommuDomain } from "./driver-domain.ts";
import { type DriverSettings, LINUX_7_2 } from "./driver-settings.ts";
import { type LocalDevice, LocalTransport } from "./driver-transport.ts";
import { Config, FEATURES_ALL, RequestType } from "./protocol.ts";

/** Where the driver keeps its rings. */
export const AREA_START = 0x100_0000;
export const AREA_BYTES = 0x10_0000;

/** What the device writes for a request. */
export interface Answer {
  readonly status?: number;
  /** Used length; what the request asks for when absent. */
  readonly used?: number;
  /** Properties area of a PROBE, or a fault record's bytes. */
  readonly bytes?: readonly number[];
}

/** Config space of a scripted device. */
export interface ScriptedConfig {
  readonly features: number;
  readonly ringFeatures: number;
  readonly featuresHigh: number;
  readonly pageSizeMask: bigint;
  readonly inputStart: bigint;
  readonly inputLast: bigint;
  readonly domainFirst: number;
  readonly domainLast: number;
  readonly probeSize: number;
  readonly queueSizes: readonly number[];
}

export const DEFAULT_CONFIG: ScriptedConfig = {
  features: FEATURES_ALL,
  ringFeatures: CommonFeature.INDIRECT_DESC | CommonFeature.EVENT_IDX,
  featuresHigh: CommonFeature.VERSION_1,
  pageSizeMask: 0xffff_ffff_ffff_f000n,
  inputStart: 0n,
  inputLast: 0x7f_ffff_ffffn,
  domainFirst: 0,
  domainLast: 0xffff_ffff,
  probeSize: 64,
  queueSizes: [64, 16],
};

/** The device. */
export class ScriptedDevice implements LocalDevice {
  readonly queues: DeviceQueues;
  readonly featuresLow: number;
  readonly featuresHigh: number;
  onInterrupt: ((queueIndex: number) => void) | null = null;
  /** Every request in words, in order. */
  readonly log: string[] = [];
  accepted: readonly [number, number] | null = null;
  refusesFeatures = false;
  /** While set, requests are left on the queue. */
  isAsleep = false;
  answer: (request: string, type: number) => Answer = () => ({});
  readonly #config: Uint8Array;
  readonly #probeSize: number;
  readonly #chain = new Chain();

  constructor(memory: GuestMemory, config: ScriptedConfig) {
    this.queues = new DeviceQueues(memory, config.queueSizes);
    this.featuresLow = config.features | config.ringFeatures;
    this.featuresHigh = config.featuresHigh;
    this.#probeSize = config.probeSize;
    this.#config = Config.bytesOf({ ...config, bypass: 1 });
  }

  acceptFeatures(low: number, high: number): boolean {
    this.accepted = [low, high];
    return !this.refusesFeatures;
  }

  readConfig(offset: number): number {
    return this.#config[offset] ?? 0;
  }

  reset(): void {
    this.log.push("reset");
  }

  serve(queueIndex: number): void {
    if (queueIndex !== 0 || this.isAsleep) return;
    const queue = this.queues.queues[0]!;
    const readable = newView(128);
    do {
      while (queue.pop(this.#chain) === Pop.CHAIN) {
        const length = queue.gather(this.#chain, readable);
        const request = requestText(readable.u8, length);
        this.log.push(request);
        const answer = this.answer(request, readable.u8[0]!);
        const isProbe = readable.u8[0] === RequestType.PROBE;
        const wanted = isProbe ? this.#probeSize + 4 : 4;
        insist(this.#chain.writableBytes === wanted, request);
        const reply = newView(wanted);
        reply.u8.set((answer.bytes ?? []).slice(0, wanted - 4));
        reply.u8[wanted - 4] = answer.status ?? 0;
        queue.scatter(this.#chain, reply, wanted);
        queue.complete(this.#chain, answer.used ?? wanted);
      }
    } while (queue.armNotifications());
    if (queue.shouldNotify()) this.onInterrupt?.(0);
  }

  /** Puts a fault record on the event queue. @returns false without a buffer */
  raise(bytes: readonly number[], used = bytes.length): boolean {
    const queue = this.queues.queues[1]!;
    if (queue.pop(this.#chain) !== Pop.CHAIN) return false;
    const record = newView(24);
    record.u8.set(bytes);
    queue.scatter(this.#chain, record, bytes.length);
    queue.complete(this.#chain, used);
    queue.armNotifications();
    if (queue.shouldNotify()) this.onInterrupt?.(1);
    return true;
  }

  /** Takes the log out. */
  takeLog(): string[] {
    return this.log.splice(0);
  }
}

/** Stops a test whose driver sends what it must not: reserved bytes set, or another size (V24). */
function insist(isRight: boolean, request: string): void {
  if (!isRight) throw new Error(`malformed ${request}`);
}

/** A request in one line, such as `MAP 1 0x1000-0x1fff > 0x5000 rw`. */
function requestText(bytes: Uint8Array, length: number): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const u32 = (at: number): number => view.getUint32(at, true);
  const address = (at: number): string => `0x${view.getBigUint64(at, true).toString(16)}`;
  switch (u32(0)) {
    case RequestType.ATTACH:
      insist(length === 20 && u32(16) === 0, "ATTACH");
      return `ATTACH ${u32(4)} ep ${u32(8)}${u32(12) === 0 ? "" : ` flags ${u32(12)}`}`;
    case RequestType.DETACH:
      insist(length === 20 && u32(12) === 0 && u32(16) === 0, "DETACH");
      return `DETACH ${u32(4)} ep ${u32(8)}`;
    case RequestType.MAP: {
      insist(length === 36, "MAP");
      const flags = ["-", "r", "w", "rw", "m", "rm", "wm", "rwm"][u32(32)];
      return `MAP ${u32(4)} ${address(8)}-${address(16)} > ${address(24)} ${flags}`;
    }
    case RequestType.UNMAP:
      insist(length === 28 && u32(24) === 0, "UNMAP");
      return `UNMAP ${u32(4)} ${address(8)}-${address(16)}`;
    case RequestType.PROBE:
      insist(length === 72 && bytes.subarray(8, 72).every((byte) => byte === 0), "PROBE");
      return `PROBE ep ${u32(4)}`;
    default:
      return `type ${u32(0)} of ${length} bytes`;
  }
}

/** A driver on a scripted device. */
export class DriverWorld {
  readonly memory = new GuestMemory();
  readonly meter = new CountingMeter();
  readonly device: ScriptedDevice;
  readonly transport: LocalTransport;
  readonly started: Result<ViommuDriver>;
  /** The allocation that is to fail, counted from 1; 0 for none. */
  failingAllocation: number;
  allocations = 0;

  constructor(
    config: Partial<ScriptedConfig> = {},
    settings: DriverSettings = LINUX_7_2,
    options: {
      areaBytes?: number;
      failingAllocation?: number;
      prepare?: (device: ScriptedDevice) => void;
    } = {},
  ) {
    this.memory.addRegion({ start: AREA_START, bytes: AREA_BYTES });
    this.device = new ScriptedDevice(this.memory, { ...DEFAULT_CONFIG, ...config });
    options.prepare?.(this.device);
    this.failingAllocation = options.failingAllocation ?? 0;
    this.transport = new LocalTransport(this.device);
    this.started = ViommuDriver.start({
      area: new DriverArea(this.memory, AREA_START, options.areaBytes ?? AREA_BYTES),
      transport: this.transport,
      settings,
      meter: this.meter,
      allocationFails: () => {
        this.allocations += 1;
        return this.allocations === this.failingAllocation;
      },
    });
    this.device.takeLog();
  }

  get driver(): ViommuDriver {
    expect(this.started.errno).toBe(0);
    return this.started.value!;
  }

  /** Takes an endpoint on that nothing is wrong with. */
  endpoint(...ids: number[]): Endpoint {
    return this.value(this.driver.addEndpoint(ids));
  }

  /** Makes a domain and attaches an endpoint of its own to it; the log then starts anew. */
  attached(id = 8): { endpoint: Endpoint; domain: ViommuDomain } {
    const endpoint = this.endpoint(id);
    const domain = this.value(this.driver.createDomain());
    expect(this.driver.attach(endpoint, domain)).toBe(0);
    this.device.takeLog();
    this.meter.reset();
    return { endpoint, domain };
  }

  value<T>(result: Result<T>): T {
    expect(result.errno).toBe(0);
    return result.value!;
  }
}
