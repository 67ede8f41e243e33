import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { claimGroup, useDefaultDomain } from "./attach.ts";
import { bootPolicy } from "./boot-policy.ts";
import {
  demandedType,
  settleFlushQueue,
  setupDefaultDomain,
  showType,
  storeType,
} from "./default-domain.ts";
import { type DmaCookie, DomainType, IommuDomain } from "./domain.ts";
import { FakeOps, makeGroup } from "./group-world.suite.ts";
import { ReservedType } from "./reserved-regions.ts";
import { ScriptedDriver } from "./scripted-driver.suite.ts";

const { DMA, DMA_FQ, IDENTITY } = DomainType;

describe("the boot policy", () => {
  it.each([
    [{ architecture: "x86" }, DMA_FQ],
    [{ architecture: "s390" }, DMA_FQ],
    [{ architecture: "other" }, DMA],
    [{ architecture: "other", strict: false }, DMA_FQ],
    [{ architecture: "x86", strict: true }, DMA],
    [{ architecture: "x86", configStrict: true }, DMA],
    [{ architecture: "x86", configStrict: true, strict: false }, DMA_FQ],
    [{ architecture: "x86", driverForcesStrict: true, strict: false }, DMA],
    [{ architecture: "x86", passthrough: true, strict: true }, IDENTITY],
    [{ architecture: "x86", configPassthrough: true }, IDENTITY],
    [{ architecture: "x86", configPassthrough: true, passthrough: false }, DMA_FQ],
    [{ architecture: "x86", configPassthrough: true, memoryEncryption: true }, DMA_FQ],
    [{ architecture: "x86", passthrough: true, memoryEncryption: true }, IDENTITY],
  ] as const)("of %j is type %d", (choices, type) => {
    expect(bootPolicy(choices).defaultType).toBe(type);
  });

  it("is logged as recorded kernels log it", () => {
    expect(bootPolicy({ architecture: "x86", strict: true }).log).toEqual([
      "Default domain type: Translated",
      "DMA domain TLB invalidation policy: strict mode (set via kernel command line)",
    ]);
    expect(bootPolicy({ architecture: "x86" }).log).toEqual([
      "Default domain type: Translated",
      "DMA domain TLB invalidation policy: lazy mode",
    ]);
    expect(bootPolicy({ architecture: "x86", passthrough: true }).log).toEqual([
      "Default domain type: Passthrough (set via kernel command line)",
    ]);
  });
});

describe("what a group's members demand", () => {
  const demand = (types: (typeof DMA | typeof IDENTITY | null)[], untrusted = -1) => {
    const ops = new FakeOps();
    const names = types.map((type, index) => {
      ops.demands.set(`d${index}`, type);
      return { name: `d${index}`, ops: null, untrusted: index === untrusted };
    });
    return makeGroup(names, { ops }).group;
  };

  it("is what the only one with an opinion demands; IDENTITY wins a conflict", () => {
    expect(demandedType(demand([null, null]), null)).toBe(null);
    expect(demandedType(demand([null, DMA]), null)).toBe(DMA);
    expect(demandedType(demand([DMA, IDENTITY, DMA]), null)).toBe(IDENTITY);
    expect(demandedType(demand([IDENTITY, DMA]), null)).toBe(IDENTITY);
  });

  it("refuses a request for another type", () => {
    expect(demandedType(demand([DMA]), IDENTITY)).toBe(-1);
    expect(demandedType(demand([DMA]), DMA_FQ)).toBe(-1);
    expect(demandedType(demand([DMA]), DMA)).toBe(DMA);
    expect(demandedType(demand([null]), IDENTITY)).toBe(IDENTITY);
  });

  it("is strict DMA for an untrusted member, against which no driver may be", () => {
    expect(demandedType(demand([null, null], 1), null)).toBe(DMA);
    expect(demandedType(demand([DMA, null], 1), null)).toBe(DMA);
    const { group, errno } = makeGroup([{ name: "x", ops: null, untrusted: true }], {
      ops: Object.assign(new FakeOps(), { demands: new Map([["x", IDENTITY]]) }),
    });
    expect([errno, group.defaultDomain]).toEqual([Errno.EINVAL, null]);
  });
});

describe("setting up the default domain", () => {
  it("falls back to DMA when the system's default cannot be had", () => {
    const ops = new FakeOps();
    ops.identityDomain = null;
    const { group, errno } = makeGroup(["a"], { ops, system: { defaultType: IDENTITY } });
    expect([errno, showType(group)]).toEqual([Errno.OK, "DMA"]);
  });

  it("answers EINVAL when even DMA cannot be had, and the device has no group then", () => {
    const ops = Object.assign(new FakeOps(), { allocErrno: Errno.ENOMEM });
    expect(makeGroup(["a"], { ops }).errno).toBe(Errno.EINVAL);
    const lazy = makeGroup(["a"], { ops, system: { defaultType: DMA_FQ } });
    expect(lazy.errno).toBe(Errno.ENOMEM);
  });

  it("asks for a domain for PASIDs first, where a device has them", () => {
    const ops = new FakeOps();
    makeGroup([{ name: "a", ops: null, maxPasids: 4 }], { ops });
    expect(ops.allocs).toEqual([true]);
    ops.allocErrno = Errno.EOPNOTSUPP;
    makeGroup([{ name: "a", ops: null, maxPasids: 4 }], { ops });
    expect(ops.allocs).toEqual([true, true, false]);
  });

  it("hangs the DMA API's cookie on it, and answers ENOMEM without one", () => {
    const cookie: DmaCookie = { initFlushQueue: () => Errno.OK };
    const { group } = makeGroup(["a"], { system: { createDmaCookie: () => cookie } });
    expect(group.defaultDomain!.cookie).toEqual({ kind: "dma", dma: cookie });
    const poor = makeGroup(["a"], { system: { createDmaCookie: () => null } });
    expect(poor.errno).toBe(Errno.ENOMEM);
    expect(poor.ops.freed).toHaveLength(1);
  });

  it("that fails for the n-th device keeps the old one, for every n", () => {
    for (let n = 0; n < 3; n += 1) {
      const { ops, group } = makeGroup(["a", "b", "c"]);
      const old = group.defaultDomain;
      ops.successes = n;
      expect(setupDefaultDomain(group, IDENTITY)).toBe(Errno.ENOMEM);
      expect([group.defaultDomain, group.domain, showType(group)]).toEqual([old, old, "DMA"]);
      for (const name of ["a", "b", "c"]) expect(ops.at.get(name)).toBe(old);
      ops.successes = n;
      ops.failures = 1;
      expect(setupDefaultDomain(group, DMA_FQ)).toBe(Errno.ENOMEM);
      expect(ops.freed).toHaveLength(1);
      expect(group.defaultDomain).toBe(old);
    }
  });

  it("tries direct regions again after the attach, and goes back when that fails too", () => {
    const ops = new FakeOps();
    const { group } = makeGroup(["a"], { ops, system: { defaultType: IDENTITY } });
    ops.regions.set("a", [{ type: ReservedType.DIRECT, start: 0n, last: 0xfffn, prot: 3 }]);
    ops.script = { mapLimit: 0, empty: true };
    expect(setupDefaultDomain(group, DMA)).toBe(Errno.ENOMEM);
    expect([showType(group), ops.at.get("a")]).toEqual(["identity", ops.identityDomain]);
    ops.script = {};
    expect(setupDefaultDomain(group, DMA)).toBe(Errno.OK);
    expect(ops.at.get("a")).toBe(group.defaultDomain);
  });
});

describe("the type file", () => {
  it("row 69: with a driver bound DMA becomes DMA-FQ live, and not DMA again: EPERM", () => {
    const { group } = makeGroup(["a"]);
    useDefaultDomain(group);
    const domain = group.defaultDomain;
    expect(storeType(group, "DMA-FQ\n", true)).toBe(Errno.OK);
    expect([showType(group), group.defaultDomain]).toEqual(["DMA-FQ", domain]);
    expect(storeType(group, "DMA", true)).toBe(Errno.EPERM);
    expect(storeType(group, "DMA-FQ", true)).toBe(Errno.EPERM);
  });

  it("row 70: an untrusted device refuses identity and DMA-FQ by another domain: EINVAL", () => {
    const { group } = makeGroup([{ name: "a", ops: null, untrusted: true }]);
    expect(storeType(group, "identity", true)).toBe(Errno.EINVAL);
    expect(showType(group)).toBe("DMA");
    expect(storeType(group, "auto", true)).toBe(Errno.OK);
  });

  it("row 71: DMA_FQ reads DMA after the DMA API met a driver without deferred flush", () => {
    const { group } = makeGroup(["a"], { system: { defaultType: DMA_FQ } });
    expect(showType(group)).toBe("DMA-FQ");
    Object.assign(group.defaultDomain!.driver!, { deferredFlush: false });
    expect(settleFlushQueue(group.defaultDomain!)).toBe(false);
    expect(showType(group)).toBe("DMA");
  });

  it("a flush queue that cannot be allocated leaves the type at DMA, or makes it DMA", () => {
    const dma: DmaCookie = { initFlushQueue: () => Errno.ENOMEM };
    const { group } = makeGroup(["a"], { system: { createDmaCookie: () => dma } });
    expect(storeType(group, "DMA-FQ", true)).toBe(Errno.ENOMEM);
    expect(showType(group)).toBe("DMA");
    const lazy = new IommuDomain(DMA_FQ, new ScriptedDriver("range"));
    lazy.cookie = { kind: "dma", dma };
    expect(settleFlushQueue(lazy)).toBe(false);
    expect(lazy.type).toBe(DMA);
    lazy.type = DMA_FQ;
    lazy.cookie = { kind: "dma", dma: { initFlushQueue: () => Errno.OK } };
    expect(settleFlushQueue(lazy)).toBe(true);
  });

  it("changes to every type without a driver bound, and writing the present one is fine", () => {
    const { ops, group } = makeGroup(["a"]);
    for (const [word, shown] of [
      ["identity", "identity"],
      ["DMA-FQ", "DMA-FQ"],
      ["DMA", "DMA"],
      ["DMA", "DMA"],
      ["auto", "DMA"],
    ] as const) {
      expect(storeType(group, word, true)).toBe(Errno.OK);
      expect(showType(group)).toBe(shown);
      expect(ops.at.get("a")).toBe(group.defaultDomain);
    }
    expect(ops.freed).toHaveLength(2);
  });

  it("is refused: EACCES without privilege, EINVAL for other words, EPERM in use", () => {
    const { group } = makeGroup(["a"]);
    expect(storeType(group, "identity", false)).toBe(Errno.EACCES);
    for (const word of ["", "dma", "DMA_FQ", "blocked", "identity\n\n", "toString"]) {
      expect(storeType(group, word, true)).toBe(Errno.EINVAL);
    }
    claimGroup(group, {});
    expect(storeType(group, "identity", true)).toBe(Errno.EPERM);
    expect(showType(group)).toBe("DMA");
    group.defaultDomain = null;
    expect(storeType(group, "identity", true)).toBe(Errno.EINVAL);
    expect(showType(group)).toBe("unknown");
  });

  it("says unmanaged and blocked of domains of these types", () => {
    const { group } = makeGroup(["a"]);
    group.defaultDomain!.type = DomainType.UNMANAGED;
    expect(showType(group)).toBe("unmanaged");
    group.defaultDomain!.type = DomainType.BLOCKED;
    expect(showType(group)).toBe("blocked");
  });
});
