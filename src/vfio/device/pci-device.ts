/**
 * A PCI function bound to vfio-pci: its regions, who may reach its memory when, and what happens to
 * those who had it when it goes.
 *
 * Memory can be reached while the function is in D0 … D2, decodes memory and is not suspended.
 * Whenever that ends, the BARs leave every page table first and importers of dma-bufs are told.
 * IOMMU mappings that type1 made stay: it has no such hook. Source:
 * drivers/vfio/pci/vfio_pci_core.c: vfio_pci_core_mmap, vfio_pci_mmap_huge_fault,
 * vfio_pci_zap_and_down_write_memory_lock, vfio_pci_ioctl_reset, vfio_pci_runtime_pm_entry;
 * vfio_pci_config.c: __vfio_pci_memory_enabled, vfio_basic_config_write,
 * vfio_lock_and_set_power_state.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { IommuDevice } from "../../iommu/device.ts";
import { ADDRESS_LAST, pfnOf } from "../../units.ts";
import type { VfioDevice } from "../device-file.ts";
import type { IoctlArgument, IoctlResult, VfioTask } from "../file.ts";
import type { DeviceMapper, MappableDevice } from "../process/mappable-device.ts";
import { DeviceFlag, RegionFlag } from "./device-structs.ts";
import { type DeviceRun, VfioDmaBuf } from "./dma-buf.ts";
import {
  barPages,
  canMapBar,
  type DeviceRegion,
  type PciBar,
  REGION_COUNT,
  REGION_PAGES,
  RegionIndex,
  type RegionRange,
  regionOffset,
} from "./pci-bar.ts";
import { deviceIoctl } from "./pci-ioctl.ts";

/** Kinds of interrupt that VFIO numbers: INTx, MSI, MSI-X, error, request. */
const IRQ_COUNT = 5;
/** Power state in which a function decodes nothing. */
const D3_HOT = 3;

/** What a function is made of. */
export interface VfioPciDeviceOptions {
  readonly iommuDevice: IommuDevice;
  /** BARs 0 … 5; null or left out for one that is not there. */
  readonly bars: readonly (PciBar | null)[];
  readonly romBytes?: number;
  /** 4096 for PCI Express, 256 for conventional PCI. */
  readonly configBytes?: number;
  readonly hasVga?: boolean;
  /** BAR that holds the MSI-X table; −1 without one. */
  readonly msixBar?: number;
  /** Whether the function can be reset. */
  readonly canReset?: boolean;
  /** A virtual function decodes memory whatever its command register says. */
  readonly isVirtual?: boolean;
  /** Whether parts of its BARs can be given away as dma-bufs. */
  readonly canExport?: boolean;
}

/** The function. */
export class VfioPciDevice implements VfioDevice, MappableDevice {
  readonly iommuDevice: IommuDevice;
  readonly mappers = new Set<DeviceMapper>();
  readonly #options: VfioPciDeviceOptions;
  readonly #buffers = new Set<VfioDmaBuf>();
  #isBound = true;
  #decodesMemory = true;
  #powerState = 0;
  #isSuspended = false;

  constructor(options: VfioPciDeviceOptions) {
    assert(options.bars.length <= 6, "a PCI function has six BARs at most");
    this.iommuDevice = options.iommuDevice;
    this.#options = options;
  }

  /** Whether the function answers accesses to its memory. */
  get isMemoryEnabled(): boolean {
    const isDecoding = this.#options.isVirtual === true || this.#decodesMemory;
    return this.#isBound && this.#powerState < D3_HOT && isDecoding;
  }

  get isAccessible(): boolean {
    return !this.#isSuspended && this.isMemoryEnabled;
  }

  /** Whether parts of its BARs can be given away. */
  get canExport(): boolean {
    return this.#options.canExport ?? true;
  }

  /** VFIO_DEVICE_GET_INFO. */
  get info(): { readonly flags: number; readonly regions: number; readonly irqs: number } {
    const reset = this.#options.canReset === false ? 0 : DeviceFlag.RESET;
    return { flags: DeviceFlag.PCI | reset, regions: REGION_COUNT, irqs: IRQ_COUNT };
  }

  /** VFIO_DEVICE_GET_REGION_INFO. @returns the region, or EINVAL */
  region(index: number): DeviceRegion | number {
    if (!Number.isInteger(index) || index < 0 || index >= REGION_COUNT) return Errno.EINVAL;
    const fileOffset = regionOffset(index);
    const plain = (flags: number, bytes: number) => ({
      flags: bytes === 0 ? 0 : flags,
      bytes,
      fileOffset,
      isMsixMappable: false,
    });
    const readWrite = RegionFlag.READ | RegionFlag.WRITE;
    if (index === RegionIndex.CONFIG) return plain(readWrite, this.#options.configBytes ?? 4096);
    if (index === RegionIndex.ROM) return plain(RegionFlag.READ, this.#options.romBytes ?? 0);
    if (index === RegionIndex.VGA)
      return this.#options.hasVga === true ? plain(readWrite, 0xc_0000) : Errno.EINVAL;
    const bar = this.#bar(index);
    if (bar === null || !canMapBar(bar)) return plain(readWrite, bar?.bytes ?? 0);
    const isMsixMappable = this.#options.msixBar === index;
    return { ...plain(readWrite | RegionFlag.MMAP, bar.bytes), isMsixMappable };
  }

  /** See MappableDevice. @returns EINVAL, EBUSY (somebody else has the BAR), ENODEV (unbound) */
  mapPages(filePage: number, pages: number, isShared: boolean, out: { pfn: number }): number {
    if (!this.#isBound) return Errno.ENODEV;
    const index = Math.floor(filePage / REGION_PAGES);
    if (!isShared || index >= RegionIndex.ROM) return Errno.EINVAL;
    const bar = this.#bar(index);
    if (bar === null || !canMapBar(bar)) return Errno.EINVAL;
    const page = filePage - index * REGION_PAGES;
    if (page + pages > barPages(bar)) return Errno.EINVAL;
    if (bar.isBusy === true) return Errno.EBUSY;
    out.pfn = bar.pfn + page;
    return Errno.OK;
  }

  /** The user writes the memory bit of the command register. */
  setMemoryDecode(isOn: boolean): void {
    this.#decodesMemory = isOn;
    if (!isOn) this.#takeMemory();
    this.#giveMemory();
  }

  /** The user writes the power state of the power management capability, 0 … 3. */
  setPowerState(state: number): void {
    assert(state >= 0 && state <= D3_HOT, "a function is in D0 … D3");
    this.#powerState = state;
    if (state >= D3_HOT) this.#takeMemory();
    else this.#giveMemory();
  }

  /** Puts the function to sleep until {@link resume}. @returns EINVAL when it sleeps already */
  suspend(): number {
    if (this.#isSuspended) return Errno.EINVAL;
    this.#takeMemory();
    this.#isSuspended = true;
    return Errno.OK;
  }

  resume(): void {
    this.#isSuspended = false;
    this.#giveMemory();
  }

  /** VFIO_DEVICE_RESET; what was configured is configured again after it. @returns EINVAL */
  reset(): number {
    if (this.#options.canReset === false) return Errno.EINVAL;
    this.#takeMemory();
    this.#powerState = 0;
    this.#giveMemory();
    return Errno.OK;
  }

  /**
   * Gives parts of a BAR away (VFIO_DEVICE_FEATURE_DMA_BUF).
   *
   * @returns the buffer, or an errno: EOPNOTSUPP; EINVAL for no range, one that is empty,
   *   misaligned or past the BAR, or too much in all; ENODEV for no BAR or no device
   */
  exportDmaBuf(index: number, ranges: readonly RegionRange[]): VfioDmaBuf | number {
    if (!this.canExport) return Errno.EOPNOTSUPP;
    if (ranges.length === 0) return Errno.EINVAL;
    let total = 0n;
    for (const { offset, length } of ranges) {
      if (length === 0n || (offset & 0xfffn) !== 0n || (length & 0xfffn) !== 0n)
        return Errno.EINVAL;
      total += length;
    }
    // The length of a buffer has 63 bits; the last one has a meaning of its own.
    if (total > ADDRESS_LAST >> 1n) return Errno.EINVAL;
    const bar = index < RegionIndex.ROM ? this.#bar(index) : null;
    if (bar === null || bar.isMemory === false || bar.bytes === 0 || bar.isBusy === true)
      return Errno.ENODEV;
    const runs: DeviceRun[] = [];
    for (const { offset, length } of ranges) {
      if (offset + length > BigInt(bar.bytes)) return Errno.EINVAL;
      runs.push({ pfn: bar.pfn + pfnOf(offset), pages: pfnOf(length) });
    }
    if (!this.#isBound) return Errno.ENODEV;
    const buffer = new VfioDmaBuf(runs, !this.isMemoryEnabled, () => this.#buffers.delete(buffer));
    this.#buffers.add(buffer);
    return buffer;
  }

  /** The last user is gone, or the driver is taken off: nobody keeps its memory. */
  close(): void {
    this.#takeMemory();
    this.#buffers.clear();
    this.#isSuspended = false;
  }

  /** The driver is taken off the device for good. */
  unbind(): void {
    this.close();
    this.#isBound = false;
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    return deviceIoctl(this, task, request, argument);
  }

  #bar(index: number): PciBar | null {
    return this.#options.bars[index] ?? null;
  }

  #takeMemory(): void {
    for (const mapper of this.mappers) mapper.unmapDevice(this);
    for (const buffer of [...this.#buffers]) buffer.move(true);
  }

  #giveMemory(): void {
    if (!this.isAccessible) return;
    for (const buffer of [...this.#buffers]) buffer.move(false);
  }
}
