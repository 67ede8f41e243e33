/** Limits against a hostile driver: V127–V130, and every limit made to strike in turn. */
import { describe, expect, it } from "vitest";
import { Random } from "../../random.ts";
import { attachBytes, ENDPOINTS, mapBytes, Rig } from "./device-rig.suite.ts";

describe("limits", () => {
  it("a domain beyond the limit is NOMEM, and possible when another ends (V127)", () => {
    const rig = new Rig({ domainsMax: 2 });
    rig.attach(1, 8);
    rig.attach(2, 16);
    const before = rig.snapshot();
    expect(rig.attach(3, 24)).toBe("NOMEM");
    expect(rig.snapshot()).toBe(before);
    expect(rig.attach(3, 16)).toBe("OK");
    rig.detach(1, 8);
    expect(rig.attach(4, 24)).toBe("OK");
  });

  it("a mapping beyond the device's limit is NOMEM, whichever domain it is for (V127)", () => {
    const rig = new Rig({ mappingsMax: 4 });
    rig.attach(1, 8);
    rig.attach(2, 16);
    for (const [domain, start] of [
      [1, 0n],
      [1, 10n],
      [2, 0n],
      [2, 10n],
    ] as const)
      expect(rig.map(domain, start, start + 9n)).toBe("OK");
    const before = rig.snapshot();
    expect(rig.map(1, 20n, 29n)).toBe("NOMEM");
    expect(rig.map(2, 20n, 29n)).toBe("NOMEM");
    expect(rig.map(2, 5n, 29n)).toBe("INVAL");
    expect(rig.snapshot()).toBe(before);
    rig.detach(1, 8);
    expect(rig.map(2, 20n, 29n)).toBe("OK");
    expect(rig.map(2, 30n, 39n)).toBe("OK");
    expect(rig.map(2, 40n, 49n)).toBe("NOMEM");
  });

  it("a NOMEM at any point of a run changes nothing, and the run goes on (V72, V127)", () => {
    // The same run under every limit: each MAP that a limit refuses leaves the state as it was.
    const run = (mappingsMax: number, domainMappingsMax: number): number => {
      const rig = new Rig({ mappingsMax, domainMappingsMax, endpoints: ENDPOINTS });
      const random = new Random(7);
      rig.attach(1, 8);
      rig.attach(2, 16);
      let refused = 0;
      for (let step = 0; step < 150; step += 1) {
        const domain = 1 + random.below(2);
        const start = BigInt(random.below(60)) * 10n;
        if (random.chance(1, 4)) {
          rig.unmap(domain, start, start + 99n);
          continue;
        }
        const before = rig.snapshot();
        const status = rig.map(domain, start, start + 9n);
        if (status === "NOMEM") refused += 1;
        if (status !== "OK") expect(rig.snapshot()).toBe(before);
        expect(rig.device.mappingCount).toBe(rig.mappings().length);
        expect(rig.device.mappingCount).toBeLessThanOrEqual(mappingsMax);
      }
      return refused;
    };
    expect(run(1000, 1000)).toBe(0);
    for (let limit = 1; limit < 12; limit += 1) {
      expect(run(limit, 1000)).toBeGreaterThan(0);
      expect(run(1000, limit)).toBeGreaterThan(0);
    }
  });

  it("one UNMAP takes a hundred thousand mappings out and the rest stays (V128)", () => {
    const rig = new Rig({ pageSizeMask: 0x1000n });
    rig.attach(1, 8);
    const request = mapBytes(1, 0n, 0xfffn, 0n, 3);
    const view = new DataView(request.buffer);
    for (let page = 0; page < 100_002; page += 1) {
      view.setBigUint64(8, BigInt(page) << 12n, true);
      view.setBigUint64(16, (BigInt(page) << 12n) + 0xfffn, true);
      rig.send(request, 4);
    }
    expect(rig.unmap(1, 0x1000n, (100_001n << 12n) - 1n)).toBe("OK");
    expect(rig.mappings()).toEqual(["1: 0-4095 -> 0 3", "1: 409604096-409608191 -> 0 3"]);
  });

  it("attach and detach in turns, with mappings, leave nothing behind (V129)", () => {
    const rig = new Rig();
    rig.attach(9, 24);
    const empty = rig.snapshot();
    for (let round = 0; round < 600; round += 1) {
      const domain = round % 5;
      rig.attach(domain, 8, round % 3 === 0 ? 1 : 0);
      rig.attach(domain, 16, round % 3 === 0 ? 1 : 0);
      for (let index = 0n; index < 20n; index += 1n) rig.map(domain, index * 10n, index * 10n + 9n);
      rig.device.writeConfig(36, Uint8Array.of(round % 2));
      if (round % 2 === 0) rig.attach(9, 8);
      rig.detach(round % 2 === 0 ? 9 : domain, 8);
      rig.detach(domain, 16);
    }
    expect(rig.snapshot()).toBe(empty);
    expect(rig.device.mappingCount).toBe(0);
    expect(rig.device.domainIds).toEqual([9]);
  });

  it("no bytes make a request throw or spin, and every answer has a known length (V130)", () => {
    const rig = new Rig({ probeSize: 64, domainMappingsMax: 64 });
    const random = new Random(3);
    const templates = [attachBytes(1, 8), mapBytes(1, 0n, 9n, 0n, 3)];
    for (let round = 0; round < 6_000; round += 1) {
      const length = random.below(80);
      const request = new Uint8Array(length);
      for (let at = 0; at < length; at += 1) request[at] = random.below(256);
      if (random.chance(1, 2)) request.set(templates[round % 2]!.slice(0, length));
      if (length > 0) request[0] = random.below(7);
      const writable = random.below(90);
      const { used, bytes } = rig.send(request, writable);
      expect(used <= writable && (used === 0 || used >= 4)).toBe(true);
      expect(bytes.slice(used).every((byte) => byte === 0xaa)).toBe(true);
    }
  });
});
