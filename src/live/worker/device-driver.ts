/**
 * Drives one device's server in the loop: its client's socket, its work, its journal.
 */
import { assert } from "../../errors.ts";
import type { LatencyHistogram } from "../metrics/metric-memory.ts";
import { Poll } from "../system/poll-set.ts";
import type { System } from "../system/system.ts";
import type { SavedServer } from "../vfio-user/saved-server.ts";
import type { VfioUserServer } from "../vfio-user/server.ts";
import type { DeviceJournal } from "./device-journal.ts";
import { type Custody, JournalTransport, type Kept, recoverStream } from "./journal-transport.ts";
import type { PollLoop, Task, Watch } from "./poll-loop.ts";

/** How long a client that maps doorbells is looked at without a pause after it rang. */
const SPIN_US = 1000;
/** How often it is looked at otherwise. */
const LOOK_US = 1000;

/** What a driver is made of. */
export interface DriverOptions {
  readonly system: System;
  readonly loop: PollLoop;
  readonly name: string;
  readonly server: VfioUserServer;
  readonly journal: DeviceJournal;
  readonly custody: Custody;
  /** Told when the client has gone. */
  readonly closed: () => void;
  /** Takes down how long messages wait, from the end of the loop's wait to the replies. */
  readonly latency?: LatencyHistogram | null;
  readonly log: (line: string) => void;
}

/** The driver of a device. */
export class DeviceDriver implements Task {
  readonly name: string;
  readonly server: VfioUserServer;
  readonly #options: DriverOptions;
  #watch: Watch | null = null;
  #events = 0;
  #rings = 0;
  #spinEnd = 0;
  #hasOverflown = false;
  #remove: () => void = () => {};

  constructor(options: DriverOptions) {
    this.#options = options;
    this.name = options.name;
    this.server = options.server;
  }

  get isConnected(): boolean {
    return this.#watch !== null;
  }

  /** Takes part in the loop from now on. */
  begin(): void {
    this.#remove = this.#options.loop.add(this, this.name);
  }

  /** When it wants to look at doorbells. */
  get dueUs(): number {
    return this.server.needsPolling ? LOOK_US : -1;
  }

  /** A new client. */
  connect(fd: number): void {
    const { journal } = this.#options;
    journal.clear();
    const transport = this.#transport(fd);
    this.server.connect(transport, journal.storage);
    // From now on there is a state to go on from, whenever this process ends.
    journal.keep(this.server.save());
    this.#watchClient(fd);
  }

  /**
   * A client of a worker before.
   *
   * @param kept - its descriptors, open under the same numbers as before
   * @throws StackError where the state does not fit
   */
  resume(fd: number, kept: readonly Kept[]): void {
    const { journal, system } = this.#options;
    journal.regions.settle();
    const state = journal.state() as SavedServer | null;
    if (state === null) {
      for (const { number } of kept) system.close(number);
      if (journal.received.total === 0) this.connect(fd);
      else {
        // Its state was too large to be kept: the client has to begin anew.
        this.#options.log(`${this.name}: its state is lost, and so is its connection`);
        system.close(fd);
        this.#options.closed();
      }
      return;
    }
    const carried = recoverStream(journal, kept);
    const { storage } = journal;
    const transport = this.#transport(fd);
    const connection = this.server.resume({ state, transport, storage, carried });
    assert(connection !== null, "a server with a client has a connection");
    this.#closeUnused(kept);
    this.#watchClient(fd);
    this.#service();
  }

  /** Does nothing any more, and writes down everything for who goes on. */
  leave(): void {
    this.#remove();
    if (this.#watch === null) return;
    this.#watch.close();
    this.#options.journal.keep(this.server.save());
  }

  work(): boolean {
    const { server } = this;
    let hasMore = server.work();
    this.#checkJournal();
    if (server.needsPolling) {
      const rings = server.doorbells.reduce((sum, doorbell) => sum + doorbell.rings, 0);
      const now = this.#options.system.now();
      if (rings !== this.#rings) this.#spinEnd = now + SPIN_US;
      this.#rings = rings;
      hasMore ||= now < this.#spinEnd;
    }
    return hasMore;
  }

  #transport(fd: number): JournalTransport {
    const { system, journal, custody, name } = this.#options;
    return new JournalTransport(system, fd, journal, custody, name);
  }

  #watchClient(fd: number): void {
    this.#events = Poll.IN;
    this.#watch = this.#options.loop.watch(fd, Poll.IN, () => this.#service(), this.name);
  }

  #service(): void {
    const { server } = this;
    if (!server.service()) {
      this.#watch?.close();
      this.#watch = null;
      this.#options.closed();
      return;
    }
    const { latency = null, loop, system } = this.#options;
    if (latency !== null) latency.record(system.now() - loop.wokeAt);
    const connection = server.connection!;
    const events = (connection.wantsInput ? Poll.IN : 0) | (connection.wantsOutput ? Poll.OUT : 0);
    if (events !== this.#events) this.#watch?.set(events);
    this.#events = events;
  }

  /** Closes what was in custody although nobody needs it: its message had been dealt with. */
  #closeUnused(kept: readonly Kept[]): void {
    const { dma, interrupts } = this.server;
    const { carriers } = this.server.connection!.writer;
    const used = new Set([
      ...dma.descriptors,
      ...interrupts.save().fds.flat(),
      ...carriers.map(({ fd }) => fd),
      ...this.server.connection!.assembler.carried.flatMap(({ fds }) => fds),
    ]);
    for (const { number } of kept) if (!used.has(number)) this.#options.system.close(number);
  }

  #checkJournal(): void {
    const { overflow } = this.#options.journal;
    if (overflow !== null && !this.#hasOverflown)
      this.#options.log(`${this.name}: ${overflow}; a crash would cost its connection`);
    this.#hasOverflown = overflow !== null;
  }
}
