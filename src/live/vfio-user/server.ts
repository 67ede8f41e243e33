/**
 * A vfio-user server: one PCI function, offered to one VMM at a time.
 *
 * The server owns what the client gives it: memory (`dma`), interrupt descriptors (`interrupts`).
 * Messages are answered at once and in order; what they ask the function to do is done by `work`
 * afterwards, which the loop calls when the stream has been emptied. Nothing of a client survives
 * its connection. Source: vfio-user protocol specification, version 0.0; libvfio-user,
 * docs/, "Device life cycle", for what a lost client leaves behind.
 *
 * @example
 * const interrupts = new Interrupts(system, 2);
 * const memory = new GuestMemory();
 * const pci = createFunction(memory, interrupts);
 * const server = new VfioUserServer({ system, files, memory, interrupts, function: pci, name: "blk0" });
 * server.connect(new SocketTransport(system, system.accept(listener, "blk0"), "blk0"));
 */
import { Errno, errnoName } from "../../errno.ts";
import { assert, StackError } from "../../errors.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import type { PciFunction } from "../../pci/function.ts";
import { sizeText } from "../../units.ts";
import type { System } from "../system/system.ts";
import { type CommandTarget, commandRules } from "./commands.ts";
import { Connection, type MessageHandler } from "./connection.ts";
import { type DmaListener, DmaTable, type RegionKeeper } from "./dma-table.ts";
import type { Interrupts } from "./interrupts.ts";
import type { DoorbellRegion } from "./mappable-region.ts";
import type { Message } from "./message.ts";
import type { MemoryFiles, Transport } from "./ports.ts";
import { Command } from "./protocol.ts";
import { RegionAccesses } from "./region-access.ts";
import type { ReplyWriter } from "./reply-writer.ts";
import type { ResumeOptions, SavedServer } from "./saved-server.ts";
import { newStreamStorage, type StreamMemory, type StreamStorage } from "./stream-memory.ts";
import type { ClientCapabilities } from "./version.ts";

/** What a server is made of. */
export interface ServerOptions {
  readonly system: Pick<System, "status" | "close">;
  readonly files: MemoryFiles;
  readonly function: PciFunction;
  /** What the function raises interrupts at. */
  readonly interrupts: Interrupts;
  /** What the function, or the IOMMU before it, reaches: filled by the client. */
  readonly memory: GuestMemory;
  /** Begins each line of the log. */
  readonly name: string;
  readonly log?: (line: string) => void;
  /** Regions that the client maps. */
  readonly doorbells?: readonly DoorbellRegion[];
  /** Hears of memory. */
  readonly listener?: DmaListener;
  readonly regionsMax?: number;
  /** Keeps the state where it outlives this process; called before a change counts. */
  readonly journal?: {
    keep(state: SavedServer): void;
    /** Keeps regions one by one; without it they are part of the state. */
    readonly regions?: RegionKeeper;
  };
}

/** Turns in which nothing is done after memory went: it may be on its way back (U52). */
const SETTLE_TURNS = 64;

/** The server. */
export class VfioUserServer implements CommandTarget, MessageHandler {
  readonly function: PciFunction;
  readonly interrupts: Interrupts;
  readonly dma: DmaTable;
  readonly accesses: RegionAccesses;
  readonly doorbells: readonly DoorbellRegion[];
  readonly name: string;
  client: ClientCapabilities | null = null;
  /** Calls that failed because the function did: each is in the log. */
  failures = 0;
  /** Messages by number of their command; the last counts unknown ones. */
  readonly messagesByCommand = new Float64Array(32);
  readonly #options: ServerOptions;
  readonly #log: (line: string) => void;
  #connection: Connection | null = null;
  #storage: StreamStorage | null = null;
  #settleTurns = 0;
  #isBroken = false;
  #hasWarned = false;
  /** Reasons for which the client's memory was refused; each is told once. */
  readonly #refused = new Set<number>();
  #keptRevision = -1;
  #sessions = 0;

  constructor(options: ServerOptions) {
    const { system, files, memory, regionsMax, listener = null } = options;
    this.#options = options;
    this.#log = options.log ?? (() => {});
    this.function = options.function;
    this.interrupts = options.interrupts;
    this.name = options.name;
    this.doorbells = options.doorbells ?? [];
    const limit = regionsMax === undefined ? {} : { regionsMax };
    const keeper = options.journal?.regions ?? null;
    this.dma = new DmaTable({ system, files, memory, listener, keeper, ...limit });
    this.accesses = new RegionAccesses(options.function);
    assert(
      this.interrupts.vectorsOf(2) >= this.function.vectors,
      "the interrupts have a vector for each of the function's",
    );
  }

  /** The conversation with the client; null without one. */
  get connection(): Connection | null {
    return this.#connection;
  }

  /** Whether `work` has to be called even when no message comes: the client maps doorbells. */
  get needsPolling(): boolean {
    return this.#connection !== null && this.doorbells.length > 0;
  }

  /** Changes with everything that {@link save} holds but the streams' positions. */
  get revision(): number {
    const { dma, interrupts } = this;
    const regions = this.#options.journal?.regions === undefined ? dma.revision : 0;
    const talks = 2 * this.#sessions + (this.client === null ? 0 : 1);
    return regions + interrupts.revision + this.function.revision + talks;
  }

  /** A client was accepted. */
  connect(transport: Transport, storage?: StreamStorage): Connection {
    assert(this.#connection === null, "one client at a time");
    this.#storage = storage ?? this.#storage ?? newStreamStorage();
    this.#connection = new Connection(this, transport, this.#storage);
    this.#connection.memory.clear();
    this.#sessions += 1;
    return this.#connection;
  }

  /**
   * Handles what the client sent. {@link work} has to be called next.
   *
   * @returns false when there is no client any more: everything of it is gone
   */
  service(): boolean {
    if (this.#connection === null) return false;
    if (this.#connection.service()) return true;
    this.disconnect();
    return false;
  }

  /** Forgets the client, whether it is gone or not. */
  disconnect(): void {
    const connection = this.#connection;
    if (connection === null) return;
    this.#connection = null;
    this.client = null;
    this.#sessions += 1;
    this.#refused.clear();
    this.reset();
    this.dma.clear();
    this.#options.files.trim?.();
    this.interrupts.clear();
    // Before the stream forgets where it was: what is kept of regions goes by that.
    this.#keep(connection.memory);
    connection.close();
    this.#settleTurns = 0;
    this.#keep(connection.memory);
  }

  /**
   * Does what waits, a bounded part of it.
   *
   * @returns whether there is more: call again, after another look at the streams
   */
  work(): boolean {
    if (this.#settleTurns > 0) {
      this.#settleTurns -= 1;
      return true;
    }
    if (this.#isBroken || this.#connection === null) return false;
    let hasMore = false;
    try {
      for (const doorbell of this.doorbells) doorbell.poll(this.function);
      hasMore = this.function.work();
    } catch (error) {
      this.#isBroken = true;
      this.#failed("at work; it rests until it is reset", error);
    }
    this.interrupts.flush();
    this.#keep(this.#connection.memory);
    return this.#options.listener?.work?.() === true || hasMore;
  }

  handle(message: Message, reply: ReplyWriter): number {
    const { command } = message;
    const rule = commandRules[command];
    this.messagesByCommand[Math.min(command, this.messagesByCommand.length - 1)]! += 1;
    let errno: number = Errno.EINVAL;
    const isKnown = rule !== undefined && (this.client !== null || command === Command.VERSION);
    const fits =
      isKnown && message.payloadBytes >= rule.bytes && message.fds.length <= rule.descriptors;
    if (fits) errno = this.#run(rule.handle, message, reply);
    // A burst of changes to memory is over when something else is asked for.
    if (command !== Command.DMA_MAP && command !== Command.DMA_UNMAP) this.#settleTurns = 0;
    if (errno !== Errno.OK) for (const fd of message.fds) this.close(fd);
    return errno;
  }

  handled(memory: StreamMemory): void {
    this.#keep(memory);
  }

  /** Keeps the state now, for a function whose client must not see a change that is not kept. */
  keep(): void {
    if (this.#connection !== null) this.#keep(this.#connection.memory);
  }

  close(fd: number): void {
    this.#options.system.close(fd);
  }

  foundUnsharedMemory(bytes: bigint): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    this.#log(
      `${this.name}: ${sizeText(bytes)} of the machine's memory came without a descriptor, so ` +
        "devices cannot reach it: give QEMU a memory backend with share=on as memory-backend",
    );
  }

  refusedMemory(errno: number): void {
    if (this.#refused.has(errno)) return;
    this.#refused.add(errno);
    const why =
      errno === Errno.EACCES
        ? ": its file must be one that nobody can make shorter and that the client may write, as " +
          "QEMU's memory-backend-memfd is"
        : "";
    this.#log(
      `${this.name}: a part of the machine's memory is refused with ${errnoName(errno)}${why}`,
    );
  }

  unsettle(): void {
    this.#settleTurns = SETTLE_TURNS;
  }

  reset(): void {
    this.#isBroken = false;
    this.interrupts.reset();
    for (const doorbell of this.doorbells) doorbell.reset();
    try {
      this.function.reset();
    } catch (error) {
      this.#isBroken = true;
      this.#failed("at its reset", error);
    }
  }

  /** Everything that somebody needs who goes on in this server's place, but descriptors. */
  save(): SavedServer {
    const connection = this.#connection;
    return {
      client: this.client,
      regions: this.#options.journal?.regions === undefined ? this.dma.save() : [],
      interrupts: this.interrupts.save(),
      function: this.function.save(),
      stream: connection?.memory.next ?? null,
      carriers: connection?.writer.carriers ?? [],
    };
  }

  /**
   * Goes on where another server was. Descriptors have the numbers that the state names.
   *
   * @throws StackError `live/state`, `pci/state` when the state does not fit
   */
  resume(options: ResumeOptions): Connection | null {
    assert(this.#connection === null, "a new server takes over");
    const { state, transport, storage, carried = [] } = options;
    this.client = state.client;
    if (this.#options.journal?.regions === undefined) this.dma.restore(state.regions);
    else this.dma.restoreKept();
    const isFit = this.interrupts.restore(state.interrupts);
    if (!isFit) {
      throw new StackError({
        code: "live/state",
        kind: "input",
        message: `The state of ${this.name} is of a device with other interrupts`,
        hint: "a hand-over goes to the same machine file",
      });
    }
    this.function.restore(state.function);
    if (transport === null) return null;
    this.#storage = storage;
    const connection = new Connection(this, transport, storage);
    if (state.stream !== null) connection.memory.advanceTo(state.stream);
    const { inputStart } = connection.memory;
    connection.assembler.restore(carried.filter(({ owner }) => owner >= inputStart));
    connection.writer.restore(state.carriers);
    this.#connection = connection;
    return connection;
  }

  /** Lets go of memory, and closes nothing: somebody else goes on. */
  release(): void {
    this.#connection = null;
    this.dma.release();
  }

  #run(
    handle: (target: CommandTarget, message: Message, reply: ReplyWriter) => number,
    message: Message,
    reply: ReplyWriter,
  ): number {
    try {
      return handle(this, message, reply);
    } catch (error) {
      this.#failed(`at command ${message.command}`, error);
      return Errno.EIO;
    }
  }

  #failed(when: string, error: unknown): void {
    this.failures += 1;
    const text = error instanceof Error ? error.message : String(error);
    this.#log(`${this.name}: the device failed ${when}: ${text}`);
  }

  #keep(memory: StreamMemory): void {
    const { journal } = this.#options;
    if (journal === undefined) return;
    const { revision } = this;
    if (revision === this.#keptRevision) return;
    this.#keptRevision = revision;
    journal.keep({ ...this.save(), stream: memory.next });
  }
}
