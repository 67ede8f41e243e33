/**
 * The live path's ground: system calls through foreign functions, a stream that survives its
 * process beside one that does not, guest memory through a mapping, a disk in a file, the journal.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileStore } from "../src/live/block/file-store.ts";
import { bucketOf } from "../src/live/metrics/latency-buckets.ts";
import { MetricMemory } from "../src/live/metrics/metric-memory.ts";
import { MetricTable } from "../src/live/metrics/metric-table.ts";
import { openLinuxSystem } from "../src/live/system/linux-system.ts";
import { MAP_BYTES_MAX, type Mapping } from "../src/live/system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../src/live/system/message-slot.ts";
import { Poll, PollSet } from "../src/live/system/poll-set.ts";
import type { System } from "../src/live/system/system.ts";
import type { Transport } from "../src/live/vfio-user/ports.ts";
import { SocketTransport } from "../src/live/vfio-user/socket-transport.ts";
import { DEVICE_BYTES, DeviceJournal } from "../src/live/worker/device-journal.ts";
import { JournalTransport } from "../src/live/worker/journal-transport.ts";
import { PollLoop } from "../src/live/worker/poll-loop.ts";
import { newView } from "../src/memory/memory-view.ts";
import type { Benchmark } from "./harness.ts";

const system: System | null = process.platform === "linux" ? await openLinuxSystem() : null;
const MESSAGE_BYTES = 36;

/** A benchmark that needs Linux: nothing elsewhere. */
function onLinux(prepare: (system: System, scale: number) => ReturnType<Benchmark["prepare"]>) {
  return (scale: number) =>
    system === null ? { units: 1, round: () => 0 } : prepare(system, scale);
}

/** A memory file of the kind that guests have, mapped. */
function memoryFile(linux: System, bytes: number): Mapping {
  const fd = linux.createMemoryFile("bench", bytes, "bench");
  const mapping = linux.map({ fd, offset: 0, bytes, access: "shared" }, "bench");
  if (typeof mapping === "number") throw new Error(`mmap: errno ${-mapping}`);
  linux.close(fd);
  return mapping;
}

/** Repeats a call that returns the same each time. */
function repeated(perRound: number, make: (linux: System) => () => number): Benchmark["prepare"] {
  return onLinux((linux, scale) => {
    const call = make(linux);
    const units = Math.max(100, Math.floor(perRound * scale));
    const round = () => {
      let sum = 0;
      for (let index = 0; index < units; index += 1) sum = (sum + call()) | 0;
      return sum;
    };
    return { units, round };
  });
}

/** One message there and back within this process: what sockets and calls cost, without a wait. */
function roundTrip(kind: "plain" | "journal"): Benchmark["prepare"] {
  return onLinux((linux, scale) => {
    const [client, server] = linux.socketPair("bench") as readonly [number, number];
    const journal = new DeviceJournal(memoryFile(linux, DEVICE_BYTES));
    const custody = { keep: (fds: readonly number[]) => fds };
    const transport: Transport =
      kind === "plain"
        ? new SocketTransport(linux, server, "bench")
        : new JournalTransport(linux, server, journal, custody, "bench");
    const memory = linux.allocate(SLOT_BYTES + 4096, "bench");
    const slot = new MessageSlot(memory, 0);
    const { u8 } = journal.storage.input;
    const fds: number[] = [];
    const units = Math.max(100, Math.floor(100_000 * scale));
    const round = () => {
      let bytes = 0;
      for (let index = 0; index < units; index += 1) {
        slot.aim(memory.address + SLOT_BYTES, MESSAGE_BYTES);
        linux.send(client, slot);
        const count = transport.receive(u8, 0, 65_536, fds);
        transport.send(u8, 0, count, fds);
        slot.aim(memory.address + SLOT_BYTES, 4096);
        bytes += linux.receive(client, slot, "take", "bench");
      }
      return bytes;
    };
    return { units, round };
  });
}

/** Reads words all over a window, so that neither side is only cache. */
function wordReads(kind: "mapping" | "heap"): Benchmark["prepare"] {
  return onLinux((linux, scale) => {
    const bytes = 2 ** 24;
    const u32 = kind === "heap" ? newView(bytes).u32 : memoryFile(linux, bytes).view.u32;
    u32.fill(3);
    const units = Math.max(1000, Math.floor(20_000_000 * scale));
    const round = () => {
      let sum = 0;
      for (let index = 0; index < units; index += 1)
        sum = (sum + u32[(index * 65) & 0x3f_ffff]!) | 0;
      return sum;
    };
    return { units, round };
  });
}

function keeping(): Benchmark["prepare"] {
  return repeated(10_000, (linux) => {
    const journal = new DeviceJournal(memoryFile(linux, DEVICE_BYTES));
    const mappings = Array.from({ length: 40 }, (_, index) => [index * 4096, index * 8192, 3]);
    const state = { client: { maxFds: 16 }, regions: mappings, function: { queues: mappings } };
    return () => {
      journal.keep(state);
      return 1;
    };
  });
}

function logging(): Benchmark["prepare"] {
  return repeated(1_000_000, (linux) => {
    const journal = new DeviceJournal(memoryFile(linux, DEVICE_BYTES));
    const record = newView(48);
    journal.keep({});
    return () => {
      if (!journal.log.append(record, 0, 44)) journal.keep({});
      return 1;
    };
  });
}

function blocks(kind: "read" | "write"): Benchmark["prepare"] {
  return repeated(50_000, (linux) => {
    const folder = mkdtempSync(join(tmpdir(), "iommukit-bench-"));
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, "disk");
    const fd = openSync(path, "w");
    ftruncateSync(fd, 2 ** 26);
    closeSync(fd);
    const loop = new PollLoop(linux, () => {});
    const store = FileStore.open(linux, loop, { path, id: "bench", name: "bench" });
    const view = memoryFile(linux, 2 ** 20).view;
    const segments = [{ view, at: 4096, bytes: 4096 }];
    let block = 0;
    let errors = 0;
    const done = (errno: number) => {
      errors += errno;
    };
    return () => {
      block = (block + 7919) & 0x3fff;
      store[kind](block * 4096, segments, done);
      return errors;
    };
  });
}

export const benchmarks: readonly Benchmark[] = [
  {
    name: "live: event signalled and drained",
    unit: "pair",
    prepare: repeated(200_000, (linux) => {
      const fd = linux.createEvent("bench");
      return () => linux.signal(fd) + (linux.drain(fd) ? 1 : 0);
    }),
  },
  {
    name: "live: poll of four descriptors, one ready",
    unit: "call",
    prepare: repeated(200_000, (linux) => {
      const set = new PollSet(linux, 4, "bench");
      for (let index = 0; index < 4; index += 1) {
        const fd = linux.createEvent("bench");
        if (index === 0) linux.signal(fd);
        set.set(index, fd, Poll.IN);
      }
      return () => linux.poll(set, 0);
    }),
  },
  { name: "live: message both ways, plain socket", unit: "message", prepare: roundTrip("plain") },
  {
    name: "live: message both ways, surviving a crash",
    unit: "message",
    prepare: roundTrip("journal"),
    ratioTo: "live: message both ways, plain socket",
  },
  { name: "live: word read, heap", unit: "word", prepare: wordReads("heap") },
  {
    name: "live: word read, mapped file",
    unit: "word",
    prepare: wordReads("mapping"),
    ratioTo: "live: word read, heap",
  },
  {
    name: "live: window of 1 GiB mapped and unmapped",
    unit: "window",
    roundsMax: 3,
    prepare: onLinux((linux, scale) => {
      const fd = linux.createMemoryFile("bench", MAP_BYTES_MAX, "bench");
      const units = Math.max(2, Math.floor(100 * scale));
      const request = { fd, offset: 0, bytes: MAP_BYTES_MAX, access: "shared" } as const;
      const round = () => {
        for (let index = 0; index < units; index += 1)
          linux.unmap(linux.map(request, "bench") as Mapping);
        return units;
      };
      return { units, round };
    }),
  },
  { name: "live: 4 KiB read from a disk in a file", unit: "block", prepare: blocks("read") },
  { name: "live: 4 KiB written to a disk in a file", unit: "block", prepare: blocks("write") },
  { name: "live: state of 80 mappings kept", unit: "state", prepare: keeping() },
  { name: "live: request logged", unit: "record", prepare: logging() },
  {
    name: "live: latency recorded",
    unit: "value",
    prepare: repeated(5_000_000, () => {
      const histogram = { name: "x", help: "x", type: "histogram" } as const;
      const table = new MetricTable([{ descriptions: [histogram], devices: ["d"] }]);
      const memory = new MetricMemory(table, new ArrayBuffer(table.bytes), 0);
      const latency = memory.histogram("x", "d");
      let value = 0;
      return () => {
        value = (value + 13) & 0xfff;
        latency.record(value);
        return bucketOf(3000);
      };
    }),
  },
];
