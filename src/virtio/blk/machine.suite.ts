/** A virtio-iommu and a disk behind it as PCI functions, with a guest that drives both: for tests. */
import { MemoryStore, type MemoryStoreSettings } from "../../block/memory-store.ts";
import { DmaDevice } from "../../dma/dma-device.ts";
import { DmaDomain } from "../../dma/dma-domain.ts";
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { CountingMeter, NULL_METER } from "../../meter.ts";
import { VirtioIommuDevice } from "../iommu/device.ts";
import { X86_MSI_REGION } from "../iommu/device-config.ts";
import type { RequestLog } from "../iommu/device-queue.ts";
import { ViommuDriver } from "../iommu/driver.ts";
import { DriverArea } from "../iommu/driver-area.ts";
import { LINUX_7_2 } from "../iommu/driver-settings.ts";
import { IommuTlb } from "../iommu/iommu-tlb.ts";
import { VirtioIommu } from "../iommu/pci-device.ts";
import { TranslatedMemory } from "../iommu/translated-memory.ts";
import { CountingSink, GuestTransport } from "../pci/guest.suite.ts";
import { VirtioPci } from "../pci/virtio-pci.ts";
import { VirtioBlk, type VirtioBlkSettings } from "./device.ts";
import { GuestDisk } from "./guest-disk.suite.ts";

export const ENDPOINT = 0x20;
export const MEMORY_START = 0x10_0000;
export const MEMORY_BYTES = 0x200_0000;
const IOMMU_AREA = MEMORY_START;
const IOMMU_AREA_BYTES = 0x10_0000;
const DISK_AREA = MEMORY_START + IOMMU_AREA_BYTES;
/** Where tests may put data. */
export const DATA = MEMORY_START + 0x80_0000;

/** How a machine is put together. */
export interface MachineOptions {
  readonly mode: "none" | "identity" | "strict" | "lazy";
  readonly store?: Partial<MemoryStoreSettings>;
  readonly disk?: Partial<VirtioBlkSettings>;
  readonly featuresLow?: number;
}

/** Guest memory as a virtual machine's, shared with whoever serves it. */
export function sharedMemory(): GuestMemory {
  const memory = new GuestMemory();
  const buffer = new SharedArrayBuffer(MEMORY_BYTES);
  const backing = { buffer, byteOffset: 0 };
  memory.addRegion({ start: MEMORY_START, bytes: MEMORY_BYTES, backing });
  return memory;
}

/** What outlives a process that serves devices. */
export interface HardwareParts {
  readonly memory?: GuestMemory;
  readonly store?: MemoryStore;
  readonly log?: RequestLog | null;
}

/** The devices, without a guest. */
export class Hardware {
  readonly memory: GuestMemory;
  readonly iommu: VirtioIommuDevice;
  readonly iommuPci: VirtioPci;
  readonly iommuSink = new CountingSink();
  readonly deviceMeter = new CountingMeter();
  readonly store: MemoryStore;
  readonly seen: TranslatedMemory | null;
  readonly disk: VirtioBlk;
  readonly diskPci: VirtioPci;
  readonly diskSink = new CountingSink();

  constructor(options: MachineOptions, parts: HardwareParts = {}) {
    const { memory = sharedMemory(), store, log = null } = parts;
    this.memory = memory;
    this.iommu = new VirtioIommuDevice(
      {
        endpoints: [{ id: ENDPOINT, reserved: [X86_MSI_REGION] }],
        inputRange: { start: 0n, last: 2n ** 48n - 1n },
        domainRange: { first: 0, last: 0xffff },
        probeSize: 64,
      },
      this.deviceMeter,
    );
    this.iommuPci = new VirtioPci({
      device: new VirtioIommu(this.iommu, log),
      memory,
      interrupts: this.iommuSink,
    });
    this.store = store ?? new MemoryStore({ bytes: 2 ** 30, id: "disk0", ...options.store });
    const tlb = new IommuTlb(this.iommu, this.deviceMeter);
    this.seen =
      options.mode === "none" ? null : new TranslatedMemory({ tlb, endpoint: ENDPOINT, memory });
    this.disk = new VirtioBlk({ store: this.store, ...options.disk });
    this.diskPci = new VirtioPci({
      device: this.disk,
      memory: this.seen ?? memory,
      interrupts: this.diskSink,
    });
  }

  /** Work until there is none, endpoints before the IOMMU. */
  work(): void {
    while (this.diskPci.work() || this.iommuPci.work()) {
      // Each turn is bounded; together they end.
    }
  }
}

/** A guest whose drivers are up. */
export class Machine {
  hardware: Hardware;
  readonly iommuTransport: GuestTransport | null = null;
  readonly driver: ViommuDriver | null = null;
  readonly dma: DmaDomain | null = null;
  readonly guest: GuestDisk;

  constructor(options: MachineOptions, parts: HardwareParts = {}) {
    const hardware = new Hardware(options, parts);
    this.hardware = hardware;
    let device: DmaDevice | null = null;
    if (options.mode !== "none") {
      this.iommuTransport = new GuestTransport(hardware.iommuPci, hardware.iommuSink);
      this.iommuTransport.silent.add(0);
      const started = ViommuDriver.start({
        area: new DriverArea(hardware.memory, IOMMU_AREA, IOMMU_AREA_BYTES),
        transport: this.iommuTransport,
        settings: LINUX_7_2,
        meter: NULL_METER,
        allocationFails: () => false,
      });
      assert(started.errno === Errno.OK, "the driver takes the IOMMU");
      this.driver = started.value;
      const endpoint = this.driver.addEndpoint([ENDPOINT]);
      assert(endpoint.errno === Errno.OK, "the endpoint is known");
      if (options.mode === "identity") {
        const domain = this.driver.identityDomain(endpoint.value);
        assert(domain.errno === Errno.OK, "there is an identity domain");
        assert(this.driver.attach(endpoint.value, domain.value) === Errno.OK, "it is attached");
      } else {
        const domain = this.driver.createDomain();
        assert(domain.errno === Errno.OK, "there is a domain");
        assert(this.driver.attach(endpoint.value, domain.value) === Errno.OK, "it is attached");
        const type = options.mode === "lazy" ? DomainType.DMA_FQ : DomainType.DMA;
        this.dma = new DmaDomain(new IommuDomain(type, domain.value), {
          cpus: 1,
          timer: { arm() {} },
        });
        assert(this.dma.init({}) === Errno.OK, "the domain takes a device");
        device = new DmaDevice(this.dma, { isPci: true });
      }
    }
    this.guest = new GuestDisk({
      pci: hardware.diskPci,
      sink: hardware.diskSink,
      memory: hardware.memory,
      start: DISK_AREA,
      dma: device,
      ...(options.featuresLow === undefined ? {} : { featuresLow: options.featuresLow }),
    });
  }

  /** Puts other devices in the place of those there are; the guest does not notice. */
  replace(hardware: Hardware): void {
    this.hardware = hardware;
    if (this.iommuTransport !== null) plug(this.iommuTransport, hardware.iommuPci);
    plug(this.guest.transport, hardware.diskPci);
    // Interrupts of the old sinks' vectors are the new ones'.
    hardware.iommuSink.onRaise = (vector) => {
      if (vector > 0) this.iommuTransport?.onInterrupt?.(vector - 1);
    };
    hardware.diskSink.onRaise = (vector) => {
      if (vector > 0) this.guest.transport.onInterrupt?.(vector - 1);
    };
  }

  /** Counts so far: MAP, UNMAP, notifications of the IOMMU and of the disk, the disk's interrupts. */
  counts(): number[] {
    const { deviceMeter, diskSink } = this.hardware;
    return [
      deviceMeter.amount("requestMap"),
      deviceMeter.amount("requestUnmap"),
      this.iommuTransport?.kicks[0] ?? 0,
      this.guest.transport.kicks[0] ?? 0,
      diskSink.count(1),
    ];
  }
}

function plug(transport: GuestTransport, pci: VirtioPci): void {
  transport.client.pci = pci;
}
