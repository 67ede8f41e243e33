/** A mechanism with a planted mistake is found by the bundled recordings. */
import { afterEach, describe, expect, it, vi } from "vitest";
import type { UserProcess } from "../../vfio/process/user-process.ts";
import type { MapRequest } from "../../vfio/type1/map.ts";
import type { Type1 } from "../../vfio/type1/type1.ts";
import type { UnmapRequest } from "../../vfio/type1/unmap.ts";
import { TYPE1_VECTORS, vectorText } from "./vfio-checking.suite.ts";

afterEach(() => {
  vi.doUnmock("../../vfio/type1/map.ts");
  vi.doUnmock("../../vfio/type1/unmap.ts");
  vi.doUnmock("../../vfio/process/user-process.ts");
  vi.resetModules();
});

/** Rows that diverge in each vector, with modules as they are mocked now. */
async function divergences(): Promise<number[]> {
  vi.resetModules();
  const { VfioType1Checker } = await import("./vfio-type1-checker.ts");
  return TYPE1_VECTORS.map((name) => {
    const checker = new VfioType1Checker(name);
    checker.push(new TextEncoder().encode(vectorText(name)));
    return checker.end().tally.unwaived;
  });
}

type MapDma = (type1: Type1, process: UserProcess, request: MapRequest) => number;
type UnmapDma = (type1: Type1, request: UnmapRequest, ...rest: unknown[]) => number;

function mockMap(wrap: (original: MapDma) => MapDma): void {
  vi.doMock("../../vfio/type1/map.ts", async (original) => {
    const real = await original<{ mapDma: MapDma }>();
    return { ...real, mapDma: wrap(real.mapDma) };
  });
}

function mockUnmap(wrap: (original: UnmapDma) => UnmapDma): void {
  vi.doMock("../../vfio/type1/unmap.ts", async (original) => {
    const real = await original<{ unmapDma: UnmapDma }>();
    return { ...real, unmapDma: wrap(real.unmapDma) };
  });
}

describe("a planted mistake", () => {
  it("none: nothing diverges", async () => {
    expect(await divergences()).toEqual(TYPE1_VECTORS.map(() => 0));
  });

  it("ENOSPC before EEXIST: found where mappings run out (row 7)", async () => {
    mockMap((mapDma) => (type1, process, request) => {
      const errno = mapDma(type1, process, request);
      return errno === 17 && type1.dmaAvail === 0 ? 28 : errno;
    });
    const found = await divergences();
    expect(found[TYPE1_VECTORS.indexOf("vfio-virtio-limit4-v2-seed101.jsonl.gz")]).toBeGreaterThan(
      0,
    );
  });

  it("EEXIST one page too far: found in every recording of v2", async () => {
    mockMap((mapDma) => (type1, process, request) => {
      const above = type1.mappings.find(request.iovaPfn + request.pages);
      const errno = mapDma(type1, process, request);
      return errno === 0 && above !== null && (request.flags & 4) === 0 ? 17 : errno;
    });
    const found = await divergences();
    for (const [index, name] of TYPE1_VECTORS.entries()) {
      if (/-v2-seed/.test(name)) expect([name, found[index]! > 0]).toEqual([name, true]);
    }
  });

  it("locked pages charged once for each page, not for each mapping: found with a limit (row 13)", async () => {
    vi.doMock("../../vfio/process/user-process.ts", async (original) => {
      const real = await original<{ UserProcess: typeof UserProcess }>();
      class Forgiving extends real.UserProcess {
        override charge(pages: number, canLock: boolean): number {
          return super.charge(pages, canLock || this.lockedPages > 0);
        }
      }
      return { ...real, UserProcess: Forgiving };
    });
    const found = await divergences();
    for (const [index, name] of TYPE1_VECTORS.entries()) {
      const hasLimit = name.includes("memlock");
      expect([name, found[index]! > 0]).toEqual([name, hasLimit]);
    }
  });

  it("the size after a failed unmap set to 0: found in every recording (row 19)", async () => {
    vi.doMock("../../vfio/type1/ioctl.ts", async (original) => {
      const real = await original<typeof import("../../vfio/type1/ioctl.ts")>();
      const type1Ioctl: typeof real.type1Ioctl = (type1, caller, request, bytes) => {
        const told = real.type1Ioctl(type1, caller, request, bytes);
        if (request !== 0x3b72 || told.errno === 0) return told;
        const out = bytes.slice();
        out.fill(0, 16, 24);
        return { errno: told.errno, bytes: out };
      };
      return { ...real, type1Ioctl };
    });
    const found = await divergences();
    vi.doUnmock("../../vfio/type1/ioctl.ts");
    for (const count of found) expect(count).toBeGreaterThan(0);
  });

  it("v1 unmaps by v2's rules: found in the recordings of v1 alone (row 27)", async () => {
    mockUnmap((unmapDma) => (type1, request, ...rest) => {
      const { isV2 } = type1;
      Object.assign(type1, { isV2: true });
      const errno = unmapDma(type1, request, ...rest);
      Object.assign(type1, { isV2 });
      return errno;
    });
    const found = await divergences();
    const v1 = TYPE1_VECTORS.map((name) => name.includes("-v1-"));
    expect(found.map((count) => count > 0)).toEqual(v1);
  });
});
