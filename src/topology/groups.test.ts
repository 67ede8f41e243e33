import { describe, expect, it } from "vitest";
import { machineFromYaml } from "../config/read-machine.ts";
import { compareGroups, deriveGroups, probeOrder } from "./groups.ts";
import type { Machine } from "./machine.ts";

const ACS = "acs: { capability: 0x1d, control: 0x1d }";

function machine(...lines: string[]): Machine {
  const functions = lines.map((line) => `  - { ${line} }\n`).join("");
  return machineFromYaml(
    `schema: iommukit/topology@1\nfunctions:\n${functions}iommus:\n  - { name: dmar0, kind: vtd, rest: true }\n`,
    "m.yaml",
  );
}

const groups = (one: Machine) =>
  deriveGroups(one).map(({ devices }) => devices.map((n) => n.slice(5)));

describe("derived groups", () => {
  it("below a port with ACS are one each, below one without they share the port's", () => {
    const one = machine(
      `at: 0:1.0, buses: 1, ${ACS}`,
      "at: 0:2.0, buses: 2",
      "at: 1:0.0, bridge: 0:1.0",
      "at: 2:0.0, bridge: 0:2.0",
    );
    expect(groups(one)).toEqual([["00:01.0"], ["00:02.0", "02:00.0"], ["01:00.0"]]);
  });

  it("of functions of one slot without ACS are one, with ACS several", () => {
    const one = machine("at: 0:1.0", "at: 0:1.1", `at: 0:2.0, ${ACS}`, `at: 0:2.1, ${ACS}`);
    expect(groups(one)).toEqual([["00:01.0", "00:01.1"], ["00:02.0"], ["00:02.1"]]);
  });

  it("of virtual functions are one each, since they are never multifunction", () => {
    const one = machine(
      `at: 0:1.0, buses: 1, ${ACS}`,
      "at: 1:0.0, bridge: 0:1.0, multifunction: true, sriov: { totalVfs: 2 }",
      "at: 1:0.1, bridge: 0:1.0, physicalFunction: 1:0.0",
      "at: 1:0.2, bridge: 0:1.0, physicalFunction: 1:0.0",
    );
    expect(groups(one)).toEqual([["00:01.0"], ["01:00.0"], ["01:00.1"], ["01:00.2"]]);
  });

  it("follow quirks that the configuration space does not show", () => {
    const one = machine(
      "at: 0:1.0, buses: 1, quirks: { isolated: true }",
      "at: 1:0.0, bridge: 0:1.0",
    );
    expect(groups(one)).toEqual([["00:01.0"], ["01:00.0"]]);
  });

  it("are numbered as a kernel probes: a bus before what is below it", () => {
    const one = machine(
      `at: 0:1.0, buses: 1-2, ${ACS}`,
      `at: 0:2.0, ${ACS}`,
      `at: 1:0.0, bridge: 0:1.0, buses: 2, ${ACS}`,
      `at: 2:0.0, bridge: 1:0.0, ${ACS}`,
    );
    expect(probeOrder(one.functions)).toEqual([0, 1, 2, 3]);
    const shuffled = { ...one, functions: [...one.functions].reverse() };
    const bridges = shuffled.functions.map((f) => ({
      ...f,
      bridge: f.bridge < 0 ? -1 : 3 - f.bridge,
    }));
    expect(probeOrder(bridges)).toEqual([2, 3, 1, 0]);
  });

  it("hold no device that no IOMMU translates", () => {
    const one = machine("at: 0:1.0", "at: 0:2.0");
    const bypassed: Machine = {
      ...one,
      hostBridges: [
        {
          segment: 0,
          firstBus: 0,
          lastBus: 255,
          node: null,
          ecamBase: null,
          windows: [],
          bypassesIommu: true,
          atsSupported: null,
        },
      ],
    };
    expect([groups(one).length, groups(bypassed).length]).toEqual([2, 0]);
  });

  it("that differ from the recorded ones are told apart from those that agree", () => {
    const one = machine(`at: 0:1.0, ${ACS}`, `at: 0:2.0, ${ACS}`, "at: 0:3.0", "at: 0:3.1");
    const recorded = (...lists: string[][]) => {
      const list = lists.map((devices, id) => {
        return { id, type: null, name: null, devices, regions: [] };
      });
      const functions = one.functions.map((f) => ({ ...f, iommu: "dmar0" }));
      return compareGroups({ ...one, functions, groups: list }, deriveGroups(one));
    };
    const name = (slot: string) => `0000:00:0${slot}`;
    const same = recorded([name("1.0")], [name("2.0")], [name("3.1"), name("3.0")]);
    expect(same.map(({ agrees }) => agrees)).toEqual([true, true, true]);
    const joined = recorded([name("1.0"), name("2.0")], [name("3.0")], [name("3.1")]);
    expect(joined.map(({ agrees }) => agrees)).toEqual([false, false, false]);
    expect(joined[1]!.derived).toEqual([name("3.0"), name("3.1")]);
    expect(recorded(["gone"])).toMatchObject([{ agrees: false, derived: [] }]);
  });
});
