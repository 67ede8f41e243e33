/**
 * ATTACH and DETACH of the virtio-iommu device.
 *
 * Source: virtio specification 1.3, "IOMMU device", "ATTACH request" and "DETACH request"; V29–V53.
 * Every check comes before any change, so a rejected request changes nothing (V39). Several errors
 * at once are answered in this order (V40): flags, reserved, endpoint, domain range, bypass,
 * sharing, reserved regions, resources.
 */
import type { MemoryView } from "../../memory/memory-view.ts";
import type { DeviceState, DomainState, EndpointState } from "./device-state.ts";
import { AttachFlag, Feature, Status } from "./protocol.ts";
import { quirkBit } from "./quirks.ts";

const IGNORES_RESERVED = quirkBit("qemu-attach-reserved-ignored");
const BYPASS_ANYWAY = quirkBit("qemu-attach-bypass-not-negotiated");
const ANY_DOMAIN = quirkBit("qemu-attach-domain-range-ignored");
const ANY_REGION = quirkBit("qemu-attach-reserved-region-ignored");
const REATTACH_DROPS = quirkBit("qemu-reattach-drops-mappings");
const FAILURE_DETACHES = quirkBit("qemu-failed-attach-detaches");
const LAZY_ENDPOINT = quirkBit("qemu-detach-noent-lazy-endpoint");

/** The endpoint that a request names, or null; one that exists by a quirk only is noted. */
export function endpointOf(state: DeviceState, id: number): EndpointState | null {
  const endpoint = state.endpoints.get(id) ?? state.cutEndpoint(id);
  if (endpoint === null || endpoint.byQuirks === 0) return endpoint;
  return state.departs(endpoint.byQuirks, Status.NOENT) ? endpoint : null;
}

/** Handles ATTACH; the request is complete. */
export function attach(state: DeviceState, request: MemoryView): Status {
  const words = request.u32;
  const domainId = words[1]!;
  const flags = words[3]!;
  const isBypass = (flags & AttachFlag.BYPASS) !== 0;
  if ((flags & ~AttachFlag.BYPASS) !== 0) return Status.INVAL;
  // [P] V31: a flag of a feature that was not negotiated counts as unknown.
  if (
    isBypass &&
    !state.isNegotiated(Feature.BYPASS_CONFIG) &&
    !state.departs(BYPASS_ANYWAY, Status.INVAL)
  )
    return Status.INVAL;
  if (words[4] !== 0 && !state.departs(IGNORES_RESERVED, Status.INVAL)) return Status.INVAL;
  const endpoint = endpointOf(state, words[2]!);
  if (endpoint === null) return Status.NOENT;
  // [P] V27: what the device cannot name it cannot create, whether or not the driver accepted
  // DOMAIN_RANGE.
  const { first, last } = state.config.domainRange;
  const isInRange =
    !state.isOffered(Feature.DOMAIN_RANGE) || (domainId >= first && domainId <= last);
  if (!isInRange && !state.departs(ANY_DOMAIN, Status.RANGE)) return Status.RANGE;
  endpoint.hasObject = true;
  return attachTo(state, endpoint, domainId, isBypass);
}

function attachTo(
  state: DeviceState,
  endpoint: EndpointState,
  domainId: number,
  isBypass: boolean,
): Status {
  let domain = state.domainOf(domainId);
  const isMatching = domain === null || domain.isBypass === isBypass;
  if (domain !== null && domain === endpoint.domain) {
    // [P] V38: attaching to the domain the endpoint is in changes nothing.
    if ((state.quirks & REATTACH_DROPS) === 0) return isMatching ? Status.OK : Status.INVAL;
    const isEnding = domain.endpoints.size === 1 && domain.mappings.count > 0;
    if (!isMatching) state.departs(REATTACH_DROPS, Status.INVAL);
    else if (isEnding) state.departs(REATTACH_DROPS, Status.OK);
    state.leave(endpoint);
    domain = state.domainOf(domainId);
  } else if (
    !isMatching &&
    endpoint.domain !== null &&
    state.departs(FAILURE_DETACHES, Status.INVAL)
  ) {
    state.leave(endpoint);
  }
  if (domain !== null) {
    const refusal = refusalOf(state, endpoint, domain, isBypass);
    if (refusal !== Status.OK) return refusal;
  } else if (!hasRoomForDomain(state, endpoint)) {
    return Status.NOMEM;
  }
  if (endpoint.domain !== null) state.leave(endpoint);
  state.join(endpoint, domain ?? state.createDomain(domainId, isBypass));
  return Status.OK;
}

/** Why an endpoint cannot join a domain that exists, or OK. */
function refusalOf(
  state: DeviceState,
  endpoint: EndpointState,
  domain: DomainState,
  isBypass: boolean,
): Status {
  if (domain.isBypass !== isBypass) return Status.INVAL;
  if (!state.config.sharesDomains) return Status.UNSUPP;
  // [P] V63: what is mapped already would reach into a reserved region of the newcomer.
  for (const region of endpoint.regions) {
    const { startPfn, startOffset, lastPfn, lastOffset } = region;
    if (!domain.mappings.overlaps(startPfn, startOffset, lastPfn, lastOffset)) continue;
    return state.departs(ANY_REGION, Status.UNSUPP) ? Status.OK : Status.UNSUPP;
  }
  return Status.OK;
}

/** Whether another domain may exist, once the endpoint has left the one it is in (V127). */
function hasRoomForDomain(state: DeviceState, endpoint: EndpointState): boolean {
  const isMakingRoom = endpoint.domain !== null && endpoint.domain.endpoints.size === 1;
  return state.domains.size - (isMakingRoom ? 1 : 0) < state.config.domainsMax;
}

/** Handles DETACH; the request is complete. Its reserved bytes are ignored (V45). */
export function detach(state: DeviceState, request: MemoryView): Status {
  const words = request.u32;
  const endpoint = endpointOf(state, words[2]!);
  if (endpoint === null) return Status.NOENT;
  if (!endpoint.hasObject && state.departs(LAZY_ENDPOINT, Status.INVAL)) return Status.NOENT;
  if (endpoint.domain === null || endpoint.domain.id !== words[1]) return Status.INVAL;
  state.leave(endpoint);
  endpoint.hasObject = false;
  return Status.OK;
}
