import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { UserProcess } from "../process/user-process.ts";
import { DirtyFlag, MapFlag } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { switchDirtyTracking } from "./dirty.ts";
import { accessMemory } from "./dma-access.ts";
import { World } from "./type1-world.suite.ts";

const VADDR = 0x100_0000;

/** Two mappings side by side in I/O space, the second one read-only, the other way round in memory. */
function makeWorld() {
  const world = new World({ domains: 0 });
  world.map(0, VADDR + 0x1000, 0x1000);
  world.map(0x1000, VADDR, 0x1000, MapFlag.READ);
  world.map(0x2000, VADDR, 0x1000, MapFlag.WRITE);
  const user = new UserBuffer(
    BigInt(VADDR),
    Uint8Array.from({ length: 0x2000 }, (_, at) => at),
  );
  user.bytes.fill(7, 0, 0x1000);
  const access = (iova: bigint, bytes: Uint8Array, isWrite: boolean, process = world.process) =>
    accessMemory(world.type1, { iova, bytes, isWrite, process }, user);
  return { world, user, access };
}

describe("dma_rw", () => {
  it("reads across mappings, each from where it lies", () => {
    const { access } = makeWorld();
    const bytes = new Uint8Array(4);
    expect(access(0xffen, bytes, false)).toBe(Errno.OK);
    expect([...bytes]).toEqual([0xfe, 0xff, 7, 7]);
  });

  it("writes up to the mapping that refuses, EPERM", () => {
    const { user, access } = makeWorld();
    expect(access(0xffen, new Uint8Array([1, 2, 3, 4]), true)).toBe(Errno.EPERM);
    expect([...user.bytes.subarray(0x1ffe)]).toEqual([1, 2]);
    expect(user.bytes[0]).toBe(7);
  });

  it("needs the right to read even to write", () => {
    const { access } = makeWorld();
    expect(access(0x2000n, new Uint8Array(1), true)).toBe(Errno.EPERM);
  });

  it("unmapped is EINVAL, past the end of 64 bits too; memory that is gone EFAULT", () => {
    const { world, access } = makeWorld();
    expect(access(0x3000n, new Uint8Array(1), false)).toBe(Errno.EINVAL);
    expect(access(2n ** 64n - 1n, new Uint8Array(2), false)).toBe(Errno.EINVAL);
    expect(access(-1n, new Uint8Array(2), false)).toBe(Errno.EINVAL);
    world.map(0x4000, VADDR + 0x10_0000, 0x1000);
    expect(access(0x4000n, new Uint8Array(1), false)).toBe(Errno.EFAULT);
    expect(access(0x3000n, new Uint8Array(0), false)).toBe(Errno.OK);
  });

  it("of another process is EFAULT, unless a kernel thread takes its memory on", () => {
    const { world, user, access } = makeWorld();
    const other = new UserProcess({ memory: null });
    expect(access(0n, new Uint8Array(1), false, other)).toBe(Errno.EFAULT);
    const kernel = { iova: 0n, bytes: new Uint8Array(1), isWrite: false, process: null };
    expect(accessMemory(world.type1, kernel, user)).toBe(Errno.OK);
  });

  it("is EBUSY while memory is moving", () => {
    const { world, access } = makeWorld();
    world.type1.vaddrInvalidCount = 1;
    expect(access(0n, new Uint8Array(1), false)).toBe(Errno.EBUSY);
  });

  it("notes what it wrote as dirty", () => {
    const { world, access } = makeWorld();
    switchDirtyTracking(world.type1, DirtyFlag.START);
    world.map(0x10_0000, VADDR, 0x2000);
    expect(access(0x10_0fffn, new Uint8Array(2), true)).toBe(Errno.OK);
    expect(access(0n, new Uint8Array(2), false)).toBe(Errno.OK);
    const dirty = [...world.type1.mappings].map((each) => [each.dirty!.has(0), each.iovaPfn]);
    expect(dirty).toEqual([
      [false, 0],
      [false, 1],
      [false, 2],
      [true, 0x100],
    ]);
    expect(world.type1.mappings.find(0x100)!.dirty!.has(1)).toBe(true);
  });
});
