import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import {
  ACS_REQUIRED,
  eachDmaAlias,
  isAcsEffective,
  isAcsPath,
  PciGroupFinder,
} from "./group-rules.ts";
import { type PciFunction, type PciPortType, pciName } from "./pci-function.ts";

const ACS = { capability: 0x5f, control: ACS_REQUIRED };

function pci(
  bus: number,
  slot: number,
  number: number,
  portType: PciPortType,
  more: Partial<PciFunction> = {},
): PciFunction {
  return {
    segment: 0,
    bus,
    devfn: slot * 8 + number,
    portType,
    isMultifunction: false,
    acs: null,
    bridge: -1,
    secondaryBus: -1,
    ...more,
  };
}

/** Groups that come of probing every function in an order, bridges included: names by group. */
function groupsOf(functions: readonly PciFunction[], order = functions.map((_, index) => index)) {
  const groups: number[][] = [];
  const groupOf = new Map<number, number[]>();
  const finder = new PciGroupFinder(functions, (index) => groupOf.get(index) ?? null);
  for (const index of order) {
    let group = finder.find(index);
    if (group === null) {
      group = [];
      groups.push(group);
    }
    group.push(index);
    groupOf.set(index, group);
  }
  const name = (index: number) => pciName(functions[index]!).slice(5);
  return groups.map((group) => group.map(name).sort());
}

const rootPort = (more: Partial<PciFunction> = {}) =>
  pci(0, 1, 0, "root-port", { secondaryBus: 1, acs: ACS, ...more });

describe("effective ACS", () => {
  it("of ports is what their registers have, hard-wired bits included", () => {
    const port = (capability: number, control: number) =>
      isAcsEffective(rootPort({ acs: { capability, control } }));
    expect(port(0x1d, 0x1d)).toBe(true);
    expect(port(0x1d, 0x0d)).toBe(false);
    // Upstream forwarding is not advertised: it cannot be switched off.
    expect(port(0x0d, 0x0d)).toBe(true);
    expect(port(0, 0)).toBe(true);
    expect(isAcsEffective(rootPort({ acs: null }))).toBe(false);
  });

  it("of endpoints is given when they are alone in their slot", () => {
    for (const type of ["endpoint", "legacy-endpoint", "upstream", "rc-endpoint"] as const) {
      expect(isAcsEffective(pci(1, 0, 0, type))).toBe(true);
      expect(isAcsEffective(pci(1, 0, 0, type, { isMultifunction: true }))).toBe(false);
      expect(isAcsEffective(pci(1, 0, 0, type, { isMultifunction: true, acs: ACS }))).toBe(true);
    }
  });

  it("is never there on conventional PCI, PCI bridges and event collectors, unless a quirk says so", () => {
    for (const type of [
      "conventional",
      "pcie-to-pci-bridge",
      "pci-to-pcie-bridge",
      "rc-event-collector",
    ] as const) {
      expect(isAcsEffective(pci(0, 1, 0, type, { acs: ACS }))).toBe(false);
      expect(isAcsEffective(pci(0, 1, 0, type, { quirks: { isolated: true } }))).toBe(true);
    }
    expect(isAcsEffective(rootPort({ quirks: { isolated: false } }))).toBe(false);
  });
});

describe("row 96: a PCIe device of two functions with an isolated path", () => {
  const device = (acs: PciFunction["acs"]) => [
    rootPort(),
    pci(1, 0, 0, "endpoint", { isMultifunction: true, acs, bridge: 0 }),
    pci(1, 0, 1, "endpoint", { isMultifunction: true, acs, bridge: 0 }),
  ];

  it("is one group without ACS, two groups with ACS 0x1d on both", () => {
    expect(groupsOf(device(null))).toEqual([["00:01.0"], ["01:00.0", "01:00.1"]]);
    expect(groupsOf(device(ACS))).toEqual([["00:01.0"], ["01:00.0"], ["01:00.1"]]);
  });

  it("is two groups when only one of them has ACS", () => {
    const mixed = device(null);
    mixed[1] = { ...mixed[1]!, acs: ACS };
    expect(groupsOf(mixed)).toEqual([["00:01.0"], ["01:00.0"], ["01:00.1"]]);
  });
});

describe("row 97: below a switch", () => {
  const below = (acs: PciFunction["acs"]) => [
    rootPort(),
    pci(1, 0, 0, "upstream", { bridge: 0, secondaryBus: 2 }),
    pci(2, 0, 0, "downstream", { bridge: 1, secondaryBus: 3, acs }),
    pci(2, 1, 0, "downstream", { bridge: 1, secondaryBus: 4, acs }),
    pci(3, 0, 0, "endpoint", { bridge: 2 }),
    pci(4, 0, 0, "endpoint", { bridge: 3 }),
  ];

  it("whose downstream ports are slots of their own without ACS, endpoints join their port", () => {
    // The rule asks the bridge above a port, which is isolated, and not the ports beside it.
    expect(groupsOf(below(null))).toEqual([
      ["00:01.0"],
      ["01:00.0"],
      ["02:00.0", "03:00.0"],
      ["02:01.0", "04:00.0"],
    ]);
  });

  it("whose downstream ports lack ACS and are functions of one slot, all are one group", () => {
    const slot = below(null).map((each) =>
      each.portType === "downstream"
        ? { ...each, devfn: each.secondaryBus - 3, isMultifunction: true }
        : each,
    );
    expect(groupsOf(slot)).toEqual([
      ["00:01.0"],
      ["01:00.0"],
      ["02:00.0", "02:00.1", "03:00.0", "04:00.0"],
    ]);
  });

  it("whose downstream ports have ACS, everyone is alone", () => {
    expect(groupsOf(below(ACS))).toHaveLength(6);
  });

  it("under a root port without ACS, all endpoints join the root port", () => {
    const open = [rootPort({ acs: null }), ...below(ACS).slice(1)];
    expect(groupsOf(open)).toEqual([
      ["00:01.0", "01:00.0", "02:00.0", "02:01.0", "03:00.0", "04:00.0"],
    ]);
  });
});

describe("row 98: behind a PCIe-to-PCI bridge", () => {
  const functions = [
    rootPort(),
    pci(1, 0, 0, "pcie-to-pci-bridge", { bridge: 0, secondaryBus: 2 }),
    pci(2, 0, 0, "conventional", { bridge: 1 }),
    pci(2, 5, 0, "conventional", { bridge: 1 }),
    pci(2, 6, 0, "conventional", { bridge: 1, secondaryBus: 3 }),
    pci(3, 0, 0, "conventional", { bridge: 4 }),
  ];

  it("everything is one group", () => {
    expect(groupsOf(functions)).toEqual([
      ["00:01.0"],
      ["01:00.0", "02:00.0", "02:05.0", "02:06.0", "03:00.0"],
    ]);
  });

  it("everything carries the requester id of the secondary bus", () => {
    const aliases = (index: number) => {
      const rids: string[] = [];
      eachDmaAlias(functions, index, (at, rid) => {
        rids.push(`${pciName(functions[at]!).slice(5)}=${rid.toString(16)}`);
        return false;
      });
      return rids;
    };
    expect(aliases(3)).toEqual(["02:05.0=228", "01:00.0=200"]);
    // A conventional bridge puts its own id on what passes.
    expect(aliases(5)).toEqual(["03:00.0=300", "02:06.0=230", "01:00.0=200"]);
    expect(aliases(0)).toEqual(["00:01.0=8"]);
  });

  it("ends at a bridge where translation happens", () => {
    const cut = functions.map((each, index) =>
      index === 1 ? { ...each, quirks: { isTranslationRoot: true } } : each,
    );
    let visits = 0;
    eachDmaAlias(cut, 3, () => {
      visits += 1;
      return false;
    });
    expect(visits).toBe(1);
  });
});

describe("quirks", () => {
  it("that alias one function to another's devfn join them, whoever is probed first", () => {
    const functions = [
      pci(0, 2, 0, "rc-endpoint", { quirks: { aliasDevfns: [3 * 8] } }),
      pci(0, 3, 0, "rc-endpoint"),
      pci(0, 4, 0, "rc-endpoint"),
    ];
    expect(groupsOf(functions)).toEqual([["00:02.0", "00:03.0"], ["00:04.0"]]);
    expect(groupsOf(functions, [1, 0, 2])).toEqual([["00:02.0", "00:03.0"], ["00:04.0"]]);
  });

  it("that name the real DMA function join that one's group", () => {
    const functions = [
      pci(0, 2, 0, "rc-endpoint"),
      pci(1, 0, 0, "endpoint", { quirks: { realDmaFunction: 0 } }),
    ];
    expect(groupsOf(functions)).toEqual([["00:02.0", "01:00.0"]]);
  });

  it("of a conventional bridge that takes its secondary bus's id are visited as that", () => {
    const bridge = pci(0, 1, 0, "conventional", {
      secondaryBus: 9,
      quirks: { aliasesSecondaryBus: true },
    });
    const rids: number[] = [];
    eachDmaAlias([bridge, pci(9, 1, 0, "conventional", { bridge: 0 })], 1, (_, rid) => {
      rids.push(rid);
      return false;
    });
    expect(rids).toEqual([0x908, 0x900]);
  });

  it("of aliases also tie the other functions of that slot, through a chain", () => {
    const functions = [
      pci(0, 2, 0, "rc-endpoint", { quirks: { aliasDevfns: [3 * 8] } }),
      pci(0, 3, 0, "rc-endpoint", { isMultifunction: true }),
      pci(0, 3, 1, "rc-endpoint", { isMultifunction: true }),
    ];
    // 00:03.1 was probed first; 00:02.0 finds it over 00:03.0.
    expect(groupsOf(functions, [2, 0, 1])).toEqual([["00:02.0", "00:03.0", "00:03.1"]]);
  });
});

describe("a wrong or hostile topology", () => {
  it("with a loop of bridges comes to an end", () => {
    const functions = [
      pci(0, 1, 0, "downstream", { bridge: 1, secondaryBus: 1, acs: ACS }),
      pci(1, 0, 0, "downstream", { bridge: 0, secondaryBus: 0, acs: ACS }),
      pci(1, 1, 0, "conventional", { bridge: 0 }),
    ];
    expect(groupsOf(functions).flat()).toHaveLength(3);
    expect(isAcsPath(functions, 0)).toBe(false);
  });

  it("with a bridge outside the list is a mistake of the caller", () => {
    expect(() => groupsOf([pci(0, 1, 0, "endpoint", { bridge: 7 })])).toThrow(AssertionError);
  });

  it("of 256 functions that all alias each other is one group", () => {
    const all = Array.from({ length: 256 }, (_, devfn) => devfn);
    const functions = all.map((devfn) =>
      pci(0, devfn >> 3, devfn & 7, "conventional", {
        isMultifunction: true,
        quirks: { aliasDevfns: all },
      }),
    );
    expect(groupsOf(functions)).toHaveLength(1);
  });

  it("puts every function in one group, and aliases of a function in the group of that function", () => {
    const types: PciPortType[] = [
      "conventional",
      "endpoint",
      "root-port",
      "downstream",
      "pcie-to-pci-bridge",
    ];
    const shape = fc.array(
      fc.record({
        bus: fc.nat(3),
        devfn: fc.nat(15),
        type: fc.constantFrom(...types),
        multifunction: fc.boolean(),
        acs: fc.boolean(),
        bridge: fc.nat(20),
        alias: fc.option(fc.nat(15), { nil: undefined }),
      }),
      { minLength: 1, maxLength: 12, size: "max" },
    );
    const property = fc.property(shape, (shapes) => {
      const functions = shapes.map((each, index) =>
        pci(each.bus, each.devfn >> 3, each.devfn & 7, each.type, {
          isMultifunction: each.multifunction,
          acs: each.acs ? ACS : null,
          bridge: index === 0 ? -1 : (each.bridge % (index + 1)) - 1,
          quirks: each.alias === undefined ? {} : { aliasDevfns: [each.alias] },
        }),
      );
      const groups = groupsOf(functions);
      expect(groups.flat()).toHaveLength(functions.length);
      expect(groups.every((group) => group.length > 0)).toBe(true);
    });
    fc.assert(property, { seed: 20261121, numRuns: 300 });
  });
});
