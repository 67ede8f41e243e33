/**
 * A virtio-iommu for a stack: the guest's driver, its request queue in guest memory, and the device
 * behind it, with one endpoint in one domain.
 *
 * The driver is that of Linux 7.2. Without "+map" it is as it was before iotlb_sync_map: each MAP
 * request is waited for by itself. An UNMAP request that no kick has carried to the device yet
 * leaves its memory reachable.
 */

import type { Policy } from "../../dma/policy.ts";
import { assert } from "../../errors.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { RANGES_LIMIT } from "../../iommu/range-map.ts";
import { X86_MSI_REGION } from "../../virtio/iommu/device-config.ts";
import { startLocalPair } from "../../virtio/iommu/driver-local.ts";
import { LINUX_7_2 } from "../../virtio/iommu/driver-settings.ts";
import type { RunMeter } from "./run-meter.ts";
import type { StackBackend } from "./translated-stack.ts";

const ENDPOINT = 8;

/** Builds the IOMMU. */
export function buildVirtio(policy: Policy, meter: RunMeter): StackBackend {
  const isLazy = policy.mode === "lazy";
  meter.counting = false;
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
  });
  assert(started.errno === 0, "the driver takes the device");
  const { driver } = started.value;
  const endpoint = driver.addEndpoint([ENDPOINT]);
  const domain = driver.createDomain();
  assert(endpoint.errno === 0, "the device knows its endpoint");
  assert(domain.errno === 0, "the device has a domain to give");
  assert(driver.attach(endpoint.value, domain.value) === 0, "the endpoint can be attached");
  meter.counting = true;
  return {
    domain: new IommuDomain(isLazy ? DomainType.DMA_FQ : DomainType.DMA, domain.value),
    beforeUnmap(): void {},
    // Requests are carried in order: if any is left, the last UNMAP is.
    hasReach: () => driver.requests.inFlight > 0,
    mapCommands: () => meter.events("requestMap"),
    unmapCommands: () => meter.events("requestUnmap"),
    invalidationCounts: () => null,
    tableCounts: () => null,
  };
}
