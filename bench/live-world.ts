/**
 * A served machine in this process, as a worker assembles it: devices, journal, loop; and its client,
 * who sends what QEMU and a guest would. Each turn of the loop is timed.
 *
 * What another process's turn on the processor took is left out: the kernel says how long this
 * thread was ready and did not run (schedstat), so a busy machine does not spoil the figures.
 */
import { openSync, readSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assemble } from "../src/live/machine/assemble.ts";
import type { Doorbell, LiveMachine } from "../src/live/machine/live-machine.ts";
import { metricTableOf } from "../src/live/machine/metric-list.ts";
import type { Mapping } from "../src/live/system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../src/live/system/message-slot.ts";
import type { System } from "../src/live/system/system.ts";
import { WindowCache } from "../src/live/system/window-cache.ts";
import { DeviceDriver } from "../src/live/worker/device-driver.ts";
import { PollLoop } from "../src/live/worker/poll-loop.ts";
import { createJournal, VmJournal } from "../src/live/worker/vm-journal.ts";
import type { MemoryView } from "../src/memory/memory-view.ts";
import type { PciFunction } from "../src/pci/function.ts";

const RECEIVE_BYTES = 2 ** 17;
const TURNS_MAX = 10_000_000;

/** How long turns held others, by kind of work. */
export class HoldTimes {
  readonly #counts = new Map<string, Float64Array>();
  readonly #longest = new Map<string, number>();

  record(kind: string, us: number): void {
    let counts = this.#counts.get(kind);
    if (counts === undefined) {
      counts = new Float64Array(32);
      this.#counts.set(kind, counts);
    }
    counts[Math.max(0, Math.ceil(Math.log2(Math.max(us, 1))))]! += 1;
    this.#longest.set(kind, Math.max(us, this.#longest.get(kind) ?? 0));
  }

  longestUs(kind: string): number {
    return this.#longest.get(kind) ?? 0;
  }

  get longest(): number {
    return Math.max(0, ...this.#longest.values());
  }

  /** A line for each kind: turns by power of two of microseconds. */
  lines(): string[] {
    return [...this.#counts].map(([kind, counts]) => {
      const parts: string[] = [];
      for (const [power, count] of counts.entries())
        if (count > 0) parts.push(`<=${2 ** power}us:${count}`);
      return `${kind}: longest ${Math.round(this.longestUs(kind))} us; ${parts.join(" ")}`;
    });
  }
}

interface Wire {
  readonly fd: number;
  readonly driver: DeviceDriver;
}

/** The machine and its client. */
export class LiveWorld {
  readonly holds = new HoldTimes();
  readonly log: string[] = [];
  readonly loop: PollLoop;
  readonly #system: System;
  readonly #wires = new Map<string, Wire>();
  readonly #memory: Mapping;
  readonly #slot: MessageSlot;
  readonly #schedule = openSync("/proc/self/schedstat", "r");
  readonly #text = new Uint8Array(128);
  /** What the client is doing. */
  kind = "start";

  /** @param clients - clients that are connected already, by device; others are in this process */
  constructor(
    system: System,
    machine: LiveMachine,
    clients: ReadonlyMap<string, number> = new Map(),
  ) {
    this.#system = system;
    this.#memory = system.allocate(SLOT_BYTES + RECEIVE_BYTES, "client");
    this.#slot = new MessageSlot(this.#memory, 0);
    this.loop = new PollLoop(system, (name, error) => {
      throw new Error(`${name}: ${error}`);
    });
    const table = metricTableOf(machine);
    const names = [machine.iommu!, ...machine.disks].map(({ name }) => name);
    const fd = createJournal(system, names.length, table.groups);
    const journal = new VmJournal(system, fd, names, table.groups);
    const devices = assemble(machine, {
      system,
      loop: this.loop,
      windows: new WindowCache(system, "guest memory"),
      metrics: journal.metrics,
      journal: (name) => journal.device(name),
      sharedFile: (name, bytes) => system.createMemoryFile(name, bytes, name),
      log: (line) => this.log.push(line),
    });
    for (const { name, server } of devices) {
      const driver = new DeviceDriver({
        system,
        loop: this.loop,
        name,
        server,
        journal: journal.device(name),
        custody: { keep: (fds) => fds },
        closed: () => {},
        log: (line) => this.log.push(line),
      });
      driver.begin();
      const connected = clients.get(name);
      const pair = connected === undefined ? system.socketPair(name) : [-1, connected];
      const [client, served] = pair as readonly [number, number];
      driver.connect(served);
      this.#wires.set(name, { fd: client, driver });
    }
  }

  /** Goes round until a client that is another process has gone. */
  serve(device: string): void {
    const { server } = this.#wires.get(device)!.driver;
    while (server.connection !== null) {
      this.loop.turn(100_000);
      this.holds.record(this.kind, this.#system.now() - this.loop.wokeAt);
    }
  }

  /** One turn of the loop, timed. */
  turn(): number {
    const waited = this.#waitedUs();
    const start = this.#system.now();
    this.loop.turn(0);
    const us = this.#system.now() - start;
    const own = Math.max(0, us - (this.#waitedUs() - waited));
    this.holds.record(this.kind, own);
    return own;
  }

  /** Spins in pieces of a tenth of a millisecond: what this machine adds by itself. */
  control(pieces: number): void {
    for (let piece = 0; piece < pieces; piece += 1) {
      const waited = this.#waitedUs();
      const start = this.#system.now();
      while (this.#system.now() - start < 100) {
        // A turn that does nothing takes no longer than this, but for the machine.
      }
      const us = this.#system.now() - start;
      this.holds.record("control: 100 us of nothing", us - (this.#waitedUs() - waited));
    }
  }

  /** Turns until there is nothing left to do. */
  rest(): void {
    for (let quiet = 0; quiet < 10; ) quiet = this.turn() < 50 ? quiet + 1 : 0;
  }

  /** Turns until something is so. */
  until(isSo: () => boolean): void {
    for (let turn = 0; turn < TURNS_MAX; turn += 1) {
      if (isSo()) return;
      this.turn();
    }
    throw new Error(`${this.kind}: no end`);
  }

  /** Sends a command. @returns the reply's payload; throws on an error */
  call(device: string, command: number, payload: Uint8Array, fds: readonly number[] = []) {
    this.send(device, command, payload, 0, fds);
    let reply: Uint8Array | null = null;
    this.until(() => {
      reply = this.#receive(device);
      return reply !== null;
    });
    const whole = reply as unknown as Uint8Array;
    const errno = new DataView(whole.buffer).getUint32(12, true);
    if (errno !== 0) throw new Error(`${device}: command ${command}: errno ${errno}`);
    return whole.subarray(16);
  }

  /** Sends a message; posted, unless flags say otherwise. */
  send(
    device: string,
    command: number,
    payload: Uint8Array,
    flags = 0x10,
    fds: readonly number[] = [],
  ): void {
    const bytes = new Uint8Array(16 + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint16(2, command, true);
    view.setUint32(4, bytes.length, true);
    view.setUint32(8, flags, true);
    bytes.set(payload, 16);
    this.#memory.view.u8.set(bytes, SLOT_BYTES);
    this.#slot.aim(this.#memory.address + SLOT_BYTES, bytes.length);
    this.#slot.attach(fds);
    const sent = this.#system.send(this.#wires.get(device)!.fd, this.#slot);
    if (sent !== bytes.length) throw new Error(`${device}: sent ${sent}`);
  }

  /** The function of a device as its driver reaches it, by messages. */
  functionOf(device: string): PciFunction {
    const access = (offset: number, region: number, count: number, more: number) => {
      const payload = new Uint8Array(16 + more);
      const view = new DataView(payload.buffer);
      view.setUint32(0, offset, true);
      view.setUint32(8, region, true);
      view.setUint32(12, count, true);
      return payload;
    };
    return {
      regions: [],
      vectors: 0,
      revision: 0,
      read: (region, offset, target: MemoryView, at, count) => {
        const reply = this.call(device, 9, access(offset, region, count, 0));
        target.u8.set(reply.subarray(16, 16 + count), at);
        return true;
      },
      write: (region, offset, source: MemoryView, at, count) => {
        const payload = access(offset, region, count, count);
        payload.set(source.u8.subarray(at, at + count), 16);
        this.call(device, 10, payload);
        return true;
      },
      work: () => false,
      reset: () => {},
      save: () => null,
      restore: () => {},
    };
  }

  dispose(): void {
    for (const { fd } of this.#wires.values()) if (fd >= 0) this.#system.close(fd);
    this.kind = "disconnect";
    for (let turn = 0; turn < 4; turn += 1) this.turn();
  }

  #receive(device: string): Uint8Array | null {
    this.#slot.aim(this.#memory.address + SLOT_BYTES, RECEIVE_BYTES);
    const { fd } = this.#wires.get(device)!;
    const count = this.#system.receive(fd, this.#slot, "take", "client");
    return count > 0 ? this.#memory.view.u8.slice(SLOT_BYTES, SLOT_BYTES + count) : null;
  }

  /** How long this thread was ready to run and did not, microseconds. */
  #waitedUs(): number {
    const count = readSync(this.#schedule, this.#text, 0, 128, 0);
    const text = String.fromCharCode(...this.#text.subarray(0, count));
    return Number(text.split(" ")[1]) / 1000;
  }
}

/** A machine with one virtio-blk disk of so many bytes behind a virtio-iommu. */
export function machineOf(folder: string, diskBytes: number, doorbell: Doorbell): LiveMachine {
  const path = join(folder, "disk");
  writeFileSync(path, "");
  truncateSync(path, diskBytes);
  const slot = (device: number) => ({ device, port: null });
  return {
    name: "bench",
    memoryBytes: 2 ** 30,
    cpus: 1,
    nodes: [],
    ram: "pin",
    ports: [],
    iommu: { name: "iommu0", slot: slot(3), bypass: true, doorbell },
    disks: [
      {
        kind: "virtio-blk",
        name: "disk0",
        slot: slot(4),
        backing: { kind: "file", path },
        isReadOnly: false,
        queues: 1,
        isTranslated: true,
      },
    ],
    metrics: null,
    qemu: {
      program: null,
      accelerator: "tcg",
      cpu: "max",
      kernel: null,
      initrd: null,
      append: "",
      boot: null,
      extra: [],
    },
  };
}
