/**
 * The virtio transport over PCI: a function whose BARs hold the registers of one virtio device.
 *
 * Registers of the device's status and queues are in common-registers.ts, where each lies is in
 * layout.ts; here they meet the queues, the device and the interrupts. Nothing is done while a
 * register is written but what registers are for: work waits for {@link VirtioPci.work}.
 * Source: virtio specification 1.3, "Virtio Over PCI Bus"; V159–V186.
 */
import { assert } from "../../errors.ts";
import type { DeviceMemory } from "../../memory/device-memory.ts";
import { addressOfHalves } from "../../memory/guest-memory.ts";
import { type MemoryView, newView } from "../../memory/memory-view.ts";
import type { ConfigSpace } from "../../pci/config-space.ts";
import {
  CONFIG_REGION,
  type InterruptSink,
  type PciFunction,
  type PciRegion,
} from "../../pci/function.ts";
import { MsixTable } from "../../pci/msix-table.ts";
import { SavedState } from "../../pci/saved-state.ts";
import { CommonFeature, DeviceStatus } from "../features.ts";
import type { QueueAreas, QueueFeatures } from "../virtqueue-layout.ts";
import { DeviceQueues } from "../virtqueue-set.ts";
import {
  CommonRegisters,
  NO_VECTOR,
  type QueueRegisters,
  type RegisterActions,
} from "./common-registers.ts";
import {
  buildConfigSpace,
  NOTIFY_MULTIPLIER,
  QUEUES_MAX,
  STRUCTURE_BYTES,
  Structure,
  VirtioBar,
  Window,
} from "./layout.ts";
import type { VirtioDevice, VirtioHost } from "./virtio-device.ts";

const Isr = { QUEUE: 1, CONFIG: 2 } as const;

/** What a function is made of. */
export interface VirtioPciParts {
  readonly device: VirtioDevice;
  /** Where its queues lie; behind an IOMMU, ACCESS_PLATFORM is offered and insisted on (V115). */
  readonly memory: DeviceMemory;
  readonly interrupts: InterruptSink;
  /** Whether notifications go to a page of their own, which a client may map. */
  readonly hasDoorbellPage?: boolean;
  /** Whether it is a function of PCI Express. */
  readonly isExpress?: boolean;
}

/** A virtio device as a PCI function. */
export class VirtioPci implements PciFunction, RegisterActions, VirtioHost {
  readonly regions: readonly PciRegion[];
  readonly vectors: number;
  readonly queues: DeviceQueues;
  /** Notifications so far, by queue. */
  readonly kicks: Float64Array;
  /** Turns of work so far that completed something, by queue. */
  readonly batches: Float64Array;
  readonly #device: VirtioDevice;
  readonly #memory: DeviceMemory;
  readonly #interrupts: InterruptSink;
  /** Where a driver's notifications go. */
  readonly #notifyRegion: number;
  readonly #config: ConfigSpace;
  readonly #windowAt: number;
  readonly #registers: CommonRegisters;
  readonly #msix: MsixTable;
  /** Queues that have work, or may have. */
  readonly #pending: Uint8Array;
  readonly #scratch = newView(8);
  #isr = 0;
  #isConfigRead = false;

  constructor(parts: VirtioPciParts) {
    const { device, memory } = parts;
    const queueCount = device.queueSizes.length;
    assert(queueCount <= QUEUES_MAX, "every queue has a notification address");
    this.#device = device;
    this.#memory = memory;
    this.#interrupts = parts.interrupts;
    const hasDoorbellPage = parts.hasDoorbellPage ?? false;
    this.#notifyRegion = hasDoorbellPage ? VirtioBar.DOORBELL : VirtioBar.REGISTERS;
    this.vectors = queueCount + 1;
    const { config, bars, windowAt } = buildConfigSpace({
      type: device.type,
      classCode: device.classCode,
      queueCount,
      configBytes: device.configBytes,
      vectors: this.vectors,
      hasDoorbellPage,
      isExpress: parts.isExpress ?? false,
    });
    this.#config = config;
    this.#windowAt = windowAt;
    const whole = { readable: true, writable: true };
    this.regions = [
      ...bars.map(({ index, bytes }) => ({ index, bytes, ...whole })),
      { index: CONFIG_REGION, bytes: config.bytes, ...whole },
    ];
    this.#msix = new MsixTable(this.vectors);
    const platform = memory.isTranslated ? CommonFeature.ACCESS_PLATFORM : 0;
    this.#registers = new CommonRegisters(
      {
        featuresLow: device.featuresLow,
        featuresHigh:
          device.featuresHigh | CommonFeature.VERSION_1 | CommonFeature.RING_RESET | platform,
        queueSizes: device.queueSizes,
        vectors: this.vectors,
        ringReset: CommonFeature.RING_RESET,
      },
      this,
    );
    this.queues = new DeviceQueues(memory, device.queueSizes, () => this.#needsReset());
    this.#pending = new Uint8Array(queueCount);
    this.kicks = new Float64Array(queueCount);
    this.batches = new Float64Array(queueCount);
    device.attach(this);
  }

  get revision(): number {
    return this.#config.revision + this.#registers.revision + this.#device.revision;
  }

  /** Bits of the device status. */
  get status(): number {
    return this.#registers.status;
  }

  read(region: number, offset: number, target: MemoryView, at: number, count: number): boolean {
    if (!this.#isInside(region, offset, count)) return false;
    if (region === CONFIG_REGION) {
      if (this.#meetsWindow(offset, count)) this.#readThroughWindow();
      return this.#config.read(offset, target, at, count);
    }
    if (region === VirtioBar.MSIX) this.#msix.read(offset, target, at, count);
    else if (region === VirtioBar.DOORBELL) target.u8.fill(0, at, at + count);
    else this.#readRegisters(offset, target, at, count);
    return true;
  }

  write(region: number, offset: number, source: MemoryView, at: number, count: number): boolean {
    if (!this.#isInside(region, offset, count)) return false;
    if (region === CONFIG_REGION) {
      this.#config.write(offset, source, at, count);
      if (this.#meetsWindow(offset, count)) this.#writeThroughWindow(offset, source, at, count);
    } else if (region === VirtioBar.MSIX) this.#msix.write(offset, source, at, count);
    else if (region === VirtioBar.DOORBELL) this.#notify(offset, source, at, count);
    else this.#writeRegisters(offset, source, at, count);
    return true;
  }

  work(): boolean {
    // V184: without bus mastering there is no DMA; V132: before DRIVER_OK nothing is consumed.
    if (!this.#config.isBusMaster || !this.queues.isLive) return false;
    let hasMore = false;
    for (let queueIndex = 0; queueIndex < this.#pending.length; queueIndex += 1) {
      if (this.#pending[queueIndex] === 0) continue;
      if (this.#serve(queueIndex)) hasMore = true;
    }
    return hasMore && this.queues.isLive;
  }

  reset(): void {
    this.#config.reset();
    this.#msix.reset();
    this.resetDevice();
    this.#registers.reset();
    this.#device.systemReset();
  }

  save(): unknown {
    return {
      config: this.#config.save(),
      registers: this.#registers.save(),
      positions: this.queues.queues.map((queue) => queue.usedPosition),
      device: this.#device.save(),
    };
  }

  restore(state: unknown): void {
    const saved = new SavedState("a virtio function", state);
    this.reset();
    this.#config.restore(saved.field("config"));
    this.#registers.restore(saved.field("registers"));
    this.#device.restore(saved.field("device"));
    const positions = saved.counts("positions", 0xffff, this.queues.queues.length);
    const { status, driverLow, driverHigh } = this.#registers;
    if ((status & DeviceStatus.FEATURES_OK) !== 0 && !this.chooseFeatures(driverLow, driverHigh))
      throw saved.bad("features");
    for (const [queueIndex, registers] of this.#registers.queues.entries()) {
      if (!registers.isEnabled) continue;
      const queue = this.queues.queues[queueIndex]!;
      const features = this.#queueFeatures();
      if (queue.resume(areasOf(registers), features, positions[queueIndex]!) !== null)
        throw saved.bad(`queue ${queueIndex}`);
    }
    this.#device.resumed?.();
    if ((status & DeviceStatus.DRIVER_OK) === 0) return;
    if ((status & DeviceStatus.NEEDS_RESET) === 0) this.start();
    for (const { vector } of this.#registers.queues) this.#interrupt(vector, Isr.QUEUE);
    this.#interrupt(this.#registers.configVector, Isr.CONFIG);
  }

  wake(queueIndex: number): void {
    this.#pending[queueIndex] = 1;
  }

  completed(queueIndex: number): void {
    if (!this.queues.queues[queueIndex]!.shouldNotify()) return;
    this.#interrupt(this.#registers.queues[queueIndex]!.vector, Isr.QUEUE);
  }

  configChanged(): void {
    const registers = this.#registers;
    // V176: the number changes when a driver may hold a part of what was there before.
    if (this.#isConfigRead) registers.configGeneration = (registers.configGeneration + 1) & 0xff;
    this.#isConfigRead = false;
    registers.revision += 1;
    if ((registers.status & DeviceStatus.DRIVER_OK) !== 0)
      this.#interrupt(registers.configVector, Isr.CONFIG);
  }

  resetDevice(): void {
    this.queues.reset();
    this.#pending.fill(0);
    this.#isr = 0;
    this.#device.reset();
  }

  chooseFeatures(low: number, high: number): boolean {
    if ((high & CommonFeature.VERSION_1) === 0) return false;
    if (this.#memory.isTranslated && (high & CommonFeature.ACCESS_PLATFORM) === 0) return false;
    return this.#device.acceptFeatures(low, high);
  }

  start(): void {
    this.queues.start();
    this.#pending.fill(1);
  }

  enableQueue(queueIndex: number, registers: QueueRegisters): boolean {
    const queue = this.queues.queues[queueIndex]!;
    return queue.enable(areasOf(registers), this.#queueFeatures()) === null;
  }

  resetQueue(queueIndex: number): void {
    this.queues.queues[queueIndex]!.disable();
    this.#pending[queueIndex] = 0;
    this.#device.resetQueue(queueIndex);
  }

  /** Lets the device work on a queue. @returns whether there is more to do at once */
  #serve(queueIndex: number): boolean {
    const queue = this.queues.queues[queueIndex]!;
    this.#pending[queueIndex] = 0;
    if (!queue.isEnabled) return false;
    const before = queue.usedPosition;
    const outcome = this.#device.work(queueIndex);
    if (queue.usedPosition !== before) this.batches[queueIndex]! += 1;
    this.completed(queueIndex);
    // What waits, the device wakes itself; a ring that is not in memory is tried again each time.
    if (outcome === "waiting") return false;
    const hasMore = outcome === "more" || queue.armNotifications();
    if (hasMore || queue.isPaused) this.wake(queueIndex);
    return hasMore;
  }

  #needsReset(): void {
    const registers = this.#registers;
    registers.status |= DeviceStatus.NEEDS_RESET;
    registers.revision += 1;
    if ((registers.status & DeviceStatus.DRIVER_OK) !== 0)
      this.#interrupt(registers.configVector, Isr.CONFIG);
  }

  #interrupt(vector: number, cause: number): void {
    this.#isr |= cause;
    if (vector !== NO_VECTOR) this.#interrupts.raise(vector);
  }

  #readRegisters(offset: number, target: MemoryView, at: number, count: number): void {
    for (let done = 0; done < count; ) {
      const within = (offset + done) % STRUCTURE_BYTES;
      const base = offset + done - within;
      const part = Math.min(count - done, STRUCTURE_BYTES - within);
      if (base === Structure.COMMON) this.#registers.read(within, target, at + done, part);
      else {
        target.u8.fill(0, at + done, at + done + part);
        if (base === Structure.ISR && within === 0) {
          target.u8[at + done] = this.#isr;
          this.#isr = 0;
        } else if (base === Structure.DEVICE) this.#readConfig(within, target, at + done, part);
      }
      done += part;
    }
  }

  #readConfig(offset: number, target: MemoryView, at: number, count: number): void {
    const end = Math.min(count, this.#device.configBytes - offset);
    for (let index = 0; index < end; index += 1)
      target.u8[at + index] = this.#device.readConfig(offset + index);
    this.#isConfigRead = true;
  }

  #writeRegisters(offset: number, source: MemoryView, at: number, count: number): void {
    for (let done = 0; done < count; ) {
      const within = (offset + done) % STRUCTURE_BYTES;
      const base = offset + done - within;
      const part = Math.min(count - done, STRUCTURE_BYTES - within);
      if (base === Structure.COMMON) this.#registers.write(within, source, at + done, part);
      else if (base === Structure.NOTIFY && this.#notifyRegion === VirtioBar.REGISTERS)
        this.#notify(within, source, at + done, part);
      else if (base === Structure.DEVICE && within + part <= this.#device.configBytes)
        this.#device.writeConfig(within, source.u8.slice(at + done, at + done + part));
      done += part;
    }
  }

  /** V157, V181: a notification stands at its queue's own address and names the queue. */
  #notify(offset: number, source: MemoryView, at: number, count: number): void {
    if (count < 2) return;
    const queueIndex = source.u8[at]! | (source.u8[at + 1]! << 8);
    if (offset !== queueIndex * NOTIFY_MULTIPLIER) return;
    if (this.queues.notified(queueIndex) === null) return;
    this.kicks[queueIndex]! += 1;
    this.wake(queueIndex);
  }

  #isInside(region: number, offset: number, count: number): boolean {
    const found = this.regions.find(({ index }) => index === region);
    return found !== undefined && offset >= 0 && count >= 0 && offset + count <= found.bytes;
  }

  #meetsWindow(offset: number, count: number): boolean {
    const dataAt = this.#windowAt + Window.DATA;
    return offset < dataAt + 4 && offset + count > dataAt;
  }

  /** The access that the window describes, or null when it has no effect (V182). */
  #windowAccess(): { region: number; offset: number; bytes: number } | null {
    const region = this.#config.byte(this.#windowAt + Window.BAR);
    const offset = this.#config.word(this.#windowAt + Window.OFFSET);
    const bytes = this.#config.word(this.#windowAt + Window.LENGTH);
    if (bytes !== 1 && bytes !== 2 && bytes !== 4) return null;
    if (region > 5 || offset % bytes !== 0) return null;
    return this.#isInside(region, offset, bytes) ? { region, offset, bytes } : null;
  }

  #readThroughWindow(): void {
    const access = this.#windowAccess();
    const view = this.#scratch;
    if (access === null) return;
    this.read(access.region, access.offset, view, 0, access.bytes);
    this.#config.set(this.#windowAt + Window.DATA, view.u8.subarray(0, access.bytes));
  }

  #writeThroughWindow(offset: number, source: MemoryView, at: number, count: number): void {
    const access = this.#windowAccess();
    if (access === null) return;
    const dataAt = this.#windowAt + Window.DATA;
    const view = newView(4);
    for (let index = 0; index < 4; index += 1) {
      const from = dataAt + index - offset;
      if (from >= 0 && from < count) view.u8[index] = source.u8[at + from]!;
    }
    this.write(access.region, access.offset, view, 0, access.bytes);
  }

  #queueFeatures(): QueueFeatures {
    const low = this.#registers.driverLow;
    return {
      indirect: (low & CommonFeature.INDIRECT_DESC) !== 0,
      eventIndex: (low & CommonFeature.EVENT_IDX) !== 0,
    };
  }
}

function areasOf({ size, addresses }: QueueRegisters): QueueAreas {
  const [descriptorLow, descriptorHigh, driverLow, driverHigh, deviceLow, deviceHigh] = addresses;
  return {
    size,
    descriptor: addressOfHalves(descriptorLow!, descriptorHigh!),
    driver: addressOfHalves(driverLow!, driverHigh!),
    device: addressOfHalves(deviceLow!, deviceHigh!),
  };
}
