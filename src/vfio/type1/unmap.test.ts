import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { CountingMeter } from "../../meter.ts";
import { DirtyFlag, MapFlag, UnmapFlag } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { switchDirtyTracking } from "./dirty.ts";
import { EXTENTS_MAX } from "./extents.ts";
import { checkExtension } from "./info.ts";
import { World } from "./type1-world.suite.ts";
import { unmapDma, unmapRequest } from "./unmap.ts";

const MIB = 0x10_0000;
const VADDR = 0x100_0000;
const VPN = 0x1000;

function makeWorld(options: ConstructorParameters<typeof World>[0] = {}): World {
  const world = new World(options);
  world.memory.put(VPN, 0x8_0000, 4096);
  return world;
}

describe("UNMAP_DMA: what goes", () => {
  it("row 18: every mapping in the range, gaps do not matter", () => {
    const world = makeWorld();
    world.map(0, VADDR, MIB);
    world.map(2 * MIB, VADDR, MIB);
    expect(world.unmap(0, 4 * MIB)).toBe(`${2 * MIB}`);
    expect([world.memory.pinned, world.process.lockedPages]).toEqual([0, 0]);
  });

  it("row 19: a range that cuts a mapping at either end is EINVAL", () => {
    const world = makeWorld();
    world.map(0, VADDR, MIB);
    const before = world.state();
    expect(world.unmap(0, MIB / 2)).toBe(Errno.EINVAL);
    expect(world.unmap(MIB / 2, MIB / 2)).toBe(Errno.EINVAL);
    expect(world.state()).toEqual(before);
  });

  it("row 20: nothing there is a success of 0 bytes", () => {
    expect(makeWorld().unmap(0x4000_0000, 0x4000_0000)).toBe("0");
  });

  it("row 21: size 0 without ALL and misaligned ranges are EINVAL", () => {
    const world = makeWorld();
    expect(world.unmap(0, 0)).toBe(Errno.EINVAL);
    expect(world.unmap(2048, 4096)).toBe(Errno.EINVAL);
    expect(world.unmap(0, 2048)).toBe(Errno.EINVAL);
    expect(world.unmap(0, 4096, 8)).toBe(Errno.EINVAL);
  });

  it("row 22: a range that wraps is EOVERFLOW", () => {
    const world = makeWorld();
    const request = unmapRequest(0, 0xffff_ffff_ffff_f000n, 8192n);
    expect(unmapDma(world.type1, request, world.user)).toBe(Errno.EOVERFLOW);
  });

  it("row 23: ALL takes everything; with an address it is EINVAL", () => {
    const world = makeWorld();
    for (const at of [0, 4 * MIB, 0x1_0000_0000]) world.map(at, VADDR, MIB);
    expect(world.unmap(4096, 0, UnmapFlag.ALL)).toBe(Errno.EINVAL);
    expect(world.unmap(0, 4096, UnmapFlag.ALL)).toBe(Errno.EINVAL);
    expect(world.unmap(0, 0, UnmapFlag.ALL)).toBe(`${3 * MIB}`);
    expect(world.type1.dmaAvail).toBe(65535);
  });

  it("row 24: ALL without mappings is a success of 0 bytes", () => {
    expect(makeWorld().unmap(0, 0, UnmapFlag.ALL)).toBe("0");
  });

  it("row 27: version 1 does nothing inside a mapping, and takes it whole at its start", () => {
    const world = makeWorld({ type1: { isV2: false } });
    world.map(0, VADDR, MIB);
    expect(world.unmap(0x1000, 0x1000)).toBe("0");
    expect(world.unmap(0, 0x1000)).toBe(`${MIB}`);
  });

  it("a mapping at the end of 64 bits, where no domain limits it, goes as any other", () => {
    const world = makeWorld({ domains: 0 });
    const top = 0xffff_ffff_ffff_f000n;
    const request = unmapRequest(0, top, 4096n);
    expect(world.map(Number(top), VADDR, 0)).toBe(Errno.EINVAL);
    expect(unmapDma(world.type1, request, world.user)).toBe(Errno.OK);
  });
});

describe("UNMAP_DMA with VADDR", () => {
  it("row 30: one that is invalid already takes back this call's marks, EINVAL", () => {
    const world = makeWorld();
    world.map(0, VADDR, 4096);
    world.map(0x1000, VADDR, 4096);
    expect(world.unmap(0x1000, 0x1000, UnmapFlag.VADDR)).toBe("4096");
    expect(world.unmap(0, 0x2000, UnmapFlag.VADDR)).toBe(Errno.EINVAL);
    expect([...world.type1.mappings].map((each) => each.isVaddrInvalid)).toEqual([false, true]);
    expect(world.type1.vaddrInvalidCount).toBe(1);
    expect(world.unmap(0, 0, UnmapFlag.VADDR | UnmapFlag.ALL)).toBe(Errno.EINVAL);
    expect(world.unmap(0, 0x2000)).toBe("8192");
    expect(world.type1.vaddrInvalidCount).toBe(0);
  });

  it("row 31: with mediated devices it is EBUSY, and not offered", () => {
    const world = makeWorld();
    expect(checkExtension(world.type1, 10)).toBe(1);
    world.addEmulated();
    expect(world.unmap(0, 0x1000, UnmapFlag.VADDR)).toBe(Errno.EBUSY);
    expect(checkExtension(world.type1, 10)).toBe(0);
  });
});

describe("UNMAP_DMA with GET_DIRTY_BITMAP", () => {
  const bitmap = { pgsize: 4096n, size: 8n, address: 0x5000n };
  const get = (world: World, given: typeof bitmap, flags = 0, size = 0x4000n) => {
    const request = unmapRequest(UnmapFlag.GET_DIRTY_BITMAP | flags, 0n, size, given);
    const errno = unmapDma(world.type1, request, world.user);
    return errno === Errno.OK ? request.unmappedPages : -errno;
  };

  it("row 25: without tracking it is EINVAL", () => {
    expect(get(makeWorld(), bitmap)).toBe(-Errno.EINVAL);
  });

  it("row 26: another page size, ALL or VADDR, and bitmaps of a wrong size are EINVAL", () => {
    const world = makeWorld();
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(get(world, { ...bitmap, pgsize: 0x20_0000n }, 0, 0x40_0000n)).toBe(-Errno.EINVAL);
    expect(get(world, { ...bitmap, pgsize: 0x3000n })).toBe(-Errno.EINVAL);
    expect(get(world, { ...bitmap, pgsize: 0n })).toBe(-Errno.EINVAL);
    expect(get(world, bitmap, UnmapFlag.ALL)).toBe(-Errno.EINVAL);
    expect(get(world, bitmap, UnmapFlag.VADDR)).toBe(-Errno.EINVAL);
    expect(get(world, { ...bitmap, size: 0n })).toBe(-Errno.EINVAL);
    expect(get(world, { ...bitmap, size: 2n ** 28n + 8n })).toBe(-Errno.EINVAL);
    expect(get(world, { ...bitmap, address: 2n ** 47n })).toBe(-Errno.EINVAL);
    expect(get(world, bitmap, 0, 65n * 4096n)).toBe(-Errno.EINVAL);
    expect(get(world, bitmap)).toBe(0);
  });

  it("without a bitmap, or without memory for it to go to, it is EFAULT and nothing goes", () => {
    const world = makeWorld();
    switchDirtyTracking(world.type1, DirtyFlag.START);
    world.map(0, VADDR, 0x1000);
    const before = world.state();
    const unmap = (flags: number, given: typeof bitmap | null) =>
      unmapDma(world.type1, unmapRequest(flags, 0n, 0x1000n, given), null);
    expect([unmap(1, null), unmap(1, bitmap)]).toEqual([Errno.EFAULT, Errno.EFAULT]);
    for (const flags of [1 | UnmapFlag.ALL, 9, 2 ** 32 + 1, 0.5]) {
      expect(unmap(flags, null)).toBe(Errno.EINVAL);
    }
    expect(world.state()).toEqual(before);
    expect(unmap(0, bitmap)).toBe(Errno.OK);
  });

  it("all pages mapped are dirty, where devices write without pins", () => {
    const world = makeWorld();
    switchDirtyTracking(world.type1, DirtyFlag.START);
    world.map(0x1000, VADDR, 0x2000);
    const user = new UserBuffer(0x5000n, new Uint8Array(8));
    world.user = user;
    expect(get(world, bitmap)).toBe(2);
    expect([...user.bytes]).toEqual([6, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe("UNMAP_DMA: how pages are let go", () => {
  /** Every second page lies apart. */
  function scattered(mode: "extents" | "kernel", pages: number, meter: CountingMeter): World {
    const world = makeWorld({ type1: { unmapMode: mode, meter } });
    for (let page = 0; page < pages; page += 1) world.memory.put(VPN + page, 0x9000 + 2 * page, 1);
    return world;
  }

  it("asks the page table nothing for a run that is known, 4 KiB by 4 KiB in the kernel's way", () => {
    const lookups = (["extents", "kernel"] as const).map((mode) => {
      const meter = new CountingMeter();
      const world = makeWorld({ type1: { unmapMode: mode, meter } });
      world.map(0, VADDR, 4096 * 4096);
      expect(world.unmap(0, 4096 * 4096)).toBe(`${4096 * 4096}`);
      expect(world.log.lines.slice(1)).toEqual(["unmap 0 4096 4096"]);
      return meter.amount("physLookup");
    });
    expect(lookups).toEqual([0, 4096]);
  });

  it("reads the page table leaf by leaf when there were too many runs", () => {
    const meter = new CountingMeter();
    const pages = 2 * EXTENTS_MAX;
    const world = scattered("extents", pages, meter);
    world.memory.put(VPN + pages, 0xa_0000, 1024);
    // The large run is aligned, so that it becomes two leaves of 2 MiB.
    const start = 0x40_0000 - pages * 4096;
    expect(world.map(start, VADDR, (pages + 1024) * 4096)).toBe(Errno.OK);
    const maps = world.log.lines.length;
    expect(world.unmap(start, (pages + 1024) * 4096)).not.toBe(Errno.EINVAL);
    const unmaps = world.log.lines.slice(maps);
    expect([maps, unmaps.length]).toEqual([pages + 1, pages + 1]);
    expect(meter.amount("physLookup")).toBe(pages + 2);
    expect(world.memory.pinned).toBe(0);
  });

  it("waits for the invalidation after 512 runs, in both ways", () => {
    for (const mode of ["extents", "kernel"] as const) {
      const meter = new CountingMeter();
      const world = scattered(mode, 1025, meter);
      world.map(0, VADDR, 1025 * 4096);
      const { domain } = world.type1.domains[0]!;
      let syncs = 0;
      const sync = domain.driver!.iotlbSync.bind(domain.driver);
      domain.driver!.iotlbSync = (gather) => {
        syncs += 1;
        sync(gather);
      };
      world.unmap(0, 1025 * 4096);
      expect(syncs).toBe(3);
    }
  });

  it("unpins nothing before the invalidation that covers it", () => {
    const world = makeWorld();
    world.map(0, VADDR, 8192);
    const order: string[] = [];
    const { domain } = world.type1.domains[0]!;
    const sync = domain.driver!.iotlbSync.bind(domain.driver);
    domain.driver!.iotlbSync = (gather) => {
      order.push("sync");
      sync(gather);
    };
    const unpin = world.memory.unpin.bind(world.memory);
    world.memory.unpin = (...call) => {
      order.push("unpin");
      unpin(...call);
    };
    world.unmap(0, 8192);
    expect(order).toEqual(["sync", "unpin"]);
  });

  it("pages that were mapped to be written are dirty when they are let go, others not", () => {
    const world = makeWorld();
    world.map(0, VADDR, 4096);
    world.map(0x1000, VADDR + 0x1000, 4096, MapFlag.READ);
    world.unmap(0, 0x2000);
    expect([...world.memory.written]).toEqual([0x8_0000]);
  });

  it("other domains are unmapped first, each by one call", () => {
    const world = makeWorld({ domains: 2 });
    world.memory.put(VPN + 1, 0x9000, 1);
    world.map(0, VADDR, 8192);
    world.log.lines = [];
    world.unmap(0, 8192);
    expect(world.log.lines).toEqual(["unmap 0 2 2", "unmap 0 1 1", "unmap 1 1 1"]);
  });

  it.each(["extents", "kernel"] as const)(
    "a page that somebody else unmapped is skipped or ends it, the rest stays pinned (%s)",
    (unmapMode) => {
      const world = makeWorld({ type1: { unmapMode } });
      world.map(0, VADDR, 4 * 4096);
      world.type1.domains[0]!.domain.unmap(1, 1);
      expect(world.unmap(0, 4 * 4096)).toBe("16384");
      expect(world.memory.pinned).toBe(1);
      expect(world.process.lockedPages).toBe(1);
      expect(world.tables[0]!.iovaToPhys(3)).toBe(-1);
    },
  );

  it.each(["extents", "kernel"] as const)(
    "a driver that unmaps nothing at first is asked once more, then given up (%s)",
    (unmapMode) => {
      const world = makeWorld({ type1: { unmapMode } });
      world.map(0, VADDR, 4096);
      world.map(0x1000, VADDR, 4096);
      const driver = world.type1.domains[0]!.domain.driver!;
      const unmap = driver.unmap.bind(driver);
      let refusals = 1;
      driver.unmap = (...call) => {
        refusals -= 1;
        return refusals >= 0 ? 0 : unmap(...call);
      };
      expect(world.unmap(0, 0x1000)).toBe("4096");
      expect(world.memory.pinned).toBe(1);
      refusals = 2;
      expect(world.unmap(0x1000, 0x1000)).toBe("4096");
      expect(world.memory.pinned).toBe(1);
    },
  );
});

describe("UNMAP_DMA of pages that drivers hold", () => {
  it("stops the program when a driver does not let go in ten rounds", () => {
    const world = makeWorld({ domains: 0 });
    world.map(0, VADDR, 4096);
    let calls = 0;
    world.type1.devices.push({
      dmaUnmap: () => {
        calls += 1;
      },
    });
    const mapping = world.type1.mappings.find(0)!;
    mapping.pins = { count: 1 } as unknown as typeof mapping.pins;
    expect(() => world.unmap(0, 4096)).toThrow(/drivers unpin/);
    expect(calls).toBe(11);
  });
});
