/**
 * Ring all-reduce over the GPUs and NICs of a VM: how many bytes a second it reduces when what the
 * NICs read and write has to be translated.
 *
 * As NCCL does between hosts, each NIC carries a ring of its own with an equal share of the bytes; in
 * a ring every rank sends, and receives, 2 (n − 1) / n of the share. The slowest ring ends last.
 * Source: nccl-tests, doc/PERFORMANCE.md: algbw = size / time, busbw = algbw · 2 (n − 1) / n.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Random } from "../../random.ts";
import { addressOf, PAGE_BYTES } from "../../units.ts";
import { VfioTask } from "../../vfio/file.ts";
import { allReduceHost } from "../../vfio/host/all-reduce-host.ts";
import { connect, mapMemory } from "../../vfio/host/connect.ts";
import { buildHost, type Host } from "../../vfio/host/host.ts";
import type { DevicePlan, HostPlan, UnitPlan } from "../../vfio/host/host-plan.ts";
import { AddressSpace } from "../../vfio/process/address-space.ts";
import { scatteredFrames } from "../../vfio/process/frame-source.ts";
import { UserProcess } from "../../vfio/process/user-process.ts";
import { type DeviceTime, deviceTime, type TimedDevice } from "../device/device-time.ts";
import { DmaEngine } from "../device/dma-engine.ts";
import { TimedUnit } from "../device/timed-unit.ts";
import { WalkBill } from "../device/walk-bill.ts";
import { Engine } from "../engine.ts";
import { Link, type LinkSpeed } from "../link.ts";
import type { PriceList } from "../price-list.ts";
import type { SliceRecorder } from "./slices.ts";

/** The machine of the VM. */
export interface AllReduceMachine {
  readonly prices: PriceList;
  readonly walkers: number;
  readonly iotlbEntries: number;
  /** The way of a table entry from another node, there and back. */
  readonly interconnect: LinkSpeed;
  /** A NIC: requests in flight each way, bytes of one, its wire each way, and its PCIe link. */
  readonly nic: {
    readonly inFlight: number;
    readonly bytes: number;
    readonly bytesPerSecond: number;
    readonly link: LinkSpeed;
    /** A read of a GPU's memory, picoseconds. */
    readonly memoryTime: number;
  };
  /** VMs like this one that take part, each with as many GPUs. */
  readonly hosts: number;
  /** Frames of the buffers, mapped in 4 KiB pages. */
  readonly pages: number;
  /** Pages of the buffers that lie side by side: 1 without it, or 512 with huge pages. */
  readonly blockPages?: 1 | 512;
  /** IOMMUs with what is behind each; those of the RFC's host without it. */
  readonly units?: readonly AllReduceUnit[];
}

/** An IOMMU, and how many GPUs and NICs are behind it. */
export interface AllReduceUnit {
  readonly name: string;
  readonly node: number;
  readonly gpus: number;
  readonly nics: number;
}

/** What to run. */
export interface AllReduceRun {
  readonly machine: AllReduceMachine;
  /** Nodes whose GPUs and NICs take part. */
  readonly nodes: readonly number[];
  /** Value of the parameter `attach_group_by_node`; null for a kernel without it. */
  readonly byNode: 0 | 1 | null;
  /** Node of the CPU that maps the VM's memory. */
  readonly mapperNode: number;
  readonly seed: number;
  /** Bytes of a ring's share. */
  readonly shareBytes?: number;
  /** Keeps walks for a timeline. */
  readonly slices?: SliceRecorder;
}

/** What it gave. */
export interface AllReduceResult {
  /** Bytes a second, as nccl-tests counts them. */
  readonly algbw: number;
  readonly busbw: number;
  /** Entries that walks read at other nodes, as a share. */
  readonly remoteShare: number;
  /** Busy share of the walkers of each unit that takes part. */
  readonly walkerShares: readonly number[];
  readonly where: DeviceTime;
  /** Virtual time of the operation, picoseconds. */
  readonly time: number;
  readonly hash: string;
}

const ETHERNET = 0x02_0000;
const RAM_PFN = 2 ** 20;
const VPN = 2 ** 24;
const SHARE_BYTES = 16 * 2 ** 20;

/** Runs one all-reduce. */
export function runAllReduce(run: AllReduceRun): AllReduceResult {
  const { machine, nodes, seed, shareBytes = SHARE_BYTES } = run;
  const engine = new Engine();
  const random = new Random(seed);
  const bill = new WalkBill(machine.prices);
  const host = hostOf(run, bill);
  const interconnect = new Link(engine, machine.interconnect);
  const units = new Map<string, TimedUnit>();
  for (const [name, unit] of host.units) {
    const { walkers } = machine;
    units.set(
      name,
      new TimedUnit({ engine, unit, bill, walkers, interconnect, slices: run.slices }),
    );
  }
  const nics = [...host.devices.values()].filter(
    ({ plan, unit }) => plan.classCode === ETHERNET && nodes.includes(unit!.node),
  );
  // As many GPUs as NICs on each host.
  const ranks = machine.hosts * nics.length;
  const factor = (2 * (ranks - 1)) / ranks;
  const { bytes, inFlight, bytesPerSecond, link, memoryTime } = machine.nic;
  const limit = Math.round((shareBytes * factor) / bytes);
  // What mapping and attaching read is no part of it.
  bill.forget();
  const devices: TimedDevice[] = [];
  for (const { plan, iommuDevice, unit } of nics) {
    for (const isWrite of [false, true]) {
      const device = new DmaEngine({
        engine,
        unit: units.get(unit!.name)!,
        rid: iommuDevice.rid,
        isWrite,
        inFlight,
        gap: Math.round((bytes * 1e12) / bytesPerSecond),
        up: link,
        down: link,
        bytes,
        limit,
        next: () => RAM_PFN + random.below(machine.pages),
        memory: memoryTime,
        done: () => {},
      });
      const name = `${plan.address} ${isWrite ? "writes" : "reads"}`;
      devices.push({ name, engine: device, unit: unit!.name, node: unit!.node });
    }
  }
  for (const device of devices) device.engine.start();
  engine.run();
  const algbw = (shareBytes * nics.length * 1e12) / engine.now;
  const taking = [...units].filter(([name]) => nodes.includes(host.units.get(name)!.node));
  return {
    algbw,
    busbw: algbw * factor,
    remoteShare: bill.remoteCount / Math.max(1, bill.count("entryRead")),
    walkerShares: taking.map(
      ([, { walkers }]) => walkers.use().busyTime / (engine.now * walkers.servers),
    ),
    where: deviceTime({ devices, units, bill, interconnect, faults: null, time: engine.now }),
    time: engine.now,
    hash: engine.hash,
  };
}

const DISPLAY = 0x03_0200;
const NODE_BYTES = 256 * 2 ** 20;

/** Nodes, IOMMUs and devices, each device on a bus of its own. */
function planOf(units: readonly AllReduceUnit[]): Pick<HostPlan, "nodes" | "distances"> & {
  units: readonly UnitPlan[];
  devices: readonly DevicePlan[];
} {
  const nodes = 1 + Math.max(...units.map(({ node }) => node));
  const ids = Array.from({ length: nodes }, (_, node) => node);
  let bus = 0;
  return {
    nodes: ids.map(() => ({ memory: NODE_BYTES })),
    distances: ids.map((from) => ids.map((to) => (from === to ? 10 : 21))),
    units: units.map(({ name, node }) => ({ name, node })),
    devices: units.flatMap(({ name, gpus, nics }) =>
      Array.from({ length: gpus + nics }, (_, index) => {
        bus += 1;
        const address = `0000:${bus.toString(16).padStart(2, "0")}:00.0`;
        return { address, unit: name, classCode: index < gpus ? DISPLAY : ETHERNET };
      }),
    ),
  };
}

/** The host of the RFC with the VM's memory mapped, and every device in its container. */
function hostOf(run: AllReduceRun, bill: WalkBill): Host {
  const { machine, byNode, mapperNode, seed } = run;
  const own = machine.units === undefined ? {} : planOf(machine.units);
  const plan = allReduceHost({ kernel: "6.6", ...own });
  const iotlb = {
    sets: 1,
    ways: machine.iotlbEntries,
    replacement: "lru",
    pageShifts: [12, 21, 30],
  } as const;
  const units = plan.units.map((unit) => ({ ...unit, iotlb }));
  const type1 = byNode === null ? {} : { attachGroupByNode: byNode };
  const host = buildHost({ ...plan, units }, { meter: bill, type1 });
  host.pool.cpuNode = mapperNode;
  const { pages, blockPages = 1 } = machine;
  const unitPages = blockPages;
  const frames = scatteredFrames({ basePfn: 2 ** 26, pages: pages * 2, unitPages, seed });
  const memory = new AddressSpace({ frames });
  const backing = { kind: "anonymous", isHuge: blockPages === 512 } as const;
  assert(memory.mmap({ vpn: VPN, pages, backing }) === Errno.OK, "the VMM has room");
  const vmm = new VfioTask({ process: new UserProcess({ memory }) });
  const [first, ...others] = plan.devices.map(({ address }) => address);
  const connection = connect(host, vmm, [first!]);
  const ram = { iova: addressOf(RAM_PFN), vaddr: addressOf(VPN), size: BigInt(pages * PAGE_BYTES) };
  assert(mapMemory(vmm, connection.fd, ram) === Errno.OK, "the VM's memory is mapped");
  connection.join(others);
  return host;
}
