/**
 * vfio-user: what a message costs, over real sockets with a client in C where there is a compiler,
 * and in this process without them; a million DMA regions; from a doorbell to the used index.
 *
 * The clients of C print percentiles beside the time that is reported, which is a mean with the
 * start of the client in it. Targets: a round trip of 18 µs at the median, a sync of 35 µs by message
 * and 15 µs by page; the same client against a
 * server in C that only echoes shows what the sockets alone take on this machine.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openLinuxSystem } from "../src/live/system/linux-system.ts";
import { Poll, PollSet } from "../src/live/system/poll-set.ts";
import type { System } from "../src/live/system/system.ts";
import { WindowCache } from "../src/live/system/window-cache.ts";
import { DmaTable } from "../src/live/vfio-user/dma-table.ts";
import { Interrupts } from "../src/live/vfio-user/interrupts.ts";
import { createDoorbells, type DoorbellRegion } from "../src/live/vfio-user/mappable-region.ts";
import { CLOSED, type MemoryFiles, type Transport } from "../src/live/vfio-user/ports.ts";
import { VfioUserServer } from "../src/live/vfio-user/server.ts";
import { SocketTransport } from "../src/live/vfio-user/socket-transport.ts";
import { GuestMemory } from "../src/memory/guest-memory.ts";
import { newView } from "../src/memory/memory-view.ts";
import type { PciFunction } from "../src/pci/function.ts";
import type { Benchmark } from "./harness.ts";

const PAGE = 4096;
const system: System | null = process.platform === "linux" ? await openLinuxSystem() : null;

/** A function whose registers are 256 bytes, and that counts in memory once its doorbell was rung. */
function registers(memory: GuestMemory): PciFunction {
  const bytes = newView(256);
  let isRung = false;
  return {
    regions: [
      { index: 2, bytes: PAGE, readable: true, writable: true },
      { index: 7, bytes: 256, readable: true, writable: true },
    ],
    vectors: 1,
    revision: 0,
    read(_region, offset, target, at, count) {
      for (let index = 0; index < count; index += 1)
        target.u8[at + index] = bytes.u8[offset + index]!;
      return true;
    },
    write(region, offset, source, at, count) {
      if (region === 2) {
        isRung = true;
        return true;
      }
      for (let index = 0; index < count; index += 1)
        bytes.u8[offset + index] = source.u8[at + index]!;
      return true;
    },
    work: () => {
      if (!isRung) return false;
      isRung = false;
      const view = memory.locate(0, 2, true);
      if (view !== null) Atomics.add(view.u16, memory.at >> 1, 1);
      return false;
    },
    reset: () => {},
    save: () => null,
    restore: () => {},
  };
}

const noFiles: MemoryFiles = { hold: () => 22 };
const noSystem = { status: () => -9, close: () => {}, signal: () => 0 };

function serverOf(
  world: Pick<System, "status" | "close" | "signal">,
  files = noFiles,
  doorbells: readonly DoorbellRegion[] = [],
): VfioUserServer {
  const interrupts = new Interrupts(world, 1);
  const memory = new GuestMemory();
  return new VfioUserServer({
    system: world,
    files,
    function: registers(memory),
    interrupts,
    memory,
    doorbells,
    name: "bench",
  });
}

/** The client of C, compiled; null without a compiler. */
function compilePeer(folder: string): string | null {
  const out = join(folder, "peer");
  try {
    const source = join(import.meta.dirname, "..", "bench", "vfio-user-peer.c");
    execFileSync("gcc", ["-O2", "-o", out, source], { stdio: "ignore" });
    return out;
  } catch {
    return null;
  }
}

/** Longest that the loop was away from its wait, and the like: printed once, of the last round. */
class HoldTimes {
  readonly #counts = new Float64Array(40);
  longestUs = 0;

  record(us: number): void {
    this.#counts[Math.max(0, Math.ceil(Math.log2(Math.max(us, 1))))]! += 1;
    if (us > this.longestUs) this.longestUs = us;
  }

  get text(): string {
    const parts: string[] = [];
    for (const [power, count] of this.#counts.entries())
      if (count > 0) parts.push(`<=${2 ** power}us:${count}`);
    return parts.join(" ");
  }
}

/** Serves one client until it goes. */
function serve(world: System, server: VfioUserServer, fd: number, holds: HoldTimes): void {
  const connection = server.connect(new SocketTransport(world, fd, "bench"));
  const set = new PollSet(world, 1, "bench");
  for (let hasMore = false; server.connection !== null; ) {
    const { wantsInput, wantsOutput } = connection;
    set.set(0, fd, (wantsInput ? Poll.IN : 0) | (wantsOutput ? Poll.OUT : 0));
    // A page that the client stores to wakes nobody up.
    world.poll(set, hasMore || server.needsPolling ? 0 : -1);
    const start = world.now();
    server.service();
    hasMore = server.work();
    holds.record(world.now() - start);
  }
  set.dispose();
}

/** Compiles the peer once. @returns its path and a folder, or null without a compiler */
let peerFound: { readonly peer: string | null; readonly folder: string } | null = null;
export function peerAndFolder(): { readonly peer: string | null; readonly folder: string } {
  if (peerFound !== null) return peerFound;
  const folder = mkdtempSync(join(tmpdir(), "vfio-user-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  peerFound = { peer: compilePeer(folder), folder };
  return peerFound;
}

/** Runs the peer against a server of ours. @returns the three times, and how long the loop held */
function runPeer(mode: string, count: number, last: string, run: string, isPage: boolean): string {
  const { peer, folder } = peerAndFolder();
  if (system === null || peer === null) return "";
  const [path, out] = [join(folder, `${run}.sock`), join(folder, `${run}.txt`)];
  const holds = new HoldTimes();
  const listener = system.listen(path, 1, "bench");
  const command = `exec ${peer} ${mode} ${path} ${count} ${last} > ${out}.part`;
  spawn("sh", ["-c", command], { stdio: "ignore" });
  const set = new PollSet(system, 1, "bench");
  set.set(0, listener, Poll.IN);
  if (system.poll(set, 10_000_000) !== 1) throw new Error("the client of C does not connect");
  set.dispose();
  const slots = { first: 0, stride: 4, width: 2, count: 2 } as const;
  const made = isPage
    ? createDoorbells(system, { index: 2, bytes: PAGE, slots, owner: "bench" })
    : null;
  if (typeof made === "number") throw new Error(`doorbells: errno ${-made}`);
  const files = new WindowCache(system, "bench");
  const server = serverOf(system, files, made === null ? [] : [made.region]);
  serve(system, server, system.accept(listener, "bench"), holds);
  made?.dispose();
  files.trim();
  system.close(listener);
  execFileSync("sleep", ["0.05"]);
  return `${timesText(`${out}.part`)}; loop held ${holds.text}`;
}

export function timesText(path: string): string {
  const [p50, p99, max] = readFileSync(path, "utf8").trim().split(" ");
  return `p50 ${p50} ns, p99 ${p99} ns, max ${max} ns`;
}

function roundTrips(window: number, kind: "ours" | "echo"): Benchmark["prepare"] {
  return (scale) => {
    const { peer, folder } = peerAndFolder();
    const wanted = 100_000 * Math.max(1, window / 8) * scale;
    const units = Math.max(window * 10, Math.floor(wanted / window) * window);
    let run = 0;
    const round = (): number => {
      if (peer === null) return 0;
      run += 1;
      const name = `${kind}-${window}-${run}`;
      let text = "";
      if (kind === "ours") text = runPeer("rtt", units, `${window}`, name, false);
      else {
        const [path, out] = [join(folder, `${name}.sock`), join(folder, `${name}.txt`)];
        const echo = spawn(peer, ["echo", path], { stdio: "ignore" });
        execFileSync("sh", ["-c", `exec ${peer} rtt ${path} ${units} ${window} > ${out}`]);
        echo.kill();
        text = timesText(out);
      }
      console.log(`    window of ${window}: ${text}`);
      return window;
    };
    return { units, round };
  };
}

/** From a doorbell to the device's answer in shared memory, which the client spins on. */
function syncs(how: "message" | "page"): Benchmark["prepare"] {
  return (scale) => {
    const units = Math.max(100, Math.floor(50_000 * scale));
    let run = 0;
    const round = (): number => {
      run += 1;
      const text = runPeer("sync", units, how, `sync-${how}-${run}`, how === "page");
      console.log(`    doorbell by ${how}: ${text}`);
      return units;
    };
    return { units, round };
  };
}

/** Messages that come in large pieces, without a socket. */
class MemoryTransport implements Transport {
  readonly #bytes: Uint8Array;
  left = 0;
  sent = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  receive(target: Uint8Array, at: number, count: number): number {
    if (this.left === 0) return 0;
    const bytes = Math.min(count, this.#bytes.length);
    if (bytes < this.#bytes.length) return CLOSED;
    target.set(this.#bytes, at);
    this.left -= 1;
    return bytes;
  }

  send(_source: Uint8Array, _at: number, count: number): number {
    this.sent += count;
    return count;
  }

  close(): void {}
}

/** Messages of one kind, many times over. */
function engine(command: number, flags: number, payload: Uint8Array): Benchmark["prepare"] {
  return (scale) => {
    const many = 512;
    const size = 16 + payload.length;
    const bytes = new Uint8Array(many * size);
    const view = new DataView(bytes.buffer);
    for (let index = 0; index < many; index += 1) {
      view.setUint16(index * size, index, true);
      view.setUint16(index * size + 2, command, true);
      view.setUint32(index * size + 4, size, true);
      view.setUint32(index * size + 8, flags, true);
      bytes.set(payload, index * size + 16);
    }
    const transport = new MemoryTransport(bytes);
    const server = serverOf(noSystem);
    server.connect(transport);
    server.client = { messageDescriptors: 8, transferBytes: 2 ** 20 };
    const batches = Math.max(2, Math.floor(4000 * scale));
    const round = (): number => {
      transport.left = batches;
      transport.sent = 0;
      while (transport.left > 0) server.service();
      return transport.sent;
    };
    return { units: batches * many, round };
  };
}

function access(offset: number, data: Uint8Array, count: number): Uint8Array {
  const payload = new Uint8Array(16 + data.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, offset, true);
  view.setUint32(8, 7, true);
  view.setUint32(12, count, true);
  payload.set(data, 16);
  return payload;
}

/** Regions of one file, added in disorder, looked up, and taken away. */
function regions(scale: number, count: number): { units: number; round: () => number } {
  const units = Math.max(1000, Math.floor(count * scale));
  const buffer = new ArrayBuffer(2 ** 24);
  const files = {
    hold: (_fd: number, offset: number, bytes: number) => ({
      pieces: [{ buffer, byteOffset: offset % 2 ** 24, bytes }],
      release: () => {},
    }),
  };
  const regular = { kind: "regular", device: "1", inode: 1, bytes: 2 ** 53 } as const;
  const status = { ...regular, blockBytes: PAGE, mode: 0, userId: 0 };
  const round = (): number => {
    const memory = new GuestMemory();
    const world = { status: () => status, close: () => {} };
    const table = new DmaTable({ system: world, files, memory, regionsMax: units });
    const page = (index: number) => BigInt((index * 48_271) % 2_147_483_647) * 4096n;
    const size = 4096n;
    for (let index = 1; index <= units; index += 1) {
      const offset = BigInt(index % 4096) * 4096n;
      if (table.map({ address: page(index), size, offset, flags: 3 }, 7) !== 0) return -1;
    }
    let found = 0;
    for (let index = 1; index <= units; index += 1) {
      if (memory.readU8(Number(page(index))) === 0) found += 1;
    }
    for (let index = 1; index <= units; index += 1) table.unmap(page(index), size);
    return found + table.count;
  };
  return { units, round };
}

const hasSockets = system !== null;
const read = access(0, new Uint8Array(0), 4);
const write = access(4, Uint8Array.of(1, 0, 0, 0), 4);

export const benchmarks: readonly Benchmark[] = [
  ...(hasSockets
    ? ([
        {
          name: "vfio-user/ REGION_READ round trip, echo in C",
          unit: "message",
          roundsMax: 3,
          prepare: roundTrips(1, "echo"),
        },
        {
          name: "vfio-user/ REGION_READ round trip",
          unit: "message",
          roundsMax: 3,
          prepare: roundTrips(1, "ours"),
        },
        {
          name: "vfio-user/ REGION_READ pipelined, 256 outstanding",
          unit: "message",
          target: { perSecond: 500_000 },
          roundsMax: 3,
          prepare: roundTrips(256, "ours"),
        },
        {
          name: "vfio-user/ sync by message",
          unit: "sync",
          roundsMax: 3,
          prepare: syncs("message"),
        },
        {
          name: "vfio-user/ sync by doorbell page",
          unit: "sync",
          roundsMax: 3,
          prepare: syncs("page"),
        },
      ] satisfies Benchmark[])
    : []),
  {
    name: "vfio-user/ engine: REGION_READ of 4 bytes",
    unit: "message",
    target: { perSecond: 1_000_000 },
    prepare: engine(9, 0, read),
  },
  {
    name: "vfio-user/ engine: posted REGION_WRITE of 4 bytes",
    unit: "message",
    target: { perSecond: 1_000_000 },
    prepare: engine(10, 0x10, write),
  },
  {
    name: "vfio-user/ ten thousand DMA regions: map, find, unmap",
    unit: "region",
    prepare: (scale) => regions(scale, 10_000),
  },
  {
    name: "vfio-user/ a million DMA regions: map, find, unmap",
    unit: "region",
    target: { perSecond: 100_000 },
    ratioTo: "vfio-user/ ten thousand DMA regions: map, find, unmap",
    roundsMax: 2,
    prepare: (scale) => regions(scale, 2 ** 20),
  },
];
