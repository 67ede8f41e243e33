/**
 * PROBE of the virtio-iommu device: the reserved regions of an endpoint as a list of properties, and
 * where it is, for a driver that reads that.
 *
 * Source: virtio specification 1.3, "IOMMU device", "PROBE request" and "Property RESV_MEM";
 * V89–V106.
 */
import type { MemoryView } from "../../memory/memory-view.ts";
import { endpointOf } from "./device-attach.ts";
import { subtypeOf } from "./device-config.ts";
import type { DeviceState } from "./device-state.ts";
import {
  PlacementFlag,
  PlacementProperty,
  ProbeRequest,
  PropertyHead,
  PropertyType,
  ResvMemProperty,
  Status,
  TAIL_BYTES,
} from "./protocol.ts";

/**
 * Answers PROBE, whatever its readable part holds beyond the endpoint (V89).
 *
 * @returns bytes written. A failure writes the whole area too (V22), because Linux takes an answer
 *   of any other length for one without properties; where the area is too short for probe_size, the
 *   status is INVAL and stands in its last four bytes ([P] V92)
 */
export function probe(
  state: DeviceState,
  request: MemoryView,
  requestBytes: number,
  reply: MemoryView,
  replyBytes: number,
): number {
  const wanted = state.config.probeSize + TAIL_BYTES;
  const used = Math.min(wanted, replyBytes);
  reply.u8.fill(0, 0, used);
  reply.u8[used - TAIL_BYTES] =
    used < wanted || requestBytes < ProbeRequest.bytes
      ? Status.INVAL
      : writeProperties(state, request.u32[1]!, reply);
  return used;
}

function writeProperties(state: DeviceState, endpointId: number, reply: MemoryView): Status {
  const endpoint = endpointOf(state, endpointId);
  if (endpoint === null) return Status.NOENT;
  const view = new DataView(reply.u8.buffer, reply.u8.byteOffset, reply.u8.byteLength);
  let at = 0;
  for (const { config } of endpoint.regions) {
    ResvMemProperty.encode(
      {
        type: PropertyType.RESV_MEM,
        length: ResvMemProperty.bytes - PropertyHead.bytes,
        subtype: subtypeOf(config),
        start: config.start,
        last: config.last,
      },
      view,
      at,
    );
    at += ResvMemProperty.bytes;
  }
  const { placement } = endpoint;
  if (placement !== null) {
    const { proximityDomain, hasAtsPath } = placement;
    const type = PropertyType.PLACEMENT;
    const length = PlacementProperty.bytes - PropertyHead.bytes;
    const flags =
      (proximityDomain === null ? 0 : PlacementFlag.DOMAIN_VALID) |
      (hasAtsPath ? PlacementFlag.ATS_PATH : 0);
    const fields = { type, length, flags, proximityDomain: proximityDomain ?? 0 };
    PlacementProperty.encode(fields, view, at);
  }
  return Status.OK;
}
