/** A planned virtual machine as arguments of QEMU. */
import { BUS_STEP, type EmitIommu, type PlannedNode, type VmPlan } from "./emit-plan.ts";

/**
 * What makes an IOMMU that devices of the host can be behind. It stands before them. VT-d must tell
 * of entries that appear (caching mode), AMD-Vi must translate what is mapped for VFIO.
 */
const iommus: Readonly<Record<EmitIommu, string | null>> = {
  none: null,
  virtio: "-device virtio-iommu-pci,bus=pcie.0",
  intel: "-device intel-iommu,intremap=on,caching-mode=on",
  amd: "-device amd-iommu,intremap=on,xtsup=on,dma-remap=on",
};

/** The arguments, one a line. */
export function qemuText(plan: VmPlan): string {
  const { nodes, devices, iommu } = plan;
  // Interrupts are remapped where the interrupt controller is QEMU's own.
  const isSplit = iommu === "intel" || iommu === "amd";
  const machine = plan.isArm
    ? "virt,gic-version=max"
    : `q35${isSplit ? ",kernel-irqchip=split" : ""}`;
  const words = [`-machine ${machine}`, `-m ${sizeOf(plan.memoryBytes)}`, smpOf(plan)];
  let cpu = 0;
  for (const [at, node] of nodes.entries()) {
    const size = sizeOf(node.memoryBytes);
    const cpus = node.cpus === 0 ? "" : `,cpus=${cpu}-${cpu + node.cpus - 1}`;
    cpu += node.cpus;
    words.push(
      `-object memory-backend-ram,id=mem${at},size=${size},host-nodes=${node.hostNode},policy=bind`,
      `-numa node,nodeid=${at}${cpus},memdev=mem${at}`,
    );
  }
  for (const [from, { distances }] of nodes.entries()) {
    for (const [to, value] of distances.entries()) {
      if (from !== to) words.push(`-numa dist,src=${from},dst=${to},val=${value}`);
    }
  }
  const unit = iommus[iommu];
  if (unit !== null) words.push(unit);
  for (const at of nodes.keys()) {
    const bus = (at + 1) * BUS_STEP;
    words.push(`-device pxb-pcie,id=pxb${at},bus=pcie.0,bus_nr=${bus},numa_node=${at}`);
  }
  for (const [at, { name, node }] of devices.entries()) {
    const bus = node < 0 ? "pcie.0" : `pxb${node}`;
    words.push(
      `-device pcie-root-port,id=port${at},bus=${bus},chassis=${at + 1}`,
      `-device vfio-pci,host=${name},bus=port${at}`,
    );
  }
  return `${words.join(" \\\n")}\n`;
}

/** A socket for each node where they are alike, else one for each CPU. */
function smpOf({ nodes, cpus }: VmPlan): string {
  const isEven = nodes.every((one: PlannedNode) => one.cpus * nodes.length === cpus);
  const sockets = nodes.length === 0 ? 1 : isEven ? nodes.length : cpus;
  return `-smp ${cpus},sockets=${sockets},cores=${cpus / sockets},threads=1`;
}

function sizeOf(bytes: bigint): string {
  const gib = 1n << 30n;
  return bytes % gib === 0n ? `${bytes / gib}G` : `${bytes >> 20n}M`;
}
