/** The machines that studies can start from, by kind of workload and by name. */
import { allReduceMachine } from "../profiles/all-reduce-host.ts";
import { passedAccelerator, sharedAccelerator } from "../profiles/kunpeng-accelerator.ts";
import { broadwell, ivyBridge } from "../profiles/pcie-bench.ts";
import { backingHost, barHost, batchPinningHost, strideHost } from "../profiles/vm-start-hosts.ts";
import type { AcceleratorMachine } from "../workload/accelerator-run.ts";
import type { AllReduceMachine } from "../workload/all-reduce.ts";
import type { WindowMachine } from "../workload/random-window.ts";
import type { VmStartMachine } from "../workload/vm-start.ts";

/** A machine and what it is, in a line. */
export interface NamedMachine<M> {
  readonly about: string;
  readonly machine: M;
}

type Catalogue<M> = Readonly<Record<string, NamedMachine<M>>>;

export const windowMachines: Catalogue<WindowMachine> = {
  broadwell: {
    about: "Xeon E5-2630v4 with an NFP-6000 on PCIe gen3 x8, of pcie-bench",
    machine: broadwell,
  },
  "ivy-bridge": {
    about: "Xeon E5-2620v2 with an NFP-6000 on PCIe gen3 x8, of pcie-bench",
    machine: ivyBridge,
  },
};

export const allReduceMachines: Catalogue<AllReduceMachine> = {
  "all-reduce-host": {
    about: "two sockets, each with two IOMMUs, four A100 and four ConnectX-6",
    machine: allReduceMachine,
  },
};

export const acceleratorMachines: Catalogue<AcceleratorMachine> = {
  "kunpeng-vfio": {
    about: "accelerator of a Kunpeng 920 passed to a VM, whose faults VFIO serves",
    machine: passedAccelerator,
  },
  "kunpeng-sva": {
    about: "accelerator of a Kunpeng 920 on a process's address space",
    machine: sharedAccelerator,
  },
};

/** Pinning and faults as measured on one host, BARs on another, unpinning on a third. */
const everything: VmStartMachine = {
  startNs: batchPinningHost.startNs,
  prices: { map: batchPinningHost.prices.map, unmap: backingHost.prices.unmap },
  barPrices: { map: barHost.prices.map, unmap: backingHost.prices.unmap },
};

export const vmStartMachines: Catalogue<VmStartMachine> = {
  "vm-host": {
    about: "host of VMs with prices of several published hosts: nobody's machine",
    machine: everything,
  },
  "batch-pinning-host": {
    about: "two-node Broadwell server of the batched pinning, Linux 5.12",
    machine: batchPinningHost,
  },
  "backing-host": { about: "host of map and unmap by backing, Linux 6.16", machine: backingHost },
  "bar-host": { about: "host of eight GPUs with BARs of 192 GiB", machine: barHost },
  "stride-host": { about: "Xeon E5 with a BAR of 16 GiB", machine: strideHost },
};
