/**
 * What a virtio-iommu device is built from: page sizes, ranges, bypass, limits, and its endpoints
 * with their reserved regions; checked once, here.
 *
 * Source: virtio specification 1.3, "IOMMU device", "Device configuration layout" and "Property
 * RESV_MEM"; limits: reference statements V94, V96, V97, V99, V127.
 */
import { StackError } from "../../errors.ts";
import { RANGES_LIMIT } from "../../iommu/range-map.ts";
import { ADDRESS_LAST } from "../../units.ts";
import {
  FEATURES_ALL,
  Feature,
  featureSet,
  PlacementProperty,
  ResvMem,
  ResvMemProperty,
} from "./protocol.ts";
import { QUIRKS, type QuirkName } from "./quirks.ts";

/** A range of IOVAs that an endpoint's domain must not map; `last` is inclusive. */
export interface ReservedRegion {
  readonly start: bigint;
  readonly last: bigint;
  /** Accesses to `msi` are interrupts; accesses to `reserved` are refused. */
  readonly kind: "reserved" | "msi";
}

/** An endpoint that the device manages. */
export interface EndpointConfig {
  /** Endpoint ID: for a PCI function, usually segment and bus, device, function. */
  readonly id: number;
  readonly reserved?: readonly ReservedRegion[];
  /** What PROBE says of where it is; nothing when left out. */
  readonly placement?: Placement;
}

/** Where an endpoint is. */
export interface Placement {
  /** Proximity domain as SRAT has it, or null when that is not known. */
  readonly proximityDomain: number | null;
  /** Whether ATS works on the whole path. */
  readonly hasAtsPath: boolean;
}

/** A device's settings. Everything left out has the default that {@link defaultConfig} shows. */
export interface IommuConfig {
  /** Page sizes as a mask; its lowest bit is the granule, which may be 1. */
  readonly pageSizeMask: bigint;
  /** IOVAs that can be mapped; counts only while INPUT_RANGE is offered. */
  readonly inputRange: { readonly start: bigint; readonly last: bigint };
  /** Domain IDs; counts only while DOMAIN_RANGE is offered. */
  readonly domainRange: { readonly first: number; readonly last: number };
  /** Bytes of the properties area of PROBE. */
  readonly probeSize: number;
  /** Initial value of the bypass field. */
  readonly bypass: boolean;
  /** Feature bits offered, 0 … 23. */
  readonly features: number;
  readonly endpoints: readonly EndpointConfig[];
  /** Whether endpoints may share a domain (V34). */
  readonly sharesDomains: boolean;
  /** Domains that may exist at the same time (V127). */
  readonly domainsMax: number;
  /** Mappings of one domain (V127). */
  readonly domainMappingsMax: number;
  /** Mappings of all domains together (V127). */
  readonly mappingsMax: number;
  /** Fault records kept for the event queue; the newest are dropped (V120). */
  readonly faultsMax: number;
  /** The IOMMU's own function, an endpoint under the quirk `qemu-iommu-is-endpoint` only. */
  readonly ownEndpoint: EndpointConfig | null;
  readonly quirks: readonly QuirkName[];
}

/** The doorbell of message-signalled interrupts on x86 (V105). */
export const X86_MSI_REGION: ReservedRegion = {
  start: 0xfee0_0000n,
  last: 0xfeef_ffffn,
  kind: "msi",
};

/** The defaults: 4 KiB pages, 64 bits, every feature, bypass at boot as firmware needs it. */
export const defaultConfig: IommuConfig = {
  pageSizeMask: 0xffff_ffff_ffff_f000n,
  inputRange: { start: 0n, last: ADDRESS_LAST },
  domainRange: { first: 0, last: 0xffff_ffff },
  probeSize: 512,
  bypass: true,
  features: FEATURES_ALL,
  endpoints: [],
  sharesDomains: true,
  domainsMax: 65_536,
  domainMappingsMax: 2 ** 20,
  mappingsMax: 2 ** 22,
  faultsMax: 64,
  ownEndpoint: null,
  quirks: [],
};

/**
 * Completes and checks settings.
 *
 * @throws StackError `virtio-iommu/config` when they contradict the specification or each other
 */
export function completeConfig(settings: Partial<IommuConfig>): IommuConfig {
  const config = { ...defaultConfig, ...settings };
  const { pageSizeMask, inputRange, domainRange, features, probeSize } = config;
  check(pageSizeMask > 0n && pageSizeMask <= ADDRESS_LAST, "page_size_mask has a bit set (V1)");
  check(isAddress(inputRange.start) && isAddress(inputRange.last), "input_range fits 64 bits");
  check(inputRange.start <= inputRange.last, "input_range does not end before it starts");
  check(isWord(domainRange.first) && isWord(domainRange.last), "domain_range fits 32 bits");
  check(domainRange.first <= domainRange.last, "domain_range does not end before it starts");
  check(isWord(probeSize) && probeSize <= 0xffff, "probe_size is a size below 64 KiB");
  check(Number.isInteger(features) && features >= 0 && features < 2 ** 24, "features are bits");
  const both = featureSet("BYPASS", "BYPASS_CONFIG");
  check((features & both) !== both, "BYPASS and BYPASS_CONFIG are not both offered (V3)");
  checkCount(config.domainsMax, 2 ** 24, "domainsMax");
  checkCount(config.domainMappingsMax, RANGES_LIMIT, "domainMappingsMax");
  checkCount(config.mappingsMax, 2 ** 31, "mappingsMax");
  checkCount(config.faultsMax, 2 ** 16, "faultsMax");
  for (const name of config.quirks) check(Object.hasOwn(QUIRKS, name), `quirk ${name} exists`);
  for (const endpoint of config.endpoints) checkEndpoint(endpoint, config);
  if (config.ownEndpoint !== null) checkEndpoint(config.ownEndpoint, config);
  const ids = new Set(config.endpoints.map((endpoint) => endpoint.id));
  check(ids.size === config.endpoints.length, "no endpoint ID stands twice");
  return config;
}

/**
 * Checks an endpoint against the device it is added to.
 *
 * @throws StackError `virtio-iommu/config`
 */
export function checkEndpoint(endpoint: EndpointConfig, config: IommuConfig): void {
  const { id, reserved = [], placement } = endpoint;
  const granule = granuleOf(config.pageSizeMask);
  check(isWord(id), "an endpoint ID fits 32 bits");
  const sorted = [...reserved].sort((a, b) => (a.start < b.start ? -1 : 1));
  let below = -1n;
  for (const { start, last } of sorted) {
    check(isAddress(start) && isAddress(last), `regions of endpoint ${id} fit 64 bits`);
    check(start <= last, `regions of endpoint ${id} do not end before they start`);
    check(start > below, `regions of endpoint ${id} do not overlap (V94)`);
    check(last - start < ADDRESS_LAST, `no region of endpoint ${id} is the whole space (V96)`);
    check(start % granule === 0n, `regions of endpoint ${id} start on the granule (V99)`);
    check((last + 1n) % granule === 0n, `regions of endpoint ${id} end on the granule (V99)`);
    below = last;
  }
  const msi = reserved.filter((region) => region.kind === "msi");
  check(msi.length <= 1, `endpoint ${id} has at most one MSI region (V94)`);
  if ((config.features & (1 << Feature.PROBE)) === 0) return;
  const node = placement?.proximityDomain ?? null;
  check(node === null || isWord(node), `the proximity domain of endpoint ${id} fits 32 bits`);
  const placementBytes = placement === undefined ? 0 : PlacementProperty.bytes;
  const bytes = reserved.length * ResvMemProperty.bytes + placementBytes;
  check(bytes <= config.probeSize, `properties of endpoint ${id} fit probe_size`);
}

/** The lowest bit of a page size mask. */
export function granuleOf(pageSizeMask: bigint): bigint {
  return pageSizeMask & -pageSizeMask;
}

/** Subtype of a region's property. */
export function subtypeOf(region: ReservedRegion): number {
  return region.kind === "msi" ? ResvMem.MSI : ResvMem.RESERVED;
}

function isAddress(value: bigint): boolean {
  return value >= 0n && value <= ADDRESS_LAST;
}

function isWord(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff;
}

function checkCount(value: number, most: number, name: string): void {
  check(Number.isInteger(value) && value > 0 && value <= most, `${name} lies in 1 … ${most}`);
}

function check(condition: boolean, rule: string): void {
  if (condition) return;
  throw new StackError({
    code: "virtio-iommu/config",
    kind: "input",
    message: `the settings of the virtio-iommu device break a rule: ${rule}`,
  });
}
