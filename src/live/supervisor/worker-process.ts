/**
 * One worker process as the supervisor sees it: started, spoken to, ended.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { errnoName } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import type { Readable } from "../system/readable.ts";
import type { System } from "../system/system.ts";
import { ControlChannel, type Incoming } from "../worker/control-channel.ts";
import type { FromWorker, ToWorker } from "../worker/frames.ts";

/** How often frames are sent again that found no room. */
const RETRY_MS = 5;

/** What is told of a worker. */
export interface WorkerEvents {
  frame(worker: WorkerProcess, incoming: Incoming<FromWorker>): void;
  /** The process has ended, and every frame it sent has been told. */
  ended(worker: WorkerProcess, how: string): void;
}

/** Watches a descriptor in the event loop. */
export type WatchReadable = (fd: number, callback: () => void) => Readable;

/** A worker. */
export class WorkerProcess {
  /** Whether its code is loaded. */
  isLoaded = false;
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;
  readonly #channel: ControlChannel<ToWorker, FromWorker>;
  readonly #readable: Readable;
  readonly #events: WorkerEvents;
  #timer: NodeJS.Timeout | null = null;

  /** @param entry - module that calls `runWorker` */
  constructor(system: System, watch: WatchReadable, entry: URL, events: WorkerEvents) {
    const pair = system.socketPair("control");
    if (typeof pair === "number") {
      throw new StackError({
        code: "live/worker",
        kind: "internal",
        message: `no channel to a worker can be made (${errnoName(-pair)})`,
      });
    }
    const [own, other] = pair;
    this.#events = events;
    // Detached: an interrupt typed at the terminal is for the supervisor alone.
    this.#child = spawn(process.execPath, [fileURLToPath(entry)], {
      stdio: ["ignore", "ignore", "inherit", other],
      detached: true,
    });
    system.close(other);
    this.#channel = new ControlChannel(system, own, "control");
    this.#readable = watch(own, () => this.#take());
    this.ended = new Promise((resolve) => {
      const end = (how: string) => {
        this.#take();
        this.#readable.close();
        if (this.#timer !== null) clearTimeout(this.#timer);
        this.#channel.dispose();
        events.ended(this, how);
        resolve();
      };
      this.#child.once("exit", (code, signal) => end(signal ?? `status ${code}`));
      this.#child.once("error", (error) => {
        if (this.#child.pid === undefined) end(error.message);
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  post(frame: ToWorker, fds: readonly number[] = []): void {
    this.#channel.post(frame, fds);
    this.#retry();
  }

  kill(signal: "SIGKILL" | "SIGTERM"): void {
    this.#child.kill(signal);
  }

  /** Waits for the end, and brings it about when it takes too long. */
  async end(waitMs: number): Promise<void> {
    const timer = setTimeout(() => this.kill("SIGKILL"), waitMs);
    await this.ended;
    clearTimeout(timer);
  }

  #take(): void {
    for (const incoming of this.#channel.receive()) this.#events.frame(this, incoming);
    // The process ends soon, or has: its exit is what counts.
    if (this.#channel.isClosed) this.#readable.stop();
  }

  #retry(): void {
    if (!this.#channel.isWaiting || this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#channel.flush();
      this.#retry();
    }, RETRY_MS);
  }
}
