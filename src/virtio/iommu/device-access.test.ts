/** Bypass, accesses and fault records: V107–V114, V117–V123. */
import { describe, expect, it } from "vitest";
import { Rig } from "./device-rig.suite.ts";
import { FaultFlag, FaultReason, FEATURES_ALL, featureSet } from "./protocol.ts";

const LAST = 2n ** 64n - 1n;
const READ = 1;
const WRITE = 2;
const LEGACY = featureSet("MAP_UNMAP", "BYPASS");

describe("bypass", () => {
  it("lets an unattached endpoint through by the offered field alone (V107a, V108, V112)", () => {
    for (const features of [0, FEATURES_ALL]) {
      const rig = new Rig({ bypass: true }, features);
      expect(rig.access(8, 0x12345n, 10, WRITE)).toEqual([{ phys: 0x12345n, bytes: 10 }]);
      rig.device.reset();
      expect(rig.reach(8, 7n)).toBe(7n);
    }
  });

  it("lets an endpoint of a bypass domain through, whatever the field says (V107b)", () => {
    const rig = new Rig({ bypass: false, endpoints: [{ id: 8 }] });
    rig.attach(1, 8, 1);
    expect(rig.access(8, 5n, 2 ** 40, READ | WRITE)).toEqual([{ phys: 5n, bytes: 2 ** 40 }]);
  });

  it("follows the superseded feature when that was negotiated (V107c)", () => {
    expect(new Rig({ features: LEGACY }, LEGACY).reach(8, 5n)).toBe(5n);
    expect(new Rig({ features: LEGACY }, featureSet("MAP_UNMAP")).reach(8, 5n)).toBe(null);
    expect(new Rig({ features: LEGACY, bypass: true }, 0).reach(8, 5n)).toBe(null);
  });

  it("off and unattached is a DOMAIN fault (V109, V119)", () => {
    const rig = new Rig();
    expect(rig.access(8, 0x1234n, 8, READ)).toEqual({
      reason: FaultReason.DOMAIN,
      address: 0x1234n,
    });
    expect(rig.takeFaults()).toEqual([
      {
        reason: FaultReason.DOMAIN,
        flags: FaultFlag.READ | FaultFlag.ADDRESS,
        endpoint: 8,
        address: 0x1234n,
      },
    ]);
  });

  it("changes every unattached endpoint at once and no attached one (V110)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    const reached = (): boolean[] => [8, 16, 24].map((id) => rig.reach(id, 0n) !== null);
    expect(reached()).toEqual([false, false, false]);
    rig.device.writeConfig(36, Uint8Array.of(1));
    expect(reached()).toEqual([false, true, true]);
    rig.device.writeConfig(36, Uint8Array.of(0));
    expect(reached()).toEqual([false, false, false]);
  });

  it("domain takes many endpoints (V111)", () => {
    const rig = new Rig();
    for (const endpoint of [8, 16, 24]) expect(rig.attach(0, endpoint, 1)).toBe("OK");
    for (const endpoint of [8, 16, 24]) expect(rig.reach(endpoint, 99n)).toBe(99n);
  });
});

describe("an access", () => {
  const regions = [
    { start: 0x2000n, last: 0x2fffn, kind: "reserved" },
    { start: 0xfee0_0000n, last: 0xfeef_ffffn, kind: "msi" },
  ] as const;
  const endpoints = [{ id: 8, reserved: regions }];

  it("to a RESERVED region faults while attached, in a bypass domain too (V113)", () => {
    for (const flags of [0, 1]) {
      const rig = new Rig({ endpoints });
      rig.attach(1, 8, flags);
      if (flags === 0) rig.map(1, 0n, 0x1fffn);
      const fault = { reason: FaultReason.MAPPING, address: 0x2000n };
      expect(rig.access(8, 0x2000n, 1, READ)).toEqual(fault);
      expect(rig.access(8, 0x1ff0n, 0x20, READ)).toEqual(fault);
      expect(rig.access(8, 0x2800n, 1, READ)).toEqual({ ...fault, address: 0x2800n });
    }
    expect(new Rig({ endpoints, bypass: true }).reach(8, 0x2000n)).toBe(0x2000n);
  });

  it("to an MSI region is an interrupt, and refused when only a part of it lies there (V113)", () => {
    for (const flags of [0, 1]) {
      const rig = new Rig({ endpoints });
      rig.attach(1, 8, flags);
      if (flags === 0) rig.map(1, 0xfed0_0000n, 0xfedf_ffffn);
      expect(rig.access(8, 0xfee0_0000n, 4, WRITE)).toBe("msi");
      expect(rig.access(8, 0xfeef_fffcn, 4, WRITE)).toBe("msi");
      expect(rig.takeFaults()).toEqual([]);
      expect(rig.access(8, 0xfedf_fffcn, 8, WRITE)).toEqual({
        reason: FaultReason.MAPPING,
        address: 0xfee0_0000n,
      });
    }
  });

  it("of an endpoint that is not managed is refused without a record (V114, V117)", () => {
    const rig = new Rig({ bypass: true });
    expect(rig.access(444, 5n, 1)).toEqual({ reason: FaultReason.UNKNOWN, address: 5n });
    expect(rig.takeFaults()).toEqual([]);
  });

  it("may cross mappings anywhere, as a table or a list in memory does (V116)", () => {
    const rig = new Rig({ pageSizeMask: 0x1000n });
    rig.attach(1, 8);
    rig.map(1, 0x1000n, 0x1fffn, 0x9000n);
    rig.map(1, 0x2000n, 0x2fffn, 0x3000n);
    expect(rig.access(8, 0x1ff8n, 16)).toEqual([
      { phys: 0x9ff8n, bytes: 8 },
      { phys: 0x3000n, bytes: 8 },
    ]);
  });

  it("of no bytes is no access", () => {
    const rig = new Rig();
    expect(rig.access(8, 5n, 0)).toEqual([]);
    expect(rig.takeFaults()).toEqual([]);
  });

  it("past the end of the space is refused, and at its last byte not", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, LAST - 9n, LAST, 0n);
    expect(rig.access(8, LAST - 9n, 10)).toEqual([{ phys: 0n, bytes: 10 }]);
    expect(rig.access(8, LAST - 8n, 10)).toEqual({ reason: 2, address: LAST - 8n });
    expect(rig.access(8, LAST, 2 ** 52)).toEqual({ reason: 2, address: LAST });
  });

  it("over huge mappings splits where they end", () => {
    const rig = new Rig({ endpoints: [{ id: 8 }] });
    rig.attach(1, 8);
    rig.map(1, 0n, 2n ** 62n - 1n, 2n ** 62n);
    rig.map(1, 2n ** 62n, LAST, 0n);
    expect(rig.access(8, 2n ** 62n - 2n ** 40n, 2 ** 41)).toEqual([
      { phys: 2n ** 63n - 2n ** 40n, bytes: 2 ** 40 },
      { phys: 0n, bytes: 2 ** 40 },
    ]);
  });
});

describe("a fault record", () => {
  it("names what was attempted, where, and why (V117, V118, V119)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0n, 9n, 0n, READ);
    rig.access(8, 5n, 1, WRITE);
    rig.access(8, 5n, 10, READ);
    rig.access(8, LAST - 9n, 5, READ | WRITE);
    const { MAPPING } = FaultReason;
    const { ADDRESS } = FaultFlag;
    expect(rig.takeFaults()).toEqual([
      { reason: MAPPING, flags: FaultFlag.WRITE | ADDRESS, endpoint: 8, address: 5n },
      { reason: MAPPING, flags: FaultFlag.READ | ADDRESS, endpoint: 8, address: 10n },
      { reason: MAPPING, flags: 3 | ADDRESS, endpoint: 8, address: LAST - 9n },
    ]);
  });

  it("is dropped, and counted, when too many wait; the oldest stay (V120, V123)", () => {
    const rig = new Rig({ faultsMax: 4 });
    for (let index = 0; index < 10; index += 1) rig.access(8, BigInt(index), 1);
    expect(rig.device.faults.dropped).toBe(6);
    expect(rig.takeFaults().map(({ address }) => address)).toEqual([0n, 1n, 2n, 3n]);
    rig.access(8, 77n, 1);
    expect(rig.takeFaults().map(({ address }) => address)).toEqual([77n]);
  });

  it("is made once for an access, however many bytes are wrong (V123)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.access(8, 0n, 2 ** 30, READ | WRITE);
    expect(rig.takeFaults().length).toBe(1);
  });
});
