/**
 * The DMA side of a simulated guest: the kernel's DMA API over a virtio-iommu, or over nothing, with
 * every step billed.
 *
 * Both ends are the real ones: the guest driver queues, kicks and waits, the device takes the
 * requests off the ring and changes its mappings. What a step costs is up to the price list.
 */
import { DmaDevice } from "../../dma/dma-device.ts";
import { DmaDomain } from "../../dma/dma-domain.ts";
import type { FlushTimer } from "../../dma/flush-queue.ts";
import type { Policy } from "../../dma/policy.ts";
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { RANGES_LIMIT } from "../../iommu/range-map.ts";
import { ReservedType } from "../../iommu/reserved-regions.ts";
import { type Meter, Step } from "../../meter.ts";
import { X86_MSI_REGION } from "../../virtio/iommu/device-config.ts";
import type { IommuListener } from "../../virtio/iommu/device-listener.ts";
import { startLocalPair } from "../../virtio/iommu/driver-local.ts";
import { LINUX_7_2 } from "../../virtio/iommu/driver-settings.ts";

const ENDPOINT = 8;

/** The window that x86 keeps for interrupts. */
const MSI_REGION = {
  type: ReservedType.MSI,
  start: 0xfee0_0000n,
  last: 0xfeef_ffffn,
  prot: 0,
};

/** What a guest's DMA side is made of. */
export interface GuestDmaOptions {
  readonly policy: Policy;
  readonly cpus: number;
  readonly meter: Meter;
  readonly timer: FlushTimer;
  /** What the host does about mappings: its second stage. */
  readonly host?: IommuListener;
}

/** The DMA side of one device of a guest. */
export interface GuestDma {
  readonly device: DmaDevice;
  /** Null without translation. */
  readonly domain: DmaDomain | null;
}

/**
 * The device's side of a meter that both sides report to: requests are counted where they are sent,
 * not again where they are handled.
 */
class HandlingMeter implements Meter {
  readonly #meter: Meter;

  constructor(meter: Meter) {
    this.#meter = meter;
  }

  step(step: number, amount: number, place: number): void {
    const isRequest =
      step === Step.requestMap || step === Step.requestUnmap || step === Step.requestOther;
    if (!isRequest) this.#meter.step(step, amount, place);
  }
}

/** Builds it. */
export function buildGuestDma(options: GuestDmaOptions): GuestDma {
  const { policy, cpus, meter, timer, host } = options;
  if (policy.mode === "passthrough") return { device: new DmaDevice(null), domain: null };
  const isLazy = policy.mode === "lazy";
  const started = startLocalPair({
    device: {
      endpoints: [{ id: ENDPOINT, reserved: [X86_MSI_REGION] }],
      bypass: false,
      domainMappingsMax: RANGES_LIMIT,
      mappingsMax: RANGES_LIMIT,
    },
    settings: {
      ...LINUX_7_2,
      syncMap: policy.syncMap,
      deferredFlush: isLazy,
      shadowOnFlush: policy.queue === "single",
    },
    meter,
    deviceMeter: new HandlingMeter(meter),
  });
  assert(started.errno === Errno.OK, "the driver takes the device");
  const { driver, device } = started.value;
  if (host !== undefined) device.addListener(host);
  const endpoint = driver.addEndpoint([ENDPOINT]);
  const domain = driver.createDomain();
  assert(endpoint.errno === Errno.OK, "the device knows its endpoint");
  assert(domain.errno === Errno.OK, "the device has a domain to give");
  assert(driver.attach(endpoint.value, domain.value) === Errno.OK, "the endpoint is attached");
  const type = isLazy ? DomainType.DMA_FQ : DomainType.DMA;
  const dma = new DmaDomain(new IommuDomain(type, domain.value), { cpus, meter, timer });
  assert(dma.init({ regions: [MSI_REGION] }) === Errno.OK, "a fresh domain takes a device");
  return { device: new DmaDevice(dma, { isPci: true }), domain: dma };
}
