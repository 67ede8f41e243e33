/** A server with a function that remembers, and clients of it, over simulated or real sockets. */
import { expect } from "vitest";
import { GuestMemory } from "../../memory/guest-memory.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import type { PciFunction } from "../../pci/function.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import type { System } from "../system/system.ts";
import { WindowCache } from "../system/window-cache.ts";
import { TestClient } from "./client.suite.ts";
import type { DmaListener } from "./dma-table.ts";
import { Interrupts } from "./interrupts.ts";
import type { DoorbellRegion } from "./mappable-region.ts";
import type { SavedServer } from "./saved-server.ts";
import { type ServerOptions, VfioUserServer } from "./server.ts";
import { SocketTransport } from "./socket-transport.ts";

/** QEMU's request, character by character of version 11.1.3. */
export const QEMU_JSON =
  '{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, ' +
  '"max_data_xfer_size": 1048576, "max_msg_fds": 16, "write_multiple": true, ' +
  '"max_dma_maps": 65535, "pgsizes": 4096}}';

/** A function of three BARs and config space, whose memory is what was written to it. */
export class FakeFunction implements PciFunction {
  readonly regions = [
    { index: 0, bytes: 0x4000, readable: true, writable: true },
    { index: 1, bytes: 0x1000, readable: true, writable: false },
    { index: 2, bytes: 0x1000, readable: true, writable: true },
    { index: 7, bytes: 256, readable: true, writable: true },
  ];
  readonly vectors: number;
  revision = 0;
  resets = 0;
  works = 0;
  /** Writes in order: region, offset, bytes. */
  readonly log: string[] = [];
  readonly bytes = new Map(this.regions.map(({ index, bytes }) => [index, new Uint8Array(bytes)]));
  /** Called by work. @returns whether there is more */
  onWork: () => boolean = () => false;
  onAccess: () => void = () => {};

  constructor(vectors = 4) {
    this.vectors = vectors;
    this.#powerOn();
  }

  read(region: number, offset: number, target: MemoryView, at: number, count: number): boolean {
    this.onAccess();
    const bytes = this.bytes.get(region)!;
    expect(offset + count).toBeLessThanOrEqual(bytes.length);
    target.u8.set(bytes.subarray(offset, offset + count), at);
    return true;
  }

  write(region: number, offset: number, source: MemoryView, at: number, count: number): boolean {
    this.onAccess();
    const bytes = this.bytes.get(region)!;
    expect(offset + count).toBeLessThanOrEqual(bytes.length);
    const data = source.u8.slice(at, at + count);
    bytes.set(data, offset);
    this.log.push(`${region} ${offset} ${[...data].join(",")}`);
    this.revision += 1;
    return true;
  }

  work(): boolean {
    this.works += 1;
    return this.onWork();
  }

  reset(): void {
    this.resets += 1;
    this.revision += 1;
    this.#powerOn();
  }

  save(): unknown {
    return [...this.bytes].map(([index, bytes]) => [index, [...bytes]]);
  }

  restore(state: unknown): void {
    for (const [index, bytes] of state as [number, number[]][]) this.bytes.get(index)!.set(bytes);
  }

  #powerOn(): void {
    for (const bytes of this.bytes.values()) bytes.fill(0);
    this.bytes.get(7)!.set([0xf4, 0x1a, 0x57, 0x10]);
  }
}

export interface WorldOptions {
  /** The two processes; simulated ones without it. */
  readonly systems?: readonly [System, System];
  readonly vectors?: number;
  readonly server?: Partial<ServerOptions>;
  readonly listener?: (memory: GuestMemory) => DmaListener;
  readonly doorbells?: (system: System) => readonly DoorbellRegion[];
}

/** The world. */
export class World {
  readonly kernel = new SimulatedKernel();
  readonly system: System;
  readonly clientSystem: System;
  readonly files: WindowCache;
  readonly memory = new GuestMemory();
  readonly function: FakeFunction;
  readonly interrupts: Interrupts;
  readonly server: VfioUserServer;
  readonly log: string[] = [];
  readonly kept: SavedServer[] = [];
  /** Runs after each step of the server. */
  onTurn: () => void = () => {};
  readonly #clients: TestClient[] = [];
  readonly #before: readonly [number, number];

  constructor(options: WorldOptions = {}) {
    const [server, client] = options.systems ?? [
      new SimulatedSystem(this.kernel),
      new SimulatedSystem(this.kernel),
    ];
    this.system = server;
    this.clientSystem = client;
    this.files = new WindowCache(server, "windows");
    this.function = new FakeFunction(options.vectors ?? 4);
    this.interrupts = new Interrupts(server, options.vectors ?? 4);
    this.#before = [server.ledger.descriptorCount, client.ledger.descriptorCount];
    const doorbells =
      options.doorbells === undefined ? {} : { doorbells: options.doorbells(server) };
    this.server = new VfioUserServer({
      system: server,
      files: this.files,
      function: this.function,
      interrupts: this.interrupts,
      memory: this.memory,
      name: "fake0",
      log: (line) => this.log.push(line),
      ...doorbells,
      ...(options.listener === undefined ? {} : { listener: options.listener(this.memory) }),
      ...options.server,
    });
  }

  /** Connects a client to the server. */
  connect(): TestClient {
    const path = `/vfio-user-${this.#clients.length}`;
    const [serverEnd, clientEnd] = this.#pair(path);
    this.server.connect(new SocketTransport(this.system, serverEnd, "connection"));
    const client = new TestClient(this.clientSystem, clientEnd, () => this.settle());
    this.#clients.push(client);
    return client;
  }

  /** As {@link connect}, with VERSION as QEMU sends it. */
  negotiate(): TestClient {
    const client = this.connect();
    expect(client.version(QEMU_JSON).errno).toBe(0);
    return client;
  }

  /** Lets the server work until nothing is left to do. */
  settle(): void {
    for (let turn = 0; turn < 100_000; turn += 1) {
      const before = this.#progress();
      this.server.service();
      const hasMore = this.server.work();
      this.onTurn();
      if (!hasMore && this.#progress() === before) return;
    }
    throw new Error("the server never comes to rest");
  }

  /** A file of the client's memory. @returns its descriptor */
  memoryFile(bytes: number, fill?: (view: Uint8Array) => void): number {
    const fd = this.clientSystem.createMemoryFile("ram", bytes, "client");
    expect(fd).toBeGreaterThanOrEqual(0);
    if (fill === undefined) return fd;
    const mapping = this.clientSystem.map({ fd, offset: 0, bytes, access: "shared" }, "client");
    if (typeof mapping === "number") throw new Error("the client maps its memory");
    fill(mapping.view.u8);
    this.clientSystem.unmap(mapping);
    return fd;
  }

  event(): number {
    return this.clientSystem.createEvent("client");
  }

  /** Closes everything and looks whether anything is left. */
  end(): void {
    for (const client of this.#clients) if (client.isOpen) client.close();
    this.settle();
    this.server.disconnect();
    this.files.trim();
    for (const { kind, id, owner } of this.clientSystem.ledger.open) {
      if (kind === "descriptor" && owner === "client") this.clientSystem.close(id);
    }
    expect(this.server.connection).toBe(null);
    expect(this.server.dma.count).toBe(0);
    expect(this.memory.regions).toEqual([]);
    const owners = ["connection", "windows", "fake0"];
    expect(this.system.ledger.open.filter(({ owner }) => owners.includes(owner))).toEqual([]);
    if (this.system !== this.clientSystem) {
      expect(this.system.ledger.descriptorCount).toBe(this.#before[0]);
      expect(this.clientSystem.ledger.descriptorCount).toBe(this.#before[1]);
    }
  }

  #progress(): number {
    const counts = this.server.connection?.counts;
    return counts === undefined ? -1 : counts.messages + counts.receives;
  }

  #pair(path: string): readonly [number, number] {
    if (this.system === this.clientSystem) {
      const pair = this.system.socketPair("connection");
      if (typeof pair === "number") throw new Error("a pair of sockets");
      this.system.ledger.hand(pair[1], "client");
      return pair;
    }
    const listener = this.system.listen(path, 1, "listener");
    const client = this.clientSystem.connect(path, "client");
    const server = this.system.accept(listener, "connection");
    this.system.close(listener);
    expect(client).toBeGreaterThanOrEqual(0);
    expect(server).toBeGreaterThanOrEqual(0);
    return [server, client];
  }
}
