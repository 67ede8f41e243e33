/** A virtual machine's devices and nodes, as lines below what `inspect` shows of its guest. */
import type { Exemption, VirtualMachine } from "../host/vm.ts";
import { sizeText } from "../units.ts";
import { type Style, wrap } from "./table.ts";

const exemptions: Record<Exemption, string> = {
  "no-iommu": "the guest has no IOMMU",
  "is-the-iommu": "is the IOMMU itself",
  "bypassed-bus": "NOT translated: its root bus bypasses the IOMMU",
  "not-covered": "NOT translated: no range covers it",
  "no-access-platform": "NOT translated: iommu_platform is off",
};

/** Renders devices, nodes, and what was not understood. */
export function renderVm(vm: VirtualMachine, width: number, style: Style): string[] {
  const lines = [style("title", "Devices of the configuration")];
  for (const { bdf, driver, host, path, iommu, exemption } of vm.devices) {
    const from = host === null ? "" : ` = host ${host}${path === null ? "" : ` (${path})`}`;
    const fate = exemption === null ? `translated by ${iommu}` : exemptions[exemption];
    lines.push(...wrap(`${bdf ?? "no place"}  ${driver}${from}: ${fate}`, width, "  "));
  }
  lines.push("", style("title", "Nodes of the guest and of the host"));
  for (const { id, bytes, hostNodes, policy } of vm.nodes) {
    const where = hostNodes.length === 0 ? "any node" : `node ${hostNodes.join(", ")} (${policy})`;
    lines.push(`  node ${id}: ${sizeText(bytes)} from the host's ${where}`);
  }
  if (vm.ignored.length > 0) lines.push("", style("title", "Not understood"));
  for (const { argument, why } of vm.ignored.slice(0, 32)) {
    lines.push(...wrap(`${argument}: ${why}`, width, "  "));
  }
  return lines;
}

/** What `--json` adds to the result of `inspect`. */
export function vmJson(vm: VirtualMachine) {
  const { name, board, devices, nodes, ignored, viommu } = vm;
  return {
    name,
    board,
    memoryBytes: Number(vm.memoryBytes),
    viommu,
    devices: devices.map(({ index: _, ...rest }) => rest),
    nodes: nodes.map((node) => ({ ...node, bytes: Number(node.bytes) })),
    ignored,
  };
}
