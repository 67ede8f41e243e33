/** A planned virtual machine as a domain of libvirt, to be given a name, disks and what else it needs. */
import { numberListText } from "../topology/number-list.ts";
import { BUS_STEP, refused, type VmPlan } from "./emit-plan.ts";

/** The domain. @throws StackError for an IOMMU that libvirt has no words for */
export function libvirtText(plan: VmPlan): string {
  const { nodes, devices, isArm } = plan;
  const type = isArm ? "arch='aarch64' machine='virt'" : "arch='x86_64' machine='q35'";
  const lines = [
    "<domain type='kvm'>",
    "  <name>guest</name>",
    `  <memory unit='MiB'>${plan.memoryBytes >> 20n}</memory>`,
    `  <vcpu>${plan.cpus}</vcpu>`,
    ...pinned(plan),
    ...(nodes.length === 0 ? [] : ["  <numatune>", ...nodes.map(boundText), "  </numatune>"]),
    "  <os>",
    `    <type ${type}>hvm</type>`,
    "  </os>",
    "  <features>",
    "    <acpi/>",
    // Interrupt remapping needs an IOAPIC of QEMU's own.
    ...(plan.iommu === "intel" ? ["    <ioapic driver='qemu'/>"] : []),
    ...(isArm ? ["    <gic version='3'/>"] : []),
    "  </features>",
    ...cpuText(plan),
    "  <devices>",
    "    <controller type='pci' index='0' model='pcie-root'/>",
  ];
  for (const at of nodes.keys()) {
    const bus = (at + 1) * BUS_STEP;
    lines.push(
      `    <controller type='pci' index='${at + 1}' model='pcie-expander-bus'>`,
      `      <target busNr='${bus}'>`,
      `        <node>${at}</node>`,
      "      </target>",
      "    </controller>",
    );
  }
  for (const [at, { name, node }] of devices.entries()) {
    const index = nodes.length + 1 + at;
    const slot = devices.slice(0, at).filter((one) => one.node === node).length;
    const place = node < 0 ? [] : [`      ${addressText(node + 1, slot)}`];
    lines.push(
      `    <controller type='pci' index='${index}' model='pcie-root-port'>`,
      ...place,
      "    </controller>",
      "    <hostdev mode='subsystem' type='pci' managed='yes'>",
      `      <source>${sourceText(name)}</source>`,
      `      ${addressText(index, 0)}`,
      "    </hostdev>",
    );
  }
  return `${[...lines, ...iommuText(plan), "  </devices>", "</domain>"].join("\n")}\n`;
}

/** Each CPU of the guest on those of the host's node. */
function pinned({ nodes }: VmPlan): string[] {
  const lines: string[] = [];
  let cpu = 0;
  for (const { cpus, hostCpus } of nodes) {
    for (const end = cpu + cpus; cpu < end; cpu += 1) {
      if (hostCpus.length === 0) continue;
      lines.push(`    <vcpupin vcpu='${cpu}' cpuset='${numberListText(hostCpus)}'/>`);
    }
  }
  return lines.length === 0 ? [] : ["  <cputune>", ...lines, "  </cputune>"];
}

function boundText({ hostNode }: VmPlan["nodes"][number], at: number): string {
  return `    <memnode cellid='${at}' mode='strict' nodeset='${hostNode}'/>`;
}

function cpuText({ nodes }: VmPlan): string[] {
  if (nodes.length === 0) return ["  <cpu mode='host-passthrough'/>"];
  const lines = ["  <cpu mode='host-passthrough'>", "    <numa>"];
  let cpu = 0;
  for (const [at, { cpus, memoryBytes, distances }] of nodes.entries()) {
    const range = cpus === 0 ? "" : ` cpus='${cpu}-${cpu + cpus - 1}'`;
    cpu += cpus;
    lines.push(
      `      <cell id='${at}'${range} memory='${memoryBytes >> 20n}' unit='MiB'>`,
      "        <distances>",
      ...distances.map((value, to) => `          <sibling id='${to}' value='${value}'/>`),
      "        </distances>",
      "      </cell>",
    );
  }
  return [...lines, "    </numa>", "  </cpu>"];
}

function iommuText({ iommu }: VmPlan): string[] {
  switch (iommu) {
    case "none":
      return [];
    case "virtio":
      return ["    <iommu model='virtio'/>"];
    case "intel":
      return [
        "    <iommu model='intel'>",
        "      <driver intremap='on' caching_mode='on'/>",
        "    </iommu>",
      ];
    default:
      throw refused("libvirt has no element for an AMD IOMMU", "take virtio or intel");
  }
}

function sourceText(name: string): string {
  const [domain, bus, rest] = name.split(":") as [string, string, string];
  const [slot, part] = rest.split(".") as [string, string];
  return `<address domain='0x${domain}' bus='0x${bus}' slot='0x${slot}' function='0x${part}'/>`;
}

function addressText(bus: number, slot: number): string {
  const two = (value: number) => `0x${value.toString(16).padStart(2, "0")}`;
  return `<address type='pci' domain='0x0000' bus='${two(bus)}' slot='${two(slot)}' function='0x0'/>`;
}
