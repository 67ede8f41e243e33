/**
 * Holds what descriptions say against the machine that they are for: what is well formed and still
 * leaves a device without its IOMMU. Source: Linux 7.2 drivers/acpi/viot.c, drivers/iommu/amd/init.c,
 * drivers/iommu/intel/dmar.c; measured on Linux 7.2 where a number is given.
 */
import { pciName, ridOf } from "../iommu/pci-function.ts";
import type { AmdIommu, Machine, MachineFunction, VirtioPciIommu } from "../topology/machine.ts";
import { addressOfRid } from "../topology/pci-address.ts";
import { hostBridgeOf, TranslationMap } from "../topology/translation.ts";
import { hex } from "../units.ts";
import { Findings, type TableFinding } from "./table-finding.ts";

const VIRTIO_VENDOR = 0x1af4;
/** virtio-iommu: 0x1040 and the device's type, 23. */
const VIRTIO_IOMMU = 0x1057;
const CLASS_BRIDGE = 6;
/** Functions that a finding names; it counts the others. */
const NAMED_MAX = 8;

/**
 * Compares.
 *
 * @param described - what the tables say
 * @param actual - the machine: its functions and host bridges count
 */
export function checkMachine(described: Machine, actual: Machine): readonly TableFinding[] {
  const { functions, hostBridges } = actual;
  const machine: Machine = { ...described, functions, hostBridges };
  const findings = new Findings("topology");
  const at = new Map(functions.map((one) => [keyOf(one.segment, ridOf(one)), one]));
  if (described.nodes.length > 1) checkBridges(machine, findings);
  // A machine whose functions are not listed says nothing about them.
  if (functions.length === 0) return findings.list;
  for (const iommu of described.iommus) {
    if (iommu.kind === "virtio-pci" || iommu.kind === "amd") checkIommu(iommu, at, findings);
  }
  checkScopes(described, at, findings);
  if (described.iommus.length > 0) checkFunctions(machine, findings);
  return findings.list;
}

function keyOf(segment: number, rid: number): number {
  return segment * 0x1_0000 + rid;
}

/** An IOMMU that is a function must be that function. */
function checkIommu(
  iommu: VirtioPciIommu | AmdIommu,
  at: ReadonlyMap<number, MachineFunction>,
  findings: Findings,
): void {
  const { segment, rid, kind } = iommu;
  const pci = at.get(keyOf(segment, rid));
  const name = pciName(addressOfRid(segment, rid));
  if (pci === undefined) {
    findings.add({
      code: "topology/iommu-missing",
      severity: "error",
      at: 0,
      message: `The IOMMU ${name} is not there`,
      effect:
        kind === "amd"
          ? "Linux logs `Failed to initialize IOMMU Hardware (error=-19)`: no groups"
          : "Linux logs `Could not find PCI IOMMU`: its devices run untranslated at once",
      source: kind === "amd" ? "drivers/iommu/amd/init.c: iommu_init_pci" : "drivers/acpi/viot.c",
    });
  } else if (kind === "virtio-pci" && !isVirtioIommu(pci)) {
    findings.add({
      code: "topology/iommu-other",
      severity: "error",
      at: 0,
      message: `${name} is ${hex(pci.vendor, 4)}:${hex(pci.device, 4)}, no virtio-iommu`,
      effect: "Drivers of its devices wait for deferred_probe_timeout, then run untranslated",
      source: "drivers/base/dd.c: driver_deferred_probe_check_state",
    });
  }
}

function isVirtioIommu({ vendor, device }: MachineFunction): boolean {
  return vendor === VIRTIO_VENDOR && device === VIRTIO_IOMMU;
}

/** A VT-d scope for a bridge must mean one, and one for an endpoint must not. */
function checkScopes(
  described: Machine,
  at: ReadonlyMap<number, MachineFunction>,
  findings: Findings,
): void {
  for (const iommu of described.iommus) {
    if (iommu.kind !== "vtd") continue;
    for (const { segment, firstRid, includesBelow } of iommu.translates) {
      const pci = at.get(keyOf(segment, firstRid));
      if (pci === undefined) continue;
      const isEndpoint = pci.header === "endpoint";
      const isBridgeClass = Math.floor(pci.classCode / 0x1_0000) === CLASS_BRIDGE;
      if (includesBelow ? !isEndpoint || isBridgeClass : isEndpoint) continue;
      findings.add({
        code: "topology/scope-type",
        severity: "error",
        at: 0,
        message: `${pciName(pci)} is listed as ${includesBelow ? "a bridge" : "an endpoint"}, and is none`,
        effect: "Linux logs `Device scope type does not match`: VT-d does not translate at all",
        source: "drivers/iommu/intel/dmar.c: dmar_insert_dev_scope",
      });
    }
  }
}

/** Every id that a function's DMA can carry must lead to the IOMMU. */
function checkFunctions(machine: Machine, findings: Findings): void {
  const map = new TranslationMap(machine);
  const uncovered: string[] = [];
  const units = new Set(
    machine.iommus.flatMap((one) => ("rid" in one ? keyOf(one.segment, one.rid) : [])),
  );
  machine.functions.forEach((pci, index) => {
    if (pci.header !== "endpoint" || isVirtioIommu(pci)) return;
    if (units.has(keyOf(pci.segment, ridOf(pci)))) return;
    if (hostBridgeOf(machine, pci)?.bypassesIommu === true) return;
    const own = map.of(index);
    const aliases = map.ofAliases(index);
    const found = aliases.filter((one) => one !== null).length;
    if (own === null && found === 0) uncovered.push(pciName(pci));
    else if (own === null || found < aliases.length) {
      findings.add({
        code: "topology/alias-uncovered",
        severity: "error",
        at: 0,
        message: `${pciName(pci)} sends with ${aliases.length} requester ids, ${found} of them described`,
        effect:
          own === null
            ? "Its own id leads nowhere: Linux gives it no IOMMU"
            : "DMA with the other ids is not translated, and nothing says so",
        source: "drivers/acpi/viot.c: viot_pci_dev_iommu_init",
      });
    }
  });
  if (uncovered.length === 0) return;
  const more = uncovered.length - NAMED_MAX;
  findings.add({
    code: "topology/uncovered",
    severity: "warning",
    at: 0,
    message:
      `No IOMMU is described for ${uncovered.slice(0, NAMED_MAX).join(", ")}` +
      `${more > 0 ? ` and ${more} more` : ""}`,
    effect: "They run untranslated",
    source: "drivers/acpi/scan.c: acpi_iommu_configure_id",
  });
}

function checkBridges(machine: Machine, findings: Findings): void {
  for (const { segment, firstBus, node } of machine.hostBridges) {
    if (node !== null) continue;
    const bus = `${hex(segment, 4).slice(2)}:${hex(firstBus, 2).slice(2)}`;
    findings.add({
      code: "topology/bridge-without-node",
      severity: "warning",
      at: 0,
      message: `The host bridge of bus ${bus} has no node, and there are ${machine.nodes.length}`,
      effect:
        "Linux logs `Unknown NUMA node; performance will be reduced`: its devices have node −1",
      source: "drivers/pci/probe.c: pci_register_host_bridge",
    });
  }
}
