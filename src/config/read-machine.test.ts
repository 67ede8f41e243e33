import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { positionText, StackError } from "../errors.ts";
import { EMPTY_MACHINE, type Iommu, type Machine } from "../topology/machine.ts";
import { machineJsonSchema } from "./machine-schema.ts";
import { machineFromYaml } from "./read-machine.ts";
import { machineToYaml } from "./write-machine.ts";
import { yamlText } from "./yaml-text.ts";

const HEAD = "schema: iommukit/topology@1\n";
const TWO_NODES = `${HEAD}nodes:
  - { id: 0, cpus: 0-1, memory: [0x0-0x3fffffff] }
  - { id: 1, cpus: "2,3", memoryBytes: 16GiB, distances: [21, 10] }
hostBridges:
  - { buses: 0000:20-22, node: 1 }
`;

/** What a text is refused with: where, and why. */
function refusal(text: string): string {
  try {
    machineFromYaml(text, "m.yaml");
  } catch (error) {
    expect(error).toBeInstanceOf(StackError);
    const { at, message } = error as StackError;
    return `${positionText(at!)} ${message}`;
  }
  return "accepted";
}

describe("a topology file", () => {
  it("needs little: what it does not say has its ordinary value", () => {
    const machine = machineFromYaml(
      `${TWO_NODES}functions:
  - { at: 0000:20:00.0, buses: 0000:21 }
  - { at: 0000:21:00.0, bridge: 0000:20:00.0, id: 10de:2330, class: 0x030200 }
iommus:
  - { name: dmar0, kind: vtd, rest: true, registers: 0xfed90000-0xfed90fff }
`,
      "m.yaml",
    );
    expect(machine.nodes[0]).toMatchObject({ memoryBytes: 0x4000_0000n, distances: [10, 20] });
    expect(machine.nodes[1]).toMatchObject({ memoryBytes: 16n << 30n, cpus: [2, 3] });
    const [port, gpu] = machine.functions;
    expect(port).toMatchObject({ portType: "root-port", header: "bridge", node: 1, bridge: -1 });
    expect(gpu).toMatchObject({ portType: "endpoint", node: 1, bridge: 0, vendor: 0x10de });
    expect(gpu!.isMultifunction).toBe(false);
  });

  it("keeps addresses of 64 bits exact", () => {
    const text = `${HEAD}firmwareRegions:
  - { range: 0xfffffffffffff000-0xffffffffffffffff, source: rmrr }
`;
    const [region] = machineFromYaml(text, "m.yaml").firmwareRegions;
    expect([region!.start, region!.last]).toEqual([0xffff_ffff_ffff_f000n, 0xffff_ffff_ffff_ffffn]);
  });

  it.each([
    ["a: [", /^m.yaml:1:\d+ this is not YAML/],
    ["", /^m.yaml:1:1 a topology is a map of lists/],
    ["schema: other\n", /^m.yaml:1:9 schema: this is not iommukit\/topology@1/],
    [`${HEAD}node: []\n`, /^m.yaml:2:1 there is no key "node"/],
    [`${HEAD}nodes:\n  - { id: 0, cpu: 1 }\n`, /^m.yaml:3:14 there is no key "cpu" in nodes\[0\]/],
    [`${HEAD}nodes:\n  - id: -1\n`, /^m.yaml:3:9 nodes\[0\].id: -1 is no whole number/],
    [`${HEAD}nodes:\n  - id: 1.5\n`, /^m.yaml:3:9 nodes\[0\].id: this is no whole number/],
    [`${HEAD}nodes:\n  - id: 0\n    id: 1\n`, /^m.yaml:4:5 .*unique/],
    [`${HEAD}nodes:\n  - { id: 0, memory: [0x2-0x1] }\n`, /^m.yaml:3:23 .*no range of addresses/],
    [`${HEAD}functions:\n  - at: 00:20.0\n`, /^m.yaml:3:9 .*"00:20.0" is no PCI function/],
    [
      `${HEAD}functions:\n  - { at: 00:1.0, port: rootport }\n`,
      /^m.yaml:3:25 .*none of .*root-port/,
    ],
    [`${HEAD}functions:\n  - { at: 00:1.0, node: x }\n`, /^m.yaml:3:25 .*number of a node/],
    [`${HEAD}hostBridges:\n  - { buses: "0:22-20" }\n`, /^m.yaml:3:14 .*no range of buses/],
  ])("%j is refused with its place", (text, message) => {
    expect(refusal(text)).toMatch(message);
  });

  it("that expands without end or nests without end is refused", () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${"bcdefghi"
      .split("")
      .map((key, at) => `${key}: &${key} [${Array(9).fill(`*${"abcdefgh"[at]}`).join(",")}]`)
      .join("\n")}\n`;
    expect(refusal(bomb)).toMatch(/not YAML that can be read/);
    expect(refusal("[".repeat(200_000))).toMatch(/not YAML that can be read/);
  });
});

describe("an impossible machine", () => {
  const functions = (...lines: string[]) =>
    `${TWO_NODES}functions:\n${lines.map((line) => `  - ${line}\n`).join("")}`;
  it.each([
    [
      functions("{ at: 0000:20:00.0, node: 3 }"),
      /8:31 0000:20:00.0 is on node 3, which the machine/,
    ],
    [functions("{ at: 0000:30:00.0 }"), /8:11 .*on a bus that no host bridge has/],
    [functions("{ at: 20:1.0 }", "{ at: 0000:20:01.0 }"), /9:11 .*is there twice/],
    [functions("{ at: 21:0.0, bridge: 20:0.0 }"), /8:27 .*names 0000:20:00.0, which the machine/],
    [functions("{ at: 20:0.0 }", "{ at: 21:0.0, bridge: 20:0.0 }"), /9:27 .*which is no bridge/],
    [
      functions("{ at: 20:0.0, buses: 22 }", "{ at: 21:0.0, bridge: 20:0.0 }"),
      /9:27 .*which leads to buses 22 to 22/,
    ],
    [
      functions("{ at: 21:0.0, bridge: 22:0.0 }", "{ at: 22:0.0, buses: 21 }"),
      /8:27 .*higher number/,
    ],
    [functions("{ at: 20:0.0, iommu: dmar7 }"), /8:26 .*dmar7, which is no IOMMU/],
    [
      `${TWO_NODES}iommus:\n  - { name: dmar0, kind: vtd }\n`,
      /8:5 dmar0 is an IOMMU without devices/,
    ],
    [`${TWO_NODES}iommus:\n  - { name: a, kind: vtd, rest: true, node: 9 }\n`, /node 9/],
    [
      functions("{ at: 20:0.0 }").concat(
        "iommus:\n  - { name: a, kind: virtio-pci, at: 20:1.0, translates: [] }\n",
      ),
      /10:38 a is a PCI function that the machine does not have/,
    ],
    [
      `${TWO_NODES}iommus:\n  - name: a\n    kind: virtio-pci\n    at: 20:0.0\n    translates: [{ functions: "0:0.0-ff:1f.7", firstId: 0xffffffff }]\n`,
      /11:18 a gives ids beyond 32 bits/,
    ],
    [`${HEAD}nodes:\n  - { id: 0 }\n  - { id: 0 }\n`, /node 0 is there twice/],
    [`${HEAD}nodes:\n  - { id: 0, distances: [20] }\n`, /3:25 node 0 is 20 away from itself/],
    [`${HEAD}nodes:\n  - { id: 0, distances: [10, 20] }\n`, /has 2 distances, the machine 1 nodes/],
    [
      `${HEAD}nodes:\n  - { id: 0, memory: [0x0-0xfff] }\n  - { id: 1, memory: [0x800-0x1fff] }\n`,
      /4:.*memory of node 1 at 0x800 overlaps that of node 0/,
    ],
    [
      `${HEAD}hostBridges:\n  - { buses: 0000:00-20 }\n  - { buses: 0000:20-30 }\n`,
      /4:14 .*another host bridge of its segment has/,
    ],
    [
      `${HEAD}groups:\n  - { id: 0, devices: [a] }\n`,
      /group 0 holds a, which the machine does not/,
    ],
  ])("is refused by name (%#)", (text, message) => {
    expect(refusal(text)).toMatch(message);
  });

  it("is not one with an IOMMU that is said to translate nothing", () => {
    const text = `${TWO_NODES}iommus:\n  - { name: dmar0, kind: vtd, translates: [] }\n`;
    expect(refusal(text)).toBe("accepted");
  });

  it("with several problems names the first and counts the others", () => {
    expect(refusal(functions("{ at: 20:0.0, node: 3 }", "{ at: 20:0.0, node: 3 }"))).toMatch(
      /\(and 2 more problems\)/,
    );
  });
});

describe("any machine", () => {
  const u16 = fc.nat(0xffff);
  const address = fc.bigInt(0n, (1n << 64n) - 1n);
  const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: null });
  const range = fc.tuple(address, address).map(([a, b]) => {
    return a < b ? { start: a, last: b } : { start: b, last: a };
  });
  const text = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" });
  const rids = fc.tuple(fc.nat(3), u16, u16, fc.nat(0xffff), fc.boolean()).map((parts) => {
    const [segment, a, b, firstId, includesBelow] = parts;
    return { segment, firstRid: Math.min(a, b), lastRid: Math.max(a, b), firstId, includesBelow };
  });
  const common = (name: string) =>
    fc.record({
      name: fc.constant(name),
      node: fc.constant(null),
      includesRest: fc.boolean(),
      translates: fc.array(rids, { maxLength: 2 }),
      endpoints: fc.array(fc.record({ base: address, id: fc.nat(), path: maybe(text) }), {
        maxLength: 2,
      }),
      interruptSources: fc.array(
        fc.record({
          kind: fc.constantFrom("ioapic" as const, "hpet" as const),
          id: fc.nat(255),
          segment: fc.nat(3),
          rid: u16,
        }),
        { maxLength: 2 },
      ),
    });
  const vtd = fc.record({
    kind: fc.constant("vtd" as const),
    segment: fc.nat(9),
    registers: range,
    version: maybe(text),
    capability: maybe(address),
    extendedCapability: maybe(address),
  });
  const smmu = fc.record({
    kind: fc.constantFrom("smmuv2" as const, "smmuv3" as const),
    registers: range,
    isCoherent: fc.boolean(),
    interrupts: fc.array(fc.nat(1000), { maxLength: 4 }),
  });
  const iommu = fc
    .tuple(common("unit"), fc.oneof(vtd, smmu))
    .map(([one, kind]) => ({ ...one, ...kind }) as Iommu);
  const machine: fc.Arbitrary<Machine> = fc.record({
    architecture: maybe(text),
    firmware: fc.constantFrom("acpi" as const, "devicetree" as const, "none" as const),
    nodes: fc.constant([]),
    hostBridges: fc.constant([]),
    functions: fc.constant([]),
    platformDevices: fc.array(
      fc.record({
        name: text,
        path: maybe(text),
        identity: maybe(text),
        registers: fc.array(range, { maxLength: 2 }),
        interrupts: fc.array(fc.nat(99), { maxLength: 3 }),
        node: fc.constant(null),
        driver: maybe(text),
        iommu: fc.constant(null),
        group: maybe(fc.nat(99)),
      }),
      { maxLength: 1 },
    ),
    iommus: fc.array(iommu, { maxLength: 1 }),
    firmwareRegions: fc.array(
      fc
        .tuple(range, maybe(fc.array(rids, { maxLength: 2 })), fc.nat(3), fc.nat(2))
        .map(([ends, functions, access, treatment]) => ({
          ...ends,
          source: "ivmd" as const,
          treatment: (["mapped", "excluded", "msi"] as const)[treatment]!,
          canRead: (access & 1) !== 0,
          canWrite: (access & 2) !== 0,
          functions,
        })),
      { maxLength: 3 },
    ),
    atsScopes: fc.array(
      fc.record({
        segment: fc.nat(2),
        kind: fc.constantFrom("ports" as const, "all-ports" as const, "integrated" as const),
        rids: fc.array(u16, { maxLength: 3 }),
        isRequired: fc.boolean(),
      }),
      { maxLength: 2 },
    ),
    groups: fc.constant([]),
    kernel: maybe(
      fc.record({
        release: maybe(text),
        commandLine: maybe(fc.string({ maxLength: 20 })),
        isStrict: maybe(fc.boolean()),
        isPassthrough: maybe(fc.boolean()),
      }),
    ),
  });

  it("reads back from its own file as it was", () => {
    fc.assert(
      fc.property(machine, (one) => {
        expect(machineFromYaml(machineToYaml(one), "m.yaml")).toEqual(one);
      }),
      { numRuns: 200 },
    );
  });

  it("empty is a file of two lines", () => {
    expect(machineToYaml(EMPTY_MACHINE)).toBe('schema: "iommukit/topology@1"\n');
  });
});

describe("text as YAML", () => {
  it("is what a YAML parser reads back, whatever it looks like", () => {
    const value = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(
        "true",
        "No",
        "~",
        "null",
        "0x10",
        "1e3",
        "1:30",
        "- a",
        "a: b",
        "#",
        "0o7",
        "",
      ),
      fc.stringMatching(/^[0-9a-f:.x_-]{1,12}$/),
    );
    fc.assert(
      fc.property(value, value, (one, two) => {
        const document = { list: [{ one, two }, { one: [one, two] }] };
        expect(parse(yamlText(document))).toEqual(document);
      }),
      { numRuns: 500 },
    );
  });
});

describe("the form as JSON Schema", () => {
  it("names every list and allows whole numbers where text holds a number", () => {
    const schema = machineJsonSchema() as { properties: Record<string, unknown> };
    expect(Object.keys(schema.properties)).toContain("hostBridges");
    expect(JSON.stringify(schema)).toContain('"type":["string","integer"]');
  });
});
