/** Negotiation, config space, reset and the framing of requests: V1–V9, V13–V22, V27, V28. */
import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { CountingMeter } from "../../meter.ts";
import { viewOf } from "../../wire/layout.ts";
import { STOPPED, VirtioIommuDevice } from "./device.ts";
import { type IommuConfig, X86_MSI_REGION } from "./device-config.ts";
import { attachBytes, mapBytes, Rig, unmapBytes, withReserved } from "./device-rig.suite.ts";
import {
  AttachRequest,
  Config,
  DetachRequest,
  FEATURES_ALL,
  featureSet,
  MapRequest,
  ProbeRequest,
  RequestType,
  UnmapRequest,
} from "./protocol.ts";

const WHOLE = 2n ** 64n - 1n;
const byte = (value: number): Uint8Array => Uint8Array.of(value);
const bypassOf = (device: VirtioIommuDevice): number =>
  Config.get.bypass(viewOf(device.configBytes()), 0);

describe("virtio-iommu device: settings", () => {
  it.each<[string, Partial<IommuConfig>]>([
    ["no page size (V1)", { pageSizeMask: 0n }],
    ["both bypass features (V3)", { features: featureSet("BYPASS", "BYPASS_CONFIG") }],
    ["an inverted input range", { inputRange: { start: 2n, last: 1n } }],
    ["an input range past 64 bits", { inputRange: { start: 0n, last: 2n ** 64n } }],
    ["an inverted domain range", { domainRange: { first: 2, last: 1 } }],
    ["a domain ID past 32 bits", { domainRange: { first: 0, last: 2 ** 32 } }],
    ["an endpoint ID twice", { endpoints: [{ id: 1 }, { id: 1 }] }],
    ["an endpoint ID past 32 bits", { endpoints: [{ id: 2 ** 32 }] }],
    ["no room for mappings", { mappingsMax: 0 }],
    ["an unknown quirk", { quirks: ["no-such-quirk" as "qemu-map-unaligned"] }],
    [
      "two MSI regions (V94)",
      { endpoints: [{ id: 1, reserved: [X86_MSI_REGION, msi(0n, 0xfffn)] }] },
    ],
    ["regions that overlap (V94)", regionsOf(reserved(0n, 0x1fffn), reserved(0x1000n, 0x1fffn))],
    ["a region of the whole space (V96)", regionsOf(reserved(0n, WHOLE))],
    ["a region off the granule (V99)", regionsOf(reserved(0n, 0xffen))],
    ["a region that starts off the granule (V99)", regionsOf(reserved(1n, 0xfffn))],
    [
      "more properties than probe_size",
      { ...regionsOf(reserved(0n, 0xfffn), reserved(0x2000n, 0x2fffn)), probeSize: 40 },
    ],
  ])("refuses %s", (_, settings) => {
    expect(() => new VirtioIommuDevice(settings)).toThrow(StackError);
  });

  it("offers MAP_UNMAP and not the superseded BYPASS by default (V2, V3)", () => {
    const { features } = new VirtioIommuDevice();
    expect(features & featureSet("MAP_UNMAP")).not.toBe(0);
    expect(features & featureSet("BYPASS")).toBe(0);
  });

  it("shows its settings in config space", () => {
    const device = new VirtioIommuDevice({
      pageSizeMask: 0x4020_1000n,
      inputRange: { start: 0x1000n, last: WHOLE },
      domainRange: { first: 3, last: 0xffff_ffff },
      probeSize: 64,
    });
    const bytes = device.configBytes();
    expect(bytes.length).toBe(40);
    expect(Config.decode(viewOf(bytes))).toEqual({
      pageSizeMask: 0x4020_1000n,
      inputStart: 0x1000n,
      inputLast: WHOLE,
      domainFirst: 3,
      domainLast: 0xffff_ffff,
      probeSize: 64,
      bypass: 1,
      reserved: new Uint8Array(3),
    });
  });
});

describe("virtio-iommu device: the bypass field", () => {
  it("starts as configured, 0 without BYPASS_CONFIG (V5)", () => {
    expect(bypassOf(new VirtioIommuDevice({ bypass: true }))).toBe(1);
    expect(bypassOf(new VirtioIommuDevice({ bypass: false }))).toBe(0);
    const features = featureSet("MAP_UNMAP", "BYPASS");
    expect(bypassOf(new VirtioIommuDevice({ bypass: true, features }))).toBe(0);
  });

  it("takes 0 and 1, and keeps its value at anything else (V4, V8)", () => {
    const { device } = new Rig();
    for (const [written, read] of [
      [1, 1],
      [2, 1],
      [0, 0],
      [255, 0],
      [3, 0],
      [1, 1],
    ] as const) {
      device.writeConfig(36, byte(written));
      expect(bypassOf(device)).toBe(read);
    }
  });

  it("ignores a write when BYPASS_CONFIG was not negotiated (V8)", () => {
    const { device } = new Rig({}, FEATURES_ALL & ~featureSet("BYPASS_CONFIG"));
    device.writeConfig(36, byte(1));
    expect(bypassOf(device)).toBe(0);
  });

  it("ignores writes elsewhere, wider ones and ones that straddle it (V9)", () => {
    const { device } = new Rig();
    const before = device.configBytes();
    for (let offset = 0; offset < 48; offset += 1) {
      for (const length of [1, 2, 4, 8]) {
        if (offset === 36 && length === 1) continue;
        device.writeConfig(offset, new Uint8Array(length).fill(1));
      }
    }
    expect(device.configBytes()).toEqual(before);
  });

  it("keeps its value over a device reset and loses it at a system reset (V6, V7)", () => {
    const { device } = new Rig();
    device.writeConfig(36, byte(1));
    device.reset();
    expect(bypassOf(device)).toBe(1);
    device.systemReset();
    expect(bypassOf(device)).toBe(0);
  });
});

describe("virtio-iommu device: reset", () => {
  it.each(["reset", "systemReset"] as const)(
    "%s leaves no attachment, domain, mapping, record or negotiated feature (V13)",
    (kind) => {
      const rig = new Rig();
      rig.attach(1, 8);
      rig.attach(2, 16, 1);
      rig.map(1, 0n, 9n);
      rig.access(8, 100n, 1);
      rig.device[kind]();
      expect(rig.snapshot()).toBe(new Rig().snapshot());
      expect(rig.device.mappingCount).toBe(0);
      expect(rig.takeFaults()).toEqual([]);
      expect(rig.send(mapBytes(1, 0n, 9n, 0n, 3), 4).used).toBe(0);
      rig.device.negotiate(FEATURES_ALL);
      expect(rig.map(1, 0n, 9n)).toBe("NOENT");
      expect(rig.detach(1, 8)).toBe("INVAL");
      expect(rig.attach(1, 8)).toBe("OK");
    },
  );
});

describe("virtio-iommu device: framing", () => {
  const valid: [string, Uint8Array, string][] = [
    ["ATTACH", attachBytes(2, 16), "OK"],
    ["DETACH", DetachRequest.bytesOf({ type: 2, domain: 1, endpoint: 8 }), "OK"],
    ["MAP", mapBytes(1, 100n, 199n, 0n, 3), "OK"],
    ["UNMAP", unmapBytes(1, 0n, 9n), "OK"],
  ];
  const ready = (): Rig => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0n, 9n);
    return rig;
  };

  it.each(valid)("%s ignores what stands in the reserved bytes of its head (V14)", (_, bytes) => {
    const request = bytes.slice();
    request.fill(0xff, 1, 4);
    expect(ready().status(request)).toBe("OK");
  });

  it.each(valid)(
    "a successful %s reports OK in a zeroed tail of 4 bytes (V15, V22)",
    (_, bytes) => {
      const { used, bytes: written } = ready().send(bytes, 4);
      expect(used).toBe(4);
      expect([...written]).toEqual([0, 0, 0, 0]);
    },
  );

  it.each([0, 6, 7, 8, 128, 255])(
    "a request of unknown type %i comes back untouched (V16)",
    (type) => {
      const rig = ready();
      const before = rig.snapshot();
      const request = new Uint8Array(72);
      request[0] = type;
      const { used, bytes } = rig.send(request, 16);
      expect(used).toBe(0);
      expect(bytes.every((value) => value === 0xaa)).toBe(true);
      expect(rig.snapshot()).toBe(before);
    },
  );

  it("a request without room for a head or a tail comes back untouched (V17)", () => {
    const rig = ready();
    for (let readable = 0; readable < 4; readable += 1) {
      expect(rig.send(attachBytes(2, 16).slice(0, readable), 4).used).toBe(0);
    }
    for (let writable = 0; writable < 4; writable += 1) {
      const { used, bytes } = rig.send(attachBytes(2, 16), writable);
      expect(used).toBe(0);
      expect(bytes.every((value) => value === 0xaa)).toBe(true);
    }
    expect(rig.device.domainOf(16)).toBe(null);
  });

  it.each(valid)("a body that is too short makes %s INVAL, with no effect (V18)", (_, bytes) => {
    for (let length = 4; length < bytes.length; length += 1) {
      const rig = ready();
      const before = rig.snapshot();
      expect(rig.status(bytes.slice(0, length))).toBe("INVAL");
      expect(rig.snapshot()).toBe(before);
    }
  });

  it.each(valid)("surplus readable bytes of %s are ignored (V19)", (_, bytes, status) => {
    const request = new Uint8Array(bytes.length + 40).fill(0xff);
    request.set(bytes);
    expect(ready().status(request)).toBe(status);
  });

  it.each(valid)(
    "the tail of %s stands at the start of a longer writable part (V20)",
    (_, bytes) => {
      const { used, bytes: written } = ready().send(bytes, 32);
      expect(used).toBe(4);
      expect([...written.slice(0, 5)]).toEqual([0, 0, 0, 0, 0xaa]);
    },
  );

  it("MAP and UNMAP are of unknown type when MAP_UNMAP was not negotiated", () => {
    const rig = new Rig({}, FEATURES_ALL & ~featureSet("MAP_UNMAP"));
    expect(rig.attach(1, 8)).toBe("OK");
    expect(rig.send(mapBytes(1, 0n, 9n, 0n, 3), 4).used).toBe(0);
    expect(rig.send(unmapBytes(1, 0n, 9n), 4).used).toBe(0);
  });

  it("features that were not offered do not count as negotiated", () => {
    const rig = new Rig({ features: featureSet("MAP_UNMAP") }, 0xff_ffff);
    expect(rig.attach(1, 8, 1)).toBe("INVAL");
  });

  it("requests take effect one after the other (V28)", () => {
    const rig = new Rig();
    const sequence = [rig.attach(1, 8), rig.map(1, 0n, 9n), rig.unmap(1, 0n, 9n), rig.detach(1, 8)];
    expect(sequence).toEqual(["OK", "OK", "OK", "OK"]);
    expect(rig.snapshot()).toBe(new Rig().snapshot());
  });

  it("a domain outside domain_range is RANGE in ATTACH and NOENT elsewhere (V27)", () => {
    const rig = new Rig({ domainRange: { first: 5, last: 7 } });
    for (const domain of [0, 4, 8, 0xffff_ffff]) {
      expect(rig.attach(domain, 8)).toBe("RANGE");
      expect(rig.map(domain, 0n, 9n)).toBe("NOENT");
      expect(rig.unmap(domain, 0n, 9n)).toBe("NOENT");
      expect(rig.detach(domain, 8)).toBe("INVAL");
    }
    expect(rig.attach(5, 8)).toBe("OK");
    expect(rig.attach(7, 16)).toBe("OK");
    const features = FEATURES_ALL & ~featureSet("DOMAIN_RANGE");
    expect(new Rig({ domainRange: { first: 5, last: 7 }, features }).attach(9, 8)).toBe("OK");
  });

  it("reports its steps: requests by kind, ranges in and out, attachments, faults", () => {
    const meter = new CountingMeter();
    const rig = new Rig({}, FEATURES_ALL, meter);
    rig.attach(1, 8);
    rig.probe(8);
    for (const start of [0n, 10n, 20n, 30n]) rig.map(1, start, start + 9n);
    rig.map(1, 5n, 6n);
    rig.unmap(1, 0n, 19n);
    rig.access(8, 0n, 1);
    rig.detach(1, 8);
    expect(meter.events("requestMap")).toBe(5);
    expect(meter.events("requestUnmap")).toBe(1);
    expect(meter.events("requestOther")).toBe(3);
    expect(meter.amount("rangeInsert")).toBe(4);
    expect(meter.amount("rangeRemove")).toBe(4);
    expect(meter.events("attach")).toBe(1);
    expect(meter.events("fault")).toBe(1);
  });

  it("keeps reserved bytes of no request that ignores them from working", () => {
    const rig = ready();
    const detach = DetachRequest.bytesOf({ type: RequestType.DETACH, domain: 1, endpoint: 8 });
    expect(rig.status(withReserved(UnmapRequest, unmapBytes(1, 0n, 9n)))).toBe("OK");
    expect(rig.status(withReserved(MapRequest, mapBytes(1, 0n, 9n, 0n, 3)))).toBe("OK");
    expect(rig.status(withReserved(AttachRequest, attachBytes(1, 16)))).toBe("OK");
    expect(rig.status(withReserved(DetachRequest, detach))).toBe("OK");
    const probe = ProbeRequest.bytesOf({ type: RequestType.PROBE, endpoint: 8 });
    expect(rig.send(withReserved(ProbeRequest, probe), 516).bytes[512]).toBe(0);
  });

  it("answers nothing more once a quirk has stopped it, until a reset (V17)", () => {
    const rig = new Rig({ quirks: ["qemu-short-request-breaks-device"] });
    rig.attach(1, 8);
    expect(rig.send(Uint8Array.of(1, 0, 0), 4).used).toBe(STOPPED);
    expect(rig.device.isStopped).toBe(true);
    expect(rig.device.firedQuirks).toEqual(["qemu-short-request-breaks-device"]);
    expect(rig.send(attachBytes(2, 16), 4).used).toBe(STOPPED);
    rig.device.reset();
    expect(rig.device.isStopped).toBe(false);
    expect(rig.attach(2, 16)).toBe("OK");
  });
});

function msi(start: bigint, last: bigint) {
  return { start, last, kind: "msi" } as const;
}

function reserved(start: bigint, last: bigint) {
  return { start, last, kind: "reserved" } as const;
}

function regionsOf(...regions: ReturnType<typeof reserved>[]): Partial<IommuConfig> {
  return { endpoints: [{ id: 1, reserved: regions }] };
}
