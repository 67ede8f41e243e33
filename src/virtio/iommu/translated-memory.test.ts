/** An endpoint's memory behind the device: V67–V71, V87, V88, V107–V123, against a plain twin. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SegmentCollector } from "../../memory/device-memory.ts";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { newView } from "../../memory/memory-view.ts";
import { CountingMeter } from "../../meter.ts";
import { X86_MSI_REGION } from "./device-config.ts";
import { Rig } from "./device-rig.suite.ts";
import { IommuTlb } from "./iommu-tlb.ts";
import { FaultRecord } from "./protocol.ts";
import { TranslatedMemory } from "./translated-memory.ts";

const PAGE = 0x1000;
const EP = 8;
const READ = 1;
const WRITE = 2;

interface World {
  readonly rig: Rig;
  readonly memory: GuestMemory;
  readonly seen: TranslatedMemory;
  readonly meter: CountingMeter;
  readonly messages: number[][];
}

function world(settings: ConstructorParameters<typeof Rig>[0] = {}): World {
  const endpoints = [{ id: EP, reserved: [X86_MSI_REGION] }, { id: 16 }];
  const rig = new Rig({ pageSizeMask: 0xffff_ffff_ffff_f000n, endpoints, ...settings });
  const memory = new GuestMemory();
  memory.addRegion({ start: 0x10_0000, bytes: 0x10_0000 });
  const meter = new CountingMeter();
  const messages: number[][] = [];
  const seen = new TranslatedMemory({
    tlb: new IommuTlb(rig.device, meter),
    endpoint: EP,
    memory,
    onMessage: (address, data) => messages.push([address, data]),
  });
  return { rig, memory, seen, meter, messages };
}

/** Takes the fault records as text. */
function faults(rig: Rig): string[] {
  const view = new DataView(new ArrayBuffer(24));
  const records: string[] = [];
  for (const { faults: log } = rig.device; log.count > 0; log.removeFirst()) {
    log.encodeFirst(view);
    const { reason, flags, endpoint, address } = FaultRecord.decode(view, 0);
    records.push(`${reason} ${flags.toString(16)} ${endpoint} ${address.toString(16)}`);
  }
  return records;
}

const map = (rig: Rig, iova: number, gpa: number, pages = 1, flags = 3): string =>
  rig.map(1, BigInt(iova), BigInt(iova + pages * PAGE - 1), BigInt(gpa), flags);

describe("an access", () => {
  it("goes to the page that is mapped, then through the IOTLB (V67)", () => {
    const { rig, memory, seen, meter } = world();
    rig.attach(1, EP);
    map(rig, 0x5000, 0x10_3000);
    memory.writeU32(0x10_3010, 0x1234_5678);
    const copy = newView(8);
    expect(seen.copyOut(0x5010, copy, 0, 4)).toBe(true);
    expect(copy.u32[0]).toBe(0x1234_5678);
    expect([meter.amount("iotlbMiss"), meter.amount("iotlbHit")]).toEqual([1, 0]);
    copy.u32[0] = 7;
    expect(seen.copyOut(0x5020, copy, 0, 4)).toBe(true);
    expect([meter.amount("iotlbMiss"), meter.amount("iotlbHit")]).toEqual([1, 1]);
    expect(seen.locate(0x5030, 4, false)?.u8.length).toBeGreaterThan(0);
    expect(seen.locate(0x5030, 4, true)).toBe(null);
    expect(faults(rig)).toEqual([]);
  });

  it("crosses mappings whose pages are apart in memory (V70)", () => {
    const { rig, memory, seen } = world();
    rig.attach(1, EP);
    map(rig, 0x5000, 0x10_3000);
    map(rig, 0x6000, 0x10_9000);
    map(rig, 0x7000, 0x10_a000);
    const source = newView(0x2100);
    for (let at = 0; at < 0x2100; at += 1) source.u8[at] = at * 7;
    expect(seen.copyIn(0x5f80, source, 0, 0x2000)).toBe(true);
    expect(memory.readU8(0x10_3fff)).toBe((0x7f * 7) & 0xff);
    expect(memory.readU8(0x10_9000)).toBe((0x80 * 7) & 0xff);
    const list = new SegmentCollector();
    expect(seen.collect(0x5f80, 0, 0x2000, false, list)).toBe(true);
    expect(list.segments.map((segment) => segment.bytes)).toEqual([0x80, 0x1f80]);
    const copy = newView(0x2000);
    expect(seen.copyOut(0x5f80, copy, 0, 0x2000)).toBe(true);
    expect(copy.u8).toEqual(source.u8.slice(0, 0x2000));
  });

  it("that is refused in the middle moves nothing and names the first byte, once (V71, V123)", () => {
    const { rig, memory, seen } = world();
    rig.attach(1, EP);
    map(rig, 0x5000, 0x10_3000);
    map(rig, 0x7000, 0x10_4000);
    const source = newView(0x3000);
    source.u8.fill(0xff);
    expect(seen.copyIn(0x5800, source, 0, 0x2000)).toBe(false);
    expect(memory.readU8(0x10_3800)).toBe(0);
    expect(faults(rig)).toEqual(["2 102 8 6000"]);
    expect(seen.copyOut(0x4ff0, source, 0, 0x20)).toBe(false);
    expect(faults(rig)).toEqual(["2 101 8 4ff0"]);
    const list = new SegmentCollector();
    expect(seen.collect(0x5000, 0, 0x1001, true, list)).toBe(false);
    expect(list.bytes).toBe(0);
    expect(faults(rig)).toEqual(["2 102 8 6000"]);
  });

  it("needs the right that it uses, whatever was cached for another (V68)", () => {
    const { rig, seen } = world();
    rig.attach(1, EP);
    map(rig, 0x5000, 0x10_3000, 1, READ);
    map(rig, 0x6000, 0x10_4000, 1, WRITE);
    const view = newView(8);
    expect(seen.copyOut(0x5000, view, 0, 8)).toBe(true);
    expect(seen.copyIn(0x5000, view, 0, 8)).toBe(false);
    expect(seen.copyIn(0x6000, view, 0, 8)).toBe(true);
    expect(seen.copyOut(0x6000, view, 0, 8)).toBe(false);
    expect(faults(rig)).toEqual(["2 102 8 5000", "2 101 8 6000"]);
  });

  it("of an endpoint that is in no domain is a DOMAIN fault, or passes by bypass (V107, V109)", () => {
    const { rig, seen, memory } = world();
    const view = newView(8);
    expect(seen.copyOut(0x10_0000, view, 0, 8)).toBe(false);
    expect(faults(rig)).toEqual(["1 101 8 100000"]);
    rig.device.writeConfig(36, Uint8Array.of(1));
    memory.writeU8(0x10_0000, 5);
    expect(seen.copyOut(0x10_0000, view, 0, 8)).toBe(true);
    expect(view.u8[0]).toBe(5);
    rig.attach(1, EP, 1);
    expect(seen.copyOut(0x10_0000, view, 0, 8)).toBe(true);
    rig.device.writeConfig(36, Uint8Array.of(0));
    expect(seen.copyOut(0x10_0000, view, 0, 8)).toBe(true);
    rig.detach(1, EP);
    expect(seen.copyOut(0x10_0000, view, 0, 8)).toBe(false);
  });

  it("to what is no memory is refused and reported as UNKNOWN (V65, V119)", () => {
    const { rig, seen } = world();
    rig.attach(1, EP);
    map(rig, 0x5000, 0x1f_f000, 2);
    map(rig, 0x1_0000, 0xfe00_0000);
    rig.map(1, 0x2_0000n, 0x2_0fffn, 2n ** 63n);
    const view = newView(0x2000);
    view.u8.fill(1);
    expect(seen.copyIn(0x5800, view, 0, 0x1000)).toBe(false);
    expect(seen.copyOut(0x1_0010, view, 0, 4)).toBe(false);
    expect(seen.copyOut(0x2_0000, view, 0, 4)).toBe(false);
    expect(faults(rig)).toEqual(["0 102 8 6000", "0 101 8 10010", "0 101 8 20000"]);
    expect(seen.copyIn(0x5800, view, 0, 0x800)).toBe(true);
    expect(faults(rig)).toEqual([]);
  });

  it("to the doorbell of interrupts is a message when it writes 4 bytes, else nothing (V113)", () => {
    const { rig, seen, messages } = world();
    const view = newView(0x2000);
    view.u32[0] = 0x4041;
    for (const flags of [0, 1]) {
      rig.attach(1, EP, flags);
      expect(seen.copyIn(0xfee0_1004, view, 0, 4)).toBe(true);
      expect(messages.splice(0)).toEqual([[0xfee0_1004, 0x4041]]);
      for (const [address, length] of [
        [0xfee0_1002, 4],
        [0xfee0_1004, 2],
        [0xfee0_0ffe, 4],
        [0xfee0_0000, 0x1800],
      ] as const)
        expect(seen.copyIn(address, view, 0, length)).toBe(false);
      expect(seen.copyOut(0xfee0_1004, view, 0, 4)).toBe(false);
      expect(seen.locate(0xfee0_1004, 4, true)).toBe(null);
      const list = new SegmentCollector();
      expect(seen.collect(0xfee0_1004, 0, 4, true, list)).toBe(false);
      expect(messages).toEqual([]);
      rig.detach(1, EP);
    }
  });

  it("at the top of the 64-bit space translates, and past it is refused", () => {
    const { rig, seen, memory } = world();
    rig.attach(1, EP);
    rig.map(1, 2n ** 64n - 0x1000n, 2n ** 64n - 1n, 0x10_3000n);
    memory.writeU32(0x10_3ffc, 9);
    const view = newView(8);
    expect(seen.copyOutHalves(0xffff_fffc, 0xffff_ffff, view, 0, 4)).toBe(true);
    expect(view.u32[0]).toBe(9);
    expect(seen.copyOutHalves(0xffff_fffc, 0xffff_ffff, view, 0, 8)).toBe(false);
    expect(seen.copyInHalves(0xffff_fffc, 0xffff_ffff, view, 0, 8)).toBe(false);
    expect(faults(rig)).toEqual(["2 101 8 fffffffffffffffc", "2 102 8 fffffffffffffffc"]);
    expect(seen.copyOut(2 ** 53, view, 0, 1)).toBe(false);
    expect(seen.copyIn(Number.NaN, view, 0, 1)).toBe(false);
    expect(seen.locate(-1, 1, false)).toBe(null);
  });
});

describe("a window", () => {
  it("is void after its page is unmapped, and only then (V88)", () => {
    const { rig, seen } = world();
    rig.attach(1, EP);
    map(rig, 0x5000, 0x10_3000);
    map(rig, 0x6000, 0x10_4000);
    map(rig, 0x7000, 0x10_5000);
    expect(seen.window(0x6000, 0x1000, true)).not.toBe(null);
    const before = seen.generation;
    rig.unmap(1, 0x5000n, 0x5fffn);
    map(rig, 0x5000, 0x10_3000);
    rig.unmap(1, 0x7000n, 0x7fffn);
    expect(seen.generation).toBe(before);
    rig.unmap(1, 0x6000n, 0x6fffn);
    expect(seen.generation).toBeGreaterThan(before);
    expect(seen.window(0x6000, 0x1000, true)).toBe(null);
    const refused = seen.generation;
    map(rig, 0x6000, 0x10_9000);
    expect(seen.generation).toBeGreaterThan(refused);
    expect(seen.window(0x6000, 0x1000, true)).not.toBe(null);
  });

  it("is void after the endpoint moves, is reset, or guest memory changes", () => {
    const { rig, seen, memory } = world();
    const changes: (() => void)[] = [
      () => rig.attach(2, EP),
      () => rig.detach(2, EP),
      () => rig.device.writeConfig(36, Uint8Array.of(1)),
      () => rig.attach(1, EP),
      () => rig.device.reset(),
      () => rig.device.systemReset(),
      () => memory.addRegion({ start: 0x30_0000, bytes: 0x1000 }),
    ];
    rig.attach(1, EP);
    for (const [index, change] of changes.entries()) {
      const before = seen.generation;
      change();
      if (index !== 5) expect(seen.generation, `change ${index}`).toBeGreaterThan(before);
    }
  });
});

it("a device whose mappings end inside of pages is asked each time", () => {
  const { rig, seen, meter, memory } = world({ pageSizeMask: 1n });
  rig.attach(1, EP);
  rig.map(1, 0x100n, 0x1ffn, 0x10_0300n);
  rig.map(1, 0x200n, 0x2ffn, 0x10_0900n);
  memory.writeU8(0x10_03ff, 3);
  memory.writeU8(0x10_0900, 4);
  const view = newView(8);
  expect(seen.copyOut(0x1ff, view, 0, 2)).toBe(true);
  expect([view.u8[0], view.u8[1]]).toEqual([3, 4]);
  expect(seen.copyOut(0xff, view, 0, 2)).toBe(false);
  expect(meter.amount("iotlbHit")).toBe(0);
});

it("an endpoint's memory equals a plain translation under random changes and accesses", () => {
  const pages = 12;
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("map" as const),
      page: fc.nat(pages - 1),
      to: fc.nat(19),
      flags: fc.nat(3),
    }),
    fc.record({ kind: fc.constant("unmap" as const), page: fc.nat(pages - 1), count: fc.nat(4) }),
    fc.record({ kind: fc.constant("attach" as const), domain: fc.nat(2) }),
    fc.record({ kind: fc.constant("detach" as const), domain: fc.nat(2) }),
    fc.record({
      kind: fc.constantFrom("in" as const, "out" as const, "collect" as const, "locate" as const),
      address: fc.nat(pages * PAGE),
      length: fc.oneof(fc.nat(16), fc.nat(3 * PAGE)),
      write: fc.boolean(),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { rig, seen, memory } = world();
      const domains = new Map<number, Map<number, { to: number; flags: number }>>();
      let domain = -1;
      const flat = new Uint8Array(0x20_0000 + 8 * PAGE);
      /** Where a byte goes by the plain rules, or −1. */
      const where = (address: number, access: number): number => {
        const page = domains.get(domain)?.get(Math.floor(address / PAGE));
        if (page === undefined || (page.flags & access) !== access) return -1;
        return page.to * PAGE + (address % PAGE);
      };
      let value = 1;
      for (const action of steps) {
        if (action.kind === "map") {
          // The last few lie outside of guest memory.
          const to = 0x100 + action.to * 16;
          const isNew = rig.map(
            Math.max(domain, 0),
            BigInt(action.page * PAGE),
            BigInt(action.page * PAGE + PAGE - 1),
            BigInt(to * PAGE),
            action.flags,
          );
          if (isNew === "OK") domains.get(domain)!.set(action.page, { to, flags: action.flags });
        } else if (action.kind === "unmap") {
          const last = action.page + action.count;
          const start = BigInt(action.page * PAGE);
          const done = rig.unmap(Math.max(domain, 0), start, BigInt(last * PAGE + PAGE - 1));
          if (done === "OK")
            for (let page = action.page; page <= last; page += 1) domains.get(domain)!.delete(page);
        } else if (action.kind === "attach") {
          if (action.domain === domain) continue;
          rig.attach(action.domain, EP);
          domains.clear();
          domain = action.domain;
          domains.set(domain, new Map());
        } else if (action.kind === "detach") {
          if (rig.detach(action.domain, EP) !== "OK") continue;
          domains.clear();
          domain = -1;
        } else {
          const { kind, address, length, write } = action;
          const isWrite = kind === "in" || (kind !== "out" && write);
          const targets: number[] = [];
          for (let at = 0; at < length; at += 1)
            targets.push(where(address + at, isWrite ? WRITE : READ));
          const isFine = targets.every((target) => target >= 0x10_0000 && target < 0x20_0000);
          faults(rig);
          if (kind === "in") {
            const source = newView(length + 8);
            for (let at = 0; at < length; at += 1) source.u8[at] = value++;
            expect(seen.copyIn(address, source, 0, length)).toBe(isFine);
            if (isFine) for (const [at, target] of targets.entries()) flat[target] = source.u8[at]!;
          } else if (kind === "out") {
            const target = newView(length + 8);
            expect(seen.copyOut(address, target, 0, length)).toBe(isFine);
            if (isFine)
              expect([...target.u8.subarray(0, length)]).toEqual(targets.map((at) => flat[at]));
          } else if (kind === "collect") {
            const list = new SegmentCollector();
            expect(seen.collect(address, 0, length, isWrite, list)).toBe(isFine);
            const bytes = list.segments.flatMap((part) => [
              ...part.view.u8.subarray(part.at, part.at + part.bytes),
            ]);
            if (isFine) expect(bytes).toEqual(targets.map((at) => flat[at]));
          } else {
            const view = seen.locate(address, length, isWrite);
            expect(faults(rig)).toEqual([]);
            if (view === null || length === 0) continue;
            expect(isFine).toBe(true);
            const bytes = [...view.u8.subarray(seen.at, seen.at + length)];
            expect(bytes).toEqual(targets.map((at) => flat[at]));
            continue;
          }
          expect(faults(rig).length).toBe(isFine ? 0 : 1);
        }
      }
      expect(memory.readU8(0x10_0000)).toBe(flat[0x10_0000]);
    }),
    { seed: 61_009, numRuns: 400 },
  );
});
