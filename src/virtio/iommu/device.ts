/**
 * The virtio-iommu device: requests in, answers out, and translation for its endpoints. It knows
 * neither queues nor memory (device-queue.ts does) and neither time nor threads.
 *
 * Source: virtio specification 1.3, "IOMMU device". Statements V1 … V130 of the project's reference
 * are cited where they are decided; a line marked [P] records a choice the specification leaves.
 * The way of a request: `handle` below picks it apart by type, device-attach.ts, device-map.ts and
 * device-probe.ts decide, device-state.ts changes the state, listeners hear of it, and only then the
 * status is written.
 *
 * Target: 5 M requests/s through a virtqueue with 65 536 mappings, 3 M with a million, an UNMAP over
 * a million mappings in 20 ms (bench/virtio-iommu.bench.ts).
 */

import type { RangeMap } from "../../iommu/range-map.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";
import { attach, detach } from "./device-attach.ts";
import {
  completeConfig,
  type EndpointConfig,
  type IommuConfig,
  type ReservedRegion,
} from "./device-config.ts";
import type { FaultLog } from "./device-faults.ts";
import type { IommuListener } from "./device-listener.ts";
import { map, unmap } from "./device-map.ts";
import { probe } from "./device-probe.ts";
import { restoreState, saveState } from "./device-save.ts";
import { DeviceState } from "./device-state.ts";
import {
  isBypassed,
  type SegmentVisitor,
  type Translation,
  type TranslationFault,
  Translator,
} from "./device-translate.ts";
import {
  AttachRequest,
  Config,
  DetachRequest,
  Feature,
  MapRequest,
  RequestHead,
  RequestType,
  Status,
  TAIL_BYTES,
  UnmapRequest,
} from "./protocol.ts";
import { type QuirkName, type QuirkSet, quirkBit, quirkNames } from "./quirks.ts";

/** Returned by {@link VirtioIommuDevice.handle} when a quirk has stopped the device. */
export const STOPPED = -1;
/** Most bytes of a request that are looked at: what a caller needs to copy in. */
export const REQUEST_BYTES = 36;

const UNSUPP_UNKNOWN = quirkBit("qemu-unknown-type-unsupp");
const MAP_UNMAP_ANYWAY = quirkBit("qemu-map-unmap-not-negotiated");
const SHORT_BREAKS = quirkBit("qemu-short-request-breaks-device");
const RESET_KEEPS = quirkBit("qemu-reset-keeps-domains");
const NOT_WRITTEN = -1;
// Names of this file, because the engine folds those into the code and not those of other files.
const { MAP, UNMAP, ATTACH, DETACH, PROBE } = RequestType;
const MAP_UNMAP_BIT = 1 << Feature.MAP_UNMAP;
const MAP_BYTES = MapRequest.bytes;
const UNMAP_BYTES = UnmapRequest.bytes;
const { requestMap, requestUnmap, requestOther } = Step;

/** The device. */
export class VirtioIommuDevice {
  readonly config: IommuConfig;
  readonly #state: DeviceState;
  readonly #translator: Translator;

  /**
   * @throws StackError `virtio-iommu/config` when the settings break a rule
   * @example
   * const device = new VirtioIommuDevice({ endpoints: [{ id: 8, reserved: [X86_MSI_REGION] }] });
   */
  constructor(settings: Partial<IommuConfig> = {}, meter: Meter = NULL_METER) {
    this.config = completeConfig(settings);
    this.#state = new DeviceState(this.config, meter);
    this.#translator = new Translator(this.#state);
  }

  /** Feature bits offered, 0 … 23; the transport adds its own. */
  get features(): number {
    return this.config.features;
  }

  /** Takes the features that the driver accepted; what is not offered does not count. */
  negotiate(features: number): void {
    this.#state.negotiated = features & this.config.features;
  }

  /**
   * Handles one request.
   *
   * @param readable - the first {@link REQUEST_BYTES} bytes of its readable part; more may follow
   * @param readableBytes - how long the request's readable part is
   * @param writable - takes the answer; at least {@link replyBytesMax} bytes long
   * @param writableBytes - how many bytes of answer the request has room for
   * @returns bytes of the answer, from the start of the writable part: the used length; 0 when the
   *   request comes back untouched; {@link STOPPED} when nothing comes back any more
   */
  handle(
    readable: MemoryView,
    readableBytes: number,
    writable: MemoryView,
    writableBytes: number,
  ): number {
    const state = this.#state;
    state.beginRequest();
    if (state.isBroken) return STOPPED;
    // V17: no place for a status, or no type.
    if (readableBytes < RequestHead.bytes || writableBytes < TAIL_BYTES) {
      if (!state.departs(SHORT_BREAKS, NOT_WRITTEN)) return 0;
      state.isBroken = true;
      return STOPPED;
    }
    // V14: the head's other bytes are ignored.
    const type = readable.u8[0]!;
    if (type === PROBE && state.isOffered(Feature.PROBE)) {
      state.meter.step(requestOther, 1, 0);
      const used = probe(state, readable, readableBytes, writable, writableBytes);
      if (state.fired !== 0) state.endRequest(writable.u8[used - TAIL_BYTES]!);
      return used;
    }
    let status = this.#answer(type, readable, readableBytes);
    if (status === NOT_WRITTEN) {
      // V16: an unknown type is not written to.
      if (!state.departs(UNSUPP_UNKNOWN, NOT_WRITTEN)) return 0;
      status = Status.UNSUPP;
    }
    if (state.fired !== 0) state.endRequest(status);
    // [P] V20: the tail lies at the start of the writable part, however long that is.
    writable.u32[0] = status;
    return TAIL_BYTES;
  }

  /** The status of a request of fixed size, or NOT_WRITTEN for an unknown type. */
  #answer(type: number, readable: MemoryView, readableBytes: number): number {
    const state = this.#state;
    // [P] V18: a body that is too short is INVAL; V19: one that is too long is cut.
    switch (type) {
      case MAP:
        if ((state.negotiated & MAP_UNMAP_BIT) === 0 && !this.#mapsAnyway()) return NOT_WRITTEN;
        state.meter.step(requestMap, 1, 0);
        return readableBytes < MAP_BYTES ? Status.INVAL : map(state, readable);
      case UNMAP:
        if ((state.negotiated & MAP_UNMAP_BIT) === 0 && !this.#mapsAnyway()) return NOT_WRITTEN;
        state.meter.step(requestUnmap, 1, 0);
        return readableBytes < UNMAP_BYTES ? Status.INVAL : unmap(state, readable);
      case ATTACH:
        state.meter.step(requestOther, 1, 0);
        return readableBytes < AttachRequest.bytes ? Status.INVAL : attach(state, readable);
      case DETACH:
        state.meter.step(requestOther, 1, 0);
        return readableBytes < DetachRequest.bytes ? Status.INVAL : detach(state, readable);
      default:
        return NOT_WRITTEN;
    }
  }

  /** [P] Without MAP_UNMAP there are no such requests: they are of unknown type. */
  #mapsAnyway(): boolean {
    return this.#state.departs(MAP_UNMAP_ANYWAY, NOT_WRITTEN);
  }

  /** The longest answer there is. */
  get replyBytesMax(): number {
    return this.config.probeSize + TAIL_BYTES;
  }

  /** Quirks that changed the answer to the last request, or the state, as names. */
  get firedQuirks(): readonly QuirkName[] {
    return quirkNames(this.#state.fired);
  }

  /** The same as a set. */
  get firedQuirkSet(): QuirkSet {
    return this.#state.fired;
  }

  /** Whether a quirk has stopped the device. */
  get isStopped(): boolean {
    return this.#state.isBroken;
  }

  /**
   * Translates an endpoint's access; see {@link Translator.translate}.
   *
   * @param access - bits of `Access`
   */
  translate(
    endpoint: number,
    pfn: number,
    offset: number,
    bytes: number,
    access: number,
    visitor: SegmentVisitor,
  ): Translation {
    return this.#translator.translate(endpoint, pfn, offset, bytes, access, visitor);
  }

  /** Records an access that failed behind the translation; see {@link Translator}. */
  reportUnanswered(endpoint: number, pfn: number, offset: number, access: number): void {
    this.#translator.reportUnanswered(endpoint, pfn, offset, access);
  }

  /** Whether an endpoint's accesses pass through untranslated at the moment (V107). */
  bypasses(endpoint: number): boolean {
    const state = this.#state.endpoints.get(endpoint);
    return state !== undefined && isBypassed(this.#state, state);
  }

  /** Reserved regions of an endpoint, none for one that the device does not manage. */
  reservedOf(endpoint: number): readonly ReservedRegion[] {
    return this.#state.endpoints.get(endpoint)?.regions.map((region) => region.config) ?? [];
  }

  /** Why and where the last refused access failed. */
  get fault(): Readonly<TranslationFault> {
    return this.#translator.fault;
  }

  /** Fault records that wait for the event queue. */
  get faults(): FaultLog {
    return this.#state.faults;
  }

  /** Changes whenever something that translated may no longer do so: a key for caches (V88). */
  get generation(): number {
    return this.#state.generation;
  }

  /** Registers who wants to hear of changes before a request is answered. */
  addListener(listener: IommuListener): void {
    this.#state.listeners.add(listener);
  }

  removeListener(listener: IommuListener): void {
    this.#state.listeners.delete(listener);
  }

  /** Config space as a driver reads it now. */
  configBytes(): Uint8Array {
    const { pageSizeMask, inputRange, domainRange, probeSize } = this.config;
    return Config.bytesOf({
      pageSizeMask,
      inputStart: inputRange.start,
      inputLast: inputRange.last,
      domainFirst: domainRange.first,
      domainLast: domainRange.last,
      probeSize,
      bypass: this.#state.bypass ? 1 : 0,
    });
  }

  /**
   * Takes a driver's write to config space. Only a byte of 0 or 1 at the bypass field, with
   * BYPASS_CONFIG negotiated, has an effect ([P] V8, V9).
   *
   * @param offset - where the write starts
   * @param bytes - what is written
   */
  writeConfig(offset: number, bytes: Uint8Array): void {
    const state = this.#state;
    if (offset !== Config.at.bypass || bytes.length !== 1) return;
    if (!state.isNegotiated(Feature.BYPASS_CONFIG) || bytes[0]! > 1) return;
    this.#setBypass(bytes[0] === 1);
  }

  /** Adds an endpoint by hot-plug. @throws StackError `virtio-iommu/config` */
  addEndpoint(endpoint: EndpointConfig): void {
    this.#state.addEndpoint(endpoint);
  }

  /** Removes an endpoint and its attachment (V52). @returns false when there is none */
  removeEndpoint(id: number): boolean {
    return this.#state.removeEndpoint(id);
  }

  /** A virtio reset, status written 0: all but the bypass field is forgotten (V6, V13). */
  reset(): void {
    if (this.#state.domains.size > 0 && this.#state.departs(RESET_KEEPS, Status.OK)) return;
    this.#state.reset();
  }

  /**
   * A reset of the machine: the bypass field gets its initial value too.
   *
   * [P] V7: for a device in a process of its own, the reset that the VMM sends when the machine
   * resets is this one; writing 0 to the status is not.
   */
  systemReset(): void {
    this.#state.reset();
    this.#setBypass(this.config.bypass && this.#state.isOffered(Feature.BYPASS_CONFIG));
  }

  /** The state as plain data; see device-save.ts. */
  save(): unknown {
    return saveState(this.#state);
  }

  /** Takes a state over in place of its own. @throws StackError `pci/state` */
  restore(state: unknown): void {
    this.#state.reset();
    restoreState(this.#state, state);
  }

  /** Domain that an endpoint is in, or null. */
  domainOf(endpoint: number): number | null {
    return this.#state.endpoints.get(endpoint)?.domain?.id ?? null;
  }

  /** Domains that exist, by ID. */
  get domainIds(): readonly number[] {
    return [...this.#state.domains.keys()].sort((a, b) => a - b);
  }

  /** Whether a domain exists and lets everything through. */
  isBypassDomain(domain: number): boolean {
    return this.#state.domains.get(domain)?.isBypass ?? false;
  }

  /** A domain's mappings, to look at only; null when there is no such domain. */
  mappingsOf(domain: number): Pick<RangeMap, "count" | "entries" | "find"> | null {
    return this.#state.domains.get(domain)?.mappings ?? null;
  }

  /** Mappings of all domains. */
  get mappingCount(): number {
    return this.#state.mappingCount;
  }

  #setBypass(bypass: boolean): void {
    const state = this.#state;
    if (state.bypass === bypass) return;
    state.bypass = bypass;
    for (const endpoint of state.endpoints.values()) {
      if (endpoint.domain === null) state.changed(endpoint);
    }
  }
}
