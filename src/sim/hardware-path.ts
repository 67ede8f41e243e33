/**
 * The DMA side of a machine without a guest: the kernel's DMA API over a VT-d unit with second-stage
 * tables of four levels, all on node 0, with every step billed.
 *
 * Bare metal means no caching mode: a new mapping needs no sync, and "+map" changes nothing. That
 * lazy mode uses one flush queue is no setting of Linux on VT-d; it is shown as what-if.
 */
import { DmaDevice } from "../dma/dma-device.ts";
import { DmaDomain } from "../dma/dma-domain.ts";
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import { vtdSecondStage } from "../iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../iommu/hardware-domain.ts";
import { PageTable } from "../iommu/page-table.ts";
import { ReservedType } from "../iommu/reserved-regions.ts";
import { TranslationUnit } from "../iommu/translation-unit.ts";
import { PagePool } from "../memory/page-pool.ts";
import type { GuestDma, GuestDmaOptions } from "./guest/dma-path.ts";
import { meteredTrace } from "./host/metered-domain.ts";

const LEVELS = 4;
/** 512 MiB of page tables at most. */
const POOL_FRAMES = 2 ** 17;
/** Below 2^40, as an entry holds it, and apart from every buffer. */
const POOL_BASE_PFN = 2 ** 39;
const REQUESTER = 0x0100;

/** The window that x86 keeps for interrupts. */
const MSI_REGION = {
  type: ReservedType.MSI,
  start: 0xfee0_0000n,
  last: 0xfeef_ffffn,
  prot: 0,
};

/** Builds it. */
export function buildHardwareDma(options: GuestDmaOptions): GuestDma {
  const { policy, cpus, meter, timer } = options;
  if (policy.mode === "passthrough") return { device: new DmaDevice(null), domain: null };
  const pool = new PagePool([{ node: 0, basePfn: POOL_BASE_PFN, frameCount: POOL_FRAMES }]);
  const table = PageTable.create({
    format: vtdSecondStage({ levels: LEVELS }),
    pool,
    node: 0,
    meter,
  });
  assert(table !== null, "an empty pool has room for a root");
  const unit = new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21, 30] },
    pagingCache: { sets: 8, ways: 4, replacement: "lru" },
    selective: { kind: "mask", maskMax: 18 },
    meter,
  });
  const driver = new HardwareDomain({ table });
  assert(driver.attach(unit, REQUESTER) === 0, "a fresh unit takes a device");
  const isLazy = policy.mode === "lazy";
  const domain = new IommuDomain(
    isLazy ? DomainType.DMA_FQ : DomainType.DMA,
    driver,
    meteredTrace(meter),
  );
  const kind = policy.queue === "single" ? "single" : "per-cpu";
  const flushQueue = isLazy ? { flushQueue: { kind } as const } : {};
  const dma = new DmaDomain(domain, { cpus, meter, timer, ...flushQueue });
  assert(dma.init({ regions: [MSI_REGION] }) === Errno.OK, "a fresh domain takes a device");
  return { device: new DmaDevice(dma, { isPci: true }), domain: dma };
}
