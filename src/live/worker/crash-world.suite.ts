/** A world in which a worker dies at chosen moments and is replaced; for tests and the fuzzer. */
import { expect } from "vitest";
import { DeviceCustody } from "../supervisor/custody.ts";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import type { System } from "../system/system.ts";
import { Connection, type MessageHandler } from "../vfio-user/connection.ts";
import { DEVICE_BYTES, DeviceJournal } from "./device-journal.ts";
import { type Custody, JournalTransport, type Kept, recoverStream } from "./journal-transport.ts";

class Killed extends Error {}

const KEPT_FIRST = 512;

interface State {
  count: number;
  fds: number[];
  stream?: readonly number[];
}

/** A world in which a worker dies at a chosen moment, and is replaced. */
export class CrashWorld {
  readonly kernel = new SimulatedKernel();
  readonly supervisor = new SimulatedSystem(this.kernel);
  readonly client = new SimulatedSystem(this.kernel);
  readonly clientFd: number;
  readonly serverFd: number;
  readonly journalFd: number;
  readonly custody: DeviceCustody;
  readonly desk: Mapping;
  /** Moments until the worker dies, and after that its successors; never when empty. */
  readonly #moments: number[];
  kills = 0;
  /** What the last worker's device knew. */
  lastState: State = { count: 0, fds: [] };
  /** How a successor finds where it is; a fuzzer's canary puts a worse way here. */
  static recover: typeof recoverStream = recoverStream;
  #nextNumber = KEPT_FIRST;

  constructor(killMoments: readonly number[], socketBytes = 212_992) {
    this.#moments = [...killMoments];
    this.kernel.socketBytes = socketBytes;
    const [client, server] = this.supervisor.socketPair("test") as readonly [number, number];
    this.clientFd = this.supervisor.give(client, this.client, "client");
    this.supervisor.close(client);
    this.serverFd = server;
    this.custody = new DeviceCustody(this.supervisor, "test", -1);
    this.journalFd = this.supervisor.createMemoryFile("journal", DEVICE_BYTES, "test");
    this.desk = this.client.allocate(2 * SLOT_BYTES + 70_000, "client");
  }

  /** A moment at which a kill may fall. */
  tick(): void {
    if (this.#moments.length === 0) return;
    this.#moments[0]! -= 1;
    if (this.#moments[0]! > 0) return;
    this.#moments.shift();
    this.kills += 1;
    throw new Killed();
  }

  /** Runs a worker until it has nothing to do, or is killed; then its successor. */
  run(): void {
    for (let generation = 0; generation < 20; generation += 1) {
      const process = new SimulatedSystem(this.kernel);
      try {
        this.#work(process);
        return;
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
      } finally {
        process.kill();
      }
    }
    throw new Error("the successors die as well");
  }

  #work(process: SimulatedSystem): void {
    const request = { fd: this.supervisor.give(this.journalFd, process, "w"), offset: 0 } as const;
    const access = { bytes: DEVICE_BYTES, access: "shared" } as const;
    const journal = new DeviceJournal(process.map({ ...request, ...access }, "w") as Mapping);
    const state = (journal.state() as State | null) ?? { count: 0, fds: [] };
    const inherited: Kept[] = [];
    for (const { kept, fds } of this.custody.parts(64)) {
      for (const [index, each] of kept.entries()) {
        this.supervisor.give(fds[index]!, process, "w", each.number);
        inherited.push(each);
      }
    }
    const carried = CrashWorld.recover(journal, inherited);
    this.lastState = state;
    const custody: Custody = { keep: (fds, taken, end) => this.#keep(process, fds, taken, end) };
    const system = this.#mortal(process);
    const fd = this.supervisor.give(this.serverFd, process, "w");
    const transport = new JournalTransport(system, fd, journal, custody, "w");
    const handler: MessageHandler = {
      handle: (message, reply) => {
        this.tick();
        state.count += 1;
        state.fds.push(...message.fds);
        for (const each of message.fds) process.signal(each);
        const at = reply.add(message.payloadBytes);
        reply.bytes.u8.fill(state.count, at, at + message.payloadBytes);
        return 0;
      },
      handled: (memory) => {
        this.tick();
        journal.keep({ ...state, stream: memory.next });
        this.tick();
      },
      close: (each) => process.close(each),
    };
    const connection = new Connection(handler, transport, journal.storage);
    if (state.stream !== undefined) connection.memory.advanceTo(state.stream);
    const { inputStart } = connection.memory;
    connection.assembler.restore(carried.filter(({ owner }) => owner >= inputStart));
    for (let turn = 0; turn < 8; turn += 1) expect(connection.service()).toBe(true);
  }

  #keep(process: SimulatedSystem, fds: readonly number[], taken: number, end: number): number[] {
    this.tick();
    const kept = fds.map((fd) => {
      const number = process.duplicate(fd, "w", this.#nextNumber);
      this.#nextNumber = number + 1;
      process.close(fd);
      return { number, end };
    });
    const copies = kept.map(({ number }) => process.give(number, this.supervisor, "custody"));
    this.custody.keep(kept, copies, taken);
    this.tick();
    return kept.map(({ number }) => number);
  }

  /** The system as a process sees it that may be killed before and after each call. */
  #mortal(system: SimulatedSystem): System {
    const wrap =
      (call: (...words: never[]) => unknown) =>
      (...words: never[]) => {
        this.tick();
        const result = call.apply(system, words);
        this.tick();
        return result;
      };
    return new Proxy(system, {
      get: (target, name: keyof System) => {
        const value = target[name];
        if (typeof value !== "function") return value;
        const isTicking = name === "receive" || name === "send";
        return isTicking ? wrap(value as never) : (value as () => unknown).bind(target);
      },
    });
  }

  /** Sends as much as there is room for. @returns how much */
  trySend(bytes: Uint8Array, fds: readonly number[]): number {
    const slot = new MessageSlot(this.desk, 0);
    this.desk.view.u8.set(bytes, 2 * SLOT_BYTES);
    slot.aim(this.desk.address + 2 * SLOT_BYTES, bytes.length);
    slot.attach(fds);
    return Math.max(0, this.client.send(this.clientFd, slot));
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    expect(this.trySend(bytes, fds)).toBe(bytes.length);
  }

  receive(): Uint8Array {
    const slot = new MessageSlot(this.desk, SLOT_BYTES);
    const parts: number[] = [];
    for (;;) {
      slot.aim(this.desk.address + 2 * SLOT_BYTES, 70_000);
      const count = this.client.receive(this.clientFd, slot, "take", "client");
      if (count <= 0) return Uint8Array.from(parts);
      parts.push(...this.desk.view.u8.subarray(2 * SLOT_BYTES, 2 * SLOT_BYTES + count));
    }
  }
}

/** A message of the protocol. */
export function message(id: number, payload: number): Uint8Array {
  const bytes = new Uint8Array(16 + payload).fill(id, 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, id, true);
  view.setUint16(2, 9, true);
  view.setUint32(4, bytes.length, true);
  return bytes;
}

export const joined = (...parts: readonly Uint8Array[]) =>
  Uint8Array.from(parts.flatMap((part) => [...part]));
