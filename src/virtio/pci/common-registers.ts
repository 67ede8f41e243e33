/**
 * The common configuration structure: features, status and queues as registers.
 *
 * Accesses may have any width and offset. A read gives each byte as it stands; a write changes those
 * registers that it covers as a whole, and nothing by halves (V164).
 * Source: virtio specification 1.3, "Common configuration structure layout"; V164–V175, V179.
 */
import type { MemoryView } from "../../memory/memory-view.ts";
import { SavedState } from "../../pci/saved-state.ts";
import { DeviceStatus } from "../features.ts";
import { COMMON_BYTES, Common, type CommonRegister } from "./layout.ts";

/** No interrupt. */
export const NO_VECTOR = 0xffff;
const STATUS_ALL = 0xff;
const WORD_LAST = 0xffff_ffff;

/** A queue's registers. */
export interface QueueRegisters {
  readonly sizeMax: number;
  size: number;
  vector: number;
  isEnabled: boolean;
  /** Descriptor table, driver area, device area: low and high halves. */
  readonly addresses: Uint32Array;
}

/** What registers cause. */
export interface RegisterActions {
  /** Status 0 was written: everything but these registers is to be reset. */
  resetDevice(): void;
  /** FEATURES_OK is wanted. @returns false to leave it clear */
  chooseFeatures(low: number, high: number): boolean;
  /** DRIVER_OK was set. */
  start(): void;
  /** @returns false to leave the queue disabled */
  enableQueue(queueIndex: number, registers: QueueRegisters): boolean;
  resetQueue(queueIndex: number): void;
}

/** What the registers are of. */
export interface RegisterSettings {
  readonly featuresLow: number;
  readonly featuresHigh: number;
  readonly queueSizes: readonly number[];
  readonly vectors: number;
  /** Whether RING_RESET is offered. */
  readonly ringReset: number;
}

/** For each byte: the register that it belongs to. */
const registerOfByte: (CommonRegister | null)[] = new Array(COMMON_BYTES).fill(null);
for (const [name, { at, bytes }] of Object.entries(Common))
  registerOfByte.fill(name as CommonRegister, at, at + bytes);

const addressOfRegister: Partial<Record<CommonRegister, number>> = {
  queueDescriptorLow: 0,
  queueDescriptorHigh: 1,
  queueDriverLow: 2,
  queueDriverHigh: 3,
  queueDeviceLow: 4,
  queueDeviceHigh: 5,
};

/** The registers. */
export class CommonRegisters {
  /** Bits of {@link DeviceStatus}. */
  status = 0;
  /** What the driver accepted. */
  driverLow = 0;
  driverHigh = 0;
  configVector = NO_VECTOR;
  configGeneration = 0;
  /** Changes with every write. */
  revision = 0;
  readonly queues: readonly QueueRegisters[];
  readonly #settings: RegisterSettings;
  readonly #actions: RegisterActions;
  #deviceSelect = 0;
  #driverSelect = 0;
  #queueSelect = 0;

  constructor(settings: RegisterSettings, actions: RegisterActions) {
    this.#settings = settings;
    this.#actions = actions;
    this.queues = settings.queueSizes.map((sizeMax) => ({
      sizeMax,
      size: sizeMax,
      vector: NO_VECTOR,
      isEnabled: false,
      addresses: new Uint32Array(6),
    }));
  }

  /** Reads bytes; past the structure's end they are 0. */
  read(offset: number, target: MemoryView, at: number, count: number): void {
    for (let index = 0; index < count; index += 1) {
      const name = registerOfByte[offset + index] ?? null;
      let byte = 0;
      if (name !== null)
        byte = (this.#get(name) >>> (8 * (offset + index - Common[name].at))) & 0xff;
      target.u8[at + index] = byte;
    }
  }

  /** Writes the registers that lie in the range as a whole. */
  write(offset: number, source: MemoryView, at: number, count: number): void {
    const end = Math.min(count, COMMON_BYTES - offset);
    for (let done = 0; done < end; ) {
      const name = registerOfByte[offset + done]!;
      const { at: start, bytes } = Common[name];
      if (start !== offset + done || bytes > end - done) {
        done += 1;
        continue;
      }
      let value = 0;
      for (let index = bytes - 1; index >= 0; index -= 1)
        value = value * 256 + source.u8[at + done + index]!;
      this.revision += 1;
      this.#set(name, value);
      done += bytes;
    }
  }

  /** Back to what they are before a driver came. */
  reset(): void {
    this.status = 0;
    this.driverLow = 0;
    this.driverHigh = 0;
    this.configVector = NO_VECTOR;
    this.revision += 1;
    this.#deviceSelect = 0;
    this.#driverSelect = 0;
    this.#queueSelect = 0;
    for (const queue of this.queues) resetRegisters(queue, true);
  }

  /** The registers as plain data. */
  save(): unknown {
    return {
      status: this.status,
      features: [this.driverLow, this.driverHigh],
      selects: [this.#deviceSelect, this.#driverSelect, this.#queueSelect],
      configVector: this.configVector,
      configGeneration: this.configGeneration,
      queues: this.queues.map(({ size, vector, isEnabled, addresses }) => ({
        size,
        vector,
        isEnabled,
        addresses: [...addresses],
      })),
    };
  }

  /** Takes registers over; nothing is caused by it. @throws StackError `pci/state` */
  restore(state: unknown): void {
    const saved = new SavedState("virtio registers", state);
    this.status = saved.count("status", STATUS_ALL);
    const [low, high] = saved.counts("features", WORD_LAST, 2);
    this.driverLow = low!;
    this.driverHigh = high!;
    const [deviceSelect, driverSelect, queueSelect] = saved.counts("selects", WORD_LAST, 3);
    this.#deviceSelect = deviceSelect!;
    this.#driverSelect = driverSelect!;
    this.#queueSelect = queueSelect!;
    this.configVector = this.#vectorOf(saved.count("configVector", NO_VECTOR));
    this.configGeneration = saved.count("configGeneration", 0xff);
    for (const [index, entry] of saved.list("queues", this.queues.length).entries()) {
      const queue = this.queues[index]!;
      const fields = new SavedState("a virtio queue", entry);
      queue.size = fields.count("size", 0xffff);
      queue.vector = this.#vectorOf(fields.count("vector", NO_VECTOR));
      queue.isEnabled = fields.flag("isEnabled");
      queue.addresses.set(fields.counts("addresses", WORD_LAST, 6));
    }
  }

  #get(name: CommonRegister): number {
    const settings = this.#settings;
    const queue = this.queues[this.#queueSelect];
    switch (name) {
      case "deviceFeatureSelect":
        return this.#deviceSelect;
      case "deviceFeature":
        return wordOf(this.#deviceSelect, settings.featuresLow, settings.featuresHigh);
      case "driverFeatureSelect":
        return this.#driverSelect;
      case "driverFeature":
        return wordOf(this.#driverSelect, this.driverLow, this.driverHigh);
      case "configVector":
        return this.configVector;
      case "queueCount":
        return this.queues.length;
      case "status":
        return this.status;
      case "configGeneration":
        return this.configGeneration;
      case "queueSelect":
        return this.#queueSelect;
      default:
        // V171: every register of a queue that does not exist reads 0.
        return queue === undefined ? 0 : this.#getOfQueue(name, queue);
    }
  }

  #getOfQueue(name: CommonRegister, queue: QueueRegisters): number {
    switch (name) {
      case "queueSize":
        return queue.size;
      case "queueVector":
        return queue.vector;
      case "queueEnable":
        return queue.isEnabled ? 1 : 0;
      case "queueNotifyOffset":
        return this.#queueSelect;
      case "queueNotifyData":
      case "queueReset":
        // V175: a queue's reset is done when the write that asks for it returns.
        return 0;
      default:
        return queue.addresses[addressOfRegister[name]!]!;
    }
  }

  #set(name: CommonRegister, value: number): void {
    switch (name) {
      case "deviceFeatureSelect":
        this.#deviceSelect = value;
        return;
      case "driverFeatureSelect":
        this.#driverSelect = value;
        return;
      case "driverFeature":
        this.#chooseWord(value);
        return;
      case "configVector":
        this.configVector = this.#vectorOf(value);
        return;
      case "status":
        this.#setStatus(value);
        return;
      case "queueSelect":
        this.#queueSelect = value;
        return;
      default: {
        const queue = this.queues[this.#queueSelect];
        if (queue !== undefined) this.#setOfQueue(name, queue, value);
      }
    }
  }

  #setOfQueue(name: CommonRegister, queue: QueueRegisters, value: number): void {
    if (name === "queueVector") {
      queue.vector = this.#vectorOf(value);
      return;
    }
    if (name === "queueReset") {
      this.#resetQueue(queue, value);
      return;
    }
    // [P] V172: what an enabled queue is made of stays.
    if (queue.isEnabled) return;
    if (name === "queueSize") queue.size = value;
    else if (name === "queueEnable") {
      const isReady = (this.status & DeviceStatus.FEATURES_OK) !== 0;
      if (value === 1 && isReady)
        queue.isEnabled = this.#actions.enableQueue(this.#queueSelect, queue);
    } else {
      const at = addressOfRegister[name];
      if (at !== undefined) queue.addresses[at] = value;
    }
  }

  #resetQueue(queue: QueueRegisters, value: number): void {
    if (value !== 1 || (this.driverHigh & this.#settings.ringReset) === 0) return;
    this.#actions.resetQueue(this.#queueSelect);
    resetRegisters(queue, false);
  }

  #chooseWord(value: number): void {
    // V166: the choice is made once FEATURES_OK is set.
    if ((this.status & DeviceStatus.FEATURES_OK) !== 0) return;
    if (this.#driverSelect === 0) this.driverLow = value;
    else if (this.#driverSelect === 1) this.driverHigh = value;
  }

  #setStatus(value: number): void {
    if (value === 0) {
      this.#actions.resetDevice();
      this.reset();
      return;
    }
    // [P] V170: a driver sets bits and clears none; that it needs a reset only the device says.
    let taken = this.status | (value & ~DeviceStatus.NEEDS_RESET);
    const added = taken & ~this.status;
    if ((added & DeviceStatus.FEATURES_OK) !== 0 && !this.#acceptsChoice())
      taken &= ~DeviceStatus.FEATURES_OK;
    if ((taken & DeviceStatus.FEATURES_OK) === 0) taken &= ~DeviceStatus.DRIVER_OK;
    this.status = taken;
    if ((taken & added & DeviceStatus.DRIVER_OK) !== 0) this.#actions.start();
  }

  #acceptsChoice(): boolean {
    const { featuresLow, featuresHigh } = this.#settings;
    const { driverLow, driverHigh } = this;
    if ((driverLow & ~featuresLow) !== 0 || (driverHigh & ~featuresHigh) !== 0) return false;
    return this.#actions.chooseFeatures(driverLow, driverHigh);
  }

  /** V179: a vector that does not exist reads back as none. */
  #vectorOf(value: number): number {
    return value < this.#settings.vectors ? value : NO_VECTOR;
  }
}

function resetRegisters(queue: QueueRegisters, withVector: boolean): void {
  queue.size = queue.sizeMax;
  queue.isEnabled = false;
  queue.addresses.fill(0);
  if (withVector) queue.vector = NO_VECTOR;
}

function wordOf(select: number, low: number, high: number): number {
  if (select === 0) return low >>> 0;
  return select === 1 ? high >>> 0 : 0;
}
