/**
 * Checks devices that are to be handed to a virtual machine, and the machine: what will fail, cost
 * or not protect.
 *
 * Each finding rests on what the models of host and guest say; where they are silent, it is not
 * made. Source: Linux drivers/vfio/vfio_iommu_type1.c, drivers/iommu/iommu.c, drivers/iommu/intel/
 * iommu.c:init_dmars, QEMU hw/vfio, hw/virtio/virtio-iommu.c.
 */
import { isAcsEffective } from "../iommu/group-rules.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine, MachineFunction } from "../topology/machine.ts";
import { placeDomain } from "../topology/page-tables.ts";
import { hex, sizeText } from "../units.ts";
import { vmFindings } from "./check-vm.ts";
import { bySeverity, type Finding, finding } from "./findings.ts";
import { inspectMachine } from "./inspect.ts";
import type { InspectResult } from "./inspect-result.ts";
import type { LibvirtFacts, VirtualMachine, VmLimits } from "./vm.ts";

/** What is checked. */
export interface CheckSubject extends VmLimits {
  readonly vm: VirtualMachine | null;
  /** Names of functions of the host, in the order in which they are attached. */
  readonly devices: readonly string[];
  /** What `--root` says; commands to run next keep it. */
  readonly root?: string;
  /** What reading the host found. */
  readonly findings?: readonly Finding[];
}

const DEVICES_MAX = 4096;
const MIB_2 = 2n << 20n;
const GIB = 1n << 30n;

/** Drivers that leave DMA of their device to a user, or do none. */
const harmless = /^(vfio|pci-stub$|pcieport$|shpchp$)/;
/** Findings of `inspect` that matter for a device that is handed through. */
const inherited = new Set(["direct-region", "device-without-group", "groups-differ"]);

/** Checks it. With neither devices nor a virtual machine, the host itself. */
export function check(subject: CheckSubject): Finding[] {
  const { host, vm } = subject;
  const found: Finding[] = [];
  const named = [...subject.devices, ...(vm?.devices ?? []).map((one) => one.host)];
  const devices = [...new Set(named.filter((one) => one !== null))].slice(0, DEVICES_MAX);
  if (host !== null) {
    const result = inspectMachine(host, { findings: subject.findings ?? [] });
    if (vm === null && devices.length === 0) return bySeverity(result.findings);
    const about = result.findings.filter(
      (one) => inherited.has(one.code) && one.devices.some((name) => devices.includes(name)),
    );
    found.push(...about, ...hostFindings(host, result, devices, subject));
  }
  if (vm !== null) found.push(...vmFindings(vm, subject));
  return bySeverity(found);
}

function hostFindings(
  host: Machine,
  result: InspectResult,
  devices: readonly string[],
  { vm, root }: CheckSubject,
): Finding[] {
  const byName = new Map(host.functions.map((one) => [pciName(one), one]));
  const chosen = devices.flatMap((name) => byName.get(name) ?? []);
  const isPci = (name: string) => /^[0-9a-f]{4,8}:[0-9a-f]{2}:/.test(name);
  const missing = devices.filter((name) => isPci(name) && !byName.has(name));
  const translated = new Set(
    vm?.devices.filter((one) => one.exemption === null).map((one) => one.host),
  );
  const shared = chosen.filter((one) => !translated.has(pciName(one)));
  return [
    ...missing.map((name) =>
      finding("device-missing", {
        message: `the host has no function ${name}`,
        evidence: [`${host.functions.length} functions, none of them at ${name}`],
        devices: [name],
        next: `lspci -D -s ${name}`,
      }),
    ),
    ...chosen.filter(({ header }) => header !== "endpoint").map(bridge),
    ...viability(result, byName, devices, vm?.libvirt ?? null),
    ...chosen.flatMap((one) => isolation(host, one)),
    ...chosen.flatMap(alignment),
    ...spanning(host, result, shared),
    ...(vm === null ? [] : placement(vm, byName, root)),
    ...(vm === null ? [] : reserved(vm, result, devices)),
  ];
}

function bridge(one: MachineFunction): Finding {
  const name = pciName(one);
  return finding("device-is-bridge", {
    message: `${name} is a bridge (${one.portType}), and vfio-pci does not bind it`,
    evidence: [`header type of ${name}: ${one.header}`],
    devices: [name],
  });
}

function viability(
  { groups }: InspectResult,
  byName: ReadonlyMap<string, MachineFunction>,
  devices: readonly string[],
  libvirt: LibvirtFacts | null,
): Finding[] {
  const found: Finding[] = [];
  const wanted = new Set(devices);
  for (const name of devices) {
    const driver = byName.get(name)?.driver ?? null;
    if (driver === null || harmless.test(driver)) continue;
    // libvirt takes such a device from its driver by itself.
    if (libvirt?.managed.includes(name) || byName.get(name)?.header !== "endpoint") continue;
    found.push(
      finding("device-bound", {
        message: `${name} is bound to ${driver}`,
        evidence: [`driver of ${name}: ${driver}`],
        devices: [name],
        next:
          libvirt === null
            ? `driverctl set-override ${name} vfio-pci`
            : `virsh nodedev-detach pci_${name.replaceAll(/[:.]/g, "_")}`,
      }),
    );
  }
  for (const group of groups) {
    if (!group.devices.some((name) => wanted.has(name))) continue;
    const users = group.devices.filter((name) => {
      const driver = byName.get(name)?.driver ?? null;
      return !wanted.has(name) && driver !== null && !harmless.test(driver);
    });
    if (users.length === 0) continue;
    found.push(
      finding("group-not-viable", {
        message: `group ${group.id} cannot be opened: ${users.join(", ")} of it ${users.length === 1 ? "is" : "are"} in use`,
        evidence: users.map((name) => `driver of ${name}: ${byName.get(name)!.driver}`),
        devices: users,
        next: `ls /sys/kernel/iommu_groups/${group.id}/devices`,
      }),
    );
  }
  return found;
}

function isolation(host: Machine, device: MachineFunction): Finding[] {
  const found: string[] = [];
  const ports: string[] = [];
  let at = device.bridge;
  for (let hops = 0; at >= 0 && hops < host.functions.length; hops += 1) {
    const port = host.functions[at]!;
    const isRead = port.configRead === "extended";
    if (isRead && !isAcsEffective(port)) {
      ports.push(pciName(port));
      const { acs } = port;
      const what =
        acs === null
          ? "no ACS capability"
          : `ACS control ${hex(acs.control)} of ${hex(acs.capability)}`;
      found.push(`${pciName(port)}, ${port.portType}: ${what}`);
    }
    at = port.bridge;
  }
  if (found.length === 0) return [];
  const name = pciName(device);
  return [
    finding("no-acs", {
      message: `on the way to ${name}, ${ports.join(", ")} ${ports.length === 1 ? "does" : "do"} not isolate`,
      evidence: found,
      devices: [name],
      next: `sudo lspci -vvs ${ports[0]} | grep -A2 "Access Control"`,
    }),
  ];
}

function alignment(device: MachineFunction): Finding[] {
  const name = pciName(device);
  return device.bars.flatMap(({ index, kind, start, bytes }) => {
    if (kind === "io" || start === 0n || index > 5 || bytes < MIB_2) return [];
    const leaf = bytes >= GIB ? GIB : MIB_2;
    if (start % leaf === 0n) return [];
    return [
      finding("bar-unaligned", {
        message: `BAR ${index} of ${name} (${sizeText(bytes)}) starts between leaves of ${sizeText(leaf)}`,
        evidence: [`start ${hex(start)} modulo ${hex(leaf)} is ${hex(start % leaf)}`],
        devices: [name],
        next: `cat /sys/bus/pci/devices/${name}/resource`,
      }),
    ];
  });
}

/** Devices without an IOMMU of the guest in front share one domain. */
function spanning(
  host: Machine,
  result: InspectResult,
  shared: readonly MachineFunction[],
): Finding[] {
  const first = shared[0];
  if (first === undefined || shared.length < 2) return [];
  const behind = new Map(result.devices.map(({ name, iommu }) => [name, iommu]));
  const kindOf = (one: MachineFunction) =>
    host.iommus.find(({ name }) => name === behind.get(pciName(one)))?.kind;
  // Only devices behind IOMMUs of one driver can share a domain.
  const alike = shared.filter((one) => kindOf(one) !== undefined && kindOf(one) === kindOf(first));
  const attached = alike.map((one) => ({ ...one, iommu: behind.get(pciName(one)) ?? null }));
  if (attached.length < 2) return [];
  const placed = placeDomain(host, attached, "unmanaged");
  const nodes = new Set(attached.map(({ node }) => node));
  if (nodes.has(null) || nodes.size < 2 || placed[0]!.home.kind !== "node") return [];
  const { node } = placed[0]!.home;
  const away = attached.filter((one) => one.node !== node).map(pciName);
  return [
    finding("domain-spans-nodes", {
      message: `one domain for devices of nodes ${[...nodes].join(", ")}: its page tables live on node ${node}`,
      evidence: [
        `${pciName(first)}, attached first, is on node ${node}`,
        ...attached.map((one, at) => {
          const { walker, distance } = placed[at]!;
          const how = distance === null ? "" : `, ${distance} away`;
          return `${pciName(one)} on node ${one.node}, walked by ${walker?.iommu} of node ${walker?.node ?? "?"}${how}`;
        }),
      ],
      devices: away,
      next: "grep nr_iommu_pages /sys/devices/system/node/node*/vmstat",
    }),
  ];
}

/** The node of the guest's memory against that of the host's device. */
function placement(
  vm: VirtualMachine,
  byName: ReadonlyMap<string, MachineFunction>,
  root: string | undefined,
): Finding[] {
  const form = vm.libvirt === null ? "qemu" : "libvirt";
  const from = root === undefined ? "" : ` --root ${shellWord(root)}`;
  return vm.devices.flatMap((device) => {
    const node = byName.get(device.host ?? "")?.node ?? null;
    const pci = vm.machine.functions[device.index];
    if (node === null || pci === undefined) return [];
    const only = vm.nodes.length === 1 ? vm.nodes[0]! : undefined;
    const guest = only ?? vm.nodes.find(({ id }) => id === pci.node);
    const devices = [device.host!];
    const next = `iommukit inspect${from} --emit ${form} --device ${device.host}`;
    if (guest === undefined) {
      return [
        finding("device-without-node", {
          message: `${device.host} is on no node of the guest, which has ${vm.nodes.length}`,
          evidence: [`${device.bdf} of the guest is below a root bus without numa_node=`],
          devices,
          next,
        }),
      ];
    }
    const { hostNodes } = guest;
    if (hostNodes.length === 0 || hostNodes.includes(node)) return [];
    return [
      finding("node-mismatch", {
        message: `${device.host} is on the host's node ${node}, and the guest's node ${guest.id} has its memory on ${hostNodes.join(", ")}`,
        evidence: [
          `numa_node of ${device.host}: ${node}`,
          `memory of the guest's node ${guest.id}: host-nodes=${hostNodes.join(",")},policy=${guest.policy}`,
        ],
        devices,
        next,
      }),
    ];
  });
}

function shellWord(text: string): string {
  return /^[\w./:+@%=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Guest memory in what the host reserves, where guest addresses are IOVAs. */
function reserved(
  vm: VirtualMachine,
  { groups }: InspectResult,
  devices: readonly string[],
): Finding[] {
  const wanted = new Set(devices);
  const memory = vm.machine.nodes.flatMap((node) => node.memory);
  const found: Finding[] = [];
  for (const group of groups) {
    const members = group.devices.filter((name) => wanted.has(name));
    if (members.length === 0) continue;
    for (const region of group.regions) {
      if (region.type === "direct-relaxable") continue;
      const start = BigInt(region.start);
      const last = BigInt(region.last);
      const hit = memory.find((range) => range.start <= last && start <= range.last);
      if (hit === undefined) continue;
      found.push(
        finding("iova-reserved", {
          message: `guest memory at ${hex(hit.start)}-${hex(hit.last)} covers what group ${group.id} reserves`,
          evidence: [`${region.start} ${region.last} ${region.type}`],
          devices: members,
          next: `cat /sys/kernel/iommu_groups/${group.id}/reserved_regions`,
        }),
      );
    }
  }
  return found;
}
