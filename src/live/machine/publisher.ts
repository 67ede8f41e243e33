/**
 * Writes what servers have counted where other processes read it: in every turn of the loop in which
 * something was counted, and once more after the last.
 */
import type { VirtioIommuDevice } from "../../virtio/iommu/device.ts";
import type { Counter, MetricMemory } from "../metrics/metric-memory.ts";
import { Command } from "../vfio-user/protocol.ts";
import type { SecondStage } from "../vfio-user/second-stage.ts";
import type { VfioUserServer } from "../vfio-user/server.ts";
import type { Task } from "../worker/poll-loop.ts";
import type { WorkerDevice } from "../worker/run-worker.ts";

/** When what was counted last is published, microseconds. */
const LAST_US = 10_000;

const labels: ReadonlyMap<number, string> = new Map([
  [Command.REGION_READ, "region_read"],
  [Command.REGION_WRITE, "region_write"],
  [Command.DMA_MAP, "dma_map"],
  [Command.DMA_UNMAP, "dma_unmap"],
  [Command.DEVICE_SET_IRQS, "set_irqs"],
  [Command.DEVICE_RESET, "reset"],
]);
const OTHER = "other";
const US_PER_SECOND = 1e6;
/** Turns without a pause after which memory is looked at all the same. */
const BUSY_TURNS = 4096;

/** A device with what else is published of it. */
export interface PublishedDevice extends WorkerDevice {
  readonly stage: SecondStage;
}

/** What of one device is published. */
class DeviceCounts {
  readonly #server: VfioUserServer;
  /** By command. */
  readonly #messages: Counter[];
  /** What was published of each command; counts of a worker before this one stay. */
  readonly #seen: Float64Array;
  readonly #interrupts: Counter;
  readonly #failures: Counter;
  readonly #connected: Counter;
  readonly #memory: Readonly<Record<"mapped" | "present" | "pinned", Counter>>;
  readonly #stage: SecondStage;
  readonly #stageFaults: Counter;
  readonly #stageTimes: Readonly<Record<"map" | "populate" | "fault", Counter>>;
  #interruptsSeen = 0;
  #failuresSeen = 0;
  /** Turns with changes since the last pause. */
  #turns = 0;

  constructor({ name, server, stage }: PublishedDevice, metrics: MetricMemory) {
    this.#server = server;
    const { length } = server.messagesByCommand;
    this.#messages = Array.from({ length }, (_, command) =>
      metrics.counter("iommukit_messages", name, labels.get(command) ?? OTHER),
    );
    this.#seen = new Float64Array(length);
    this.#interrupts = metrics.counter("iommukit_interrupts", name);
    this.#failures = metrics.counter("iommukit_failures", name);
    this.#connected = metrics.counter("iommukit_connected", name);
    const memory = (state: string) => metrics.counter("iommukit_guest_memory_bytes", name, state);
    this.#memory = {
      mapped: memory("mapped"),
      present: memory("present"),
      pinned: memory("pinned"),
    };
    this.#stage = stage;
    this.#stageFaults = metrics.counter("iommukit_stage_faults", name);
    const time = (part: string) => metrics.counter("iommukit_stage_seconds", name, part);
    this.#stageTimes = { map: time("map"), populate: time("populate"), fault: time("fault") };
  }

  publish(): boolean {
    const { messagesByCommand, interrupts, failures, connection, dma } = this.#server;
    let isChanged = false;
    for (let command = 0; command < this.#seen.length; command += 1) {
      const since = messagesByCommand[command]! - this.#seen[command]!;
      if (since === 0) continue;
      this.#messages[command]!.add(since);
      this.#seen[command] = messagesByCommand[command]!;
      isChanged = true;
    }
    if (interrupts.signals !== this.#interruptsSeen) {
      this.#interrupts.add(interrupts.signals - this.#interruptsSeen);
      this.#interruptsSeen = interrupts.signals;
      isChanged = true;
    }
    this.#failures.add(failures - this.#failuresSeen);
    this.#failuresSeen = failures;
    if (isChanged) this.#turns += 1;
    // What takes longer to find out waits for a pause, but not for ever.
    if (this.#turns > 0 && (!isChanged || this.#turns % BUSY_TURNS === 0)) {
      this.#connected.set(connection === null ? 0 : 1);
      this.#publishMemory(dma.reachableBytes);
      if (!isChanged) this.#turns = 0;
    }
    return isChanged;
  }

  #publishMemory(mappedBytes: number): void {
    const { presentBytes, populatedBytes, faults, mapUs, populateUs, faultUs } = this.#stage.report;
    this.#memory.mapped.set(mappedBytes);
    this.#memory.present.set(presentBytes);
    this.#memory.pinned.set(populatedBytes);
    this.#stageFaults.set(faults);
    this.#stageTimes.map.set(mapUs / US_PER_SECOND);
    this.#stageTimes.populate.set(populateUs / US_PER_SECOND);
    this.#stageTimes.fault.set(faultUs / US_PER_SECOND);
  }
}

/** The task. */
export class Publisher implements Task {
  readonly #devices: readonly DeviceCounts[];
  readonly #iommu: VirtioIommuDevice | null;
  readonly #mappings: Counter | null;
  readonly #domains: Counter | null;
  #isFresh = true;

  constructor(
    devices: readonly PublishedDevice[],
    iommu: { readonly name: string; readonly device: VirtioIommuDevice } | null,
    metrics: MetricMemory,
  ) {
    this.#devices = devices.map((device) => new DeviceCounts(device, metrics));
    this.#iommu = iommu?.device ?? null;
    this.#mappings = iommu === null ? null : metrics.counter("iommukit_mappings", iommu.name);
    this.#domains = iommu === null ? null : metrics.counter("iommukit_domains", iommu.name);
  }

  /** After a turn in which something happened there may be more to say. */
  get dueUs(): number {
    return this.#isFresh ? LAST_US : -1;
  }

  work(): boolean {
    this.#isFresh = false;
    for (const device of this.#devices) if (device.publish()) this.#isFresh = true;
    if (this.#iommu !== null && this.#isFresh) {
      this.#mappings!.set(this.#iommu.mappingCount);
      this.#domains!.set(this.#iommu.domainIds.length);
    }
    return false;
  }
}
