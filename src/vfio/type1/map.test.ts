import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { AssertionError } from "../../errors.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { UserProcess } from "../process/user-process.ts";
import { MapFlag, UnmapFlag } from "../uapi/type1.ts";
import { mapDma, mapRequest } from "./map.ts";
import type { FaultingService } from "./type1.ts";
import { World } from "./type1-world.suite.ts";

const MIB = 0x10_0000;
const RW = MapFlag.READ | MapFlag.WRITE;
const VADDR = 0x100_0000;
const VPN = 0x1000;
const TOP = 0xffff_ffff_ffff_f000n;

/** 1024 pages of memory, side by side, at VADDR. */
function makeWorld(options: ConstructorParameters<typeof World>[0] = {}): World {
  const world = new World(options);
  world.memory.put(VPN, 0x8_0000, 1024);
  return world;
}

describe("MAP_DMA: checks", () => {
  it("row 1: size 0 is EINVAL", () => {
    expect(makeWorld().map(0, VADDR, 0)).toBe(Errno.EINVAL);
  });

  it("row 2: flag bit 3 is EINVAL, and known only with the proposal of 2024", () => {
    expect(makeWorld().map(0, VADDR, 4096, RW | MapFlag.MMIO_DONT_PIN)).toBe(Errno.EINVAL);
    const world = makeWorld({ type1: { hasMmioDontPin: true } });
    expect(world.map(0, VADDR, 4096, RW | MapFlag.MMIO_DONT_PIN)).toBe(Errno.OK);
    expect(world.map(0x1000, VADDR, 4096, RW | 16)).toBe(Errno.EINVAL);
  });

  it("row 3: neither rights nor VADDR, or both, is EINVAL", () => {
    expect(makeWorld().map(0, VADDR, 4096, 0)).toBe(Errno.EINVAL);
    expect(makeWorld().map(0, VADDR, 4096, MapFlag.READ | MapFlag.VADDR)).toBe(Errno.EINVAL);
  });

  it("row 4: a range that wraps is EOVERFLOW, before rights and alignment are looked at", () => {
    const { type1, process } = makeWorld();
    const call = (flags: number, vaddr: bigint, iova: bigint, size: bigint) =>
      mapDma(type1, process, mapRequest(flags, vaddr, iova, size));
    expect(call(RW, 0n, TOP, 8192n)).toBe(Errno.EOVERFLOW);
    expect(call(0, 0n, TOP, 8192n)).toBe(Errno.EOVERFLOW);
    expect(call(RW, 0n, TOP + 1n, 4096n)).toBe(Errno.EOVERFLOW);
    expect(call(RW, TOP, 0n, 4097n)).toBe(Errno.EOVERFLOW);
    expect(call(RW, TOP, 0n, 4096n)).toBe(Errno.EFAULT);
    expect(call(RW, 0n, 0n, 2n ** 64n - 1n)).toBe(Errno.EINVAL);
    expect(call(RW, 0n, 0n, 2n ** 63n)).toBe(Errno.EINVAL);
  });

  it("flags of more than 32 bits, or with a part of one, are EINVAL", () => {
    for (const flags of [2 ** 32 + 3, 2 ** 53 + 2, 3.5, -1, Number.NaN]) {
      expect(makeWorld().map(0, VADDR, 4096, flags)).toBe(Errno.EINVAL);
    }
  });

  it("an address or a length that 64 bits do not hold cannot be asked for", () => {
    for (const wrong of [-1n, 2n ** 64n]) {
      expect(() => mapRequest(RW, wrong, 0n, 4096n)).toThrow(AssertionError);
      expect(() => mapRequest(RW, 0n, wrong, 4096n)).toThrow(AssertionError);
      expect(() => mapRequest(RW, 0n, 0n, wrong)).toThrow(AssertionError);
    }
  });

  it("row 5: a misaligned iova, vaddr or size is EINVAL", () => {
    const world = makeWorld();
    expect(world.map(2048, VADDR, 4096)).toBe(Errno.EINVAL);
    expect(world.map(0, VADDR + 2048, 4096)).toBe(Errno.EINVAL);
    expect(world.map(0, VADDR, 4096 + 2048)).toBe(Errno.EINVAL);
  });

  it("aligns to the smallest page of the domains, not to 4 KiB", () => {
    const world = makeWorld();
    world.type1.pageSizes = 0x1_0000n;
    expect(world.map(0x1000, VADDR, 0x1_0000)).toBe(Errno.EINVAL);
    expect(world.map(0, VADDR, 0x1000)).toBe(Errno.EINVAL);
    expect(world.map(0, VADDR + 0x1000, 0x1_0000)).toBe(Errno.EINVAL);
    expect(world.map(0, VADDR, 0x1_0000)).toBe(Errno.OK);
  });

  it("row 6: an overlap is EEXIST", () => {
    const world = makeWorld();
    expect(world.map(0, VADDR, MIB)).toBe(Errno.OK);
    expect(world.map(0, VADDR, MIB)).toBe(Errno.EEXIST);
    expect(world.map(MIB - 4096, VADDR, 4096)).toBe(Errno.EEXIST);
  });

  it("rows 7 and 10: EEXIST comes before ENOSPC, and that before the allowed ranges", () => {
    const world = makeWorld({ type1: { parameters: { dmaEntryLimit: 1 } } });
    expect(world.map(0, VADDR, 4096)).toBe(Errno.OK);
    expect(world.map(0, VADDR, 4096)).toBe(Errno.EEXIST);
    expect(world.map(0xfee0_0000, VADDR, 4096)).toBe(Errno.ENOSPC);
  });

  it("row 8: dma_entry_limit bounds the mappings alive, ENOSPC", () => {
    const world = makeWorld({ type1: { parameters: { dmaEntryLimit: 2 } } });
    expect([0, 1, 2].map((index) => world.map(index * 4096, VADDR, 4096))).toEqual([0, 0, 28]);
    expect(world.unmap(0, 4096)).toBe("4096");
    expect(world.map(0x2000, VADDR, 4096)).toBe(Errno.OK);
  });

  it("row 9: interrupts' addresses and what reaches into them are EINVAL", () => {
    const world = makeWorld();
    expect(world.map(0xfee0_0000, VADDR, 4096)).toBe(Errno.EINVAL);
    expect(world.map(0xfedf_f000, VADDR, 8192)).toBe(Errno.EINVAL);
    expect(world.map(0xfedf_f000, VADDR, 4096)).toBe(Errno.OK);
    expect(world.map(0xffff_ffff_f000, VADDR, 4096)).toBe(Errno.OK);
    expect(world.map(0x1_0000_0000_0000, VADDR, 4096)).toBe(Errno.EINVAL);
  });
});

describe("MAP_DMA: pinning and accounting", () => {
  it("row 11: one page above RLIMIT_MEMLOCK is ENOMEM, and nothing has changed", () => {
    const world = makeWorld({ process: { memlockPages: 16 } });
    const before = world.state();
    expect(world.map(0, VADDR, 17 * 4096)).toBe(Errno.ENOMEM);
    expect(world.state()).toEqual(before);
    expect(world.map(0, VADDR, 16 * 4096)).toBe(Errno.OK);
  });

  it("row 12: CAP_IPC_LOCK passes the limit, and is charged", () => {
    const world = makeWorld({ process: { memlockPages: 16, canLock: true } });
    expect(world.map(0, VADDR, 17 * 4096)).toBe(Errno.OK);
    expect(world.process.lockedPages).toBe(17);
  });

  it("row 13: the same pages mapped twice are charged twice", () => {
    const world = makeWorld({ process: { memlockPages: 16 } });
    expect(world.map(0, VADDR, 8 * 4096)).toBe(Errno.OK);
    expect(world.map(MIB, VADDR, 8 * 4096)).toBe(Errno.OK);
    expect(world.map(2 * MIB, VADDR, 4096)).toBe(Errno.ENOMEM);
  });

  it("row 14: device memory is mapped without limit and not charged", () => {
    const world = makeWorld({ process: { memlockPages: 0 } });
    world.memory.put(0x9000, 0xf_0000, 64, { isReserved: true });
    expect(world.map(0, 0x900_0000, 64 * 4096)).toBe(Errno.OK);
    expect(world.process.lockedPages).toBe(0);
    expect(world.memory.pinned).toBe(0);
    expect(world.log.lines).toEqual(["map 0 983040 64"]);
  });

  it("row 15: read-only memory is mapped to read; to write it is EFAULT", () => {
    const world = makeWorld();
    world.memory.put(VPN, 0x8000, 4, { isWritable: false });
    expect(world.map(0, VADDR, 4096, MapFlag.READ)).toBe(Errno.OK);
    expect(world.map(0x1000, VADDR, 4096, RW)).toBe(Errno.EFAULT);
  });

  it("row 16: a hole in the middle is EFAULT; the first page is let go again", () => {
    const world = makeWorld();
    world.memory
      .put(VPN, 0x9000, 1)
      .put(VPN + 2, 0x9002, 1)
      .pages.delete(VPN + 1);
    const before = world.state();
    expect(world.map(0, VADDR, 3 * 4096)).toBe(Errno.EFAULT);
    expect(world.state()).toEqual(before);
    // The kernel finds the hole before it maps the run in front of it.
    expect(world.log.lines).toEqual([]);
  });

  it("a hole behind a run that was mapped: the run is unmapped again", () => {
    const world = makeWorld();
    world.memory.put(VPN, 0x9000, 1).pages.delete(VPN + 2);
    expect(world.map(0, VADDR, 3 * 4096)).toBe(Errno.EFAULT);
    expect(world.log.lines).toEqual(["map 0 36864 1", "unmap 0 1 1"]);
  });

  it("one iommu_map for each contiguous run, and for each kind of memory", () => {
    const world = makeWorld();
    world.memory.put(VPN + 2, 0x9000, 2).put(VPN + 4, 0x9002, 1, { isReserved: true });
    expect(world.map(0, VADDR, 6 * 4096)).toBe(Errno.OK);
    expect(world.log.lines).toEqual([
      "map 0 524288 2",
      "map 2 36864 2",
      "map 4 36866 1",
      "map 5 524293 1",
    ]);
    world.log.lines = [];
    // What is contiguous in memory is unmapped as one, whatever it is.
    expect(world.unmap(0, 6 * 4096)).toBe("24576");
    expect(world.log.lines).toEqual(["unmap 0 2 2", "unmap 2 3 3", "unmap 5 1 1"]);
    expect(world.memory.pinned).toBe(0);
  });

  it("disable_hugepages: one iommu_map for each page", () => {
    const world = makeWorld({ type1: { parameters: { disableHugepages: true } } });
    expect(world.map(0, VADDR, 3 * 4096)).toBe(Errno.OK);
    expect(world.log.lines).toEqual(["map 0 524288 1", "map 1 524289 1", "map 2 524290 1"]);
  });

  it("without memory of its own a process maps nothing: ENODEV", () => {
    const { type1 } = makeWorld();
    const process = new UserProcess({ memory: null });
    expect(mapDma(type1, process, mapRequest(RW, 0n, 0n, 4096n))).toBe(Errno.ENODEV);
  });

  it("without a domain nothing is pinned, only recorded", () => {
    const world = makeWorld({ domains: 0 });
    expect(world.map(0xfee0_0000, VADDR, MIB)).toBe(Errno.OK);
    expect(world.memory.pinned + world.process.lockedPages).toBe(0);
    expect(world.unmap(0xfee0_0000, MIB)).toBe(`${MIB}`);
  });

  it("memory without pinning is found by arithmetic, where the process has such", () => {
    const world = makeWorld({ type1: { hasMmioDontPin: true } });
    world.memory.put(0x9000, 0xf_0000, 8, { isReserved: true });
    const { memory } = world;
    let pins = 0;
    const pinRun = memory.pinRun.bind(memory);
    Object.assign(memory, {
      pinRun(...call: Parameters<typeof pinRun>) {
        pins += 1;
        return pinRun(...call);
      },
      dontPinRun(vpn: number, pages: number, out: Record<string, unknown>) {
        if (vpn < 0x9000) return false;
        Object.assign(out, { pfn: 0xf_0000 + vpn - 0x9000, pages, isReserved: true, nextErrno: 0 });
        return true;
      },
    });
    expect(world.map(0, 0x900_0000, 8 * 4096, RW | MapFlag.MMIO_DONT_PIN)).toBe(Errno.OK);
    expect(pins).toBe(0);
    expect(world.map(MIB, VADDR, 4096, RW | MapFlag.MMIO_DONT_PIN)).toBe(Errno.OK);
    expect(world.map(2 * MIB, 0x900_0000, 8 * 4096)).toBe(Errno.OK);
    expect(pins).toBe(2);
  });
});

describe("MAP_DMA with I/O page faults", () => {
  it("only records, tells who serves faults, and leaves the unmapping to it", () => {
    const told: string[] = [];
    let refusal: number = Errno.OK;
    const faulting: FaultingService = {
      isEnabled: true,
      enable: () => Errno.OK,
      vaddrUpdated: () => {},
      groupAttached: () => Errno.OK,
      groupDetached: () => {},
      mappingAdded: (mapping) => {
        told.push(`added ${mapping.iovaPfn}`);
        return refusal;
      },
      mappingRemoved: (mapping) => {
        told.push(`removed ${mapping.iovaPfn}`);
      },
    };
    const world = makeWorld({ type1: { faulting }, process: { memlockPages: 0 } });
    expect(world.map(0, VADDR, MIB)).toBe(Errno.OK);
    expect([world.memory.pinned, world.process.lockedPages]).toEqual([0, 0]);
    expect(world.log.lines).toEqual([]);
    refusal = Errno.ENOMEM;
    const before = world.state();
    expect(world.map(MIB, VADDR, MIB)).toBe(Errno.ENOMEM);
    expect(world.state()).toEqual(before);
    expect(world.unmap(0, MIB)).toBe(`${MIB}`);
    expect(told).toEqual(["added 0", "added 256", "removed 256", "removed 0"]);
  });
});

describe("MAP_DMA: domains", () => {
  it("row 36: two domains have two iommu_map for each run, the newest first", () => {
    const world = makeWorld({ domains: 2 });
    expect(world.map(0, VADDR, 2 * MIB)).toBe(Errno.OK);
    expect(world.log.lines).toEqual(["map 0 524288 512", "map 0 524288 512"]);
    expect(world.tables.map((table) => table.iovaToPhys(511))).toEqual([0x8_01ff, 0x8_01ff]);
    expect(world.process.lockedPages).toBe(512);
  });

  it("a mapping is readable and writable as asked, and coherent", () => {
    const world = makeWorld();
    world.map(0, VADDR, 4096);
    world.map(0x1000, VADDR, 4096, MapFlag.READ);
    const rights: number[] = [];
    world.tables[0]!.forEachLeaf((leaf) => rights.push(leaf.prot & PROT_RW));
    expect(rights).toEqual([3, 1]);
  });

  it("row 109: a domain that maps nothing leaves map size=0 and unmap size=0 in the trace", () => {
    const world = makeWorld({ domains: 2 });
    // What lies in the second domain already, nobody told the container of.
    world.type1.domains[1]!.domain.map(0, 0x7000, 1, PROT_RW);
    world.log.lines = [];
    const before = world.state();
    expect(world.map(0, VADDR, 8192)).toBe(Errno.EADDRINUSE);
    expect(world.log.lines).toEqual([
      "map 0 524288 2",
      "map 0 524288 0",
      "unmap 0 0 0",
      "unmap 0 2 2",
    ]);
    expect(world.state()).toEqual(before);
  });

  it.each([true, false])(
    "an occupied page among scattered ones: all of them go, traced %s",
    (isTraced) => {
      const world = makeWorld({ isTraced });
      for (let page = 0; page < 600; page += 1) world.memory.put(VPN + page, 0x9000 + 2 * page, 1);
      for (const occupied of [1, 511, 513, 599]) {
        world.type1.domains[0]!.domain.map(occupied, 0x7000, 1, PROT_RW);
        const before = world.state();
        expect(world.map(0, VADDR, 600 * 4096)).toBe(Errno.EADDRINUSE);
        expect(world.state()).toEqual(before);
        world.type1.domains[0]!.domain.unmap(occupied, 1);
      }
      expect(world.map(0, VADDR, 600 * 4096)).toBe(Errno.OK);
      expect(world.memory.pinned).toBe(600);
      const frames = Array.from({ length: 600 }, (_, page) => world.tables[0]!.iovaToPhys(page));
      expect(frames).toEqual(frames.map((_, page) => 0x9000 + 2 * page));
    },
  );

  it("a domain that fails at the second run takes the first one with it, in all domains", () => {
    const world = makeWorld({ domains: 2 });
    world.memory.put(VPN + 1, 0x9000, 1);
    world.type1.domains[1]!.domain.map(1, 0x7000, 1, PROT_RW);
    world.log.lines = [];
    const before = world.state();
    expect(world.map(0, VADDR, 8192)).toBe(Errno.EADDRINUSE);
    expect(world.log.lines).toEqual([
      "map 0 524288 1",
      "map 0 524288 1",
      "map 1 36864 1",
      "map 1 36864 0",
      "unmap 1 0 0",
      "unmap 1 1 1",
      "unmap 0 1 1",
      "unmap 0 1 1",
    ]);
    expect(world.state()).toEqual(before);
  });
});

describe("MAP_DMA with VADDR", () => {
  it("row 28: only what was invalidated can move, and only as a whole", () => {
    const world = makeWorld();
    world.map(0, VADDR, 8192);
    expect(world.map(0, VADDR + MIB, 8192, MapFlag.VADDR)).toBe(Errno.EINVAL);
    expect(world.unmap(0, 8192, UnmapFlag.VADDR)).toBe("8192");
    expect(world.type1.vaddrInvalidCount).toBe(1);
    expect(world.map(0, VADDR + MIB, 4096, MapFlag.VADDR)).toBe(Errno.EINVAL);
    expect(world.map(0, VADDR + MIB, 8192, MapFlag.VADDR)).toBe(Errno.OK);
    expect(world.type1.vaddrInvalidCount).toBe(0);
    expect(world.type1.mappings.find(0)!.vpn).toBe(VPN + 256);
    expect(world.log.lines).toEqual(["map 0 524288 2"]);
  });

  it("row 29: without a mapping it is ENOENT", () => {
    expect(makeWorld().map(0, VADDR, 4096, MapFlag.VADDR)).toBe(Errno.ENOENT);
  });

  it("another process takes over the charge, or is refused by its limit", () => {
    const world = makeWorld();
    world.map(0, VADDR, 8192);
    world.unmap(0, 8192, UnmapFlag.VADDR);
    const update = mapRequest(MapFlag.VADDR, 0n, 0n, 8192n);
    const memory = { ...world.memory } as unknown as typeof world.memory;
    const poor = new UserProcess({ memory, memlockPages: 1 });
    const before = world.state();
    expect(mapDma(world.type1, poor, update)).toBe(Errno.ENOMEM);
    expect(world.state()).toEqual(before);
    const rich = new UserProcess({ memory, memlockPages: 2 });
    expect(mapDma(world.type1, rich, update)).toBe(Errno.OK);
    expect([world.process.lockedPages, rich.lockedPages]).toEqual([0, 2]);
  });
});
