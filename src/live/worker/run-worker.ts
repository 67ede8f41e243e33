/**
 * A worker: the process that serves the devices of one virtual machine, in one loop.
 *
 * It owns nothing that the guest could miss. Sockets, descriptors and the journal are also the
 * supervisor's, so this process may be killed at any moment and another goes on where it was.
 */
import { assert, StackError } from "../../errors.ts";
import type { LatencyHistogram, MetricMemory } from "../metrics/metric-memory.ts";
import { openLinuxSystem } from "../system/linux-system.ts";
import { Poll } from "../system/poll-set.ts";
import type { System } from "../system/system.ts";
import { WindowCache } from "../system/window-cache.ts";
import type { VfioUserServer } from "../vfio-user/server.ts";
import { ControlChannel, type Incoming } from "./control-channel.ts";
import { DeviceDriver } from "./device-driver.ts";
import type { DeviceJournal } from "./device-journal.ts";
import type { FromWorker, ToWorker } from "./frames.ts";
import type { Kept } from "./journal-transport.ts";
import { PollLoop } from "./poll-loop.ts";
import { VmJournal } from "./vm-journal.ts";

/** The descriptor that a supervisor leaves to its worker. */
export const CONTROL_DESCRIPTOR = 3;
/** Descriptors of clients have numbers from here on, above those that Node opens. */
const KEPT_FIRST = 512;
const KEPT_COUNT = 2 ** 15;
/** How long the supervisor may leave its mail unread. */
const CONTROL_WAIT_US = 10_000_000;

/** What devices are made with. */
export interface WorkerContext {
  readonly system: System;
  readonly loop: PollLoop;
  /** Guest memory: one for all devices. */
  readonly windows: WindowCache;
  readonly metrics: MetricMemory;
  /** A device's part of the journal. */
  journal(device: string): DeviceJournal;
  /**
   * A memory file that outlives this process: the same one for each worker of the machine.
   *
   * @returns a descriptor, or a negative error
   */
  sharedFile(name: string, bytes: number): number;
  log(line: string): void;
}

/** A device that is served. */
export interface WorkerDevice {
  readonly name: string;
  readonly server: VfioUserServer;
  /** Takes down how long messages wait for their replies. */
  readonly latency?: LatencyHistogram;
}

/** Makes the devices, in the order in which states are restored. */
export type Assemble = (machine: unknown, context: WorkerContext) => readonly WorkerDevice[];

/** Is a worker until the supervisor ends it. The process ends with it. */
export async function runWorker(assemble: Assemble): Promise<void> {
  const system = await openLinuxSystem();
  system.ledger.enter(CONTROL_DESCRIPTOR, "control");
  const worker = new Worker(system, CONTROL_DESCRIPTOR, assemble);
  await worker.run();
  process.exit(0);
}

/** The worker. */
export class Worker {
  readonly #system: System;
  readonly #assemble: Assemble;
  readonly #control: ControlChannel<FromWorker, ToWorker>;
  readonly loop: PollLoop;
  readonly #drivers = new Map<string, DeviceDriver>();
  readonly #files = new Map<string, number>();
  /** Descriptors in custody that came with a `custody` frame and wait for `resume`, by device. */
  readonly #inherited = new Map<string, Kept[]>();
  /** Devices of descriptors in custody. */
  readonly #custody = new Map<number, string>();
  #dropped: { readonly number: number; readonly device: string }[] = [];
  #nextNumber = KEPT_FIRST;
  #journal: VmJournal | null = null;

  constructor(system: System, control: number, assemble: Assemble) {
    this.#system = system;
    this.#assemble = assemble;
    this.#control = new ControlChannel(system, control, "control");
    this.loop = new PollLoop(system, (name, error) => this.#failed(name, error));
    this.loop.watch(control, Poll.IN, () => this.#takeFrames(), "control");
    system.ledger.struck = (fd) => this.#struck(fd);
    this.#post({ type: "loaded" });
  }

  async run(): Promise<void> {
    await this.loop.run();
    this.#control.drain(CONTROL_WAIT_US);
  }

  #takeFrames(): void {
    for (const incoming of this.#control.receive()) this.#take(incoming);
    // Without a supervisor there is nobody to go on.
    if (this.#control.isClosed) this.loop.stop();
  }

  #take({ frame, fds }: Incoming<ToWorker>): void {
    switch (frame.type) {
      case "start":
        this.#start(frame, fds);
        break;
      case "custody":
        this.#inherit(frame.device, frame.kept, fds);
        break;
      case "resume":
        for (const [index, device] of frame.devices.entries()) this.#resume(device, fds[index]!);
        this.#inherited.clear();
        this.#post({ type: "started" });
        break;
      case "connect":
        this.#drivers.get(frame.device)!.connect(fds[0]!);
        break;
      case "leave":
        for (const driver of this.#drivers.values()) driver.leave();
        this.#flushDrops();
        this.#post({ type: "left" });
        this.loop.stop();
        break;
      case "stop":
        this.loop.stop();
        break;
    }
  }

  #resume(device: string, fd: number): void {
    const journal = this.#journal!;
    journal.resuming = 1 + [...journal.devices.keys()].indexOf(device);
    this.#drivers.get(device)!.resume(fd, this.#inherited.get(device) ?? []);
    journal.resuming = 0;
  }

  #start(frame: ToWorker & { type: "start" }, fds: readonly number[]): void {
    const [journalFd, ...files] = fds;
    for (const [index, name] of frame.files.entries()) this.#files.set(name, files[index]!);
    const journal = new VmJournal(this.#system, journalFd!, frame.devices, frame.metrics);
    this.#journal = journal;
    const context: WorkerContext = {
      system: this.#system,
      loop: this.loop,
      windows: new WindowCache(this.#system, "guest memory"),
      metrics: journal.metrics,
      journal: (device) => journal.device(device),
      sharedFile: (name, bytes) => this.#sharedFile(name, bytes),
      log: (line) => this.#post({ type: "log", line }),
    };
    try {
      for (const device of this.#assemble(frame.machine, context)) this.#drive(device, context);
    } catch (error) {
      const hint = error instanceof StackError ? (error.hint ?? null) : null;
      this.#post({ type: "refused", message: textOf(error), hint });
      this.loop.stop();
      return;
    }
    this.loop.add({ dueUs: -1, work: () => this.#endTurn(journal) }, "end of turn");
  }

  #drive({ name, server, latency }: WorkerDevice, context: WorkerContext): void {
    const driver = new DeviceDriver({
      system: this.#system,
      loop: this.loop,
      name,
      server,
      journal: context.journal(name),
      custody: { keep: (fds, taken, end) => this.#keep(name, fds, taken, end) },
      closed: () => this.#post({ type: "closed", device: name }),
      log: context.log,
      latency: latency ?? null,
    });
    this.#drivers.set(name, driver);
    driver.begin();
  }

  #keep(device: string, fds: readonly number[], taken: number, end: number): readonly number[] {
    const kept: Kept[] = [];
    for (const fd of fds) {
      let number = this.#system.duplicate(fd, device, this.#nextNumber);
      // Numbers go round, so that one is not soon used for something else.
      if (number < 0) number = this.#system.duplicate(fd, device, KEPT_FIRST);
      this.#system.close(fd);
      if (number < 0) continue;
      this.#nextNumber = number - KEPT_FIRST < KEPT_COUNT ? number + 1 : KEPT_FIRST;
      kept.push({ number, end });
      this.#custody.set(number, device);
      // Keeping a number again ends the custody of what had it before.
      this.#dropped = this.#dropped.filter((each) => each.number !== number);
    }
    for (let from = 0; from < kept.length; from += 32) {
      const part = kept.slice(from, from + 32);
      const frame = { type: "keep", device, kept: part, taken: from === 0 ? taken : null } as const;
      this.#control.post(
        frame,
        part.map(({ number }) => number),
      );
    }
    assert(this.#control.drain(CONTROL_WAIT_US), "the supervisor takes descriptors in custody");
    const isWhole = kept.length === fds.length;
    return isWhole ? kept.map(({ number }) => number) : [...kept.map(({ number }) => number), -1];
  }

  #inherit(device: string, kept: readonly Kept[], fds: readonly number[]): void {
    const known = this.#inherited.get(device) ?? [];
    for (const [index, each] of kept.entries()) {
      const made = this.#system.duplicateTo(fds[index]!, each.number, device);
      this.#system.close(fds[index]!);
      assert(made === each.number, "descriptors in custody have numbers of their own");
      this.#custody.set(each.number, device);
      this.#nextNumber = Math.max(this.#nextNumber, each.number + 1);
      known.push(each);
    }
    this.#inherited.set(device, known);
  }

  #sharedFile(name: string, bytes: number): number {
    const known = this.#files.get(name);
    if (known !== undefined) return known;
    const fd = this.#system.createMemoryFile(name, bytes, name);
    if (fd < 0) return fd;
    this.#files.set(name, fd);
    this.#control.post({ type: "file", name }, [fd]);
    assert(this.#control.drain(CONTROL_WAIT_US), "the supervisor takes files");
    return fd;
  }

  #struck(fd: number): void {
    const device = this.#custody.get(fd);
    if (device === undefined) return;
    this.#custody.delete(fd);
    this.#dropped.push({ number: fd, device });
  }

  /** Custody ends only when what closed the descriptor counts, so not before the turn ends. */
  #flushDrops(): void {
    const dropped = this.#dropped;
    if (dropped.length === 0) return;
    this.#dropped = [];
    for (const device of new Set(dropped.map((each) => each.device))) {
      const numbers = dropped.filter((each) => each.device === device).map((each) => each.number);
      this.#post({ type: "drop", device, numbers });
    }
  }

  #endTurn(journal: VmJournal): boolean {
    this.#flushDrops();
    this.#control.flush();
    journal.turns = this.loop.turns;
    return this.#control.isWaiting;
  }

  #post(frame: FromWorker): void {
    this.#control.post(frame);
  }

  #failed(name: string, error: unknown): void {
    this.#post({ type: "log", line: `${name}: ${textOf(error)}` });
    // A device whose message or state fails within the loop is in a state that nobody planned.
    if (this.#drivers.has(name) || name === "control") {
      this.#control.drain(CONTROL_WAIT_US);
      process.exit(1);
    }
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
