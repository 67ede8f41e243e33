/** The pictures of the machines that workloads run on. */
import type { MachineProfile } from "../profiles/machine-profile.ts";
import type { AcceleratorMachine } from "../workload/accelerator-run.ts";
import type { AllReduceMachine, AllReduceUnit } from "../workload/all-reduce.ts";
import type { WindowRun } from "../workload/random-window.ts";
import type { BarPlan, RamPlan } from "../workload/vm-mappings.ts";
import type { MachinePicture, PictureNode } from "./picture.ts";

const nodeNames = (node: number) => `node ${node}`;
const perSecond = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB/s`;
const ns = (ps: number) => `${Math.round(ps / 1000)} ns`;

/** Of a machine with a disk. */
export function fioPicture(profile: MachineProfile): MachinePicture {
  const { cpusByNode, disk, host, iommu } = profile;
  const name = iommu === "vtd" ? "dmar0, VT-d" : "virtio-iommu";
  const below = host === null ? "" : ", VFIO and the host's tables below it";
  const speed = `disk: ${disk.channels} channels, ${perSecond(disk.bytesPerSecond)}`;
  const nodes = cpusByNode.map(
    (cpus, node): PictureNode => ({
      name: nodeNames(node),
      lines: [`${cpus} CPUs`],
      units: node === 0 ? [{ name, detail: `page tables here${below}`, devices: [speed] }] : [],
    }),
  );
  return { nodes, link: nodes.length > 1 ? "priced by the step" : null };
}

/** Of a device that reads a window. */
export function windowPicture({ machine, tableNode = 0, windowBytes }: WindowRun): MachinePicture {
  const { iotlbEntries, walkers, up, memoryTime } = machine;
  const link = `device on PCIe, ${perSecond(up.bytesPerSecond)} each way`;
  const window = `window of ${windowBytes / 1024} KiB, a read takes ${ns(memoryTime)}`;
  const tables = (node: number) => (node === tableNode ? ["page tables"] : []);
  const unit = {
    name: "dmar0",
    detail: `${iotlbEntries} entries, ${walkers} walkers`,
    devices: [link],
  };
  const nodes = [{ name: nodeNames(0), lines: [window, ...tables(0)], units: [unit] }];
  const other = { name: nodeNames(1), lines: tables(1), units: [] };
  const isRemote = tableNode === 1;
  return {
    nodes: isRemote ? [...nodes, other] : nodes,
    link: isRemote ? "priced by the step" : null,
  };
}

/** Of a host with GPUs and NICs. */
export function allReducePicture(machine: AllReduceMachine, mapperNode: number): MachinePicture {
  const usual: readonly AllReduceUnit[] = [0, 0, 1, 1].map((node, index) => ({
    name: `dmar${index}`,
    node,
    gpus: 2,
    nics: 2,
  }));
  const { units = usual, walkers, iotlbEntries, nic, interconnect } = machine;
  const count = 1 + Math.max(...units.map(({ node }) => node));
  const nodes = Array.from(
    { length: count },
    (_, node): PictureNode => ({
      name: nodeNames(node),
      lines: node === mapperNode ? ["memory is mapped from here"] : [],
      units: units
        .filter((unit) => unit.node === node)
        .map(({ name, gpus, nics }) => ({
          name,
          detail: `${iotlbEntries} entries, ${walkers} walkers`,
          devices: [
            ...Array.from({ length: gpus }, () => "GPU"),
            ...Array.from({ length: nics }, () => `NIC, ${perSecond(nic.bytesPerSecond)}`),
          ],
        })),
    }),
  );
  const way = `${ns(interconnect.latency)} a read, ${perSecond(interconnect.bytesPerSecond)}`;
  return { nodes, link: count > 1 ? way : null };
}

/** Of an accelerator. */
export function acceleratorPicture(machine: AcceleratorMachine): MachinePicture {
  const { kind, bytesPerSecond, inFlight } = machine;
  const tables = kind === "sva" ? "the process's own page tables" : "stage 2 of the VM";
  const device = `accelerator, ${perSecond(bytesPerSecond)}, ${inFlight.together} accesses in flight`;
  const unit = { name: "smmu0", detail: `stalls; ${tables}`, devices: [device] };
  return { nodes: [{ name: nodeNames(0), lines: ["fault handler"], units: [unit] }], link: null };
}

/** Of a host of VMs. */
export function vmStartPicture(
  ram: Pick<RamPlan, "pages"> | null,
  bars: readonly Pick<BarPlan, "count" | "pages">[],
): MachinePicture {
  const gib = (pages: number) => `${pages / 2 ** 18} GiB`;
  const devices = bars.flatMap(({ count, pages }) =>
    Array.from({ length: count }, () => `device with a BAR of ${gib(pages)}`),
  );
  const lines = ram === null ? [] : [`RAM of the VM: ${gib(ram.pages)}`];
  const unit = { name: "dmar0", detail: "page tables here", devices };
  return { nodes: [{ name: nodeNames(0), lines, units: [unit] }], link: null };
}
