import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { openLinuxSystem } from "./linux-system.ts";
import { MAP_BYTES_MAX } from "./mapping.ts";
import { SimulatedKernel } from "./simulated-kernel.ts";
import { SimulatedSystem } from "./simulated-system.ts";
import { Seal, type System } from "./system.ts";
import { WindowCache, type WindowHold } from "./window-cache.ts";

const simulated = () => new SimulatedSystem(new SimulatedKernel());
const MIB = 2 ** 20;

function held(result: WindowHold | number): WindowHold {
  if (typeof result === "number") throw new Error(`errno ${result}`);
  return result;
}

describe("windows of memory files", () => {
  it("are one mapping for many regions of a file", () => {
    const system = simulated();
    const cache = new WindowCache(system, "vm");
    const fd = system.createMemoryFile("ram", 16 * MIB, "vm");
    const again = system.duplicate(fd, "vm");
    const holds = Array.from({ length: 1000 }, (_, index) =>
      held(cache.hold(index % 2 ? fd : again, index * 4096, 4096, "shared")),
    );
    expect(system.ledger.mappingCount).toBe(1);
    expect(holds[7]!.pieces[0]!.byteOffset).toBe(7 * 4096);
    for (const hold of holds) hold.release();
    expect(system.ledger.mappingCount).toBe(1);
    cache.trim();
    expect(system.ledger.mappingCount).toBe(0);
    expect(() => holds[0]!.release()).toThrow("once");
  });

  it("seal what can be sealed before they look at its size (U145)", () => {
    const system = simulated();
    const cache = new WindowCache(system, "vm");
    const fd = system.createMemoryFile("ram", MIB, "vm");
    held(cache.hold(fd, 0, MIB, "shared"));
    expect(system.seals(fd)).toBe(Seal.SHRINK);
    expect(system.resize(fd, 4096)).toBe(-Errno.EPERM);
  });

  it("give a descriptor no more than it has, whoever else has the file", () => {
    const kernel = new SimulatedKernel();
    const system = new SimulatedSystem(kernel);
    const cache = new WindowCache(system, "vm", { unsealed: "trust" });
    kernel.createFile("/ram", MIB);
    const whole = system.open("/ram", "read-write", "vm");
    const readOnly = system.open("/ram", "read", "vm");
    held(cache.hold(whole, 0, MIB, "shared"));
    expect(cache.hold(readOnly, 0, MIB, "shared")).toBe(Errno.EACCES);
    held(cache.hold(readOnly, 0, MIB, "private"));
  });

  it("refuse files that others can make shorter, unless the client is trusted", () => {
    const system = simulated();
    const fd = system.createMemoryFile("ram", MIB, "vm");
    system.addSeals(fd, Seal.SEAL);
    expect(new WindowCache(system, "vm").hold(fd, 0, 4096, "shared")).toBe(Errno.EACCES);
    const trusting = new WindowCache(system, "vm", { unsealed: "trust" });
    expect(held(trusting.hold(fd, 0, 4096, "shared")).pieces).toHaveLength(1);
  });

  it.each([
    ["beyond the end", 0, MIB + 4096],
    ["far beyond the end", MIB * 4096, 4096],
    ["of no size", 0, 0],
    ["of a negative offset", -4096, 4096],
    ["of 2^63 bytes (U147)", 0, 2 ** 63],
  ])("refuse a stretch %s", (_, offset, bytes) => {
    const system = simulated();
    const cache = new WindowCache(system, "vm");
    const fd = system.createMemoryFile("ram", MIB, "vm");
    expect(cache.hold(fd, offset, bytes, "shared")).toBe(Errno.EINVAL);
    expect(system.ledger.mappingCount).toBe(0);
  });

  it("refuse what is no file (U144)", () => {
    const system = simulated();
    const cache = new WindowCache(system, "vm", { unsealed: "trust" });
    const [a] = system.socketPair("vm") as readonly [number, number];
    for (const fd of [a, system.createEvent("vm")])
      expect(cache.hold(fd, 0, 4096, "shared")).toBe(Errno.ENODEV);
    expect(cache.hold(999, 0, 4096, "shared")).toBe(Errno.EBADF);
  });

  it("keep a bounded number of idle ones", () => {
    const system = simulated();
    const cache = new WindowCache(system, "vm");
    for (let index = 0; index < 40; index += 1) {
      const fd = system.createMemoryFile(`ram${index}`, 4096, "vm");
      held(cache.hold(fd, 0, 4096, "shared")).release();
      system.close(fd);
    }
    expect(system.ledger.mappingCount).toBe(16);
  });

  it("leave nothing behind when the n-th mapping fails", () => {
    const kernel = new SimulatedKernel();
    const system = new SimulatedSystem(kernel);
    const cache = new WindowCache(system, "vm");
    const fd = system.createMemoryFile("ram", MIB, "vm");
    kernel.fault = (call) => (call === "map" ? Errno.ENOMEM : 0);
    expect(cache.hold(fd, 0, 4096, "shared")).toBe(Errno.ENOMEM);
    expect(cache.windowCount).toBe(0);
  });
});

describe.skipIf(process.platform !== "linux")("windows of memory files on Linux", () => {
  const bytes = 2 * MAP_BYTES_MAX + 4096;

  it("cut a file of 2 GiB and a page at 1 GiB, and remap what has grown", async () => {
    const system: System = await openLinuxSystem();
    const cache = new WindowCache(system, "vm");
    const fd = system.createMemoryFile("ram", bytes, "vm");
    const all = held(cache.hold(fd, 0, bytes, "shared"));
    expect(all.pieces.map((piece) => piece.bytes)).toEqual([MAP_BYTES_MAX, MAP_BYTES_MAX, 4096]);
    const middle = held(cache.hold(fd, MAP_BYTES_MAX - 8, 16, "shared"));
    new Uint8Array(middle.pieces[1]!.buffer, middle.pieces[1]!.byteOffset)[0] = 42;
    expect(new Uint8Array(all.pieces[1]!.buffer)[0]).toBe(42);
    system.resize(fd, bytes + 4096);
    const grown = held(cache.hold(fd, bytes, 4096, "shared"));
    new Uint8Array(grown.pieces[0]!.buffer)[0] = 43;
    expect(new Uint8Array(all.pieces[2]!.buffer)[0]).toBe(43);
    for (const hold of [all, middle, grown]) hold.release();
    cache.trim();
    system.close(fd);
    expect(system.ledger.open).toEqual([]);
  });
});
