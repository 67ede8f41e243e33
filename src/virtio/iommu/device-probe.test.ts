/** PROBE and the reserved regions it tells of: V21, V22, V89–V106. */
import { describe, expect, it } from "vitest";
import { X86_MSI_REGION } from "./device-config.ts";
import { Rig, withReserved } from "./device-rig.suite.ts";
import { FEATURES_ALL, featureSet, ProbeRequest, RequestType } from "./protocol.ts";

const request = (endpoint: number): Uint8Array =>
  ProbeRequest.bytesOf({ type: RequestType.PROBE, endpoint });
const INVAL = 4;

describe("PROBE", () => {
  it("ignores its reserved bytes (V89)", () => {
    const rig = new Rig();
    const { used, bytes } = rig.send(withReserved(ProbeRequest, request(8), 0xff), 516);
    expect(used).toBe(516);
    expect(bytes[512]).toBe(0);
    expect(rig.regions(8).length).toBe(1);
  });

  it("of an unknown endpoint is NOENT, and the whole area is written as zeros (V22, V90)", () => {
    const { status, properties, used } = new Rig().probe(444);
    expect(status).toBe("NOENT");
    expect(used).toBe(516);
    expect(properties.every((byte) => byte === 0)).toBe(true);
  });

  it("comes back untouched where PROBE is not offered (V91)", () => {
    const rig = new Rig({ features: FEATURES_ALL & ~featureSet("PROBE") });
    const { used, bytes } = rig.send(request(8), 516);
    expect(used).toBe(0);
    expect(bytes.every((byte) => byte === 0xaa)).toBe(true);
  });

  it("with too little room is INVAL in the last four bytes and tells nothing (V92)", () => {
    for (const room of [4, 5, 24, 28, 515]) {
      const { used, bytes } = new Rig().send(request(8), room);
      expect(used).toBe(room);
      expect([...bytes.slice(room - 4)]).toEqual([INVAL, 0, 0, 0]);
      expect(bytes.slice(0, room - 4).every((byte) => byte === 0)).toBe(true);
    }
  });

  it("puts its tail right behind probe_size bytes where there is more room (V21)", () => {
    const { used, bytes } = new Rig({ probeSize: 64 }).send(request(8), 200);
    expect(used).toBe(68);
    expect([...bytes.slice(64, 69)]).toEqual([0, 0, 0, 0, 0xaa]);
  });

  it("with a body that is too short is INVAL at full length (V18, V22)", () => {
    for (const length of [4, 8, 36, 71]) {
      const { used, bytes } = new Rig().send(request(8).slice(0, length), 516);
      expect(used).toBe(516);
      expect(bytes[512]).toBe(INVAL);
      expect(bytes.slice(0, 512).every((byte) => byte === 0)).toBe(true);
    }
  });

  it("writes properties byte for byte as the specification lays them out (V93, V97, V98)", () => {
    const reserved = [
      { start: 0x1000n, last: 0x1fffn, kind: "reserved" } as const,
      { start: 0xfee0_0000n, last: 0xfeef_ffffn, kind: "msi" } as const,
    ];
    const { properties } = new Rig({ endpoints: [{ id: 8, reserved }], probeSize: 64 }).probe(8);
    const first = [
      1, 0, 20, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x1f, 0, 0, 0, 0, 0, 0,
    ];
    const second = [1, 0, 20, 0, 1, 0, 0, 0]
      .concat([0, 0, 0xe0, 0xfe, 0, 0, 0, 0])
      .concat([0xff, 0xff, 0xef, 0xfe, 0, 0, 0, 0]);
    const rest = new Array(16).fill(0);
    expect([...properties]).toEqual([...first, ...second, ...rest]);
  });

  it("fills the area to the brim without a terminator", () => {
    const rig = new Rig({ endpoints: [{ id: 8, reserved: [X86_MSI_REGION] }], probeSize: 24 });
    expect(rig.regions(8)).toEqual([
      { subtype: 1, start: X86_MSI_REGION.start, last: X86_MSI_REGION.last },
    ]);
  });

  it("tells each endpoint its own regions, the doorbell of x86 by default tests (V95, V105)", () => {
    const reserved = [{ start: 0n, last: 0xfffn, kind: "reserved" } as const];
    const rig = new Rig({
      endpoints: [
        { id: 8, reserved: [X86_MSI_REGION] },
        { id: 16, reserved },
      ],
    });
    expect(rig.regions(8)).toEqual([{ subtype: 1, start: 0xfee0_0000n, last: 0xfeef_ffffn }]);
    expect(rig.regions(16)).toEqual([{ subtype: 0, start: 0n, last: 0xfffn }]);
  });

  it("has no side effect, and regions bind only the domain an endpoint is in (V95)", () => {
    const reserved = [{ start: 0n, last: 0xfffn, kind: "reserved" } as const];
    const rig = new Rig({ endpoints: [{ id: 8, reserved }, { id: 16 }] });
    rig.attach(1, 8);
    rig.attach(2, 16);
    const before = rig.snapshot();
    rig.probe(8);
    expect(rig.snapshot()).toBe(before);
    expect(rig.map(1, 0n, 0xfffn)).toBe("RANGE");
    expect(rig.map(2, 0n, 0xfffn)).toBe("OK");
  });

  it("takes a region up to the last address of the space (V96, V99)", () => {
    const reserved = [{ start: 0x1000n, last: 2n ** 64n - 1n, kind: "reserved" } as const];
    const rig = new Rig({ endpoints: [{ id: 8, reserved }], pageSizeMask: 0x1000n });
    expect(rig.regions(8)).toEqual([{ subtype: 0, start: 0x1000n, last: 2n ** 64n - 1n }]);
    rig.attach(1, 8);
    expect(rig.map(1, 0n, 0xfffn)).toBe("OK");
    expect(rig.map(1, 0x1000n, 0x1fffn)).toBe("RANGE");
  });

  it("lets an MSI region cover a doorbell elsewhere, as Arm needs (V106)", () => {
    const reserved = [{ start: 0x808_0000n, last: 0x808_ffffn, kind: "msi" } as const];
    const rig = new Rig({ endpoints: [{ id: 8, reserved }] });
    rig.attach(1, 8);
    expect(rig.access(8, 0x808_0040n, 4, 2)).toBe("msi");
  });
});
