/**
 * The virtio-iommu driver of a guest: endpoints, domains, attach with replay, identity, reserved
 * regions and fault records. By default it does exactly what Linux 7.2 does, flaws included; see
 * driver-settings.ts for the other versions and the corrections.
 *
 * Source: drivers/iommu/virtio-iommu.c of Linux 7.2: viommu_probe_device, viommu_domain_alloc_paging,
 * viommu_domain_alloc_identity, viommu_domain_map_identity, viommu_attach_dev,
 * viommu_attach_identity_domain, viommu_detach_dev, viommu_release_device.
 */
import { Errno } from "../../errno.ts";
import { Step } from "../../meter.ts";
import type { Placement } from "./device-config.ts";
import { type BypassDomain, ViommuDomain } from "./driver-domain.ts";
import type { EventCounts, ReportedFault } from "./driver-events.ts";
import { DomainIds } from "./driver-ids.ts";
import { parseProperties, type ReservedRegion, regionsForCore } from "./driver-probe.ts";
import type { RequestQueue } from "./driver-requests.ts";
import { type DriverParts, type StartedDevice, startDevice } from "./driver-start.ts";
import { AttachFlag, IommuQueue, MapFlag } from "./protocol.ts";

/** What an endpoint can be attached to. */
export type AnyDomain = ViommuDomain | BypassDomain;

/** A device behind the IOMMU, with all the IDs its DMA may carry. */
export interface Endpoint {
  readonly ids: readonly number[];
  /** As PROBEd, by start; without the software MSI window. */
  readonly regions: readonly ReservedRegion[];
  /** Where the device says it is, for a driver that reads that. */
  readonly placement: Placement | null;
  domain: AnyDomain | null;
}

/** An outcome that carries something when `errno` is 0. */
export type Result<T> =
  | { readonly errno: 0; readonly value: T }
  | { readonly errno: Exclude<Errno, 0>; readonly value: null };

const PFN_BYTES = 4096n;

/** A driver and its device. */
export class ViommuDriver {
  /** Hears of every fault record that is not ignored. */
  onFault: ((fault: ReportedFault) => void) | null = null;
  readonly #parts: DriverParts;
  #device: StartedDevice;
  readonly #ids: DomainIds;
  readonly #bypass: BypassDomain | null;
  readonly #endpoints = new Set<Endpoint>();

  /** Brings the device up. @returns ENODEV, ENOENT, EINVAL or ENOMEM where it cannot be used */
  static start(parts: DriverParts): Result<ViommuDriver> {
    const device = startDevice(parts);
    if (typeof device === "number") return failed(device);
    return { errno: 0, value: new ViommuDriver(parts, device) };
  }

  private constructor(parts: DriverParts, device: StartedDevice) {
    this.#parts = parts;
    this.#device = device;
    const bypassId = device.firstDomain;
    this.#bypass = device.hasBypassConfig
      ? { kind: "bypass", id: bypassId, endpointCount: 0 }
      : null;
    this.#ids = new DomainIds(this.#bypass === null ? bypassId : bypassId + 1, device.lastDomain);
    this.#listen();
  }

  /** What the device said in its config space. */
  get device(): Omit<StartedDevice, "requests" | "events"> {
    return this.#device;
  }

  /** The request queue in use. */
  get requests(): RequestQueue {
    return this.#device.requests;
  }

  /** How many fault records came. */
  get eventCounts(): EventCounts {
    return this.#device.events.counts;
  }

  /**
   * Takes an endpoint on: asks for its properties, of its first ID only.
   *
   * @param ids - at least one
   */
  addEndpoint(ids: readonly number[]): Result<Endpoint> {
    const { probeBytes, requests } = this.#device;
    if (this.#parts.allocationFails()) return failed(Errno.ENOMEM);
    let regions: readonly ReservedRegion[] = [];
    let placement: Placement | null = null;
    if (probeBytes > 0) {
      const area = new Uint8Array(probeBytes);
      const asked = requests.sendProbe(ids[0]!, area);
      if (asked !== Errno.OK) return failed(asked);
      const parsed = parseProperties(area, this.#parts.settings);
      if (parsed.errno !== Errno.OK) return failed(parsed.errno);
      regions = parsed.regions;
      placement = parsed.placement;
    }
    const endpoint: Endpoint = { ids, regions, placement, domain: null };
    this.#endpoints.add(endpoint);
    return { errno: 0, value: endpoint };
  }

  /** Lets an endpoint go, and detaches it. @returns the errno of the last DETACH that failed */
  removeEndpoint(endpoint: Endpoint): Errno {
    const errno = this.detach(endpoint);
    this.#endpoints.delete(endpoint);
    return errno;
  }

  /** Reserved regions as the core is told, the software MSI window included where it applies. */
  reservedRegions(endpoint: Endpoint): readonly ReservedRegion[] {
    return regionsForCore(endpoint.regions);
  }

  /** Makes a paging domain. @returns ENODEV for a granule above 4 KiB, ENOSPC without a free ID */
  createDomain(): Result<ViommuDomain> {
    if (this.#device.isGranuleTooLarge) return failed(Errno.ENODEV);
    if (this.#parts.allocationFails()) return failed(Errno.ENOMEM);
    const id = this.#ids.take();
    if (id < 0) return failed(Errno.ENOSPC);
    const domain = new ViommuDomain(id, {
      geometry: this.#device.geometry,
      settings: this.#parts.settings,
      requests: () => this.#device.requests,
      allocationFails: this.#parts.allocationFails,
    });
    return { errno: 0, value: domain };
  }

  /**
   * The domain that lets an endpoint through: the device's own where it knows bypass domains, else
   * a paging domain that maps the whole input range onto itself, around the endpoint's regions.
   */
  identityDomain(endpoint: Endpoint): Result<AnyDomain> {
    if (this.#bypass !== null) return { errno: 0, value: this.#bypass };
    const created = this.createDomain();
    if (created.errno !== 0) return created;
    const errno = this.#mapIdentity(created.value, endpoint.regions);
    if (errno === Errno.OK) return created;
    this.freeDomain(created.value);
    return failed(errno);
  }

  /** Frees a paging domain that no endpoint is attached to. */
  freeDomain(domain: ViommuDomain): void {
    domain.forget();
    this.#ids.give(domain.id);
  }

  /**
   * Attaches an endpoint, ID by ID; the first endpoint of a domain has its mappings replayed. IDs
   * attached before one that fails stay attached (V194).
   */
  attach(endpoint: Endpoint, domain: AnyDomain): Errno {
    const errno =
      domain.kind === "bypass"
        ? this.#attachBypass(endpoint, domain)
        : this.#attachPaging(endpoint, domain);
    if (errno === Errno.OK) this.#parts.meter.step(Step.attach, 1, 0);
    return errno;
  }

  /** Detaches an endpoint, ID by ID, to the end. @returns the errno of the last one that failed */
  detach(endpoint: Endpoint): Errno {
    const domain = endpoint.domain;
    if (domain === null) return Errno.OK;
    let errno: Errno = Errno.OK;
    for (const id of endpoint.ids) {
      const outcome = this.requests.sendDetach(domain.id, id);
      if (outcome !== Errno.OK) errno = outcome;
    }
    decrement(domain);
    endpoint.domain = null;
    return errno;
  }

  /**
   * Starts anew after the device asked for a reset: what was in flight is neither done nor undone,
   * so every attachment and every mapping is made again (V188). Linux 7.2 has no such path.
   *
   * @returns the first errno; endpoints after it are unattached
   */
  recover(): Errno {
    const device = startDevice(this.#parts);
    if (typeof device === "number") return device;
    this.#device = device;
    this.#listen();
    const attached = [...this.#endpoints].map((endpoint) => ({ endpoint, to: endpoint.domain }));
    for (const { endpoint, to } of attached) {
      if (to !== null) to.endpointCount = 0;
      endpoint.domain = null;
    }
    for (const { endpoint, to } of attached) {
      if (to === null) continue;
      const errno = this.attach(endpoint, to);
      if (errno !== Errno.OK) return errno;
    }
    return Errno.OK;
  }

  #listen(): void {
    this.#parts.transport.onInterrupt = (queueIndex) => {
      if (queueIndex !== IommuQueue.EVENT) return;
      this.#device.events.handle((fault) => this.onFault?.(fault));
    };
  }

  #attachPaging(endpoint: Endpoint, domain: ViommuDomain): Errno {
    const isCorrected = this.#parts.settings.corrections.attachCount;
    const old = endpoint.domain;
    if (old !== null && !isCorrected) decrement(old);
    for (const id of endpoint.ids) {
      const errno = this.requests.sendAttach(domain.id, id, 0);
      if (errno !== Errno.OK) return errno;
    }
    if (old !== null && isCorrected) decrement(old);
    if (domain.endpointCount === 0) {
      const errno = domain.replay();
      if (errno !== Errno.OK) {
        if (isCorrected) this.#leave(endpoint, domain);
        return errno;
      }
    }
    domain.endpointCount += 1;
    endpoint.domain = domain;
    return Errno.OK;
  }

  /** Takes an attach back whose replay failed; the old domain is gone either way. */
  #leave(endpoint: Endpoint, domain: ViommuDomain): void {
    for (const id of endpoint.ids) this.requests.sendDetach(domain.id, id);
    endpoint.domain = null;
  }

  #attachBypass(endpoint: Endpoint, domain: BypassDomain): Errno {
    for (const id of endpoint.ids) {
      const errno = this.requests.sendAttach(domain.id, id, AttachFlag.BYPASS);
      if (errno !== Errno.OK) return errno;
    }
    if (endpoint.domain !== null) decrement(endpoint.domain);
    domain.endpointCount += 1;
    endpoint.domain = domain;
    return Errno.OK;
  }

  /** Remembers identity mappings for the input range minus the regions, rounded out to frames. */
  #mapIdentity(domain: ViommuDomain, regions: readonly ReservedRegion[]): Errno {
    const flags = MapFlag.READ | MapFlag.WRITE;
    const { apertureStartPfn, apertureLastPfn } = domain;
    let pfn = apertureStartPfn;
    for (const region of regions) {
      const first = Number(region.start / PFN_BYTES);
      const last = Number(region.last / PFN_BYTES);
      if (last < pfn || first > apertureLastPfn) continue;
      if (first > pfn) {
        const errno = domain.remember(pfn, first - 1, pfn, flags);
        if (errno !== Errno.OK) return errno;
      }
      if (last >= apertureLastPfn) return Errno.OK;
      pfn = last + 1;
    }
    return pfn > apertureLastPfn ? Errno.OK : domain.remember(pfn, apertureLastPfn, pfn, flags);
  }
}

/** Counts an endpoint less, in 32 bits that wrap, as the kernel's counter does. */
function decrement(domain: AnyDomain): void {
  domain.endpointCount = (domain.endpointCount - 1) >>> 0;
}

function failed<T>(errno: Errno): Result<T> {
  return { errno: errno as Exclude<Errno, 0>, value: null };
}
