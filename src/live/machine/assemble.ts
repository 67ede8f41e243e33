/**
 * Makes a machine's devices and the servers that offer them: one virtio-iommu with the disks behind
 * it, each with a client, a guest memory and a view of it of its own. Runs in the worker.
 */
import type { BlockStore } from "../../block/block-store.ts";
import { assert } from "../../errors.ts";
import type { DeviceMemory } from "../../memory/device-memory.ts";
import { GuestMemory } from "../../memory/guest-memory.ts";
import type { PciFunction } from "../../pci/function.ts";
import { VirtioBlk } from "../../virtio/blk/device.ts";
import { VirtioIommuDevice } from "../../virtio/iommu/device.ts";
import { X86_MSI_REGION } from "../../virtio/iommu/device-config.ts";
import { IommuTlb } from "../../virtio/iommu/iommu-tlb.ts";
import { VirtioIommu } from "../../virtio/iommu/pci-device.ts";
import { TranslatedMemory } from "../../virtio/iommu/translated-memory.ts";
import { DOORBELL_BYTES, NOTIFY_MULTIPLIER, VirtioBar } from "../../virtio/pci/layout.ts";
import { VirtioPci } from "../../virtio/pci/virtio-pci.ts";
import { FileStore } from "../block/file-store.ts";
import { Interrupts } from "../vfio-user/interrupts.ts";
import { MachineFiles } from "../vfio-user/machine-files.ts";
import { createDoorbells, type DoorbellRegion } from "../vfio-user/mappable-region.ts";
import { StageHost } from "../vfio-user/second-stage.ts";
import { VfioUserServer } from "../vfio-user/server.ts";
import type { WorkerContext, WorkerDevice } from "../worker/run-worker.ts";
import { KeptNvme } from "./kept-nvme.ts";
import type { LiveDisk, LiveIommu, LiveMachine } from "./live-machine.ts";
import { IommuMeter, MeteredIommu } from "./metered-function.ts";
import { MeteredStore } from "./metered-store.ts";
import { type PublishedDevice, Publisher } from "./publisher.ts";
import { endpointOf } from "./topology.ts";

const INPUT_BITS = 48n;
/** What Linux is told of domains, and how much PROBE answers. */
const DOMAIN_LAST = 0xffff;
const PROBE_BYTES = 64;
/** Memory that a VMM shares beside the machine's own: firmware, ROMs, a display's. */
const FIRMWARE_BYTES = 2 ** 29;

/** What all devices of a machine share. */
interface Shared {
  readonly machine: LiveMachine;
  readonly context: WorkerContext;
  readonly tlb: IommuTlb | null;
  readonly below: Below;
}

/** What is below a machine's devices: their second stages, and whose memory they may see. */
interface Below {
  readonly stages: StageHost;
  readonly files: MachineFiles;
}

/** Makes the devices of a machine; the virtio-iommu first, since a state is restored in order. */
export function assemble(machine: LiveMachine, context: WorkerContext): WorkerDevice[] {
  const { iommu, disks } = machine;
  const devices: PublishedDevice[] = [];
  let tlb: IommuTlb | null = null;
  const { system, windows, log } = context;
  const files = new MachineFiles(system, windows, log, machine.memoryBytes + FIRMWARE_BYTES);
  const below: Below = { stages: stagesOf(machine, context), files };
  if (iommu !== null) {
    const meter = new IommuMeter(context.metrics, iommu.name);
    const device = new VirtioIommuDevice(iommuSettings(machine, iommu), meter);
    tlb = new IommuTlb(device, meter);
    devices.push(serveIommu(iommu, device, meter, context, below));
  }
  for (const disk of disks) devices.push(serveDisk(disk, { machine, context, tlb, below }));
  const published =
    iommu === null || tlb === null ? null : { name: iommu.name, device: tlb.device };
  context.loop.turnTimes = context.metrics.histogram("iommukit_turn_seconds", machine.name);
  context.loop.add(new Publisher(devices, published, context.metrics), "metrics");
  return devices;
}

/** The machine's second stages: a VFIO container for each device, with the policy of its memory. */
function stagesOf(machine: LiveMachine, { system }: WorkerContext): StageHost {
  const { ram, iommu, disks } = machine;
  // The machine file says where memory is, not devices: they are beside the guest's first node.
  const nodes = Math.max(1, new Set(machine.nodes.map(({ hostNode }) => hostNode ?? 0)).size);
  const devices = [...(iommu === null ? [] : [iommu]), ...disks].map(({ name }) => ({ name }));
  return new StageHost({ policy: { kind: ram }, nodes, devices, now: () => system.now() });
}

function iommuSettings(machine: LiveMachine, { bypass }: LiveIommu) {
  return {
    bypass,
    inputRange: { start: 0n, last: (1n << INPUT_BITS) - 1n },
    domainRange: { first: 0, last: DOMAIN_LAST },
    probeSize: PROBE_BYTES,
    // Without an MSI window of the platform's, Linux makes one up at 0x8000000.
    endpoints: machine.disks
      .filter(({ isTranslated }) => isTranslated)
      .map((disk) => ({ id: endpointOf(machine, disk), reserved: [X86_MSI_REGION] })),
  };
}

function serveIommu(
  { name, doorbell }: LiveIommu,
  device: VirtioIommuDevice,
  meter: IommuMeter,
  context: WorkerContext,
  below: Below,
): PublishedDevice {
  const { system, metrics } = context;
  const memory = new GuestMemory();
  const virtio = new VirtioIommu(device, context.journal(name).log);
  const interrupts = new Interrupts(system, virtio.queueSizes.length + 1);
  const page = doorbell === "page" ? doorbellPage(name, virtio.queueSizes.length, context) : null;
  const hasDoorbellPage = page !== null;
  const pci = new VirtioPci({ device: virtio, memory, interrupts, hasDoorbellPage });
  const metered = new MeteredIommu(pci, meter, metrics, name, () => system.now());
  const doorbells = page === null ? [] : [page];
  return server(name, metered, memory, interrupts, context, below, doorbells);
}

/** The page stays the same for each worker of the machine: QEMU has it mapped. */
function doorbellPage(name: string, count: number, context: WorkerContext): DoorbellRegion {
  const [index, bytes] = [VirtioBar.DOORBELL, DOORBELL_BYTES];
  const fd = context.sharedFile(`${name} doorbells`, bytes);
  const slots = { first: 0, stride: NOTIFY_MULTIPLIER, width: 2, count } as const;
  const made =
    fd < 0 ? fd : createDoorbells(context.system, { index, bytes, slots, owner: name, fd });
  assert(typeof made !== "number", "there is memory for a doorbell page");
  return made.region;
}

function serveDisk(disk: LiveDisk, shared: Shared): PublishedDevice {
  const { machine, context, tlb, below } = shared;
  const { system, metrics } = context;
  const { name, kind, queues } = disk;
  const memory = new GuestMemory();
  const endpoint = endpointOf(machine, disk);
  const seen: DeviceMemory =
    tlb !== null && disk.isTranslated ? new TranslatedMemory({ tlb, endpoint, memory }) : memory;
  const store = new MeteredStore(storeOf(disk, context), metrics, name, () => system.now());
  const interrupts = new Interrupts(system, queues + 1);
  if (kind === "nvme") {
    const { words } = context.journal(name);
    const pci = new KeptNvme({ memory: seen, store, interrupts, queues, words });
    const served = server(name, pci, memory, interrupts, context, below);
    pci.keep = () => served.server.keep();
    return served;
  }
  const device = new VirtioBlk({ store, queueCount: queues });
  const isExpress = disk.slot.port !== null;
  const pci = new VirtioPci({ device, memory: seen, interrupts, isExpress });
  return server(name, pci, memory, interrupts, context, below);
}

function storeOf({ backing, isReadOnly, name }: LiveDisk, context: WorkerContext): BlockStore {
  // What is kept in memory must outlive this process, so it is a file of the runtime folder by now.
  assert(backing.kind === "file", "a disk is in a file");
  const options = { path: backing.path, isReadOnly, id: name, name };
  return FileStore.open(context.system, context.loop, options);
}

function server(
  name: string,
  pci: PciFunction,
  memory: GuestMemory,
  interrupts: Interrupts,
  context: WorkerContext,
  below: Below,
  doorbells: readonly DoorbellRegion[] = [],
): PublishedDevice {
  const { system, log } = context;
  const journal = context.journal(name);
  const stage = below.stages.stageOf(name, memory);
  return {
    name,
    stage,
    latency: context.metrics.histogram("iommukit_message_seconds", name),
    server: new VfioUserServer({
      system,
      files: below.files.of(name),
      function: pci,
      interrupts,
      memory,
      name,
      log,
      doorbells,
      listener: stage,
      journal,
    }),
  };
}
