/** Memory of a client: DMA_MAP and DMA_UNMAP, statement by statement (U…). */
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { newView } from "../../memory/memory-view.ts";
import { Seal } from "../system/system.ts";
import { hexOf, message, pack, unhex } from "./client.suite.ts";
import { World, type WorldOptions } from "./world.suite.ts";

const OK = 0;
const ENOENT = 2;
const EEXIST = 17;
const EINVAL = 22;
const PAGE = 4096;
const TOP = 2n ** 64n;

let world = new World();
const open = (options: WorldOptions = {}) => {
  world = new World(options);
  return world.negotiate();
};
afterEach(() => world.end());

/** A file whose page n is full of n. */
const numbered = (pages: number) =>
  world.memoryFile(pages * PAGE, (bytes) => {
    for (let page = 0; page < pages; page += 1) bytes.fill(page, page * PAGE, (page + 1) * PAGE);
  });
const byteAt = (address: number) => world.memory.readU8(address);

describe("DMA_MAP", () => {
  it("makes a stretch of a file the device's memory (U31)", () => {
    const client = open();
    const fd = numbered(8);
    expect(client.map(0x10_0000, 2 * PAGE, { fd, offset: 3 * PAGE })).toBe(OK);
    expect([byteAt(0x10_0000), byteAt(0x10_1fff), byteAt(0x10_2000), byteAt(0xf_ffff)]).toEqual([
      3, 4, -1, -1,
    ]);
    world.memory.writeU32(0x10_1000, 0xaabb_ccdd);
    const seen = world.clientSystem.map(
      { fd, offset: 4 * PAGE, bytes: PAGE, access: "shared" },
      "client",
    );
    if (typeof seen === "number") throw new Error("the client sees its memory");
    expect(seen.view.u32[0]).toBe(0xaabb_ccdd);
    world.clientSystem.unmap(seen);
  });

  it("speaks the bytes of QEMU (U31, golden)", () => {
    const client = open();
    const fd = world.memoryFile(0x8000_0000);
    client.sendRaw(
      unhex(
        "02000200 30000000 00000000 00000000 20000000 03000000 00001000 00000000 00001000 00000000 0000f07f 00000000",
      ),
      [fd],
    );
    expect(client.next()).toMatchObject({ id: 2, errno: 0, payload: new Uint8Array(0) });
    expect(world.memory.isShared(0x10_0000)).toBe(true);
    expect(world.memory.contains(0x10_0000, 0x7ff0_0000)).toBe(true);
    client.sendRaw(
      unhex(
        "03000300 28000000 00000000 00000000 18000000 00000000 00001000 00000000 0000f07f 00000000",
      ),
    );
    const { payload } = client.next()!;
    expect(hexOf(payload)).toBe("180000000000000000001000000000000000f07f00000000");
  });

  it("takes a larger argsz, and neither a smaller one nor less payload (U32)", () => {
    const client = open();
    expect(client.map(0, PAGE, { argsz: 40 })).toBe(OK);
    expect(client.map(PAGE, PAGE, { argsz: 31 })).toBe(EINVAL);
    expect(client.errno(2, new Uint8Array(31))).toBe(EINVAL);
  });

  it("takes one descriptor, and closes two (U33)", () => {
    const client = open();
    const payload = pack([4, 32], [4, 3], [8, 0], [8, 0], [8, PAGE]);
    const fds = [world.memoryFile(PAGE), world.memoryFile(PAGE)];
    expect(client.errno(2, payload, { fds })).toBe(EINVAL);
    expect(world.server.dma.count).toBe(0);
  });

  it("of no bytes, or beyond 2^64, is EINVAL; up to 2^64 it is fine (U34)", () => {
    const client = open();
    expect(client.map(0, 0)).toBe(EINVAL);
    expect(client.map(TOP - 4096n, 8192n)).toBe(EINVAL);
    expect(client.map(2n ** 63n, 2n ** 63n + 4096n)).toBe(EINVAL);
    expect(client.map(0, PAGE, { offset: TOP - 4096n, fd: world.memoryFile(PAGE) })).toBe(EINVAL);
    expect(client.map(TOP - 4096n, 4096n)).toBe(OK);
    expect(client.map(0, 2n ** 63n)).toBe(OK);
    expect(client.map(0, TOP - 4096n)).toBe(EEXIST);
  });

  it("that is not aligned to pages is EINVAL (U35)", () => {
    const client = open();
    const fd = () => world.memoryFile(2 * PAGE);
    expect(client.map(8, PAGE, { fd: fd() })).toBe(EINVAL);
    expect(client.map(0, 100, { fd: fd() })).toBe(EINVAL);
    expect(client.map(0, PAGE, { fd: fd(), offset: 512 })).toBe(EINVAL);
    expect(client.map(8, PAGE)).toBe(EINVAL);
  });

  it("beyond the number of regions is EINVAL, and all are there (U37)", () => {
    const client = open({ server: { regionsMax: 64 } });
    for (let index = 0; index < 64; index += 1) expect(client.map(index * PAGE, PAGE)).toBe(OK);
    expect(client.map(64 * PAGE, PAGE)).toBe(EINVAL);
    expect(client.map(64 * PAGE, PAGE, { fd: world.memoryFile(PAGE) })).toBe(EINVAL);
    expect(world.server.dma.count).toBe(64);
    expect(client.unmap(0, PAGE)).toBe(OK);
    expect(client.map(64 * PAGE, PAGE, { fd: world.memoryFile(PAGE) })).toBe(OK);
  });

  it("over another region is EEXIST and leaves that alone; an exact repeat is fine (U38)", () => {
    const client = open();
    const fd = numbered(8);
    const again = () => world.clientSystem.duplicate(fd, "client");
    expect(client.map(0x4000, 0x2000, { fd })).toBe(OK);
    expect(client.map(0x4000, 0x2000, { fd: again() })).toBe(OK);
    for (const [address, size] of [
      [0x4000, 0x1000],
      [0x5000, 0x1000],
      [0x3000, 0x2000],
      [0x5000, 0x2000],
      [0x3000, 0x4000],
    ] as const) {
      expect(client.map(address, size, { fd: again() })).toBe(EEXIST);
    }
    expect(client.map(0x4000, 0x2000, { fd: again(), offset: PAGE })).toBe(EEXIST);
    expect(client.map(0x4000, 0x2000, { fd: again(), flags: 1 })).toBe(EEXIST);
    expect(client.map(0x4000, 0x2000, { fd: numbered(8) })).toBe(EEXIST);
    expect(client.map(0x4000, 0x2000)).toBe(EEXIST);
    expect([byteAt(0x4000), byteAt(0x5000)]).toEqual([0, 1]);
    expect(world.server.dma.count).toBe(1);
  });

  it("beside another is fine, and an access may cross both (U39, U169)", () => {
    const client = open();
    const fd = numbered(8);
    client.map(PAGE, PAGE, { fd, offset: 5 * PAGE });
    client.map(0, PAGE, { fd: world.clientSystem.duplicate(fd, "client"), offset: 2 * PAGE });
    const copy = newView(8);
    expect(world.memory.copyOut(PAGE - 4, copy, 0, 8)).toBe(true);
    expect([...copy.u8.subarray(0, 8)]).toEqual([2, 2, 2, 2, 5, 5, 5, 5]);
    expect(world.memory.copyOut(2 * PAGE - 4, copy, 0, 8)).toBe(false);
  });

  it("with flags that nobody knows is EINVAL (U40)", () => {
    const client = open();
    for (const flags of [4, 8, 12, 16, 0x8000_0003]) {
      expect(client.map(0, PAGE, { flags })).toBe(EINVAL);
      expect(client.map(0, PAGE, { flags, fd: world.memoryFile(PAGE) })).toBe(EINVAL);
    }
  });

  it("for reading alone makes memory that devices cannot write (U168)", () => {
    const client = open();
    client.map(0, PAGE, { fd: numbered(1), flags: 1 });
    expect(world.memory.readU8(0)).toBe(0);
    expect(world.memory.writeU8(0, 1)).toBe(false);
    client.map(PAGE, PAGE, { fd: numbered(1), flags: 0 });
    expect(world.memory.readU8(PAGE)).toBe(-1);
  });

  it("without a descriptor is known, is no memory, and is said once (U41, U99)", () => {
    const client = open();
    expect(client.map(0xfffc_0000, 0x4_0000, { flags: 1 })).toBe(OK);
    expect(world.log).toEqual([]);
    expect(client.map(0, 0xa_0000)).toBe(OK);
    expect(client.unmap(0, 0xa_0000)).toBe(OK);
    expect(client.map(0, 0xc_0000)).toBe(OK);
    expect(byteAt(0)).toBe(-1);
    expect(world.log).toEqual([
      "fake0: 640KiB of the machine's memory came without a descriptor, so devices cannot reach it: " +
        "give QEMU a memory backend with share=on as memory-backend",
    ]);
    expect(client.unmap(0xfffc_0000, 0x4_0000)).toBe(OK);
  });

  it("above 2^53 is known and out of reach", () => {
    const client = open();
    expect(client.map(2n ** 53n, PAGE, { fd: world.memoryFile(PAGE) })).toBe(OK);
    expect(client.map(2n ** 53n - 8192n, PAGE, { fd: world.memoryFile(PAGE) })).toBe(OK);
    expect(world.memory.regions.map(({ start }) => start)).toEqual([2 ** 53 - 8192]);
    expect(client.unmap(2n ** 53n, PAGE)).toBe(OK);
  });

  it("of more than the file has, or of 2^63 bytes of it, is EINVAL at no cost (U144, U147)", () => {
    const client = open();
    expect(client.map(0, 2 * PAGE, { fd: world.memoryFile(PAGE) })).toBe(EINVAL);
    expect(client.map(0, PAGE, { fd: world.memoryFile(PAGE), offset: PAGE })).toBe(EINVAL);
    expect(client.map(0, 2n ** 63n, { fd: world.memoryFile(PAGE) })).toBe(EINVAL);
    expect(client.map(0, PAGE, { fd: world.memoryFile(PAGE), offset: 2n ** 63n })).toBe(EINVAL);
    expect(world.system.ledger.mappingCount).toBeLessThan(6);
  });

  it("of what is no file of memory is EINVAL (U144)", () => {
    const client = open();
    const [one, other] = world.clientSystem.socketPair("client") as [number, number];
    for (const fd of [world.event(), one, other]) expect(client.map(0, PAGE, { fd })).toBe(EINVAL);
  });

  it("of a file that can shrink and cannot be kept from it is refused and said (U145)", () => {
    const client = open();
    const fd = world.memoryFile(PAGE);
    expect(world.clientSystem.addSeals(fd, Seal.SEAL)).toBe(0);
    expect(client.map(0, PAGE, { fd })).toBe(13);
    expect(world.log[0]).toContain("refused with EACCES");
    // However often it is tried, and for other reasons the file is not blamed.
    const other = world.memoryFile(PAGE);
    for (let round = 0; round < 3; round += 1) {
      expect(client.map(0, PAGE, { fd: world.clientSystem.duplicate(fd, "client") })).toBe(13);
      expect(client.map(0, 2 * PAGE, { fd: world.clientSystem.duplicate(other, "client") })).toBe(
        EINVAL,
      );
    }
    expect(world.log).toHaveLength(2);
    expect(world.log[1]).not.toContain("its file");
  });

  it("keeps a file from shrinking while it is memory (U145)", () => {
    const client = open();
    const fd = world.memoryFile(4 * PAGE);
    expect(client.map(0, 4 * PAGE, { fd })).toBe(OK);
    expect(world.clientSystem.resize(fd, PAGE)).toBeLessThan(0);
    expect(world.memory.readU8(4 * PAGE - 1)).toBe(0);
  });

  it("of the same bytes twice shows writes through either (U148)", () => {
    const client = open();
    const fd = world.memoryFile(PAGE);
    client.map(0, PAGE, { fd });
    client.map(0x8000, PAGE, { fd: world.clientSystem.duplicate(fd, "client") });
    world.memory.writeU32(16, 0x1234);
    expect(world.memory.readU32(0x8010)).toBe(0x1234);
  });

  it("of one file behind many descriptors keeps one of them (U44)", () => {
    const client = open();
    const fd = world.memoryFile(64 * PAGE);
    const before = world.system.ledger.descriptorCount;
    for (let page = 0; page < 64; page += 1) {
      const copy = world.clientSystem.duplicate(fd, "client");
      expect(client.map(page * PAGE, PAGE, { fd: copy, offset: page * PAGE })).toBe(OK);
    }
    expect(world.system.ledger.descriptorCount).toBe(before + 1);
    expect([world.server.dma.fileCount, world.files.windowCount]).toEqual([1, 1]);
    expect(client.unmap(0, 0, 2)).toBe(OK);
    expect(world.system.ledger.descriptorCount).toBe(before);
  });

  it("of memory larger than a window has no hole at its seams", () => {
    const client = open();
    const gib = 2 ** 30;
    const fd = world.clientSystem.createMemoryFile("big", 3 * gib, "client");
    expect(client.map(0, 3 * gib, { fd })).toBe(OK);
    expect(world.memory.contains(0, 3 * gib)).toBe(true);
    expect(world.memory.copyIn(gib - 4, newView(8), 0, 8)).toBe(true);
    expect(world.memory.contains(3 * gib - 1, 2)).toBe(false);
    expect(client.unmap(0, 3 * gib)).toBe(OK);
  });
});

describe("DMA_UNMAP", () => {
  it("takes exactly one region, else ENOENT and nothing changes (U45, U54)", () => {
    const client = open();
    for (const page of [1, 2, 3]) client.map(page * PAGE, PAGE, { fd: world.memoryFile(PAGE) });
    for (const [address, size] of [
      [0, PAGE],
      [PAGE, 2 * PAGE],
      [PAGE, 3 * PAGE],
      [0, 2 * PAGE],
      [PAGE + 8, 8],
      [PAGE, 0],
      [0, 0],
    ] as const) {
      expect(client.unmap(address, size)).toBe(ENOENT);
    }
    expect(client.unmap(0, 2n ** 63n)).toBe(ENOENT);
    expect(world.server.dma.count).toBe(3);
    expect(client.unmap(2 * PAGE, PAGE)).toBe(OK);
    expect(client.unmap(2 * PAGE, PAGE)).toBe(ENOENT);
    expect([byteAt(PAGE), byteAt(2 * PAGE), byteAt(3 * PAGE)]).toEqual([0, -1, 0]);
  });

  it("takes everything at once, also from an empty table (U46)", () => {
    const client = open();
    expect(client.unmap(0, 0, 2)).toBe(OK);
    for (let page = 0; page < 9; page += 1) client.map(page * 2 * PAGE, PAGE);
    expect(client.unmap(PAGE, 0, 2)).toBe(EINVAL);
    expect(client.unmap(0, PAGE, 2)).toBe(EINVAL);
    expect(client.unmap(0, 0, 3)).toBe(EINVAL);
    expect(world.server.dma.count).toBe(9);
    expect(client.unmap(0, 0, 2)).toBe(OK);
    expect(world.server.dma.count).toBe(0);
  });

  it("with other flags, a bitmap of logging that is off, or a wrong argsz is EINVAL (U47, U48)", () => {
    const client = open();
    client.map(0, PAGE);
    for (const flags of [1, 4, 5, 0x8000_0000]) expect(client.unmap(0, PAGE, flags)).toBe(EINVAL);
    expect(client.unmap(0, PAGE, 0, 23)).toBe(EINVAL);
    expect(client.unmap(0, PAGE, 0, 2 ** 20 + 1)).toBe(EINVAL);
    expect(client.errno(3, new Uint8Array(23))).toBe(EINVAL);
    expect(client.unmap(0, PAGE, 0, 100)).toBe(OK);
  });

  it("answers with what it was asked, in 40 bytes (U45)", () => {
    const client = open();
    client.map(0x5000, PAGE);
    const payload = pack([4, 24], [4, 0], [8, 0x5000], [8, PAGE]);
    expect(client.ask(3, payload).payload).toEqual(payload);
  });

  it("leaves no memory, no view and no descriptor behind (U49, U53)", () => {
    const client = open();
    const before = world.system.ledger.open.length;
    client.map(0, PAGE, { fd: world.memoryFile(PAGE) });
    const { generation } = world.memory;
    expect(client.unmap(0, PAGE)).toBe(OK);
    expect(world.memory.generation).not.toBe(generation);
    expect(world.memory.locate(0, 1, false)).toBe(null);
    world.files.trim();
    expect(world.system.ledger.open.length).toBe(before);
  });

  it("lets the device rest until the memory had time to come back (U52, U150)", () => {
    const client = open();
    const fd = world.memoryFile(16 * PAGE);
    client.map(0, 16 * PAGE, { fd });
    const { works } = world.function;
    const burst = [
      message(3, pack([4, 24], [4, 0], [8, 0], [8, 16 * PAGE])),
      message(2, pack([4, 32], [4, 3], [8, 0], [8, 0], [8, 8 * PAGE])),
    ];
    world.function.onWork = () => {
      expect(world.memory.contains(0, 8 * PAGE)).toBe(true);
      return false;
    };
    expect(client.sendRaw(burst[0]!)).toBe(40);
    world.server.service();
    expect(world.server.work()).toBe(true);
    expect(world.function.works).toBe(works);
    client.sendRaw(burst[1]!, [world.clientSystem.duplicate(fd, "client")]);
    expect(client.drain().map(({ errno }) => errno)).toEqual([0, 0]);
    expect(world.function.works).toBeGreaterThan(works);
  });

  it("lets the device go on at once when something else is asked for (U52)", () => {
    const client = open();
    client.map(0, PAGE);
    client.unmap(0, PAGE);
    const { works } = world.function;
    client.post(0, 0, pack([4, 1]));
    world.server.service();
    world.server.work();
    expect(world.function.works).toBe(works + 1);
  });
});

it("a thousand maps in one burst, each with a descriptor, keep their own (U2, U42, U43)", () => {
  const client = open();
  const fds = Array.from({ length: 100 }, (_, index) =>
    world.memoryFile(PAGE, (bytes) => bytes.fill(index)),
  );
  for (let index = 0; index < 100; index += 1) {
    // In between: what carries none, and the everyday posted write.
    client.send(2, pack([4, 32], [4, 1], [8, 0], [8, (1000 + index) * PAGE], [8, PAGE]));
    const payload = pack([4, 32], [4, 3], [8, 0], [8, index * PAGE], [8, PAGE]);
    client.send(2, payload, { fds: [fds[index]!] });
    if (index % 3 === 0) client.post(0, 0, pack([4, index]));
  }
  const answers = client.drain();
  expect(answers.length).toBe(200);
  expect(answers.every(({ errno }) => errno === 0)).toBe(true);
  for (let index = 0; index < 100; index += 1) {
    expect(byteAt(index * PAGE)).toBe(index);
    expect(byteAt((1000 + index) * PAGE)).toBe(-1);
  }
});

it("maps and unmaps leave descriptors and mappings where they were (U142, U154)", () => {
  const client = open();
  const fd = world.memoryFile(4 * PAGE);
  const before = world.system.ledger.descriptorCount;
  for (let round = 0; round < 2000; round += 1) {
    const copy = world.clientSystem.duplicate(fd, "client");
    expect(client.map(0, 4 * PAGE, { fd: copy })).toBe(OK);
    expect(client.unmap(0, 4 * PAGE)).toBe(OK);
    world.clientSystem.close(copy);
  }
  expect(world.system.ledger.descriptorCount).toBe(before);
  expect(world.files.windowCount).toBeLessThanOrEqual(1);
});

it("a table of regions equals a plain list under random maps and unmaps", () => {
  const step = fc.record({
    kind: fc.constantFrom("map", "map", "unmap", "all"),
    page: fc.integer({ min: 0, max: 24 }),
    pages: fc.integer({ min: 1, max: 4 }),
    filePage: fc.integer({ min: 0, max: 28 }),
    file: fc.constantFrom(-1, 0, 1),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const client = open();
      const files = [0, 1].map((which) =>
        world.memoryFile(32 * PAGE, (bytes) => {
          for (let page = 0; page < 32; page += 1)
            bytes.fill(100 * which + page, page * PAGE, (page + 1) * PAGE);
        }),
      );
      let plain: { page: number; pages: number; filePage: number; file: number }[] = [];
      for (const { kind, ...wanted } of steps) {
        const { page, pages, filePage, file } = wanted;
        const same = plain.find((each) => each.page === page && each.pages === pages);
        if (kind === "map") {
          const isRepeat =
            same !== undefined && same.file === file && (file < 0 || same.filePage === filePage);
          const isTaken = plain.some(
            (each) => each.page < page + pages && page < each.page + each.pages,
          );
          const fd = file < 0 ? {} : { fd: world.clientSystem.duplicate(files[file]!, "client") };
          const errno = client.map(page * PAGE, pages * PAGE, { ...fd, offset: filePage * PAGE });
          expect(errno).toBe(isRepeat ? OK : isTaken ? EEXIST : OK);
          if (!isTaken) plain.push(wanted);
        } else if (kind === "unmap") {
          expect(client.unmap(page * PAGE, pages * PAGE)).toBe(same === undefined ? ENOENT : OK);
          plain = plain.filter((each) => each !== same);
        } else {
          expect(client.unmap(0, 0, 2)).toBe(OK);
          plain = [];
        }
        expect(world.server.dma.count).toBe(plain.length);
        for (let at = 0; at < 30; at += 1) {
          const holder = plain.find((each) => each.page <= at && at < each.page + each.pages);
          const want =
            holder === undefined || holder.file < 0
              ? -1
              : 100 * holder.file + holder.filePage + at - holder.page;
          expect(byteAt(at * PAGE)).toBe(want);
        }
      }
      world.end();
    }),
    { seed: 47, numRuns: 60 },
  );
  open();
});
