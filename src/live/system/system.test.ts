import { chmodSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { callNumbers, loadCalls } from "./linux-calls.ts";
import { openLinuxSystem } from "./linux-system.ts";
import type { Mapping } from "./mapping.ts";
import { MessageSlot, SLOT_BYTES } from "./message-slot.ts";
import { SimulatedKernel } from "./simulated-kernel.ts";
import { SimulatedSystem } from "./simulated-system.ts";
import { describeSystem } from "./system.suite.ts";
import { Seal } from "./system.ts";

const isLinux = process.platform === "linux" && ["x64", "arm64"].includes(process.arch);

describeSystem("simulated", async () => {
  const kernel = new SimulatedKernel();
  return {
    system: new SimulatedSystem(kernel),
    path: (name) => `/run/${name}`,
    makeFile(name, bytes) {
      kernel.createFile(`/disk/${name}`, bytes);
      return `/disk/${name}`;
    },
    dispose: () => {},
  };
});

/** A private directory for one test. */
function directory(): { path(name: string): string; dispose(): void } {
  const folder = mkdtempSync(join(tmpdir(), "iommukit-"));
  return {
    path: (name) => join(folder, name),
    dispose: () => rmSync(folder, { recursive: true }),
  };
}

if (isLinux) {
  describeSystem("linux", async () => {
    const folder = directory();
    return {
      ...folder,
      system: await openLinuxSystem(),
      makeFile(name, bytes) {
        writeFileSync(folder.path(name), new Uint8Array(bytes));
        return folder.path(name);
      },
    };
  });
}

describe.skipIf(!isLinux)("linux system alone", () => {
  const folder = directory();
  afterEach(() => chmodSync(folder.path("."), 0o700));

  it("makes a listening socket that only its owner may use (U162)", async () => {
    const system = await openLinuxSystem();
    const fd = system.listen(folder.path("mode.sock"), 1, "test");
    expect(statSync(folder.path("mode.sock")).mode & 0o777).toBe(0o600);
    system.close(fd);
  });

  it("shows zeros through views of what was unmapped, and loses stores to them", async () => {
    const system = await openLinuxSystem();
    const fd = system.createMemoryFile("ram", 65_536, "test");
    const request = { fd, offset: 0, bytes: 65_536, access: "shared" } as const;
    const old = system.map(request, "test") as Mapping;
    const kept = system.map(request, "test") as Mapping;
    old.view.u32[3] = 77;
    system.unmap(old);
    expect(old.view.u32[3]).toBe(0);
    old.view.u32[3] = 88;
    expect(kept.view.u32[3]).toBe(77);
    system.unmap(kept);
    system.close(fd);
    expect(system.ledger.open).toEqual([]);
  });

  it("leaves the count of what was received in shared memory, where a successor finds it", async () => {
    const system = await openLinuxSystem();
    const fd = system.createMemoryFile("journal", 8192, "test");
    const request = { fd, offset: 0, bytes: 8192, access: "shared" } as const;
    const worker = system.map(request, "worker") as Mapping;
    const successor = system.map(request, "successor") as Mapping;
    const [a, b] = system.socketPair("test") as readonly [number, number];
    const slot = new MessageSlot(worker, 0);
    slot.aim(worker.address + SLOT_BYTES, 100);
    system.send(a, slot);
    slot.aim(worker.address + SLOT_BYTES, 1000);
    system.receive(b, slot, "take", "test");
    expect(new MessageSlot(successor, 0).count).toBe(100);
    for (const mapping of [worker, successor]) system.unmap(mapping);
    for (const each of [a, b, fd]) system.close(each);
  });

  it("answers errors, never a signal, when file calls meet memory that has gone", async () => {
    const system = await openLinuxSystem();
    const path = folder.path("shrinks");
    writeFileSync(path, new Uint8Array(8192));
    const fd = system.open(path, "read-write", "test");
    const seen = system.map({ fd, offset: 0, bytes: 8192, access: "shared" }, "test") as Mapping;
    truncateSync(path, 0);
    const [a, b] = system.socketPair("test") as readonly [number, number];
    const memory = system.allocate(SLOT_BYTES, "test");
    const slot = new MessageSlot(memory, 0);
    slot.aim(seen.address, 100);
    expect(system.send(a, slot)).toBe(-Errno.EFAULT);
    for (const mapping of [seen, memory]) system.unmap(mapping);
    for (const each of [a, b, fd]) system.close(each);
  });

  it("cannot seal a file of the disk", async () => {
    const system = await openLinuxSystem();
    writeFileSync(folder.path("plain"), "x");
    const fd = system.open(folder.path("plain"), "read-write", "test");
    expect(system.seals(fd)).toBeLessThan(0);
    expect(system.addSeals(fd, Seal.SHRINK)).toBeLessThan(0);
    system.close(fd);
  });
});

describe("simulated kernel alone", () => {
  it("says truncated when a process may open no more (U143)", () => {
    const kernel = new SimulatedKernel();
    const system = new SimulatedSystem(kernel);
    const [a, b] = system.socketPair("test") as readonly [number, number];
    const memory = system.allocate(SLOT_BYTES + 16, "test");
    const slot = new MessageSlot(memory, 0);
    const event = system.createEvent("test");
    slot.aim(memory.address + SLOT_BYTES, 4);
    slot.attach([event, event]);
    system.send(a, slot);
    kernel.descriptorsMax = 4;
    slot.aim(memory.address + SLOT_BYTES, 4);
    slot.acceptDescriptors();
    expect(system.receive(b, slot, "take", "test")).toBe(4);
    expect(slot.isTruncated).toBe(true);
    expect(slot.descriptors()).toHaveLength(1);
  });

  it("fails the n-th call when told to", () => {
    const kernel = new SimulatedKernel();
    const system = new SimulatedSystem(kernel);
    let left = 2;
    kernel.fault = () => {
      left -= 1;
      return left === 0 ? Errno.EMFILE : 0;
    };
    const made = [1, 2, 3].map(() => system.createEvent("test"));
    expect(made.map((fd) => fd >= 0)).toEqual([true, false, true]);
  });

  it("closes a killed process's descriptors, and its peers notice", () => {
    const kernel = new SimulatedKernel();
    const worker = new SimulatedSystem(kernel);
    const system = new SimulatedSystem(kernel);
    const listener = system.listen("/run/x", 1, "test");
    const client = worker.connect("/run/x", "worker");
    const server = system.accept(listener, "test");
    expect(client).toBeGreaterThan(0);
    worker.kill();
    const memory = system.allocate(SLOT_BYTES + 16, "test");
    const slot = new MessageSlot(memory, 0);
    slot.aim(memory.address + SLOT_BYTES, 4);
    expect(system.receive(server, slot, "take", "test")).toBe(0);
    expect(worker.ledger.open).toEqual([]);
  });
});

it.skipIf(!isLinux)("a full counter whose writers wait is signalled without waiting", async () => {
  const system = await openLinuxSystem();
  const calls = await loadCalls();
  const fd = system.ledger.enter(calls.eventfd(0, 0), "test");
  const memory = system.allocate(8, "test");
  memory.view.u32.set([0xffff_fffd, 0xffff_ffff]);
  expect(calls.write(fd, memory.address, 8)).toBe(8);
  for (let index = 0; index < 3; index += 1) expect(system.signal(fd)).toBe(0);
  expect(calls.read(fd, memory.address, 8)).toBe(8);
  expect([...memory.view.u32.subarray(0, 2)]).toEqual([0xffff_fffe, 0xffff_ffff]);
  expect(system.signal(fd)).toBe(0);
  expect(calls.read(fd, memory.address, 8)).toBe(8);
  expect([...memory.view.u32.subarray(0, 2)]).toEqual([1, 0]);
  system.close(fd);
});

describe("call numbers", () => {
  it("are refused on other systems with a way out", () => {
    expect(() => callNumbers("darwin", "arm64")).toThrow("need Linux");
    expect(() => callNumbers("linux", "riscv64")).toThrow("need Linux");
    expect(callNumbers("linux", "arm64").recvmmsg).toBe(243);
  });
});
