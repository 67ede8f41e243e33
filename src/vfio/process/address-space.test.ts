import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { CountingMeter } from "../../meter.ts";
import { CheckedFrames } from "./address-space.suite.ts";
import { AddressSpace } from "./address-space.ts";
import {
  contiguousFrames,
  type FrameSource,
  listedFrames,
  numaFrames,
  scatteredFrames,
} from "./frame-source.ts";
import { FrameTable } from "./frame-table.ts";
import { MemoryFile } from "./memory-file.ts";
import { createPinRun } from "./process-memory.ts";
import { type Backing, VMAS_MAX } from "./vma.ts";

const VPN = 2 ** 20;
const anonymous: Backing = { kind: "anonymous", isHuge: false };
const huge: Backing = { kind: "anonymous", isHuge: true };
const memory = { basePfn: 512, pages: 2 ** 16 };

function world(source: FrameSource = contiguousFrames(memory)) {
  const frames = new CheckedFrames(source);
  const meter = new CountingMeter();
  const space = new AddressSpace({ frames, meter });
  const run = createPinRun();
  const pin = (vpn: number, pages: number, isWrite = true) =>
    space.pinRun(vpn, pages, isWrite, 512, run);
  return { frames, meter, space, run, pin };
}

describe("pinning", () => {
  it("of a read-only mapping works for reading and gives EFAULT for writing (row 15)", () => {
    const { space, pin } = world();
    space.mmap({ vpn: VPN, pages: 4, backing: anonymous, isWritable: false });
    expect(pin(VPN, 4, false)).toBe(Errno.OK);
    expect(pin(VPN, 4, true)).toBe(Errno.EFAULT);
  });

  it("ends before a hole and says EFAULT for what comes next (row 16)", () => {
    const { space, run, pin } = world();
    space.mmap({ vpn: VPN, pages: 3, backing: anonymous });
    space.munmap(VPN + 1, 1);
    expect(pin(VPN, 3)).toBe(Errno.OK);
    expect([run.pages, run.nextErrno]).toEqual([1, Errno.EFAULT]);
    expect(pin(VPN + 1, 2)).toBe(Errno.EFAULT);
  });

  it("of write-only memory for reading gives EFAULT, as of memory without rights", () => {
    const { space, pin } = world();
    space.mmap({ vpn: VPN, pages: 1, backing: anonymous, isReadable: false });
    expect(pin(VPN, 1, false)).toBe(Errno.EFAULT);
    expect(pin(VPN, 1, true)).toBe(Errno.OK);
    space.mmap({ vpn: VPN, pages: 1, backing: { kind: "io" } });
    expect(pin(VPN, 1, false)).toBe(Errno.EFAULT);
  });

  it("for reading gives a page that shows the zero page a frame of its own", () => {
    const { space, run, pin } = world();
    space.mmap({ vpn: VPN, pages: 2, backing: anonymous });
    expect(space.touch(VPN, 2, false)).toBe(Errno.OK);
    expect(space.frameAt(VPN)).toBe(0);
    const told: number[] = [];
    space.addNotifier({ invalidate: (first, last) => told.push(first, last) });
    expect(pin(VPN, 1, false)).toBe(Errno.OK);
    expect(run.pfn).toBe(space.frameAt(VPN));
    expect(run.pfn).toBeGreaterThan(0);
    expect(space.frameAt(VPN + 1)).toBe(0);
    expect(told).toEqual([VPN, VPN]);
  });

  it("of a private file's page takes a copy; of a shared one, the file's own frame", () => {
    const { space, run, pin } = world();
    const file = new MemoryFile({ pages: 8 });
    space.mmap({
      vpn: VPN,
      pages: 8,
      backing: { kind: "file", file, filePage: 0, isShared: true },
    });
    space.mmap({
      vpn: VPN + 100,
      pages: 8,
      backing: { kind: "file", file, filePage: 0, isShared: false },
    });
    space.touch(VPN, 8, true);
    space.touch(VPN + 100, 8, false);
    expect(space.frameAt(VPN + 100)).toBe(space.frameAt(VPN));
    pin(VPN, 1);
    expect(run.pfn).toBe(file.frames.entryAt(0) - 1);
    pin(VPN + 100, 1, false);
    expect(run.pfn).not.toBe(space.frameAt(VPN));
    expect(run.pfn).toBe(space.frameAt(VPN + 100));
  });

  it("for writing is refused where a file system tracks who dirties pages", () => {
    const { space, pin } = world();
    const file = new MemoryFile({ pages: 1, tracksDirty: true });
    space.mmap({
      vpn: VPN,
      pages: 1,
      backing: { kind: "file", file, filePage: 0, isShared: true },
    });
    expect(pin(VPN, 1, true)).toBe(Errno.EFAULT);
    expect(pin(VPN, 1, false)).toBe(Errno.OK);
  });

  it("stops at the end of a file with EFAULT", () => {
    const { space, run, pin } = world();
    const file = new MemoryFile({ pages: 3 });
    space.mmap({
      vpn: VPN,
      pages: 8,
      backing: { kind: "file", file, filePage: 1, isShared: true },
    });
    expect(pin(VPN, 8)).toBe(Errno.OK);
    expect([run.pages, run.nextErrno]).toEqual([2, Errno.EFAULT]);
  });

  it("of 2^21 - 1 pins a frame is the most it takes; one more is ENOMEM", () => {
    const table = new FrameTable(contiguousFrames(memory));
    table.hold(512, 4);
    const max = 2 ** 21 - 1;
    for (let count = 0; count < max; count += 1) if (table.pin(513, 1) !== 1) throw new Error();
    expect(table.pin(513, 1)).toBe(0);
    expect(table.pin(512, 4)).toBe(1);
    table.unpin(513, 1, true);
    expect([table.pinsOf(513), table.isDirty(513), table.isDirty(512)]).toEqual([
      max - 1,
      true,
      false,
    ]);
  });

  it("counts a call of GUP for 512 pages and the calls that fail, whatever the runs are", () => {
    const { space, meter, run, pin } = world(scatteredFrames({ ...memory, unitPages: 1, seed: 1 }));
    space.mmap({ vpn: VPN, pages: 1300, backing: anonymous });
    let page = 0;
    while (page < 1300) {
      expect(pin(VPN + page, 1300 - page)).toBe(Errno.OK);
      page += run.pages;
    }
    expect(meter.amount("pinBatch")).toBe(3);
    expect(meter.amount("pagePin")).toBe(1300);
    expect(meter.amount("pageFault")).toBe(1300);
    expect(meter.amount("pinRefused")).toBe(0);
    expect(pin(VPN + 1300, 1)).toBe(Errno.EFAULT);
    expect(meter.amount("pinRefused")).toBe(1);
  });

  it("begun anew where another left off counts a call of its own", () => {
    const { space, meter, pin } = world(scatteredFrames({ ...memory, unitPages: 1, seed: 1 }));
    space.mmap({ vpn: VPN, pages: 100, backing: anonymous });
    pin(VPN, 100);
    pin(VPN + 1, 99);
    expect(meter.amount("pinBatch")).toBe(1);
    pin(VPN + 2, 5);
    expect(meter.amount("pinBatch")).toBe(2);
  });

  it("of contiguous memory counts the same calls of GUP in one run", () => {
    const { space, meter, run, pin } = world();
    space.mmap({ vpn: VPN, pages: 1300, backing: anonymous });
    expect(pin(VPN, 1300)).toBe(Errno.OK);
    expect(run.pages).toBe(1300);
    expect(meter.amount("pinBatch")).toBe(3);
  });
});

describe("frames", () => {
  it("that run out give ENOMEM after what there was", () => {
    const { space, run, pin } = world(contiguousFrames({ basePfn: 1, pages: 3 }));
    space.mmap({ vpn: VPN, pages: 8, backing: anonymous });
    expect(pin(VPN, 8)).toBe(Errno.OK);
    expect([run.pages, run.nextErrno]).toEqual([3, Errno.ENOMEM]);
    expect(pin(VPN + 3, 5)).toBe(Errno.ENOMEM);
    expect(space.touch(VPN + 3, 1, true)).toBe(Errno.ENOMEM);
  });

  it("that are pinned stay taken after their mapping is gone, until the last pin", () => {
    const { frames, space, run, pin } = world();
    space.mmap({ vpn: VPN, pages: 2, backing: anonymous });
    pin(VPN, 2);
    pin(VPN, 1);
    const { pfn } = run;
    expect(space.munmap(VPN, 2)).toBe(Errno.OK);
    expect([...frames.out]).toEqual([pfn, pfn + 1]);
    space.unpin(pfn, 2, false);
    expect([...frames.out]).toEqual([pfn]);
    space.unpin(pfn, 1, true);
    expect(frames.out.size).toBe(0);
  });

  it("discarded while pinned leave the device with one and the process with another", () => {
    const { space, run, pin } = world();
    space.mmap({ vpn: VPN, pages: 1, backing: anonymous });
    pin(VPN, 1);
    const { pfn } = run;
    expect(space.discard(VPN, 1)).toBe(Errno.OK);
    space.touch(VPN, 1, true);
    expect(space.frameAt(VPN)).not.toBe(pfn);
    expect(space.pinsOf(pfn)).toBe(1);
  });

  it("that are pinned are not moved, the others are", () => {
    const { space, pin } = world();
    space.mmap({ vpn: VPN, pages: 5, backing: anonymous });
    space.touch(VPN, 5, true);
    pin(VPN + 2, 1);
    const before = [0, 1, 2, 3, 4].map((page) => space.frameAt(VPN + page));
    expect(space.migrate(VPN, 5)).toBe(4);
    const after = [0, 1, 2, 3, 4].map((page) => space.frameAt(VPN + page));
    expect(after.map((pfn, index) => pfn === before[index])).toEqual([
      false,
      false,
      true,
      false,
      false,
    ]);
  });

  it("of a shared file leave it for all who map it when a range is removed", () => {
    const source = new CheckedFrames(contiguousFrames(memory));
    const spaces = [0, 1].map(() => new AddressSpace({ frames: source }));
    const file = new MemoryFile({ pages: 4 });
    const backing: Backing = { kind: "file", file, filePage: 0, isShared: true };
    const told: string[] = [];
    spaces.forEach((space, index) => {
      space.mmap({ vpn: VPN + index, pages: 4, backing });
      space.addNotifier({ invalidate: (a, b) => told.push(`${index}:${a - VPN}-${b - VPN}`) });
    });
    spaces[0]!.touch(VPN, 4, true);
    expect(spaces[1]!.frameAt(VPN + 1)).toBe(spaces[0]!.frameAt(VPN));
    expect(spaces[0]!.remove(VPN + 1, 2)).toBe(Errno.OK);
    expect(told).toEqual(["0:1-2", "1:2-3"]);
    expect(spaces[1]!.frameAt(VPN + 2)).toBe(-1);
    expect(source.out.size).toBe(2);
  });

  it("are counted once for the machine: all who take from one source see the same pins", () => {
    const source = new CheckedFrames(contiguousFrames(memory));
    const spaces = [0, 1].map(() => new AddressSpace({ frames: source }));
    const run = createPinRun();
    spaces[0]!.mmap({ vpn: VPN, pages: 4, backing: anonymous });
    expect(spaces[0]!.pinRun(VPN, 4, true, 512, run)).toBe(Errno.OK);
    spaces[0]!.munmap(VPN, 4);
    expect([spaces[1]!.pinsOf(run.pfn), source.out.size]).toEqual([1, 4]);
    spaces[1]!.unpin(run.pfn, 4, true);
    expect([spaces[0]!.pinsOf(run.pfn), source.out.size]).toEqual([0, 0]);
  });

  it("of one file come from one source: a space with another one may not map it", () => {
    const spaces = [0, 1].map(() => new AddressSpace({ frames: contiguousFrames(memory) }));
    const file = new MemoryFile({ pages: 4 });
    const backing: Backing = { kind: "file", file, filePage: 0, isShared: true };
    expect(spaces[0]!.mmap({ vpn: VPN, pages: 4, backing })).toBe(Errno.OK);
    expect(() => spaces[1]!.mmap({ vpn: VPN, pages: 4, backing })).toThrow("one source of frames");
    expect([spaces[1]!.mappingCount, file.mappers.size]).toEqual([0, 1]);
  });

  it("come from the node asked for, and from another when it is empty", () => {
    const source = numaFrames(
      new Map([
        [0, contiguousFrames({ basePfn: 100, pages: 10, node: 0 })],
        [1, contiguousFrames({ basePfn: 200, pages: 2, node: 1 })],
      ]),
    );
    const { meter, space } = world(source);
    space.mmap({ vpn: VPN, pages: 3, backing: anonymous, node: 1 });
    space.touch(VPN, 3, true);
    expect([0, 1, 2].map((page) => space.frameAt(VPN + page))).toEqual([200, 201, 100]);
    expect(meter.amountAt("pageFault", 1)).toBe(2);
  });

  it("in a recorded order are taken in that order", () => {
    const runs = [
      { pfn: 0x6110, pages: 2 },
      { pfn: 0x610e, pages: 2 },
      { pfn: 0x611f, pages: 504 },
    ];
    const { space, run, pin } = world(listedFrames(runs));
    space.mmap({ vpn: VPN, pages: 508, backing: huge });
    const seen: (typeof runs)[number][] = [];
    for (let page = 0; page < 508; page += run.pages) {
      expect(pin(VPN + page, 508 - page)).toBe(Errno.OK);
      seen.push({ pfn: run.pfn, pages: run.pages });
    }
    expect(seen).toEqual(runs);
  });
});

describe("huge pages", () => {
  const units = () => scatteredFrames({ basePfn: 512, pages: 2 ** 16, unitPages: 512, seed: 2 });

  it("fill aligned blocks inside the mapping, single pages the rest", () => {
    const { space } = world(units());
    space.mmap({ vpn: VPN - 3, pages: 1030, backing: huge });
    space.touch(VPN - 3, 1030, true);
    for (const block of [VPN, VPN + 512]) {
      const pfn = space.frameAt(block);
      expect(pfn % 512).toBe(0);
      expect(space.frameAt(block + 511)).toBe(pfn + 511);
    }
    expect(space.frameAt(VPN - 1)).toBeGreaterThan(0);
    expect(space.frameAt(VPN + 1026)).toBeGreaterThan(0);
  });

  it("come whole with the first touch, and not where memory is in pieces", () => {
    const whole = world(units());
    whole.space.mmap({ vpn: VPN, pages: 512, backing: huge });
    whole.space.touch(VPN + 100, 1, true);
    expect(whole.frames.out.size).toBe(512);
    const pieces = world(scatteredFrames({ ...memory, unitPages: 256, seed: 2 }));
    pieces.space.mmap({ vpn: VPN, pages: 512, backing: huge });
    pieces.space.touch(VPN + 100, 1, true);
    expect(pieces.frames.out.size).toBe(1);
  });

  it("of the hugetlb pool are mapped, unmapped and discarded whole", () => {
    const { space, pin, run } = world(units());
    const pool: Backing = { kind: "hugetlb", order: 9 };
    expect(space.mmap({ vpn: VPN + 1, pages: 512, backing: pool })).toBe(Errno.EINVAL);
    expect(space.mmap({ vpn: VPN, pages: 100, backing: pool })).toBe(Errno.EINVAL);
    expect(space.mmap({ vpn: VPN, pages: 1024, backing: pool })).toBe(Errno.OK);
    expect(space.munmap(VPN + 1, 512)).toBe(Errno.EINVAL);
    expect(space.discard(VPN, 5)).toBe(Errno.EINVAL);
    expect(space.mprotect(VPN, 5, true, false)).toBe(Errno.EINVAL);
    expect(pin(VPN + 7, 100)).toBe(Errno.OK);
    expect(run.pages).toBe(100);
    expect(space.frameAt(VPN + 511) - space.frameAt(VPN)).toBe(511);
    expect(space.munmap(VPN + 512, 512)).toBe(Errno.OK);
  });

  it("that the pool has run out of give EFAULT, as the SIGBUS they are", () => {
    const { space, pin } = world(contiguousFrames({ basePfn: 512, pages: 600 }));
    space.mmap({ vpn: VPN, pages: 1024, backing: { kind: "hugetlb", order: 9 } });
    expect(pin(VPN, 1)).toBe(Errno.OK);
    expect(pin(VPN + 512, 1)).toBe(Errno.EFAULT);
  });
});

describe("mappings side by side", () => {
  const files = [0, 1].map(() => new MemoryFile({ pages: 100 }));
  const shared = (which: number, filePage: number): Backing => ({
    kind: "file",
    file: files[which]!,
    filePage,
    isShared: true,
  });
  it.each([
    ["alike are one", anonymous, anonymous, {}, 1],
    ["of huge and small pages are two", anonymous, huge, {}, 2],
    ["of unlike rights are two", anonymous, anonymous, { isWritable: false }, 2],
    ["on unlike nodes are two", anonymous, anonymous, { node: 1 }, 2],
    ["that go on in the file are one", shared(0, 3), shared(0, 7), {}, 1],
    ["that jump in the file are two", shared(1, 3), shared(1, 8), {}, 2],
  ] as const)("%s", (_name, below, above, rest, count) => {
    const { space } = world();
    space.mmap({ vpn: VPN, pages: 4, backing: below });
    space.mmap({ vpn: VPN + 4, pages: 4, backing: above, ...rest });
    expect(space.mappingCount).toBe(count);
  });

  it("become one again when rights are given back", () => {
    const { space } = world();
    space.mmap({ vpn: VPN, pages: 9, backing: anonymous });
    space.mprotect(VPN + 3, 3, true, false);
    expect(space.mappingCount).toBe(3);
    space.mprotect(VPN + 3, 3, true, true);
    expect(space.mappingCount).toBe(1);
  });
});

describe("notifiers", () => {
  it("are told while the pages are still there, in the order of registering", () => {
    const { space } = world();
    space.mmap({ vpn: VPN, pages: 4, backing: anonymous });
    space.touch(VPN, 4, true);
    const told: [string, number, number, boolean][] = [];
    const notifier = (name: string) => ({
      invalidate: (first: number, last: number) =>
        told.push([name, first - VPN, last - VPN, space.frameAt(first) > 0]),
    });
    const second = notifier("b");
    space.addNotifier(notifier("a"));
    space.addNotifier(second);
    space.discard(VPN + 1, 2);
    expect(told).toEqual([
      ["a", 1, 2, true],
      ["b", 1, 2, true],
    ]);
    space.removeNotifier(second);
    told.length = 0;
    space.munmap(VPN, 4);
    expect(told).toEqual([["a", 0, 3, true]]);
    space.munmap(VPN, 4);
    expect(told.length).toBe(1);
  });

  it("that change the memory they are told of are a mistake of the program", () => {
    const { space } = world();
    space.mmap({ vpn: VPN, pages: 4, backing: anonymous });
    const notifier = { invalidate: () => void space.munmap(VPN, 1) };
    space.addNotifier(notifier);
    expect(() => space.discard(VPN, 4)).toThrow("a notifier does not change");
    space.removeNotifier(notifier);
    expect(space.discard(VPN, 4)).toBe(Errno.OK);
  });
});

describe("hostile ranges", () => {
  const wild = [
    [0, 2 ** 52],
    [2 ** 52 - 1, 1],
    [2 ** 52 - 1, 2],
    [2 ** 51, 2 ** 51],
    [VPN, 2 ** 52],
    [2 ** 35 - 1, 1],
    [1, 2 ** 35 - 1],
  ] as const;
  const nonsense = [
    [-1, 1],
    [VPN, -5],
    [VPN, 0.5],
    [Number.NaN, 1],
    [VPN, Number.NaN],
    [VPN, Number.POSITIVE_INFINITY],
    [2 ** 60, 2 ** 60],
  ] as const;

  it("outside the address space change nothing and give an errno", () => {
    const { frames, space, pin } = world();
    space.mmap({ vpn: VPN, pages: 1, backing: anonymous });
    for (const [vpn, pages] of [...wild, ...nonsense]) {
      expect(space.mmap({ vpn, pages, backing: anonymous })).not.toBe(Errno.OK);
      expect(space.munmap(vpn, pages)).not.toBe(Errno.OK);
      expect(space.discard(vpn, pages)).not.toBe(Errno.OK);
      expect(space.remove(vpn, pages)).not.toBe(Errno.OK);
      expect(space.touch(vpn, pages, true)).not.toBe(Errno.OK);
      expect(space.mprotect(vpn, pages, true, true)).not.toBe(Errno.OK);
      expect(space.migrate(vpn, pages)).toBe(0);
      if (vpn !== VPN) expect(pin(vpn, pages)).toBe(Errno.EFAULT);
    }
    expect(space.mappingCount).toBe(1);
    expect(frames.out.size).toBe(0);
  });

  it("of a whole address space are mapped and unmapped without a cost a page", () => {
    const { space, run, pin } = world();
    expect(space.mmap({ vpn: 1, pages: 2 ** 35 - 2, backing: anonymous })).toBe(Errno.OK);
    expect(pin(2 ** 34, 2 ** 40)).toBe(Errno.OK);
    expect([run.pages, run.nextErrno]).toEqual([2 ** 16, Errno.ENOMEM]);
    expect(space.munmap(1, 2 ** 35 - 2)).toBe(Errno.OK);
  });

  it("that would make too many mappings give ENOMEM and change nothing", () => {
    const { space } = world();
    for (let index = 0; index <= VMAS_MAX; index += 1)
      expect(space.mmap({ vpn: VPN + index * 4, pages: 3, backing: anonymous })).toBe(Errno.OK);
    expect(space.mmap({ vpn: 1, pages: 1, backing: anonymous })).toBe(Errno.ENOMEM);
    expect(space.munmap(VPN + 1, 1)).toBe(Errno.ENOMEM);
    expect(space.mprotect(VPN, 1, true, false)).toBe(Errno.ENOMEM);
    expect(space.mappingCount).toBe(VMAS_MAX + 1);
    expect(space.munmap(VPN + 2, 1)).toBe(Errno.OK);
    expect(space.mappingCount).toBe(VMAS_MAX + 1);
  });

  it("with a hole are changed as far as the kernel changes them", () => {
    const { space } = world();
    space.mmap({ vpn: VPN, pages: 6, backing: anonymous });
    space.munmap(VPN + 2, 2);
    space.touch(VPN, 2, true);
    space.touch(VPN + 4, 2, true);
    expect(space.discard(VPN, 6)).toBe(Errno.ENOMEM);
    expect([space.frameAt(VPN), space.frameAt(VPN + 4)]).toEqual([-1, -1]);
    expect(space.mprotect(VPN, 6, true, false)).toBe(Errno.ENOMEM);
    expect(space.mappingAt(VPN)?.isWritable).toBe(false);
    expect(space.mappingAt(VPN + 4)?.isWritable).toBe(true);
  });
});

describe("whatever allocation of frames fails", () => {
  /** A source whose n-th take, and all after it, fail. */
  function failing(successes: number): FrameSource {
    const source = scatteredFrames({ ...memory, unitPages: 2, seed: 9 });
    let left = successes;
    return {
      get takenPages() {
        return source.takenPages;
      },
      take: (pages, node) => (left-- > 0 ? source.take(pages, node) : -1),
      takeBlock: () => -1,
      give: (pfn, pages) => source.give(pfn, pages),
      nodeOf: (pfn) => source.nodeOf(pfn),
    };
  }

  it("nothing is lost: all that was pinned can be unpinned, and every frame goes back", () => {
    for (let successes = 0; successes < 12; successes += 1) {
      const { frames, space, run, pin } = world(failing(successes));
      const file = new MemoryFile({ pages: 8 });
      const shared: Backing = { kind: "file", file, filePage: 0, isShared: true };
      space.mmap({ vpn: VPN, pages: 6, backing: anonymous });
      space.mmap({ vpn: VPN + 6, pages: 6, backing: shared });
      space.mmap({ vpn: VPN + 12, pages: 6, backing: huge });
      space.touch(VPN, 2, false);
      const pinned: [number, number][] = [];
      let page = 0;
      let errno: number = Errno.OK;
      while (page < 18 && errno === Errno.OK) {
        errno = pin(VPN + page, 18 - page);
        if (errno !== Errno.OK) break;
        pinned.push([run.pfn, run.pages]);
        page += run.pages;
        errno = run.nextErrno;
      }
      expect(errno).toBe(page === 18 ? Errno.OK : Errno.ENOMEM);
      expect(frames.out.size).toBeGreaterThanOrEqual(page);
      space.munmap(VPN, 18);
      for (const [pfn, pages] of pinned) space.unpin(pfn, pages, true);
      space.mmap({ vpn: VPN, pages: 8, backing: shared });
      expect(space.remove(VPN, 8)).toBe(Errno.OK);
      expect(frames.out.size).toBe(0);
    }
  });
});
