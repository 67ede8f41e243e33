/**
 * Holds on to everything of a virtual machine that must outlive its worker: sockets, connections,
 * descriptors of clients, the journal. Starts the worker, replaces it when it ends, hands over to
 * another when asked. Only this process's own end costs the guest its devices.
 *
 * A second worker stands by with its code loaded, so that a guest waits for milliseconds and not
 * for a process to start: a processor of the guest that waits for its IOMMU does nothing else.
 */
import { rmSync } from "node:fs";
import { Errno, errnoName } from "../../errno.ts";
import { assert, StackError } from "../../errors.ts";
import type { MetricFamily } from "../machine/open-metrics.ts";
import type { MetricTable } from "../metrics/metric-table.ts";
import { type Readable, readableWatcher } from "../system/readable.ts";
import type { System } from "../system/system.ts";
import { FRAME_DESCRIPTORS_MAX, type Incoming } from "../worker/control-channel.ts";
import type { FromWorker } from "../worker/frames.ts";
import { createJournal, VmJournal } from "../worker/vm-journal.ts";
import { DeviceCustody } from "./custody.ts";
import { listenAt } from "./socket-path.ts";
import { type WatchReadable, WorkerProcess } from "./worker-process.ts";

/** A worker that does not go round its loop for so long is ended. */
const STUCK_MS = 5000;
const LOOK_MS = 500;
/** When a client is accepted again that could not be. */
const ACCEPT_AGAIN_MS = 1000;
/** How long a worker may take to go on where another was. */
const RESUME_MS = 10_000;
/** Workers that may end while they resume one client. */
const RESUMES_MAX = 2;
/** How long a worker may take to load, and to end when asked. */
const LOAD_MS = 60_000;
const END_MS = 3000;
/** Unexpected ends within a time after which clients are given up, and after which all is. */
const ENDS = { withinMs: 60_000, clientsGivenUp: 5, allGivenUp: 10 } as const;

/** What a supervisor is started with. */
export interface SupervisorOptions {
  readonly system: System;
  /** Module that calls `runWorker`. */
  readonly entry: URL;
  /** Plain data for the worker's `assemble`. */
  readonly machine: unknown;
  readonly devices: readonly { readonly name: string; readonly path: string }[];
  readonly metrics: MetricTable;
  readonly log: (line: string) => void;
  /** Told when workers end again and again; nothing is served any more. */
  readonly failed: (error: Error) => void;
}

/** Serves one virtual machine. */
export class Supervisor {
  /** Workers that ended by themselves. */
  unexpectedEnds = 0;
  readonly #options: SupervisorOptions;
  readonly #watch: WatchReadable;
  readonly #journalFd: number;
  readonly #journal: VmJournal;
  readonly #devices = new Map<string, DeviceCustody>();
  readonly #accepting = new Map<string, Readable>();
  /** Files that workers share, by name. */
  readonly #files = new Map<string, number>();
  #active: WorkerProcess | null = null;
  #standby: WorkerProcess | null = null;
  #isRunning = false;
  #isStopping = false;
  #ends: number[] = [];
  /** Workers that ended while they resumed a device's client, by device. */
  readonly #resumeEnds = new Map<string, number>();
  /** When the last worker ended, while no other has started. */
  #endedAt: number | null = null;
  #watchdog: NodeJS.Timeout | null = null;
  /** Waits for the active worker to have started. */
  #started: { resolve(): void; reject(error: Error): void } | null = null;
  #loaded: (() => void) | null = null;
  /** Told when a worker starts to serve, once each. */
  #starts: (() => void)[] = [];

  private constructor(options: SupervisorOptions, watch: WatchReadable, journalFd: number) {
    const { system, devices, metrics } = options;
    this.#options = options;
    this.#watch = watch;
    this.#journalFd = journalFd;
    const names = devices.map(({ name }) => name);
    this.#journal = new VmJournal(system, journalFd, names, metrics.groups);
  }

  /**
   * Listens and starts a worker; returns when clients can connect.
   *
   * @throws StackError where a socket cannot be made, or the worker cannot make the devices
   */
  static async start(options: SupervisorOptions): Promise<Supervisor> {
    const { system, devices, metrics } = options;
    const watch = await readableWatcher();
    const journal = createJournal(system, devices.length, metrics.groups);
    if (journal < 0) throw workerError(`no journal can be made (${errnoName(-journal)})`);
    const supervisor = new Supervisor(options, watch, journal);
    try {
      for (const { name, path } of devices) {
        const custody = new DeviceCustody(system, name, listenAt(system, path, name));
        supervisor.#devices.set(name, custody);
      }
      await supervisor.#activate(supervisor.#spawn());
    } catch (error) {
      await supervisor.stop();
      throw error;
    }
    for (const device of supervisor.#devices.values()) supervisor.#acceptFor(device);
    supervisor.#standBy();
    supervisor.#watchOver();
    return supervisor;
  }

  get workerPid(): number | undefined {
    return this.#active?.pid;
  }

  /** Descriptors that clients have given and that are kept, over all devices. */
  get keptCount(): number {
    return [...this.#devices.values()].reduce((sum, { keptCount }) => sum + keptCount, 0);
  }

  families(): MetricFamily[] {
    return this.#journal.metrics.families();
  }

  /** Ends the worker as a crash would. */
  kill(): void {
    this.#active?.kill("SIGKILL");
  }

  /**
   * Another worker goes on where the one there is stops; returns when it does. It is loaded anew, so
   * that the code is what is installed now.
   */
  async handOver(): Promise<void> {
    const old = this.#standby;
    this.#standby = null;
    old?.post({ type: "stop" });
    const ended = old?.end(END_MS);
    await this.#standByLoaded();
    await ended;
    // A worker that has not taken over yet cannot hand over.
    while (!this.#isRunning && !this.#isStopping) await this.#nextStart();
    const leaving = this.#active;
    if (leaving === null || this.#isStopping) return;
    this.#isRunning = false;
    const started = this.#nextStart();
    leaving.post({ type: "leave" });
    await leaving.end(END_MS);
    if (!this.#isStopping) await started;
  }

  /** Resolves when a worker starts to serve, or after the time that one may take. */
  #nextStart(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, LOAD_MS);
      this.#starts.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const start of this.#starts.splice(0)) start();
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    for (const readable of this.#accepting.values()) readable.close();
    this.#accepting.clear();
    const workers = [this.#active, this.#standby].filter((worker) => worker !== null);
    for (const worker of workers) worker.post({ type: "stop" });
    await Promise.all(workers.map((worker) => worker.end(END_MS)));
    const { system, devices } = this.#options;
    for (const { name, path } of devices) {
      if (this.#devices.has(name)) rmSync(path, { force: true });
    }
    for (const device of this.#devices.values()) device.dispose();
    this.#devices.clear();
    for (const fd of this.#files.values()) system.close(fd);
    this.#files.clear();
    this.#journal.dispose();
    system.close(this.#journalFd);
  }

  #spawn(): WorkerProcess {
    const { system, entry } = this.#options;
    return new WorkerProcess(system, this.#watch, entry, {
      frame: (worker, incoming) => this.#take(worker, incoming),
      ended: (worker, how) => this.#ended(worker, how),
    });
  }

  #standBy(): void {
    if (this.#standby === null && !this.#isStopping) this.#standby = this.#spawn();
  }

  async #standByLoaded(): Promise<void> {
    this.#standBy();
    if (this.#standby?.isLoaded === true) return;
    await new Promise<void>((resolve, reject) => {
      const late = () => reject(workerError("the next worker does not start"));
      const timer = setTimeout(late, LOAD_MS);
      this.#loaded = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Makes a worker the one that serves: it gets everything that the one before had. */
  #activate(worker: WorkerProcess): Promise<void> {
    this.#active = worker;
    const { machine, devices, metrics } = this.#options;
    const names = devices.map(({ name }) => name);
    const files = [...this.#files];
    worker.post(
      {
        type: "start",
        machine,
        devices: names,
        metrics: metrics.groups,
        files: files.map(([name]) => name),
      },
      [this.#journalFd, ...files.map(([, fd]) => fd)],
    );
    const connected = [...this.#devices.values()].filter(({ connection }) => connection >= 0);
    for (const device of connected) {
      for (const { kept, fds } of device.parts(FRAME_DESCRIPTORS_MAX))
        worker.post({ type: "custody", device: device.name, kept }, fds);
    }
    worker.post(
      { type: "resume", devices: connected.map(({ name }) => name) },
      connected.map(({ connection }) => connection),
    );
    return new Promise((resolve, reject) => {
      this.#started = { resolve, reject };
    });
  }

  #take(worker: WorkerProcess, { frame, fds }: Incoming<FromWorker>): void {
    const { log, system } = this.#options;
    switch (frame.type) {
      case "loaded":
        worker.isLoaded = true;
        if (worker === this.#standby) this.#loaded?.();
        break;
      case "started":
        this.#isRunning = true;
        this.#tellPause();
        this.#started?.resolve();
        this.#started = null;
        for (const start of this.#starts.splice(0)) start();
        this.#resumeEnds.clear();
        for (const device of this.#devices.values()) this.#acceptFor(device);
        break;
      case "refused":
        this.#started?.reject(workerError(frame.message, frame.hint));
        this.#started = null;
        break;
      case "keep":
        this.#keep(this.#device(frame.device), frame, fds);
        break;
      case "drop":
        this.#device(frame.device).drop(frame.numbers);
        break;
      case "file":
        assert(!this.#files.has(frame.name), "a shared file is made once");
        assert(fds[0]! >= 0, "the supervisor has room for the files of its workers");
        system.ledger.hand(fds[0]!, `file ${frame.name}`);
        this.#files.set(frame.name, fds[0]!);
        break;
      case "closed":
        this.#device(frame.device).disconnect(false);
        this.#acceptFor(this.#device(frame.device));
        break;
      case "log":
        log(frame.line);
        break;
      case "left":
        break;
    }
  }

  /** A client whose descriptors find no room cannot go on with another worker, so not with this. */
  #keep(device: DeviceCustody, frame: FromWorker & { type: "keep" }, fds: readonly number[]): void {
    if (device.keep(frame.kept, fds, frame.taken)) return;
    const why = "no room for its client's descriptors (ulimit -n): its connection is closed";
    this.#options.log(`${device.name}: ${why}`);
    device.disconnect(true);
  }

  #ended(worker: WorkerProcess, how: string): void {
    if (worker === this.#standby) {
      this.#standby = null;
      return;
    }
    if (worker !== this.#active) return;
    this.#active = null;
    this.#started?.reject(workerError(`the worker ended (${how})`));
    this.#started = null;
    const isHandedOver = !this.#isRunning && how === "status 0";
    this.#isRunning = false;
    this.#endedAt = performance.now();
    if (this.#isStopping) return;
    if (!isHandedOver && !this.#mayGoOn(how)) return;
    const next = this.#standby ?? this.#spawn();
    this.#standby = null;
    this.#activate(next).catch((error: Error) => this.#options.log(error.message));
    this.#standBy();
  }

  #tellPause(): void {
    if (this.#endedAt === null) return;
    const pause = performance.now() - this.#endedAt;
    this.#endedAt = null;
    this.#options.log(`another worker goes on after ${pause.toFixed(1)} ms`);
  }

  /** Counts an unexpected end. @returns whether another worker is to be started */
  #mayGoOn(how: string): boolean {
    const { log, failed } = this.#options;
    this.unexpectedEnds += 1;
    const now = performance.now();
    this.#ends = [...this.#ends.filter((at) => now - at < ENDS.withinMs), now];
    log(`the worker ended (${how})`);
    if (this.#ends.length >= ENDS.allGivenUp) {
      failed(workerError(`workers end again and again, the last one by ${how}`));
      return false;
    }
    this.#judgeResume();
    if (this.#ends.length >= ENDS.clientsGivenUp) {
      log("what clients have sent may be the reason: their connections are closed");
      for (const device of this.#devices.values()) {
        device.disconnect(true);
        this.#journal.device(device.name).clear();
      }
    }
    return true;
  }

  /** A client whose resume ends one worker after another loses its connection, and nobody else. */
  #judgeResume(): void {
    const device = [...this.#devices.values()][this.#journal.resuming - 1];
    this.#journal.resuming = 0;
    if (device === undefined) return;
    const ends = (this.#resumeEnds.get(device.name) ?? 0) + 1;
    this.#resumeEnds.set(device.name, ends);
    if (ends < RESUMES_MAX) return;
    this.#resumeEnds.delete(device.name);
    this.#options.log(
      `${device.name}: workers end over what its client has sent: its connection is closed`,
    );
    device.disconnect(true);
    this.#journal.device(device.name).clear();
  }

  /** Waits for a client of a device that has none. */
  #acceptFor(device: DeviceCustody): void {
    if (device.connection >= 0 || this.#isStopping || !this.#isRunning) return;
    const known = this.#accepting.get(device.name);
    if (known === undefined) {
      const readable = this.#watch(device.listener, () => this.#accept(device));
      this.#accepting.set(device.name, readable);
    } else known.start();
  }

  #accept(device: DeviceCustody): void {
    const readable = this.#accepting.get(device.name);
    if (device.connection >= 0 || this.#active === null || !this.#isRunning) {
      readable?.stop();
      return;
    }
    const fd = this.#options.system.accept(device.listener, device.name);
    if (fd < 0) {
      this.#acceptLater(device, fd);
      return;
    }
    readable?.stop();
    device.connection = fd;
    // Before the worker hears of it: should the worker end first, its successor finds nothing old.
    this.#journal.device(device.name).clear();
    this.#active.post({ type: "connect", device: device.name }, [fd]);
  }

  /** Without room for a client: it waits, and this process does not spin over it. */
  #acceptLater(device: DeviceCustody, error: number): void {
    if (error === -Errno.EAGAIN) return;
    this.#accepting.get(device.name)?.stop();
    this.#options.log(
      `${device.name}: a client waits: it cannot be accepted (${errnoName(-error)})`,
    );
    setTimeout(() => this.#acceptFor(device), ACCEPT_AGAIN_MS).unref();
  }

  /** Ends a worker that is stuck; its successor has a chance, and the guest with it. */
  #watchOver(): void {
    let turns = -1;
    let since = performance.now();
    let watched: WorkerProcess | null = null;
    this.#watchdog = setInterval(() => {
      const now = performance.now();
      const worker = this.#active;
      const starting = worker?.isLoaded === true ? RESUME_MS : LOAD_MS;
      const most = this.#isRunning ? STUCK_MS : starting;
      if (this.#journal.turns !== turns || worker !== watched) {
        turns = this.#journal.turns;
        watched = worker;
        since = now;
      } else if (now - since > most) {
        since = now;
        this.#options.log(`the worker has not moved for ${most / 1000} s`);
        this.kill();
      }
    }, LOOK_MS);
    this.#watchdog.unref();
  }

  #device(name: string): DeviceCustody {
    const device = this.#devices.get(name);
    assert(device !== undefined, "workers know the devices they were given");
    return device;
  }
}

function workerError(message: string, hint: string | null = null): StackError {
  return new StackError({
    code: "live/worker",
    kind: "input",
    message,
    ...(hint === null ? {} : { hint }),
  });
}
