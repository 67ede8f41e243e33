/** A guest's side of virtio over PCI: registers found by capability, for tests. */
import { newView } from "../../memory/memory-view.ts";
import { CONFIG_REGION, type InterruptSink, type PciFunction } from "../../pci/function.ts";
import { DeviceStatus } from "../features.ts";
import type { DriverTransport } from "../iommu/driver-transport.ts";
import type { QueueAreas } from "../virtqueue-layout.ts";
import { Common, type CommonRegister } from "./layout.ts";

const CAPABILITY_VENDOR = 0x09;

/** Accesses of a guest to a function, in units of 1, 2 and 4 bytes. */
export class PciClient {
  /** Another one after it was taken over. */
  pci: PciFunction;
  readonly #view = newView(4096);

  constructor(pci: PciFunction) {
    this.pci = pci;
  }

  /** @returns the value, or −1 when the access is refused */
  read(region: number, offset: number, bytes: number): number {
    this.#view.u32[0] = 0;
    if (!this.pci.read(region, offset, this.#view, 0, bytes)) return -1;
    return this.#view.u32[0]!;
  }

  write(region: number, offset: number, bytes: number, value: number): boolean {
    this.#view.u32[0] = value;
    return this.pci.write(region, offset, this.#view, 0, bytes);
  }

  readBytes(region: number, offset: number, count: number): number[] {
    this.pci.read(region, offset, this.#view, 0, count);
    return [...this.#view.u8.subarray(0, count)];
  }

  config(offset: number, bytes = 4): number {
    return this.read(CONFIG_REGION, offset, bytes);
  }

  /** Switches memory decoding and bus mastering on. */
  enable(): void {
    this.write(CONFIG_REGION, 4, 2, 6);
  }
}

/** Where a structure lies. */
export interface Place {
  readonly bar: number;
  readonly offset: number;
  readonly bytes: number;
  readonly at: number;
}

/** The virtio structures of a function by type. */
export function structuresOf(client: PciClient): Map<number, Place> {
  const found = new Map<number, Place>();
  let at = client.config(0x34, 1);
  for (let steps = 0; at !== 0 && steps < 48; steps += 1) {
    if (client.config(at, 1) === CAPABILITY_VENDOR)
      found.set(client.config(at + 3, 1), {
        bar: client.config(at + 4, 1),
        offset: client.config(at + 8),
        bytes: client.config(at + 12),
        at,
      });
    at = client.config(at + 1, 1);
  }
  return found;
}

/** Interrupts counted by vector, and passed on. */
export class CountingSink implements InterruptSink {
  readonly counts: number[] = [];
  onRaise: ((vector: number) => void) | null = null;

  raise(vector: number): void {
    this.counts[vector] = (this.counts[vector] ?? 0) + 1;
    this.onRaise?.(vector);
  }

  count(vector: number): number {
    return this.counts[vector] ?? 0;
  }
}

/** The registers of a virtio function as a driver uses them; vector 0 is config, q + 1 a queue. */
export class GuestTransport implements DriverTransport {
  onInterrupt: ((queueIndex: number) => void) | null = null;
  readonly client: PciClient;
  /** Notifications so far, by queue. */
  readonly kicks: number[] = [];
  /** Queues without an interrupt. */
  readonly silent = new Set<number>();
  /** Whether a notification makes the device work at once. */
  isEager = true;
  readonly #common: Place;
  readonly #notify: Place;
  readonly #device: Place;
  readonly #multiplier: number;

  constructor(pci: PciFunction, sink: CountingSink | null = null) {
    this.client = new PciClient(pci);
    const places = structuresOf(this.client);
    this.#common = places.get(1)!;
    this.#notify = places.get(2)!;
    this.#device = places.get(4)!;
    this.#multiplier = this.client.config(this.#notify.at + 16);
    this.client.enable();
    if (sink !== null)
      sink.onRaise = (vector) => {
        if (vector > 0) this.onInterrupt?.(vector - 1);
      };
  }

  get(name: CommonRegister): number {
    const { at, bytes } = Common[name];
    return this.client.read(this.#common.bar, this.#common.offset + at, bytes);
  }

  set(name: CommonRegister, value: number): void {
    const { at, bytes } = Common[name];
    this.client.write(this.#common.bar, this.#common.offset + at, bytes, value);
  }

  readStatus(): number {
    return this.get("status");
  }

  writeStatus(status: number): void {
    this.set("status", status);
  }

  deviceFeatures(word: 0 | 1): number {
    this.set("deviceFeatureSelect", word);
    return this.get("deviceFeature");
  }

  writeFeatures(word: 0 | 1, features: number): void {
    this.set("driverFeatureSelect", word);
    this.set("driverFeature", features);
  }

  readConfig32(offset: number): number {
    return this.client.read(this.#device.bar, this.#device.offset + offset, 4);
  }

  writeConfig8(offset: number, value: number): void {
    this.client.write(this.#device.bar, this.#device.offset + offset, 1, value);
  }

  queueSizeMax(queueIndex: number): number {
    this.set("queueSelect", queueIndex);
    return this.get("queueSize");
  }

  enableQueue(queueIndex: number, areas: QueueAreas): boolean {
    this.set("queueSelect", queueIndex);
    this.set("queueSize", areas.size);
    const names = ["queueDescriptor", "queueDriver", "queueDevice"] as const;
    for (const [index, at] of [areas.descriptor, areas.driver, areas.device].entries()) {
      this.set(`${names[index]!}Low`, at >>> 0);
      this.set(`${names[index]!}High`, Math.floor(at / 2 ** 32));
    }
    this.set("queueVector", this.silent.has(queueIndex) ? 0xffff : queueIndex + 1);
    this.set("queueEnable", 1);
    return this.get("queueEnable") === 1;
  }

  notify(queueIndex: number): void {
    this.kicks[queueIndex] = (this.kicks[queueIndex] ?? 0) + 1;
    const at = this.#notify.offset + queueIndex * this.#multiplier;
    this.client.write(this.#notify.bar, at, 2, queueIndex);
    if (this.isEager) this.wait();
  }

  /** Lets the device do all of its work. */
  wait(): boolean {
    while (this.client.pci.work()) {
      // Each turn is bounded; together they end.
    }
    return true;
  }

  /** Reset, features, FEATURES_OK. @returns what was accepted of the low word, or −1 */
  negotiate(low: number, high: number): number {
    this.writeStatus(0);
    this.writeStatus(DeviceStatus.ACKNOWLEDGE);
    this.writeStatus(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER);
    const accepted = this.deviceFeatures(0) & low;
    this.writeFeatures(0, accepted);
    this.writeFeatures(1, this.deviceFeatures(1) & high);
    this.writeStatus(this.readStatus() | DeviceStatus.FEATURES_OK);
    return (this.readStatus() & DeviceStatus.FEATURES_OK) === 0 ? -1 : accepted;
  }

  start(): void {
    this.writeStatus(this.readStatus() | DeviceStatus.DRIVER_OK);
  }
}
