import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import { MetricTable } from "../metrics/metric-table.ts";
import { openLinuxSystem } from "../system/linux-system.ts";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import type { System } from "../system/system.ts";
import { join, message, pack, text } from "../vfio-user/client.suite.ts";
import { listenAt } from "./socket-path.ts";
import { Supervisor } from "./supervisor.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const bundle = joinPath(root, "node_modules", ".cache", "iommukit", "crash-worker.mjs");
const folder = mkdtempSync(joinPath(tmpdir(), "iommukit-"));
const metrics = new MetricTable([
  { descriptions: [{ name: "sums", help: "seen", type: "counter" }], devices: ["adder0"] },
]);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A client that keeps many requests under way and reads replies as they come. */
class Client {
  readonly fd: number;
  readonly ram: number;
  readonly ramMapping: Mapping;
  readonly event: number;
  sum = 0;
  count = 0;
  readonly #system: System;
  readonly #memory: Mapping;
  readonly #slot: MessageSlot;
  #input: Uint8Array = new Uint8Array(0);
  #id = 0;

  /** Connects; waits where others wait to be accepted. */
  static async connect(system: System, path: string): Promise<Client> {
    for (;;) {
      const fd = system.connect(path, "client");
      if (fd !== -Errno.EAGAIN) return new Client(system, fd);
      await pause(1);
    }
  }

  private constructor(system: System, fd: number) {
    expect(fd).toBeGreaterThan(0);
    this.#system = system;
    this.fd = fd;
    this.#memory = system.allocate(SLOT_BYTES + 2 ** 17, "client");
    this.#slot = new MessageSlot(this.#memory, 0);
    this.ram = system.createMemoryFile("ram", 2 ** 20, "client");
    const whole = { fd: this.ram, offset: 0, bytes: 2 ** 20, access: "shared" } as const;
    this.ramMapping = system.map(whole, "client") as Mapping;
    this.event = system.createEvent("client");
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    this.#memory.view.u8.set(bytes, SLOT_BYTES);
    this.#slot.aim(this.#memory.address + SLOT_BYTES, bytes.length);
    this.#slot.attach(fds);
    expect(this.#system.send(this.fd, this.#slot)).toBe(bytes.length);
  }

  /** The payload of the next reply; fails unless it answers `id` without an error. */
  async reply(id: number): Promise<Uint8Array> {
    const end = Date.now() + 20_000;
    for (;;) {
      const size =
        this.#input.length < 8 ? 16 : new DataView(this.#input.buffer).getUint32(4, true);
      if (this.#input.length >= 16 && this.#input.length >= size) {
        const view = new DataView(this.#input.buffer);
        expect([view.getUint16(0, true), view.getUint32(12, true)]).toEqual([id, 0]);
        const payload = this.#input.slice(16, size);
        this.#input = this.#input.slice(size);
        return payload;
      }
      this.#slot.aim(this.#memory.address + SLOT_BYTES, 2 ** 17);
      const count = this.#system.receive(this.fd, this.#slot, "take", "client");
      if (count > 0) {
        const came = this.#memory.view.u8.slice(SLOT_BYTES, SLOT_BYTES + count);
        this.#input = join(this.#input, came);
      } else {
        if (count === 0 || Date.now() > end) throw new Error(`no reply to ${id}: ${count}`);
        await pause(1);
      }
    }
  }

  async ask(
    command: number,
    payload: Uint8Array,
    fds: readonly number[] = [],
  ): Promise<Uint8Array> {
    this.#id = (this.#id + 1) & 0xffff;
    this.send(message(command, payload, { id: this.#id }), fds);
    return this.reply(this.#id);
  }

  async setUp(): Promise<void> {
    await this.ask(1, join(pack([2, 0], [2, 0]), text("{}")));
    await this.ask(2, pack([4, 32], [4, 3], [8, 0], [8, 0], [8, 2 ** 20]), [this.ram]);
    await this.ask(8, pack([4, 20], [4, 0x24], [4, 2], [4, 1], [4, 1]), [this.event]);
  }

  /** Writes values, some in pieces and some posted, then reads what they add up to. */
  async burst(count: number): Promise<void> {
    const waiting: number[] = [];
    for (let index = 0; index < count; index += 1) {
      this.#id = (this.#id + 1) & 0xffff;
      const value = (this.#id * 2654435761) >>> 0;
      const isPosted = index % 3 === 0;
      const payload = join(pack([8, 0], [4, 0], [4, 4]), pack([4, value]));
      const bytes = message(10, payload, { id: this.#id, flags: isPosted ? 0x10 : 0 });
      if (index % 5 === 0) {
        this.send(bytes.subarray(0, 19));
        this.send(bytes.subarray(19));
      } else this.send(bytes);
      this.sum = (Math.imul(this.sum, 31) + value) >>> 0;
      this.count += 1;
      if (!isPosted) waiting.push(this.#id);
    }
    for (const id of waiting) await this.reply(id);
    const payload = await this.ask(9, pack([8, 0], [4, 0], [4, 8]));
    const view = new DataView(payload.buffer, payload.byteOffset + 16);
    expect(view.getUint32(0, true)).toBe(this.sum);
  }

  dispose(): void {
    this.#system.unmap(this.#memory);
    this.#system.unmap(this.ramMapping);
    for (const fd of [this.fd, this.ram, this.event]) this.#system.close(fd);
  }
}

describe.skipIf(process.platform !== "linux")("a supervisor", () => {
  let system: System;
  const lines: string[] = [];

  beforeAll(async () => {
    system = await openLinuxSystem();
    await build({
      entryPoints: [fileURLToPath(new URL("./crash-worker.suite.ts", import.meta.url))],
      outfile: bundle,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      external: ["koffi"],
      logLevel: "error",
    });
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const start = (machine: object = {}, failed: (error: Error) => void = () => {}) => {
    lines.length = 0;
    return Supervisor.start({
      system,
      entry: pathToFileURL(bundle),
      machine: { devices: ["adder0", "adder1"], ...machine },
      devices: ["adder0", "adder1"].map((name) => ({ name, path: joinPath(folder, name) })),
      metrics,
      log: (line) => lines.push(line),
      failed,
    });
  };
  const path = (name: string) => joinPath(folder, name);

  it("replaces a worker that is killed under load: no message is lost or done twice", async () => {
    const supervisor = await start();
    const client = await Client.connect(system, path("adder0"));
    await client.setUp();
    let isLoading = true;
    const killer = (async () => {
      for (let kill = 0; kill < 4; kill += 1) {
        await pause(60 + kill * 37);
        supervisor.kill();
        await pause(400);
      }
      isLoading = false;
    })();
    while (isLoading) await client.burst(200);
    await killer;
    await client.burst(10);
    expect(client.ramMapping.view.u32[0x1000 / 4]).toBe(client.count);
    expect(system.drain(client.event)).toBe(true);
    expect(supervisor.unexpectedEnds).toBe(4);
    expect(lines.filter((line) => /goes on after [\d.]+ ms/.test(line))).toHaveLength(4);
    expect(supervisor.keptCount).toBe(2);
    const [sums] = supervisor.families();
    expect(sums!.type === "counter" && sums!.samples[0]!.value).toBeGreaterThan(10);
    client.dispose();
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
    expect(existsSync(path("adder0"))).toBe(false);
  });

  it("hands over to another worker under load", async () => {
    const supervisor = await start();
    const clients = [
      await Client.connect(system, path("adder0")),
      await Client.connect(system, path("adder1")),
    ];
    for (const client of clients) await client.setUp();
    const pids = new Set([supervisor.workerPid]);
    let isLoading = true;
    const handing = (async () => {
      for (let round = 0; round < 3; round += 1) {
        await pause(50);
        await supervisor.handOver();
        pids.add(supervisor.workerPid);
      }
      isLoading = false;
    })();
    while (isLoading) await Promise.all(clients.map((client) => client.burst(50)));
    await handing;
    for (const client of clients) await client.burst(5);
    expect([pids.size, supervisor.unexpectedEnds]).toEqual([4, 0]);
    for (const client of clients) client.dispose();
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("serves the next client after one has gone, with nothing of the first left", async () => {
    const supervisor = await start();
    for (let round = 0; round < 5; round += 1) {
      const client = await Client.connect(system, path("adder0"));
      await client.setUp();
      await client.burst(10);
      if (round === 2) supervisor.kill();
      client.dispose();
    }
    const end = Date.now() + 5000;
    while (supervisor.keptCount > 0 && Date.now() < end) await pause(5);
    expect(supervisor.keptCount).toBe(0);
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("and its worker are after 200 clients where they were after one (U142)", async () => {
    const supervisor = await start();
    const opened = () => readdirSync(`/proc/${supervisor.workerPid}/fd`).length;
    const settled = async () => {
      const end = Date.now() + 5000;
      while (supervisor.keptCount > 0 && Date.now() < end) await pause(2);
      await pause(20);
    };
    const visit = async () => {
      const client = await Client.connect(system, path("adder0"));
      await client.setUp();
      client.dispose();
    };
    await visit();
    await settled();
    const before = [opened(), system.ledger.open.length];
    for (let round = 0; round < 200; round += 1) await visit();
    await settled();
    expect([opened(), system.ledger.open.length]).toEqual(before);
    const maps = readFileSync(`/proc/${supervisor.workerPid}/maps`, "utf8").split("\n").length;
    expect(maps).toBeLessThan(2000);
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("outlives floods of descriptors and clients that leave at any byte (U143, U164)", async () => {
    const supervisor = await start();
    const steady = await Client.connect(system, path("adder1"));
    await steady.setUp();
    const version = message(1, join(pack([2, 0], [2, 0]), text("{}")), { id: 1 });
    for (let round = 0; round < 40; round += 1) {
      const client = await Client.connect(system, path("adder0"));
      client.send(version.subarray(0, 1 + (round % version.length)));
      if (round % 4 === 0) {
        const flood = new Array(253).fill(client.event);
        for (let time = 0; time < 3; time += 1) client.send(message(9, pack([8, 0])), flood);
      }
      if (round % 3 === 0) await pause(3);
      client.dispose();
      if (round % 10 === 0) await steady.burst(10);
    }
    const client = await Client.connect(system, path("adder0"));
    await client.setUp();
    await client.burst(20);
    await steady.burst(20);
    expect(supervisor.unexpectedEnds).toBe(0);
    // Replies may overtake the frames that tell the supervisor.
    const end = Date.now() + 5000;
    while (supervisor.keptCount !== 4 && Date.now() < end) await pause(5);
    expect(supervisor.keptCount).toBe(4);
    for (const each of [client, steady]) each.dispose();
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("lets a second client wait, without harm to the first (U141)", async () => {
    const supervisor = await start();
    const first = await Client.connect(system, path("adder0"));
    await first.setUp();
    const second = await Client.connect(system, path("adder0"));
    await first.burst(20);
    first.dispose();
    await second.setUp();
    await second.burst(20);
    second.dispose();
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("ends a worker that is stuck, and gives a client up that ends worker after worker", async () => {
    const failures: Error[] = [];
    const supervisor = await start({}, (error) => failures.push(error));
    const client = await Client.connect(system, path("adder0"));
    await client.setUp();
    const steady = await Client.connect(system, path("adder1"));
    await steady.setUp();
    await steady.burst(5);
    client.send(message(10, join(pack([8, 8], [4, 0], [4, 1]), pack([1, 1])), { id: 500 }));
    const end = Date.now() + 20_000;
    while (!lines.some((line) => line.includes("its connection is closed")) && Date.now() < end)
      await pause(20);
    await expect(client.reply(500)).rejects.toThrow("no reply");
    client.dispose();
    // Nobody else lost anything, and one bad message cost three workers.
    await steady.burst(5);
    expect(supervisor.unexpectedEnds).toBe(3);
    steady.dispose();
    const next = await Client.connect(system, path("adder0"));
    await next.setUp();
    await next.burst(5);
    next.send(message(10, join(pack([8, 8], [4, 0], [4, 1]), pack([1, 2])), { id: 501 }));
    while (!lines.some((line) => line.includes("has not moved")) && Date.now() < end + 10_000)
      await pause(50);
    expect(lines.some((line) => line.includes("has not moved"))).toBe(true);
    expect(failures).toEqual([]);
    next.dispose();
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("lets a client wait while there is no descriptor for it, without spinning (EMFILE)", async () => {
    const supervisor = await start();
    const accept = system.accept.bind(system);
    let tries = 0;
    system.accept = () => {
      tries += 1;
      return -Errno.EMFILE;
    };
    const client = await Client.connect(system, path("adder0"));
    while (tries === 0) await pause(5);
    await pause(300);
    expect(tries).toBe(1);
    expect(lines).toEqual([expect.stringContaining("cannot be accepted (EMFILE)")]);
    system.accept = accept;
    await client.setUp();
    await client.burst(5);
    client.dispose();
    await supervisor.stop();
    expect(system.ledger.open).toEqual([]);
  });

  it("says why the devices cannot be made, and leaves nothing behind", async () => {
    const error = await start({ refuse: "no such disk" }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StackError);
    expect(error).toMatchObject({ message: "no such disk", hint: "do not" });
    expect(system.ledger.open).toEqual([]);
    expect(existsSync(path("adder0"))).toBe(false);
  });
});

describe.skipIf(process.platform !== "linux")("a socket's path", () => {
  it("is made free of what a dead server left, and of nothing else (U162)", async () => {
    const system = await openLinuxSystem();
    const place = mkdtempSync(joinPath(tmpdir(), "iommukit-"));
    const path = joinPath(place, "a.sock");
    system.close(listenAt(system, path, "test"));
    const fd = listenAt(system, path, "test");
    expect(() => listenAt(system, path, "test")).toThrow("somebody answers");
    system.close(fd);
    rmSync(path);
    writeFileSync(path, "precious");
    expect(() => listenAt(system, path, "test")).toThrow("is no socket");
    expect(() => listenAt(system, joinPath(place, "no", "x"), "test")).toThrow("does not exist");
    expect(() => listenAt(system, joinPath(place, "x".repeat(120)), "t")).toThrow("may have 107");
    expect(system.ledger.open).toEqual([]);
    rmSync(place, { recursive: true });
  });
});
