import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_MACHINE, type Machine } from "../../topology/machine.ts";
import { richMachine } from "../acpi/rich-machine.suite.ts";
import { bridgeOf } from "../devicetree/devicetree.suite.ts";
import {
  described,
  deviceAt,
  functionAt,
  mmioIommu,
  mmioMachine,
  pciIommu,
  pciMachine,
  range,
} from "./guest-view.suite.ts";
import { guestView } from "./guest-view.ts";
import {
  bootOrder,
  type DescriptionName,
  type GuestDescription,
  type GuestPlatform,
  type PlatformName,
  platforms,
} from "./platform.ts";

const outcomes = (machine: Machine, list: GuestDescription[], platform: GuestPlatform) =>
  guestView(machine, list, platform).endpoints.map(({ outcome }) => outcome);
const at = (name: PlatformName, parts: Partial<GuestPlatform> = {}): GuestPlatform => ({
  ...platforms[name],
  ...parts,
});
/** Outcomes of the IOMMU, a covered and an uncovered endpoint. */
const pci = (kind: DescriptionName, platform: GuestPlatform) =>
  outcomes(pciMachine, [described(kind, pciMachine)], platform).join(" ");
const mmio = (kind: DescriptionName, platform: GuestPlatform) =>
  outcomes(mmioMachine, [described(kind, mmioMachine)], platform).join(" ");

const WORKS = "iommu translated untranslated";
const NOTHING = "untranslated untranslated untranslated";
const OOPS = "oops oops oops";

describe("five ways to describe a PCI virtio-iommu, on four platforms of today", () => {
  it.each<[DescriptionName, string, string, string, string]>([
    // kind, x86 ACPI, Arm ACPI, devicetree, microvm
    ["viot", WORKS, WORKS, OOPS, OOPS],
    ["viot-draft", NOTHING, NOTHING, OOPS, OOPS],
    ["devicetree", NOTHING, NOTHING, WORKS, OOPS],
    ["builtin", NOTHING, NOTHING, OOPS, OOPS],
  ])("%s: %s / %s / %s / %s", (kind, x86, arm, tree, none) => {
    expect(pci(kind, at("x86-acpi"))).toBe(x86);
    expect(pci(kind, at("arm-acpi"))).toBe(arm);
    expect(pci(kind, at("devicetree"))).toBe(tree);
    expect(pci(kind, at("microvm"))).toBe(none);
  });

  it("the RFC's own kernel takes the draft on both ACPIs, and built-in without firmware", () => {
    const rfc = (name: PlatformName) => at(name, { kernel: "rfc-2019" });
    expect(pci("viot-draft", rfc("x86-acpi"))).toBe(WORKS);
    expect(pci("viot-draft", rfc("arm-acpi"))).toBe(WORKS);
    expect(pci("viot", rfc("x86-acpi"))).toBe(NOTHING);
    expect(pci("devicetree", rfc("devicetree"))).toBe(WORKS);
    expect(pci("builtin", rfc("x86-acpi"))).toBe(NOTHING);
  });

  it("F33: the RFC's kernel reads built-in topology of device 1014 alone, and 1057 is today's", () => {
    const platform = at("microvm", { kernel: "rfc-2019" });
    const withId = (device: number) => ({
      ...pciMachine,
      functions: pciMachine.functions.map((one, index) =>
        index === 0 ? { ...one, vendor: 0x1af4, device } : one,
      ),
    });
    const builtin = [described("builtin", pciMachine)];
    expect(outcomes(withId(0x1014), builtin, platform).join(" ")).toBe(WORKS);
    expect(outcomes(withId(0x1057), builtin, platform).join(" ")).toBe(NOTHING);
  });

  it("F21: a draft, or a VIOT without nodes, asks for ACS, where the driver is built", () => {
    const acs = (kind: DescriptionName, machine: Machine, platform: GuestPlatform) =>
      guestView(pciMachine, [{ kind, machine }], platform).requestsAcs;
    expect(acs("viot-draft", EMPTY_MACHINE, at("x86-acpi"))).toBe(true);
    expect(acs("viot", EMPTY_MACHINE, at("arm-acpi"))).toBe(true);
    expect(acs("viot", EMPTY_MACHINE, at("x86-acpi", { driver: "none" }))).toBe(false);
    expect(acs("dmar", EMPTY_MACHINE, at("x86-acpi"))).toBe(false);
    expect(acs("viot", EMPTY_MACHINE, at("microvm"))).toBe(false);
  });

  it("the MMIO transport: viot and devicetree work, the command line is fatal (F88, F89)", () => {
    expect(mmio("viot", at("x86-acpi"))).toBe("iommu translated");
    expect(mmio("viot", at("arm-acpi"))).toBe("iommu translated");
    expect(mmio("devicetree", at("devicetree"))).toBe("iommu translated");
    const text = outcomes(
      mmioMachine,
      [described("cmdline", { ...mmioMachine, platformDevices: [] })],
      at("microvm"),
    );
    expect(text).toEqual(["oops", "oops"]);
    expect(mmio("viot", at("microvm", { driver: "none" }))).toBe("untranslated untranslated");
  });
});

describe("a VIOT on x86", () => {
  const viot = (machine: Machine) => [described("viot", machine)];

  it("names the rule for each endpoint; the uncovered one is silent", () => {
    const { endpoints, requestsAcs } = guestView(pciMachine, viot(pciMachine), at("x86-acpi"));
    expect(endpoints[1]).toMatchObject({ ids: [0x28], iommu: "0000:00:04.0", group: 0 });
    expect(endpoints[1]!.rules.map(({ source }) => source)).toEqual([
      "drivers/acpi/viot.c: viot_iommu_configure",
      "dd.c: driver_deferred_probe_check_state",
      "virtio-iommu.c: viommu_probe",
    ]);
    expect(endpoints[2]).toMatchObject({ isSilent: true, iommu: null, group: null });
    expect(requestsAcs).toBe(true);
  });

  it("with the IOMMU's own BDF in the range leaves it alone (F14)", () => {
    expect(outcomes(pciMachine, viot(pciMachine), at("x86-acpi"))[0]).toBe("iommu");
  });

  it("of an absent BDF: untranslated at once, with a message (F10)", () => {
    const machine = { ...pciMachine, iommus: [], functions: pciMachine.functions.slice(1) };
    const { endpoints } = guestView(machine, viot(pciMachine), at("x86-acpi"));
    expect(endpoints[0]).toMatchObject({ outcome: "untranslated", isSilent: false });
    expect(endpoints[0]!.rules.at(-1)!.text).toMatch(/Could not find PCI IOMMU/);
  });

  it("of a function that is no IOMMU: late and untranslated; with -1 it waits (F11, F12)", () => {
    const machine = { ...pciMachine, iommus: [] };
    const of = (deferSeconds: number) =>
      outcomes(machine, viot(pciMachine), at("x86-acpi", { deferSeconds }))[1];
    expect(of(10)).toBe("untranslated-late");
    expect(of(0)).toBe("untranslated-late");
    expect(of(-1)).toBe("waits");
  });

  it("with a late module captures driverless devices alone (F13)", () => {
    const [iommu, disk, other] = pciMachine.functions;
    const machine = {
      ...pciMachine,
      iommus: [pciIommu([range(0, 0xffff)])],
      functions: [iommu!, disk!, { ...other!, driver: null }],
    };
    const late = at("x86-acpi", { driver: "late-module" });
    expect(outcomes(machine, viot(machine), late)).toEqual([
      "iommu",
      "untranslated-late",
      "translated",
    ]);
    const patient = at("x86-acpi", { driver: "late-module", deferSeconds: -1 });
    expect(outcomes(machine, viot(machine), patient)[1]).toBe("translated");
  });

  it("without the driver is not even read; the kernel says nothing", () => {
    const { endpoints } = guestView(
      pciMachine,
      viot(pciMachine),
      at("x86-acpi", { driver: "none" }),
    );
    expect(endpoints[1]).toMatchObject({ outcome: "untranslated", isSilent: true });
  });

  it("beside a DMAR has no effect: VT-d owns all devices (F22)", () => {
    const vtd = { ...richMachine.iommus[3]!, name: "dmar0" };
    const machine = { ...pciMachine, iommus: [...pciMachine.iommus, vtd] };
    const dmar = described("dmar", { ...machine, iommus: [vtd] });
    const { endpoints } = guestView(machine, [...viot(pciMachine), dmar], at("x86-acpi"));
    expect(endpoints.map((one) => one.iommu)).toEqual(["dmar0", "dmar0", "dmar0"]);
  });

  it("on a microvm whose ACPI names no functions averts the oops by a range alone (F89, F95)", () => {
    const bare = at("x86-acpi", { namesFunctions: false });
    expect(outcomes(pciMachine, [], bare)).toEqual(["oops", "oops", "oops"]);
    expect(outcomes(pciMachine, viot(pciMachine), bare).join(" ")).toBe(WORKS);
    const unused = described("viot", { ...pciMachine, iommus: [pciIommu([])] });
    expect(outcomes(pciMachine, [unused], bare)).toEqual(["oops", "oops", "oops"]);
  });

  it("of an MMIO IOMMU: it is found by containment, its endpoint by the exact start (F16)", () => {
    const shifted = (iommu: bigint, endpoint: bigint) =>
      described("viot", {
        ...mmioMachine,
        iommus: [
          {
            ...mmioIommu,
            registers: { ...mmioIommu.registers, start: iommu },
            endpoints: [{ base: endpoint, id: 0x42, path: null }],
          },
        ],
      });
    const of = (iommu: bigint, endpoint: bigint) =>
      outcomes(mmioMachine, [shifted(iommu, endpoint)], at("x86-acpi"))[1];
    expect(of(0xfeb0_2e04n, 0xfeb0_2c00n)).toBe("translated");
    expect(of(0xfeb0_2e00n, 0xfeb0_2c04n)).toBe("untranslated");
  });

  it("behind a bridge: both ids, a hole without the alias, nothing with the alias alone (F15)", () => {
    const machine: Machine = {
      ...pciMachine,
      functions: [
        functionAt(0x20),
        functionAt(0x18, {
          portType: "pcie-to-pci-bridge",
          header: "bridge",
          secondaryBus: 1,
          subordinateBus: 1,
          driver: null,
        }),
        functionAt(0x108, { portType: "conventional", bridge: 1 }),
      ],
    };
    const of = (ranges: Parameters<typeof pciIommu>[0]) => {
      const list = viot({ ...machine, iommus: [pciIommu(ranges)] });
      return guestView(machine, list, at("x86-acpi")).endpoints[2]!;
    };
    expect(of([range(0x100, 0x1ff)])).toMatchObject({ ids: [0x108, 0x100], holes: [] });
    expect(of([range(0x108, 0x108)])).toMatchObject({ outcome: "translated", holes: [0x100] });
    expect(of([range(0x100, 0x100)])).toMatchObject({ outcome: "untranslated", isSilent: true });
  });
});

describe("NUMA", () => {
  const placement = (machine: Machine, kind: DescriptionName, name: PlatformName) =>
    guestView(machine, [described(kind, machine)], at(name)).endpoints[1]!.placement;

  it("DMA memory comes from the host bridge's node, by _PXM or numa-node-id; virtio has no tables", () => {
    const none = { kind: "none", because: "virtio" };
    expect(placement(pciMachine, "viot", "x86-acpi")).toEqual({ dmaNode: 1, tables: none });
    expect(placement(pciMachine, "devicetree", "devicetree")).toEqual({ dmaNode: 1, tables: none });
  });

  it("without _PXM devices have no node (F56)", () => {
    const machine = { ...pciMachine, hostBridges: [bridgeOf()] };
    expect(placement(machine, "viot", "x86-acpi").dmaNode).toBeNull();
  });

  it("an SMMU's tables are on its own node, VT-d's on that of the first endpoint (F58)", () => {
    const smmu = {
      ...richMachine.iommus[5]!,
      node: 0,
      translates: [range(0, 0xffff)],
      endpoints: [],
    };
    const arm = { ...pciMachine, nodes: richMachine.nodes, iommus: [smmu] };
    expect(placement(arm, "devicetree", "devicetree").tables).toMatchObject({
      node: 0,
      rule: "smmu",
    });
    const vtd = { ...richMachine.iommus[3]!, node: 0 };
    const intel = { ...pciMachine, nodes: richMachine.nodes, iommus: [vtd] };
    expect(placement(intel, "dmar", "x86-acpi").tables).toMatchObject({ node: 1, rule: "device" });
  });
});

it("VIOT and devicetree give a guest the same view, on any ranges, transport and driver", () => {
  const ranges = fc.record({
    firstRid: fc.integer({ min: 0, max: 0x3f }),
    count: fc.integer({ min: 1, max: 0x40 }),
    firstId: fc.integer({ min: 0, max: 2 ** 31 }),
  });
  const drivers = fc.constantFrom("built-in" as const, "module" as const, "late-module" as const);
  const seconds = fc.constantFrom(-1, 0, 10);
  const rids = fc.uniqueArray(fc.integer({ min: 0, max: 0x7f }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(
      fc.array(ranges, { minLength: 1, maxLength: 4 }),
      rids,
      drivers,
      seconds,
      (list, devices, driver, deferSeconds) => {
        const others = devices.filter((rid) => rid !== 0x20);
        const machine: Machine = {
          ...pciMachine,
          functions: [0x20, ...others].map((rid) => functionAt(rid)),
          platformDevices: [deviceAt(0xfeb0_2c00n, "disk")],
          iommus: [
            {
              ...pciIommu(
                list.map(({ count, ...one }) =>
                  range(one.firstRid, one.firstRid + count - 1, one.firstId),
                ),
              ),
              endpoints: [{ base: 0xfeb0_2c00n, id: 7, path: null }],
            },
          ],
        };
        const view = (kind: DescriptionName, name: PlatformName) =>
          guestView(
            machine,
            [described(kind, machine)],
            at(name, { driver, deferSeconds }),
          ).endpoints.map(({ rules: _, ...one }) => one);
        expect(view("devicetree", "devicetree")).toEqual(view("viot", "arm-acpi"));
      },
    ),
    { numRuns: 60 },
  );
});

it("each platform has an order of boot in which descriptions come before endpoints bind", () => {
  for (const platform of Object.values(platforms)) {
    const texts = bootOrder(platform).map(({ text }) => text);
    expect(texts.at(-1)).toMatch(/registers and takes/);
    expect(texts.findIndex((text) => /endpoints bind/.test(text))).toBe(texts.length - 2);
  }
});
