/**
 * The state of a virtio-iommu device as plain data, for another process to go on with: bypass, what
 * was negotiated, domains with their endpoints and mappings. Fault records that wait are not kept.
 */
import { NONE, RangeInsert, type RangeMap } from "../../iommu/range-map.ts";
import { SavedState } from "../../pci/saved-state.ts";
import { PFN_LAST } from "../../units.ts";
import type { DeviceState, DomainState } from "./device-state.ts";

const WORD_LAST = 0xffff_ffff;
/** Numbers of a mapping: start, last and physical address as frame and offset, and flags. */
const MAPPING_NUMBERS = 7;

/** The state. */
export function saveState(state: DeviceState): unknown {
  return {
    bypass: state.bypass,
    negotiated: state.negotiated,
    domains: [...state.domains.values()].map(({ id, isBypass, endpoints, mappings }) => ({
      id,
      isBypass,
      endpoints: [...endpoints].map((endpoint) => endpoint.id),
      mappings: numbersOf(mappings),
    })),
  };
}

function numbersOf(mappings: RangeMap): number[] {
  const numbers: number[] = [];
  for (let at = mappings.first(); at !== NONE; at = mappings.next(at)) {
    numbers.push(
      mappings.startPfn(at),
      mappings.startOffset(at),
      mappings.lastPfn(at),
      mappings.lastOffset(at),
      mappings.valuePfn(at),
      mappings.valueOffset(at),
      mappings.flags(at),
    );
  }
  return numbers;
}

/**
 * Takes a state over, into a device that was reset; listeners hear of every mapping.
 *
 * @throws StackError `pci/state` when it names what the device does not have, or does not fit
 */
export function restoreState(state: DeviceState, from: unknown): void {
  const saved = new SavedState("a virtio-iommu device", from);
  state.bypass = saved.flag("bypass");
  state.negotiated = saved.count("negotiated", WORD_LAST) & state.config.features;
  for (const entry of saved.list("domains")) restoreDomain(state, entry);
  for (const endpoint of state.endpoints.values()) state.changed(endpoint);
}

function restoreDomain(state: DeviceState, entry: unknown): void {
  const saved = new SavedState("a domain", entry);
  const id = saved.count("id", WORD_LAST);
  if (state.domains.has(id)) throw saved.bad("id");
  const domain = state.createDomain(id, saved.flag("isBypass"));
  for (const endpointId of saved.counts("endpoints", WORD_LAST)) {
    const endpoint = state.endpoints.get(endpointId);
    if (endpoint === undefined || endpoint.domain !== null) throw saved.bad("endpoints");
    endpoint.hasObject = true;
    state.join(endpoint, domain);
  }
  if (domain.endpoints.size === 0) throw saved.bad("endpoints");
  const numbers = saved.counts("mappings", PFN_LAST);
  if (numbers.length % MAPPING_NUMBERS !== 0) throw saved.bad("mappings");
  for (let at = 0; at < numbers.length; at += MAPPING_NUMBERS) {
    const mapping = numbers.slice(at, at + MAPPING_NUMBERS) as unknown as Mapping;
    if (!insert(state, domain, mapping)) throw saved.bad("mappings");
  }
}

type Mapping = readonly [number, number, number, number, number, number, number];

/** @returns false when a mapping is none, lies over another, or a listener cannot take it */
function insert(state: DeviceState, domain: DomainState, mapping: Mapping): boolean {
  const [startPfn, startOffset, lastPfn, lastOffset, , physOffset] = mapping;
  const isInOrder = startPfn < lastPfn || (startPfn === lastPfn && startOffset <= lastOffset);
  if (!isInOrder || Math.max(startOffset, lastOffset, physOffset) > 0xfff) return false;
  if (domain.mappings.insert(...mapping) !== RangeInsert.OK) return false;
  state.mappingCount += 1;
  for (const listener of state.listeners) {
    if (listener.mapped?.(domain.id, ...mapping) === false) return false;
  }
  return true;
}
