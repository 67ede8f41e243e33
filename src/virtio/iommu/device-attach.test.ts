/** ATTACH and DETACH: V29–V53. */
import { describe, expect, it } from "vitest";
import { attachBytes, Rig, withReserved } from "./device-rig.suite.ts";
import { DetachRequest, FEATURES_ALL, featureSet, RequestType } from "./protocol.ts";

const BYPASS = 1;

/** Asserts that a request is answered so and changes nothing. */
function refuses(rig: Rig, request: () => string, status: string): void {
  const before = rig.snapshot();
  const generation = rig.device.generation;
  expect(request()).toBe(status);
  expect(rig.snapshot()).toBe(before);
  expect(rig.device.generation).toBe(generation);
}

describe("ATTACH", () => {
  it("with its reserved field set is INVAL and changes nothing (V29)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    for (const bit of [0, 7, 31]) {
      refuses(rig, () => rig.attach(2, 8, 0, (1 << bit) >>> 0), "INVAL");
      refuses(rig, () => rig.attach(2, 16, 0, (1 << bit) >>> 0), "INVAL");
    }
  });

  it("with an unknown flag is INVAL and changes nothing (V30)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    for (let bit = 1; bit < 32; bit += 1) {
      refuses(rig, () => rig.attach(2, 8, (1 << bit) >>> 0), "INVAL");
      refuses(rig, () => rig.attach(2, 16, ((1 << bit) | BYPASS) >>> 0), "INVAL");
    }
  });

  it("with BYPASS is INVAL when BYPASS_CONFIG was not negotiated (V31)", () => {
    const rig = new Rig({}, FEATURES_ALL & ~featureSet("BYPASS_CONFIG"));
    refuses(rig, () => rig.attach(1, 8, BYPASS), "INVAL");
    expect(rig.attach(1, 8)).toBe("OK");
  });

  it("of an unknown endpoint is NOENT and makes no domain (V32)", () => {
    const rig = new Rig();
    for (const endpoint of [0, 9, 444, 0xffff_ffff])
      refuses(rig, () => rig.attach(1, endpoint), "NOENT");
    expect(rig.map(1, 0n, 9n)).toBe("NOENT");
  });

  it("creates an unknown domain with the bypass property of the request (V33)", () => {
    const rig = new Rig();
    expect(rig.attach(1, 8)).toBe("OK");
    expect(rig.attach(0xffff_ffff, 16, BYPASS)).toBe("OK");
    expect(rig.device.domainIds).toEqual([1, 0xffff_ffff]);
    expect(rig.device.isBypassDomain(1)).toBe(false);
    expect(rig.device.isBypassDomain(0xffff_ffff)).toBe(true);
  });

  it("lets a second endpoint join, which sees what was mapped before it came (V34, V42)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0x1000n, 0x1fffn, 0x9000n);
    expect(rig.attach(1, 16)).toBe("OK");
    expect(rig.reach(16, 0x1234n)).toBe(0x9234n);
    expect(rig.reach(8, 0x1234n)).toBe(0x9234n);
    rig.map(1, 0x2000n, 0x2fffn, 0n);
    expect(rig.reach(8, 0x2000n)).toBe(0n);
    expect(rig.reach(16, 0x2000n)).toBe(0n);
  });

  it("is UNSUPP where the device cannot share a domain (V34)", () => {
    const rig = new Rig({ sharesDomains: false });
    rig.attach(1, 8);
    refuses(rig, () => rig.attach(1, 16), "UNSUPP");
    expect(rig.attach(1, 8)).toBe("OK");
    expect(rig.attach(2, 16)).toBe("OK");
  });

  it("is INVAL when BYPASS does not match the domain, both ways (V35)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.attach(2, 16, BYPASS);
    refuses(rig, () => rig.attach(1, 24, BYPASS), "INVAL");
    refuses(rig, () => rig.attach(2, 24), "INVAL");
    refuses(rig, () => rig.attach(1, 8, BYPASS), "INVAL");
    refuses(rig, () => rig.attach(2, 16), "INVAL");
  });

  it("moves an endpoint out of its domain, of which nothing is left when it was alone (V36, V37)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0n, 9n);
    expect(rig.attach(2, 8)).toBe("OK");
    expect(rig.reach(8, 0n)).toBe(null);
    expect(rig.map(1, 0n, 9n)).toBe("NOENT");
    expect(rig.device.mappingCount).toBe(0);
    expect(rig.attach(1, 16, BYPASS)).toBe("OK");
  });

  it("leaves the old domain to the endpoints that stay in it (V36, V43)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.attach(1, 16);
    rig.map(1, 0n, 9n, 100n);
    rig.attach(2, 8);
    rig.map(2, 0n, 9n, 200n);
    expect(rig.reach(8, 3n)).toBe(203n);
    expect(rig.reach(16, 3n)).toBe(103n);
  });

  it("to the domain the endpoint is in keeps the mappings (V38)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0n, 9n, 100n);
    refuses(rig, () => rig.attach(1, 8), "OK");
    expect(rig.reach(8, 3n)).toBe(103n);
  });

  it("that fails leaves the endpoint where it was (V39)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0n, 9n);
    rig.attach(2, 16, BYPASS);
    refuses(rig, () => rig.attach(2, 8), "INVAL");
    expect(rig.reach(8, 0n)).toBe(0n);
  });

  it("with several errors gives the status of one of them (V40)", () => {
    const rig = new Rig({ domainRange: { first: 1, last: 3 } });
    refuses(rig, () => rig.attach(9, 444, 2, 1), "INVAL");
    refuses(rig, () => rig.attach(9, 444, 0, 1), "INVAL");
    refuses(rig, () => rig.attach(9, 444), "NOENT");
    refuses(rig, () => rig.attach(9, 8), "RANGE");
  });

  it("is UNSUPP where mappings reach into a reserved region of the newcomer (V41, V63)", () => {
    const reserved = [{ start: 0x4000n, last: 0x4fffn, kind: "reserved" } as const];
    const rig = new Rig({ endpoints: [{ id: 8 }, { id: 16, reserved }] });
    rig.attach(1, 8);
    rig.map(1, 0x3000n, 0x4000n);
    refuses(rig, () => rig.attach(1, 16), "UNSUPP");
    rig.unmap(1, 0x3000n, 0x4000n);
    rig.map(1, 0x3000n, 0x3fffn);
    rig.map(1, 0x5000n, 0x5fffn);
    expect(rig.attach(1, 16)).toBe("OK");
  });
});

describe("DETACH", () => {
  it("ignores its reserved bytes (V45)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    const type = RequestType.DETACH;
    const request = DetachRequest.bytesOf({ type, domain: 1, endpoint: 8 });
    expect(rig.status(withReserved(DetachRequest, request, 0xff))).toBe("OK");
  });

  it("of an unknown endpoint is NOENT (V46)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    refuses(rig, () => rig.detach(1, 444), "NOENT");
    refuses(rig, () => rig.detach(7, 444), "NOENT");
  });

  it("from a domain that the endpoint is not in, or that does not exist, is INVAL (V47)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.attach(2, 16);
    refuses(rig, () => rig.detach(2, 8), "INVAL");
    refuses(rig, () => rig.detach(3, 8), "INVAL");
  });

  it("of an endpoint that was never attached is INVAL (V51)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    refuses(rig, () => rig.detach(1, 16), "INVAL");
  });

  it("takes the domain's mappings out of the endpoint's reach (V48)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.attach(1, 16);
    rig.map(1, 0n, 9n);
    expect(rig.detach(1, 8)).toBe("OK");
    expect(rig.reach(8, 0n)).toBe(null);
    expect(rig.reach(16, 0n)).toBe(0n);
  });

  it("of the last endpoint ends the domain: MAP is NOENT, the next ATTACH makes an empty one (V49)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.map(1, 0n, 9n);
    rig.detach(1, 8);
    expect(rig.map(1, 0n, 9n)).toBe("NOENT");
    expect(rig.unmap(1, 0n, 9n)).toBe("NOENT");
    rig.attach(1, 16);
    expect(rig.reach(16, 0n)).toBe(null);
    expect(rig.map(1, 5n, 14n)).toBe("OK");
  });

  it("leaves the endpoint to the global bypass setting (V50)", () => {
    const rig = new Rig();
    rig.attach(1, 8);
    rig.detach(1, 8);
    expect(rig.reach(8, 77n)).toBe(null);
    rig.device.writeConfig(36, Uint8Array.of(1));
    expect(rig.reach(8, 77n)).toBe(77n);
  });
});

describe("hot-plug", () => {
  it("of an endpoint makes requests on it possible, and its removal NOENT again (V52)", () => {
    const rig = new Rig();
    expect(rig.attach(1, 99)).toBe("NOENT");
    rig.device.addEndpoint({ id: 99 });
    expect(rig.attach(1, 99)).toBe("OK");
    rig.map(1, 0n, 9n);
    expect(rig.device.removeEndpoint(99)).toBe(true);
    expect(rig.attach(1, 99)).toBe("NOENT");
    expect(rig.detach(1, 99)).toBe("NOENT");
    expect(rig.probe(99).status).toBe("NOENT");
    expect(rig.map(1, 20n, 29n)).toBe("NOENT");
    expect(rig.device.mappingCount).toBe(0);
    expect(rig.device.removeEndpoint(99)).toBe(false);
  });
});

/** tests/qtest/virtio-iommu-test.c, attach_detach, as the specification has it. */
describe("QEMU's attach_detach test", () => {
  it("gives the statuses that the test expects, INVAL for an endpoint never attached (V51)", () => {
    const rig = new Rig({ endpoints: [{ id: 0 }, { id: 1 }], pageSizeMask: 0x1000n });
    expect(rig.attach(0, 0)).toBe("OK");
    expect(rig.attach(0, 444)).toBe("NOENT");
    expect(rig.detach(0, 1)).toBe("INVAL");
    expect(rig.attach(1, 0)).toBe("OK");
    expect(rig.detach(0, 0)).toBe("INVAL");
    expect(rig.detach(1, 0)).toBe("OK");
    expect(rig.attach(1, 0)).toBe("OK");
    expect(rig.map(1, 0n, 0xfffn, 0xa1000n)).toBe("OK");
    expect(rig.map(1, 0x2000n, 0x2fffn, 0xb1000n)).toBe("OK");
    expect(rig.detach(1, 0)).toBe("OK");
    expect(rig.status(attachBytes(1, 0))).toBe("OK");
  });
});
