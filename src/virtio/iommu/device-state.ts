/**
 * The state of a virtio-iommu device: endpoints, the domains they are in, and what the domains map.
 *
 * Source: virtio specification 1.3, "IOMMU device". A domain exists while an endpoint is in it
 * (V33, V37, V49); an endpoint is in one domain at most (V43).
 */
import { RangeMap } from "../../iommu/range-map.ts";
import { type Meter, Step } from "../../meter.ts";
import { ADDRESS_LAST, offsetOf, pfnOf } from "../../units.ts";
import {
  checkEndpoint,
  type EndpointConfig,
  granuleOf,
  type IommuConfig,
  type Placement,
  type ReservedRegion,
} from "./device-config.ts";
import { FaultLog } from "./device-faults.ts";
import type { IommuListener } from "./device-listener.ts";
import { Feature } from "./protocol.ts";
import { type QuirkSet, quirkBit, quirkSet } from "./quirks.ts";
import { IntervalTree } from "./quirks-interval-tree.ts";

/** A reserved region as frames and offsets; equal regions of several endpoints are one object. */
export interface Region {
  readonly config: ReservedRegion;
  readonly isMsi: boolean;
  readonly startPfn: number;
  readonly startOffset: number;
  readonly lastPfn: number;
  readonly lastOffset: number;
}

/** An endpoint. */
export interface EndpointState {
  readonly id: number;
  readonly regions: readonly Region[];
  readonly placement: Placement | null;
  /** The quirks that make it an endpoint; none when it is one anyway. */
  readonly byQuirks: QuirkSet;
  domain: DomainState | null;
  /** Whether QEMU has an object for it: made by ATTACH, ended by DETACH. */
  hasObject: boolean;
}

/** A domain. */
export interface DomainState {
  readonly id: number;
  readonly isBypass: boolean;
  readonly endpoints: Set<EndpointState>;
  /** Distinct reserved regions of its endpoints, and how many endpoints have each. */
  readonly regions: Map<Region, number>;
  /** The same regions as a list. */
  regionList: readonly Region[];
  readonly mappings: RangeMap;
  /** The order in which QEMU meets the mappings, for the quirk that depends on it. */
  readonly intervals: IntervalTree | null;
}

const OWN_ENDPOINT = quirkBit("qemu-iommu-is-endpoint");
const ID_CUT = quirkBit("qemu-endpoint-id-cut");
/** Endpoints beyond which a quirk makes no more of them. */
const ENDPOINTS_MAX = 2 ** 20;
/** Bits of an endpoint ID that name a PCI function. */
const FUNCTION_BITS = 0xffff;
const ORDERED = quirkBit("qemu-unmap-not-atomic") | quirkBit("qemu-map-inverted");

/** The state, and the changes that keep it whole. */
export class DeviceState {
  readonly config: IommuConfig;
  readonly meter: Meter;
  readonly quirks: QuirkSet;
  readonly endpoints = new Map<number, EndpointState>();
  readonly domains = new Map<number, DomainState>();
  readonly listeners = new Set<IommuListener>();
  readonly faults: FaultLog;
  /** Feature bits that the driver accepted. */
  negotiated = 0;
  /** The bypass field. */
  bypass: boolean;
  /** Mappings of all domains. */
  mappingCount = 0;
  /** Quirks that changed the answer or the state in the request at hand. */
  fired: QuirkSet = 0;
  /** Stopped until reset, as only a quirk does. */
  isBroken = false;
  /** Changes whenever something that translated may no longer do so. */
  generation = 0;
  /** Changes of attachments and mappings so far. */
  changes = 0;

  /** Bits of an address below the granule, by halves. */
  readonly granuleLow: number;
  readonly granuleHigh: number;
  /** Addresses that can be mapped: all of them while INPUT_RANGE is not offered. */
  readonly inputStartPfn: number;
  readonly inputStartOffset: number;
  readonly inputLastPfn: number;
  readonly inputLastOffset: number;

  readonly #regions = new Map<string, Region>();
  #recent: DomainState | null = null;
  #specified = 0;
  #changesBefore = 0;

  constructor(config: IommuConfig, meter: Meter) {
    this.config = config;
    this.meter = meter;
    this.quirks = quirkSet(config.quirks);
    this.faults = new FaultLog(config.faultsMax);
    this.bypass = config.bypass && this.isOffered(Feature.BYPASS_CONFIG);
    const below = granuleOf(config.pageSizeMask) - 1n;
    this.granuleLow = Number(below & 0xffff_ffffn) | 0;
    this.granuleHigh = Number(below >> 32n) | 0;
    const isLimited = this.isOffered(Feature.INPUT_RANGE);
    const { start, last } = isLimited ? config.inputRange : { start: 0n, last: ADDRESS_LAST };
    this.inputStartPfn = pfnOf(start);
    this.inputStartOffset = offsetOf(start);
    this.inputLastPfn = pfnOf(last);
    this.inputLastOffset = offsetOf(last);
    for (const endpoint of config.endpoints) this.addEndpoint(endpoint);
    const own = config.ownEndpoint;
    if (own !== null && !this.endpoints.has(own.id)) this.#add(own, OWN_ENDPOINT);
  }

  /** Whether the device offers a feature. */
  isOffered(feature: number): boolean {
    return (this.config.features & (1 << feature)) !== 0;
  }

  /** Whether the driver accepted a feature. */
  isNegotiated(feature: number): boolean {
    return (this.negotiated & (1 << feature)) !== 0;
  }

  /**
   * Lets a departure happen if its quirk is on, and notes that it did.
   *
   * @param specified - what a device that does not depart answers now
   * @returns whether the quirk is on
   */
  departs(quirk: QuirkSet, specified: number): boolean {
    if ((this.quirks & quirk) === 0) return false;
    if (this.fired === 0) this.#specified = specified;
    this.fired |= quirk;
    return true;
  }

  /** Starts to note departures, for one request. */
  beginRequest(): void {
    this.fired = 0;
    this.#changesBefore = this.changes;
  }

  /** Forgets departures that led to the specified answer after all and changed nothing. */
  endRequest(answer: number): void {
    if (answer === this.#specified && this.changes === this.#changesBefore) this.fired = 0;
  }

  /**
   * Adds an endpoint, at the start or by hot-plug.
   *
   * @throws StackError `virtio-iommu/config` when its regions break a rule
   */
  addEndpoint(endpoint: EndpointConfig): void {
    checkEndpoint(endpoint, this.config);
    this.#add(endpoint, 0);
  }

  /** Takes an endpoint away (V52). @returns false when there is none of that ID */
  removeEndpoint(id: number): boolean {
    const endpoint = this.endpoints.get(id);
    if (endpoint === undefined) return false;
    if (endpoint.domain !== null) this.leave(endpoint);
    this.endpoints.delete(id);
    this.changed(endpoint);
    return true;
  }

  /** The endpoint that QEMU makes of an ID it does not know, or null. */
  cutEndpoint(id: number): EndpointState | null {
    if ((this.quirks & ID_CUT) === 0 || this.endpoints.size >= ENDPOINTS_MAX) return null;
    const named = this.endpoints.get(id & FUNCTION_BITS);
    if (named === undefined || (named.byQuirks & ~this.quirks) !== 0) return null;
    const byQuirks = named.byQuirks | ID_CUT;
    const { regions, placement } = named;
    const endpoint = { id, regions, placement, byQuirks, domain: null, hasObject: false };
    this.endpoints.set(id, endpoint);
    return endpoint;
  }

  /** The domain of an ID, or null. */
  domainOf(id: number): DomainState | null {
    const recent = this.#recent;
    if (recent !== null && recent.id === id) return recent;
    const domain = this.domains.get(id);
    if (domain === undefined) return null;
    this.#recent = domain;
    return domain;
  }

  /** Makes an empty domain; an endpoint must join it at once. */
  createDomain(id: number, isBypass: boolean): DomainState {
    const domain: DomainState = {
      id,
      isBypass,
      endpoints: new Set(),
      regions: new Map(),
      regionList: [],
      mappings: new RangeMap({ rangesMax: this.config.domainMappingsMax }),
      intervals: (this.quirks & ORDERED) === 0 ? null : new IntervalTree(),
    };
    this.domains.set(id, domain);
    return domain;
  }

  /** Puts an endpoint that is in no domain into one. */
  join(endpoint: EndpointState, domain: DomainState): void {
    this.changes += 1;
    endpoint.domain = domain;
    domain.endpoints.add(endpoint);
    for (const region of endpoint.regions) {
      const count = domain.regions.get(region) ?? 0;
      domain.regions.set(region, count + 1);
      if (count === 0) domain.regionList = [...domain.regions.keys()];
    }
    this.meter.step(Step.attach, 1, 0);
    this.changed(endpoint);
  }

  /** Takes an endpoint out of its domain, which ends with its last endpoint (V37, V49). */
  leave(endpoint: EndpointState): void {
    const domain = endpoint.domain!;
    this.changes += 1;
    endpoint.domain = null;
    domain.endpoints.delete(endpoint);
    for (const region of endpoint.regions) {
      const count = domain.regions.get(region)! - 1;
      if (count > 0) domain.regions.set(region, count);
      else if (domain.regions.delete(region)) domain.regionList = [...domain.regions.keys()];
    }
    this.changed(endpoint);
    if (domain.endpoints.size === 0) this.#removeDomain(domain);
  }

  /** Tells that an endpoint's accesses are translated differently from now on. */
  changed(endpoint: EndpointState): void {
    this.generation += 1;
    for (const listener of this.listeners) listener.endpointChanged?.(endpoint.id);
  }

  /** Forgets every attachment, domain and mapping, and what the driver negotiated (V13). */
  reset(): void {
    for (const endpoint of this.endpoints.values()) {
      if (endpoint.domain !== null) this.leave(endpoint);
      endpoint.hasObject = false;
    }
    this.faults.clear();
    this.negotiated = 0;
    this.fired = 0;
    this.isBroken = false;
  }

  #add(endpoint: EndpointConfig, byQuirks: QuirkSet): void {
    const regions = (endpoint.reserved ?? []).map((region) => this.#regionOf(region));
    this.endpoints.set(endpoint.id, {
      id: endpoint.id,
      regions,
      placement: endpoint.placement ?? null,
      byQuirks,
      domain: null,
      hasObject: false,
    });
  }

  #regionOf(config: ReservedRegion): Region {
    const key = `${config.kind} ${config.start} ${config.last}`;
    let region = this.#regions.get(key);
    if (region === undefined) {
      region = {
        config,
        isMsi: config.kind === "msi",
        startPfn: pfnOf(config.start),
        startOffset: offsetOf(config.start),
        lastPfn: pfnOf(config.last),
        lastOffset: offsetOf(config.last),
      };
      this.#regions.set(key, region);
    }
    return region;
  }

  #removeDomain(domain: DomainState): void {
    this.domains.delete(domain.id);
    if (this.#recent === domain) this.#recent = null;
    const count = domain.mappings.count;
    if (count > 0) this.meter.step(Step.rangeRemove, count, 0);
    this.mappingCount -= count;
    for (const listener of this.listeners) listener.domainRemoved?.(domain.id);
  }
}
