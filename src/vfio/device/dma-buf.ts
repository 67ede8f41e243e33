/**
 * A dma-buf over parts of a VFIO PCI device's BAR: device memory that others import, and that can
 * be taken from them.
 *
 * Source: drivers/vfio/pci/vfio_pci_dmabuf.c: vfio_pci_dma_buf_attach, vfio_pci_dma_buf_move,
 * vfio_pci_dma_buf_cleanup, vfio_pci_dma_buf_iommufd_map.
 */
import { Errno } from "../../errno.ts";

/** Frames of a device. */
export interface DeviceRun {
  readonly pfn: number;
  readonly pages: number;
}

/** Who has attached to a buffer. */
export interface DmaBufImporter {
  /** The memory is gone: whatever is mapped of it has to be unmapped before this returns. */
  revoke(): void;
}

/** The buffer. */
export class VfioDmaBuf {
  /** Length of all ranges in pages. */
  readonly pages: number;
  readonly runs: readonly DeviceRun[];
  readonly #importers = new Set<DmaBufImporter>();
  readonly #onUnused: () => void;
  #isRevoked: boolean;
  #isOpen = true;

  /**
   * @param isRevoked - whether the device does not decode its memory now
   * @param onUnused - called when it is closed and nobody is attached to it any more
   */
  constructor(runs: readonly DeviceRun[], isRevoked: boolean, onUnused: () => void) {
    this.#onUnused = onUnused;
    this.runs = runs;
    this.pages = runs.reduce((sum, run) => sum + run.pages, 0);
    this.#isRevoked = isRevoked;
  }

  /** Whether its memory cannot be reached now. */
  get isRevoked(): boolean {
    return this.#isRevoked;
  }

  /** @returns ENODEV while it is revoked */
  attach(importer: DmaBufImporter): number {
    if (this.#isRevoked) return Errno.ENODEV;
    this.#importers.add(importer);
    return Errno.OK;
  }

  detach(importer: DmaBufImporter): void {
    this.#importers.delete(importer);
    this.#dropUnused();
  }

  /** Its file is closed; importers keep it. */
  close(): void {
    this.#isOpen = false;
    this.#dropUnused();
  }

  /**
   * The one physical range, as iommufd takes it.
   *
   * @returns ENODEV while it is revoked, EOPNOTSUPP when it consists of several ranges
   */
  physRun(out: { pfn: number; pages: number }): number {
    if (this.#isRevoked) return Errno.ENODEV;
    const run = this.runs[0];
    if (this.runs.length !== 1 || run === undefined) return Errno.EOPNOTSUPP;
    out.pfn = run.pfn;
    out.pages = run.pages;
    return Errno.OK;
  }

  /** The device's memory has gone or has come back; importers are told of the former. */
  move(isRevoked: boolean): void {
    if (this.#isRevoked === isRevoked) return;
    this.#isRevoked = isRevoked;
    if (!isRevoked) return;
    // Told in the order of attaching; one that detaches meanwhile is not told.
    for (const importer of [...this.#importers])
      if (this.#importers.has(importer)) importer.revoke();
  }

  #dropUnused(): void {
    if (!this.#isOpen && this.#importers.size === 0) this.#onUnused();
  }
}
