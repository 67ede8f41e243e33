import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_CONFIG, readConfig } from "./config-space.ts";
import type { HostFile } from "./tree.ts";

/** A file of these bytes that notes what is read. */
function fileOf(bytes: Uint8Array): HostFile & { reads: [number, number][] } {
  const reads: [number, number][] = [];
  return {
    reads,
    read(at, count) {
      reads.push([at, count]);
      return bytes.subarray(at, at + count);
    },
    close() {},
  };
}

interface Words {
  readonly [at: number]: number;
}

/** Configuration space with these 32-bit words. */
function space(words: Words, bytes = 4096): Uint8Array {
  const view = new DataView(new ArrayBuffer(bytes));
  for (const [at, word] of Object.entries(words)) view.setUint32(Number(at), word >>> 0, true);
  return new Uint8Array(view.buffer);
}

const EXPRESS_ENDPOINT = {
  0: 0x0010_1b36,
  4: 0x10_0000,
  8: 0x0108_0202,
  52: 0x40,
  64: 0x0002_0010,
};

describe("configuration space", () => {
  it("of a port: buses, windows, port type, ACS", () => {
    const facts = readConfig(
      fileOf(
        space({
          0: 0x000c_1b36,
          4: 0x10_0000,
          8: 0x0604_0000,
          12: 0x0081_0000,
          24: 0x0022_2120,
          28: 0x0000_1010,
          32: 0xfe90_fe80,
          36: 0x8011_8001,
          40: 4,
          44: 4,
          52: 0x54,
          84: 0x0142_0010,
          256: 0x0001_000d,
          260: 0x001d_005f,
        }),
      ),
    );
    expect(facts).toMatchObject({
      header: "bridge",
      secondaryBus: 0x21,
      subordinateBus: 0x22,
      isMultifunction: true,
      portType: "root-port",
      acs: { capability: 0x5f, control: 0x1d },
      configRead: "extended",
      windows: [
        { kind: "io", start: 0x1000n, last: 0x1fffn },
        { kind: "memory", start: 0xfe80_0000n, last: 0xfe9f_ffffn },
        { kind: "prefetchable", start: 0x4_8000_0000n, last: 0x4_801f_ffffn },
      ],
    });
  });

  it("of an endpoint: ATS, PRI, PASID and SR-IOV, as the registers have them", () => {
    const facts = readConfig(
      fileOf(
        space({
          ...EXPRESS_ENDPOINT,
          256: 0x1101_000f,
          260: 0x8003_0020,
          272: 0x1301_0013,
          276: 0x8000_0001,
          280: 64,
          284: 32,
          304: 0x1401_001b,
          308: 0x0001_1406,
          320: 0x0001_0010,
          332: 0x0040_0000,
          336: 4,
          340: 0x0002_0080,
          344: 0x154c_0000,
        }),
      ),
    );
    expect(facts.ats).toEqual({ enabled: true, queueDepth: 32, pageAligned: true, unitShift: 15 });
    expect(facts.pri).toEqual({
      enabled: true,
      requestsMax: 64,
      requestsAllocated: 32,
      pasidRequired: true,
    });
    expect(facts.pasid).toEqual({ enabled: true, bits: 20, execute: true, privileged: true });
    expect(facts.sriov).toEqual({
      totalVfs: 0x40,
      vfs: 4,
      firstVfOffset: 0x80,
      vfStride: 2,
      vfDevice: 0x154c,
    });
  });

  it("of a port with wide ACS registers: control stands 8 bytes in", () => {
    const words = { 0: 0xa110_8086, 4: 0x10_0000, 12: 0x0001_0000, 52: 0x40, 64: 0x0042_0010 };
    const facts = readConfig(
      fileOf(space({ ...words, 256: 0x0001_000d, 260: 0x0000_001f, 264: 0x1d })),
    );
    expect(facts.acs).toEqual({ capability: 0x1f, control: 0x1d });
  });

  it("cut short says how much of it was read", () => {
    const whole = space(EXPRESS_ENDPOINT);
    const read = (bytes: number) => readConfig(fileOf(whole.subarray(0, bytes))).configRead;
    expect([0, 63, 64, 256, 4096].map(read)).toEqual([
      "none",
      "none",
      "header",
      "conventional",
      "extended",
    ]);
    expect(readConfig(fileOf(whole.subarray(0, 40)))).toEqual(NO_CONFIG);
  });

  it("with a ring of capabilities is left in the end", () => {
    const ring = space({ ...EXPRESS_ENDPOINT, 64: 0x0002_5001, 80: 0x0000_4001 });
    expect(readConfig(fileOf(ring)).portType).toBe("conventional");
    const extended = space({ ...EXPRESS_ENDPOINT, 256: 0x2001_0001, 512: 0x1001_0002 });
    const file = fileOf(extended);
    expect(readConfig(file).configRead).toBe("extended");
    expect(file.reads.length).toBeLessThan(1100);
  });

  it("is read in small pieces, and never where serial numbers and vital data are", () => {
    // Serial number at 0x100, vital product data at 0x60.
    const bytes = space({
      ...EXPRESS_ENDPOINT,
      64: 0x0002_6010,
      96: 0x0000_0003,
      100: 0x5345_4352,
      256: 0x1501_0003,
      260: 0xdead_beef,
      264: 0xdead_beef,
      336: 0x0001_000d,
    });
    const file = fileOf(bytes);
    readConfig(file);
    const touched = (at: number) =>
      file.reads.some(([from, count]) => from <= at && at < from + count);
    expect([0x104, 0x108, 0x10b].map(touched)).toEqual([false, false, false]);
    expect(file.reads.reduce((sum, [, count]) => sum + count, 0)).toBeLessThan(128);
  });

  it("of any bytes is read without a crash and without an end", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.boolean(), (bytes, hasCaps) => {
        if (hasCaps && bytes.length > 0x40) {
          bytes[6] = 0x10;
          bytes[0x34] = 0x40;
          bytes[0x40] = 0x10;
        }
        const file = fileOf(bytes);
        readConfig(file);
        expect(file.reads.length).toBeLessThan(2100);
      }),
      { numRuns: 300 },
    );
  });
});
