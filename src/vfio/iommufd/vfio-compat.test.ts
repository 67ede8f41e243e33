import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { Random } from "../../random.ts";
import { viewOf } from "../../wire/layout.ts";
import { decodeChain } from "../uapi/capability-chain.ts";
import { CapabilityId, DmaMap, Type1Info, Type1Request } from "../uapi/type1.ts";
import type { IommufdFile } from "./iommufd-file.ts";
import { differenceOf, randomCall, Side } from "./vfio-compat.suite.ts";

const UNLIMITED = Number.POSITIVE_INFINITY;

/** Differences that random calls find between type1 and iommufd. */
function differences(type: number, calls: number): string[] {
  const random = new Random(type);
  const seen = new Set<string>();
  // Without a limit, and with one that is met now and then.
  for (const memlockPages of [UNLIMITED, 20]) {
    const type1 = new Side(false, type, memlockPages);
    const iommufd = new Side(true, type, memlockPages);
    for (let step = 0; step < calls; step += 1) {
      const call = randomCall(random);
      const [before, after] = [type1.call(call), iommufd.call(call)];
      const agrees = type1.state() === iommufd.state();
      if (before !== after) seen.add(differenceOf(call, before, after));
      else if (!agrees) seen.add(`${differenceOf(call, before, after)} | other pages`);
      if (before === after && agrees) continue;
      type1.clear();
      iommufd.clear();
    }
  }
  return [...seen].sort();
}

/** Rows of the table of differences for one version of type1. */
function documented(version: string): string[] {
  const rows = [
    ...readFileSync("docs/iommufd.md", "utf8").matchAll(/^\| (v1|v2|v1, v2) \| (.+) \|$/gm),
  ];
  return rows
    .filter(([, on]) => on!.includes(version))
    .map(([, , rest]) => rest!.split(" | ").slice(0, 3).join(" | "))
    .sort();
}

/** GET_INFO with room for everything. */
function info(side: Side) {
  const argument = new Uint8Array(256);
  viewOf(argument).setUint32(0, 256, true);
  const { errno, bytes } = side.task.ioctl(side.container, Type1Request.GET_INFO, argument);
  expect(errno).toBe(Errno.OK);
  const head = Type1Info.decode(viewOf(bytes!));
  return { head, chain: decodeChain(bytes!, head.capOffset) };
}

function map(side: Side, page: bigint, pages: bigint): number {
  const at = page << 12n;
  const call = { argsz: 32, flags: 3, vaddr: at, iova: at, size: pages << 12n };
  return side.task.ioctl(side.container, Type1Request.MAP_DMA, DmaMap.bytesOf(call)).errno;
}

describe("containers on iommufd", () => {
  it.each([
    ["v1", 1],
    ["v2", 3],
  ] as const)(
    "differ from type1 %s in the rows of the document, and in no other",
    (version, type) => {
      expect(differences(type, 4000)).toEqual(documented(version));
    },
  );

  it("tell their page sizes and ranges as type1 does, no MIGRATION, and no limit of mappings", () => {
    const [type1, iommufd] = [new Side(false, 3, UNLIMITED), new Side(true, 3, UNLIMITED)];
    const [before, after] = [info(type1), info(iommufd)];
    expect(after.head.iovaPgsizes).toBe(before.head.iovaPgsizes);
    expect([before.head.argsz, after.head.argsz]).toEqual([256, 24 + 16 + 16 + 2 * 16]);
    const ids = (chain: readonly { id: number }[]) => chain.map(({ id }) => id);
    expect(ids(before.chain)).toEqual([
      CapabilityId.MIGRATION,
      CapabilityId.DMA_AVAIL,
      CapabilityId.IOVA_RANGE,
    ]);
    expect(ids(after.chain)).toEqual([CapabilityId.DMA_AVAIL, CapabilityId.IOVA_RANGE]);
    const ranges = (chain: typeof after.chain) => chain.at(-1)!.bytes.slice(8, 48);
    expect(ranges(after.chain)).toEqual(ranges(before.chain));
    expect(viewOf(after.chain[0]!.bytes).getUint32(8, true)).toBe(0xffff_ffff);
  });

  it("hold more mappings than type1 may (ENOSPC)", () => {
    const errnos = [false, true].map((isIommufd) => {
      const side = new Side(isIommufd, 3, UNLIMITED);
      for (let page = 64n; page < 64n + 65_535n; page += 1n) {
        if (map(side, page, 1n) !== Errno.OK) return -1;
      }
      return map(side, 2n ** 20n + 1024n, 1n);
    });
    expect(errnos).toEqual([Errno.ENOSPC, Errno.OK]);
  });

  it("charge nothing with CAP_IPC_LOCK, where type1 counts on", () => {
    const locked = [false, true].map((isIommufd) => {
      const side = new Side(isIommufd, 3, 0);
      side.task.process.canLock = true;
      expect(map(side, 8n, 4n)).toBe(Errno.OK);
      return side.lockedPages;
    });
    expect(locked).toEqual([4, 0]);
  });

  it("find a hole before they find that the limit is passed", () => {
    const errnos = [false, true].map((isIommufd) => map(new Side(isIommufd, 3, 2), 1n, 8n));
    expect(errnos).toEqual([Errno.ENOMEM, Errno.EFAULT]);
  });

  it("need an IOAS (ENODEV), a buffer that is there (EFAULT) and a type that exists", () => {
    const side = new Side(true, 3, UNLIMITED);
    const file = side.task.descriptors.find(side.container)!.operations as IommufdFile;
    const call = (request: number, argument: number | Uint8Array) =>
      file.ioctl(side.task, request, argument).errno;
    expect(call(Type1Request.MAP_DMA, new Uint8Array(31))).toBe(Errno.EFAULT);
    expect(call(Type1Request.UNMAP_DMA, 5)).toBe(Errno.EFAULT);
    expect(call(0x3b66, 6)).toBe(Errno.EINVAL);
    file.iommufd.vfioIoas = null;
    expect(call(0x3b66, 3)).toBe(Errno.ENODEV);
    expect(call(0x3b65, 4)).toBe(Errno.ENODEV);
    expect(map(side, 8n, 4n)).toBe(Errno.ENODEV);
    expect(call(0x3b64, 0)).toBe(Errno.OK);
  });
});
