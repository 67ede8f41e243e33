/** The driver on the project's own device: what one remembers is what the other translates. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { X86_MSI_REGION } from "./device-config.ts";
import { Access, Translation } from "./device-translate.ts";
import type { ViommuDomain } from "./driver-domain.ts";
import type { ReportedFault } from "./driver-events.ts";
import { type LocalPair, startLocalPair } from "./driver-local.ts";
import { LINUX_6_4, LINUX_7_2, PROPOSAL_2023 } from "./driver-settings.ts";
import { FEATURES_ALL, featureSet } from "./protocol.ts";

const endpoints = [{ id: 8 }, { id: 16, reserved: [X86_MSI_REGION] }, { id: 24 }];

function pair(options: Partial<Parameters<typeof startLocalPair>[0]> = {}): LocalPair {
  const started = startLocalPair({ device: { endpoints, bypass: false }, ...options });
  expect(started.errno).toBe(0);
  return started.value!;
}

function mustHave<T>(result: { errno: number; value: T | null }): T {
  expect(result.errno).toBe(0);
  return result.value!;
}

/** Where an access of one frame goes, or that it is refused. */
function accessOf({ device }: LocalPair, endpoint: number, pfn: number, access: number): string {
  let seen = "";
  const visitor = {
    segment(toPfn: number): void {
      seen = `frame ${toPfn}`;
    },
  };
  const translation = device.translate(endpoint, pfn, 0, 4096, access, visitor);
  return translation === Translation.OK ? seen : "refused";
}

describe("a driver on a device", () => {
  it("maps what the device then translates, and unmaps it again", () => {
    const both = pair();
    const endpoint = mustHave(both.driver.addEndpoint([8]));
    const domain = mustHave(both.driver.createDomain());
    const core = new IommuDomain(DomainType.UNMANAGED, domain);
    expect(core.map(16, 1000, 4, Prot.READ)).toBe(Errno.OK);
    expect(both.driver.attach(endpoint, domain)).toBe(Errno.OK);
    expect(core.map(2 ** 40, 2 ** 39, 1, PROT_RW)).toBe(Errno.OK);
    expect(accessOf(both, 8, 17, Access.READ)).toBe("frame 1001");
    expect(accessOf(both, 8, 17, Access.WRITE)).toBe("refused");
    expect(accessOf(both, 8, 2 ** 40, Access.WRITE)).toBe(`frame ${2 ** 39}`);
    expect(core.unmap(16, 4)).toBe(4);
    expect(accessOf(both, 8, 17, Access.READ)).toBe("refused");
    expect(both.driver.removeEndpoint(endpoint)).toBe(Errno.OK);
    expect(both.device.domainIds).toEqual([]);
  });

  it("learns the device's reserved regions", () => {
    const both = pair();
    const msi = mustHave(both.driver.addEndpoint([16]));
    expect(both.driver.reservedRegions(msi)).toEqual([X86_MSI_REGION]);
    const none = mustHave(both.driver.addEndpoint([8]));
    expect(both.driver.reservedRegions(none).map((region) => region.kind)).toEqual(["sw-msi"]);
    expect(both.driver.addEndpoint([999]).errno).toBe(Errno.ENOENT);
  });

  it("gets an identity domain either way", () => {
    for (const features of [FEATURES_ALL, FEATURES_ALL & ~featureSet("BYPASS_CONFIG")]) {
      const both = pair({ device: { endpoints, bypass: false, features } });
      const endpoint = mustHave(both.driver.addEndpoint([16]));
      const identity = mustHave(both.driver.identityDomain(endpoint));
      expect(both.driver.attach(endpoint, identity)).toBe(Errno.OK);
      for (const pfn of [0, 5, 0xfedff, 0xfef00, 2 ** 52 - 1])
        expect(accessOf(both, 16, pfn, Access.WRITE)).toBe(`frame ${pfn}`);
      expect(both.driver.attach(endpoint, mustHave(both.driver.createDomain()))).toBe(Errno.OK);
      expect(accessOf(both, 16, 5, Access.READ)).toBe("refused");
    }
  });

  it("hears of faults", () => {
    const both = pair();
    const faults: ReportedFault[] = [];
    both.driver.onFault = (fault) => faults.push(fault);
    const endpoint = mustHave(both.driver.addEndpoint([8]));
    both.driver.attach(endpoint, mustHave(both.driver.createDomain()));
    expect(accessOf(both, 8, 77, Access.WRITE)).toBe("refused");
    expect(accessOf(both, 24, 78, Access.READ)).toBe("refused");
    both.local.deliverFaults();
    expect(faults).toEqual([
      { reason: "mapping", endpoint: 8, isRead: false, isWrite: true, address: 77n * 4096n },
      { reason: "domain", endpoint: 24, isRead: true, isWrite: false, address: 78n * 4096n },
    ]);
  });

  it("row 75: a MAP that the device refuses shows as of 6.4 and is lost as of 7.2", () => {
    const region = { start: 0x10_0000n, last: 0x1f_ffffn, kind: "reserved" as const };
    for (const [settings, expected] of [
      [LINUX_7_2, Errno.OK],
      [LINUX_6_4, Errno.ERANGE],
    ] as const) {
      const both = pair({ settings, device: { endpoints: [{ id: 8, reserved: [region] }] } });
      const endpoint = mustHave(both.driver.addEndpoint([8]));
      const domain = mustHave(both.driver.createDomain());
      both.driver.attach(endpoint, domain);
      const core = new IommuDomain(DomainType.UNMANAGED, domain);
      expect(core.map(0x100, 1, 1, PROT_RW)).toBe(expected);
      expect(domain.mappingCount).toBe(expected === Errno.OK ? 1 : 0);
      expect(both.device.mappingCount).toBe(0);
    }
  });

  it("V188: recovers when the device needs a reset, mappings and all", () => {
    const both = pair();
    const endpoint = mustHave(both.driver.addEndpoint([8]));
    const domain = mustHave(both.driver.createDomain());
    both.driver.attach(endpoint, domain);
    const core = new IommuDomain(DomainType.UNMANAGED, domain);
    core.map(16, 1000, 1, PROT_RW);
    const { areas } = both.local.queues.queues[0]!;
    both.memory.writeU16(areas!.driver + 2, 0x7777);
    both.local.serve(0);
    expect(both.local.queues.fault?.fault.reason).toBe("available-index");
    expect(core.map(17, 1001, 1, PROT_RW)).toBe(Errno.ETIMEDOUT);
    expect(core.map(18, 1002, 1, PROT_RW)).toBe(Errno.ETIMEDOUT);
    expect(both.driver.recover()).toBe(Errno.OK);
    expect(both.local.queues.fault).toBe(null);
    expect(accessOf(both, 8, 16, Access.WRITE)).toBe("frame 1000");
    expect(accessOf(both, 8, 17, Access.WRITE)).toBe("refused");
    expect(core.unmap(16, 1)).toBe(1);
    expect(accessOf(both, 8, 16, Access.WRITE)).toBe("refused");
  });
});

describe("what the driver remembers is what the device has", () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("map"),
      domain: fc.nat(1),
      pfn: fc.nat(120),
      pages: fc.integer({ min: 1, max: 40 }),
    }),
    fc.record({
      kind: fc.constant("unmap"),
      domain: fc.nat(1),
      pfn: fc.nat(120),
      pages: fc.integer({ min: 1, max: 60 }),
    }),
    fc.record({ kind: fc.constant("attach"), domain: fc.nat(1), pfn: fc.nat(2), pages: fc.nat(0) }),
  );

  /** Frames that a domain maps, one by one, in its driver's eyes and in the device's. */
  function framesOf({ device }: LocalPair, domain: ViommuDomain): [number[], number[]] {
    const remembered: number[] = [];
    const known: number[] = [];
    const mappings = [...(device.mappingsOf(domain.id)?.entries() ?? [])];
    for (let pfn = 0; pfn < 200; pfn += 1) {
      remembered.push(domain.iovaToPhys(pfn));
      const at = BigInt(pfn) * 4096n;
      const one = mappings.find(({ start, last }) => start <= at && at <= last);
      known.push(one === undefined ? -1 : Number((one.value + at - one.start) / 4096n));
    }
    return [remembered, known];
  }

  for (const [name, settings] of Object.entries({ LINUX_7_2, LINUX_6_4, PROPOSAL_2023 })) {
    it(`under random maps, unmaps and moves: ${name}`, () => {
      fc.assert(
        fc.property(
          fc.array(step, { maxLength: 60 }),
          fc.constantFrom(2, 4, 64),
          fc.constantFrom(0, 0x1000_0000, 0x3000_0000),
          (steps, size, ringFeatures) => {
            const pageSizeMask = 0x4000_9000n;
            const both = pair({
              settings,
              ringFeatures,
              queueSizes: [size, 4],
              device: { endpoints, bypass: false, pageSizeMask },
            });
            const taken = [8, 16, 24].map((id) => mustHave(both.driver.addEndpoint([id])));
            const domains = [0, 1].map(() => mustHave(both.driver.createDomain()));
            const cores = domains.map((it) => new IommuDomain(DomainType.UNMANAGED, it));
            for (const { kind, domain, pfn, pages } of steps) {
              const core = cores[domain]!;
              if (kind === "map") {
                // Callers never map over a mapping, nor with a hole to unmap; Linux checks neither.
                let isFree = true;
                for (let at = pfn; at < pfn + pages; at += 1)
                  if (core.iovaToPhys(at) >= 0) isFree = false;
                if (isFree) expect(core.map(pfn, pfn + 512, pages, PROT_RW)).toBe(Errno.OK);
              } else if (kind === "unmap") {
                let isFull = true;
                for (let at = pfn; at < pfn + pages; at += 1)
                  if (core.iovaToPhys(at) < 0) isFull = false;
                if (isFull) core.unmap(pfn, pages);
              } else {
                const endpoint = taken[pfn]!;
                if (endpoint.domain === domains[domain]) continue;
                expect(both.driver.attach(endpoint, domains[domain]!)).toBe(Errno.OK);
              }
              for (const one of domains) {
                if (one.endpointCount === 0) {
                  expect(both.device.mappingsOf(one.id)).toBe(null);
                  continue;
                }
                const [remembered, known] = framesOf(both, one);
                expect(known).toEqual(remembered);
              }
            }
          },
        ),
        { seed: 189, numRuns: 40 },
      );
    });
  }
});
