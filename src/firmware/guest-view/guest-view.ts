/**
 * What a guest makes of its IOMMU: for each endpoint whether it ends up translated, waits, runs
 * untranslated without a word, or takes the kernel down; with the rule that decides.
 *
 * The machine is what there is, the descriptions are what the guest is told. Source: Linux 7.2
 * drivers/acpi/viot.c, drivers/acpi/scan.c: acpi_iommu_configure_id, drivers/iommu/iommu.c:
 * iommu_fwspec_init, drivers/base/dd.c: driver_deferred_probe_check_state, drivers/iommu/
 * virtio-iommu.c: viommu_probe_device, drivers/iommu/of_iommu.c; boots of Linux 7.2 (F10–F16, F89).
 */
import { ACS_REQUIRED } from "../../iommu/group-rules.ts";
import { pciName } from "../../iommu/pci-function.ts";
import { deriveGroups } from "../../topology/groups.ts";
import type { Machine, MachineFunction, PlatformDevice } from "../../topology/machine.ts";
import { hostBridgeOf } from "../../topology/translation.ts";
import { type Found, Lookup } from "./lookup.ts";
import { type Placement, placementOf } from "./placement.ts";
import {
  type DescriptionUse,
  type GuestDescription,
  type GuestPlatform,
  type Rule,
  useOf,
} from "./platform.ts";

/** What becomes of an endpoint. */
export type Outcome =
  /** Behind its IOMMU from its first DMA on. */
  | "translated"
  /** Its driver waits for the IOMMU's and never binds. */
  | "waits"
  /** Its driver waits, then goes ahead without an IOMMU. */
  | "untranslated-late"
  /** Its DMA passes no IOMMU. */
  | "untranslated"
  /** It is the IOMMU. */
  | "iommu"
  /** The kernel dereferences NULL. */
  | "oops";

/** An endpoint as the guest has it. */
export interface EndpointView {
  readonly device: string;
  readonly outcome: Outcome;
  /** Whether the kernel says nothing of a device that goes without an IOMMU. */
  readonly isSilent: boolean;
  /** Name of the IOMMU, by the machine. */
  readonly iommu: string | null;
  /** Ids that are attached, its own first. */
  readonly ids: readonly number[];
  /** Requester ids of its DMA that nothing translates: a hole (F15). */
  readonly holes: readonly number[];
  /** Number in order of probing; null without IOMMU. */
  readonly group: number | null;
  readonly rules: readonly Rule[];
  readonly placement: Placement;
}

/** A guest's view. */
export interface GuestView {
  readonly endpoints: readonly EndpointView[];
  /** What becomes of each description, in the order given. */
  readonly descriptions: readonly DescriptionUse[];
  readonly requestsAcs: boolean;
}

/** Before groups are known. */
interface Verdict {
  readonly outcome: Outcome;
  readonly isSilent: boolean;
  readonly found: Found | null;
  readonly rules: readonly Rule[];
}

const rule = (text: string, source: string): Rule => ({ text, source });

/**
 * Works out what a guest sees.
 *
 * @param machine - what there is: functions, devices, IOMMUs; what it says of translation is unused
 * @param descriptions - what the guest is given
 */
export function guestView(
  machine: Machine,
  descriptions: readonly GuestDescription[],
  platform: GuestPlatform,
): GuestView {
  const uses = descriptions.map(({ kind }) => useOf(kind, platform, machine));
  const read = descriptions.filter((_, index) => uses[index]!.isRead);
  const unread = uses.filter(({ isRead }) => !isRead).map((one) => one.rule);
  const lookup = new Lookup(machine, read);
  const oops = oopsRule(machine, read, platform, lookup);
  const judge = (found: Found | null, driver: string | null): Verdict =>
    oops === null
      ? verdictOf(found, driver, platform, unread)
      : { outcome: "oops", isSilent: false, found: null, rules: [oops] };
  const functions = machine.functions.map((one, index) =>
    judge(lookup.ofFunction(index), one.driver),
  );
  const devices = machine.platformDevices.map((one) => judge(lookup.ofDevice(one), one.driver));
  const requestsAcs =
    read.some(({ machine: said }) => said.iommus.some((one) => one.translates.length > 0)) ||
    // The mere presence of a VIOT does, where the kernel is built with it (F21).
    (platform.name.endsWith("acpi") &&
      platform.driver !== "none" &&
      descriptions.some(({ kind }) => kind.startsWith("viot")));
  const grouped = withIommus(machine, functions, devices, requestsAcs);
  const groups = deriveGroups(grouped);
  const groupOf = new Map(
    groups.flatMap(({ id, devices: names }) => names.map((name) => [name, id])),
  );
  const firstOf = new Map(groups.map(({ id, devices: names }) => [id, names[0]!]));
  const nodes = new Map<string, number | null>([
    ...machine.functions.map((one): [string, number | null] => [
      pciName(one),
      nodeOf(machine, one, platform),
    ]),
    ...machine.platformDevices.map((one): [string, number | null] => [
      one.name,
      platform.name === "microvm" ? null : one.node,
    ]),
  ]);
  const view = (device: string, { outcome, isSilent, found, rules }: Verdict): EndpointView => {
    const isBehind = outcome === "translated";
    const group = isBehind ? (groupOf.get(device) ?? null) : null;
    const first = group === null ? device : (firstOf.get(group) ?? device);
    return {
      device,
      outcome,
      isSilent,
      iommu: isBehind ? (found?.iommu?.name ?? null) : null,
      ids: isBehind ? (found?.ids ?? []) : [],
      holes: isBehind ? (found?.holes ?? []) : [],
      group,
      rules,
      placement: placementOf(
        nodes.get(device) ?? null,
        nodes.get(first) ?? null,
        isBehind ? (found?.iommu ?? null) : null,
      ),
    };
  };
  return {
    endpoints: [
      ...machine.functions.map((one, index) => view(pciName(one), functions[index]!)),
      ...machine.platformDevices.map((one, index) => view(one.name, devices[index]!)),
    ],
    descriptions: uses,
    requestsAcs,
  };
}

/** A virtio-iommu whose transport has no firmware node takes the kernel down (F89, F95). */
function oopsRule(
  { iommus }: Machine,
  read: readonly GuestDescription[],
  platform: GuestPlatform,
  lookup: Lookup,
): Rule | null {
  if (platform.kernel === "rfc-2019" || platform.driver === "none") return null;
  // VT-d and AMD-Vi take every device first.
  if (read.some(({ kind }) => kind === "dmar" || kind === "ivrs")) return null;
  const bare = iommus.find((one) => {
    if (one.kind !== "virtio-pci" && one.kind !== "virtio-mmio") return false;
    if (platform.name === "microvm") return true;
    const hasObject = one.kind === "virtio-mmio" || platform.namesFunctions;
    return platform.name === "devicetree"
      ? !lookup.describes(one)
      : !hasObject && !lookup.describes(one);
  });
  if (bare === undefined) return null;
  const text = `${bare.name} has no firmware node: devices without description match it`;
  return rule(`${text}, and the kernel dereferences NULL`, "virtio-iommu.c: viommu_probe_device");
}

/** What becomes of a device, given what the descriptions lead to. */
function verdictOf(
  found: Found | null,
  driver: string | null,
  platform: GuestPlatform,
  unread: readonly Rule[],
): Verdict {
  if (found === null) {
    const text = "no description that this kernel reads covers the device";
    const rules = [...unread, rule(text, "scan.c: acpi_dma_configure_id")];
    return { outcome: "untranslated", isSilent: true, found, rules };
  }
  const done = (outcome: Outcome, isSilent: boolean, ...rules: Rule[]): Verdict => ({
    outcome,
    isSilent,
    found,
    rules: [...found.rules, ...rules],
  });
  if (found.state === "itself") return done("iommu", false);
  if (found.state === "broken") return done("untranslated", found.isSilent);
  const { kind } = found.iommu ?? { kind: "virtio-pci" };
  const needsDriver = kind === "virtio-pci" || kind === "virtio-mmio" || kind === "other";
  const isThere = found.state === "present";
  if (isThere && (!needsDriver || platform.driver === "built-in")) {
    return done(
      "translated",
      false,
      rule("the IOMMU is ready when the endpoint binds", "iommu.c: iommu_fwspec_init"),
    );
  }
  const defer = rule(
    "the IOMMU is not there: -EPROBE_DEFER",
    "dd.c: driver_deferred_probe_check_state",
  );
  if (isThere && platform.driver === "module" && platform.deferSeconds !== 0) {
    return done(
      "translated",
      false,
      defer,
      rule("its module comes before the wait is over", "virtio-iommu.c: viommu_probe"),
    );
  }
  if (
    isThere &&
    platform.driver === "late-module" &&
    (driver === null || platform.deferSeconds < 0)
  ) {
    const text =
      driver === null ? "no driver has it when the module comes" : "it waits as long as it takes";
    return done("translated", false, defer, rule(text, "iommu.c: bus_iommu_probe"));
  }
  if (!platform.hasModules) {
    const text = "no module can bring a driver: -ENODEV once initcalls are done";
    return done("untranslated", true, rule(text, "dd.c: driver_deferred_probe_check_state"));
  }
  if (platform.deferSeconds < 0) {
    return done(
      "waits",
      false,
      defer,
      rule("deferred_probe_timeout=-1 never ends the wait", "dd.c: deferred_probe_timeout_setup"),
    );
  }
  const text = `after ${platform.deferSeconds} s: \`deferred probe timeout, ignoring dependency\``;
  return done(
    "untranslated-late",
    false,
    defer,
    rule(text, "dd.c: driver_deferred_probe_check_state"),
  );
}

/** The machine as the guest has it, for the rules of groups. */
function withIommus(
  machine: Machine,
  functions: readonly Verdict[],
  devices: readonly Verdict[],
  requestsAcs: boolean,
): Machine {
  const nameOf = ({ outcome, found }: Verdict) =>
    outcome === "translated" ? (found?.iommu?.name ?? "") : null;
  return {
    ...machine,
    iommus: [],
    groups: [],
    functions: machine.functions.map(
      (one, index): MachineFunction => ({
        ...one,
        group: null,
        iommu: nameOf(functions[index]!),
        acs: requestsAcs ? enabled(one.acs) : one.acs,
      }),
    ),
    platformDevices: machine.platformDevices.map(
      (one, index): PlatformDevice => ({
        ...one,
        group: null,
        iommu: nameOf(devices[index]!),
      }),
    ),
  };
}

/** What pci_std_enable_acs turns on of what a function can. */
function enabled(acs: MachineFunction["acs"]): MachineFunction["acs"] {
  if (acs === null) return null;
  return { ...acs, control: acs.control | (acs.capability & ACS_REQUIRED) };
}

/** The node that firmware gives a function: its host bridge's. */
function nodeOf(machine: Machine, pci: MachineFunction, { name }: GuestPlatform): number | null {
  if (name === "microvm") return null;
  const bridge = hostBridgeOf(machine, pci);
  return bridge === null ? pci.node : bridge.node;
}
