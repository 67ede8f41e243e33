/**
 * Verifies vectors of virtio-iommu requests: our device answers each request, and status, used
 * length and PROBE bytes must be those of the recorded device.
 *
 * Two devices answer. One departs from the specification as the recorded peer does, so that it
 * stays in the peer's state; the other never departs. A row is waived when the first one agrees
 * with the recording, departed to do so, and the second one does not agree.
 */
import type { MemoryView } from "../../memory/memory-view.ts";
import { newView } from "../../memory/memory-view.ts";
import { VirtioIommuDevice } from "../../virtio/iommu/device.ts";
import { type IommuConfig, X86_MSI_REGION } from "../../virtio/iommu/device-config.ts";
import { Config, TAIL_BYTES } from "../../virtio/iommu/protocol.ts";
import { QEMU_QUIRKS, type QuirkName, quirkNames } from "../../virtio/iommu/quirks.ts";
import { noDeviceError, type RequestRow, type VectorDevice } from "../request-vector.ts";
import { RequestVectorReader } from "../request-vectors.ts";
import type { Checker, CheckOutcome } from "./checker.ts";
import { readingRemarks } from "./reading-remarks.ts";
import { answerText, requestText } from "./request-text.ts";
import { RowTally } from "./result.ts";

/** Bytes of a request that a device looks at. */
const READABLE_BYTES = 72;
/** Feature bits of the device type: the others belong to the transport. */
const DEVICE_FEATURES = 0xff_ffffn;
/** Writable parts are given to the device up to this size, which no reply exceeds. */
const WRITABLE_BYTES_MAX = 0x1_0100;

/** One of the two devices, and its last answer. */
class Answerer {
  readonly device: VirtioIommuDevice;
  readonly writable: MemoryView = newView(WRITABLE_BYTES_MAX);
  usedBytes = 0;
  status = -1;

  constructor(config: Partial<IommuConfig>, acknowledged: number) {
    this.device = new VirtioIommuDevice(config);
    this.device.negotiate(acknowledged);
  }

  answer(readable: MemoryView, row: RequestRow): void {
    const room = Math.min(row.writableBytes, WRITABLE_BYTES_MAX);
    const used = this.device.handle(readable, row.requestBytes, this.writable, room);
    // A device that a quirk has stopped answers nothing.
    this.usedBytes = Math.max(0, used);
    this.status = used >= TAIL_BYTES ? this.writable.u8[used - TAIL_BYTES]! : -1;
  }

  /** Whether the last answer is the recorded one, byte for byte where bytes were recorded. */
  agrees(row: RequestRow): boolean {
    const { usedBytes } = this;
    if (usedBytes !== row.usedBytes) return false;
    if (usedBytes > 0 && row.status >= 0 && this.status !== row.status) return false;
    const bytes = Math.min(usedBytes, row.replyBytes);
    const { u8 } = this.writable;
    for (let at = 0; at < bytes; at += 1) {
      if (u8[at] !== row.reply[at]) return false;
    }
    return true;
  }

  /** First byte in which the last answer differs from the recorded one, −1 if none does. */
  firstDifference(row: RequestRow): number {
    const bytes = Math.min(this.usedBytes, row.replyBytes);
    for (let at = 0; at < bytes; at += 1) {
      if (this.writable.u8[at] !== row.reply[at]) return at;
    }
    return -1;
  }
}

/** Quirks by peer. */
const quirksOfPeer: Readonly<Record<string, readonly QuirkName[]>> = { qemu: QEMU_QUIRKS };

/** Options of a {@link RequestChecker}. */
export interface RequestCheckerOptions {
  /** Departures of the recorded peer; by default those that are known of it. */
  readonly quirks?: readonly QuirkName[];
}

/** The verifier. */
export class RequestChecker implements Checker {
  readonly #file: string;
  readonly #quirks: readonly QuirkName[] | undefined;
  readonly #tally = new RowTally();
  readonly #reader = new RequestVectorReader(this);
  readonly #readable = newView(READABLE_BYTES);
  #peer: Answerer | null = null;
  #plain: Answerer | null = null;

  constructor(file: string, options: RequestCheckerOptions = {}) {
    this.#file = file;
    this.#quirks = options.quirks;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  get lines(): number {
    return this.#reader.notes.events;
  }

  end(): CheckOutcome {
    this.#reader.end();
    return {
      tally: this.#tally,
      inferredBefore: 0,
      lostEvents: 0,
      lostMarkers: 0,
      diagnostics: readingRemarks(this.#file, this.#reader.notes, [], "error"),
    };
  }

  /** {@link VectorSink.device} */
  device(recorded: VectorDevice): void {
    const config = configOf(recorded);
    const acknowledged = Number(recorded.acknowledged & DEVICE_FEATURES);
    const quirks = this.#quirks ?? quirksOfPeer[recorded.peer] ?? [];
    this.#peer = new Answerer({ ...config, quirks }, acknowledged);
    this.#plain = quirks.length === 0 ? null : new Answerer(config, acknowledged);
  }

  /** {@link VectorSink.row} */
  row(row: RequestRow): void {
    const peer = this.#peer;
    if (peer === null) throw noDeviceError(this.#file, row.line);
    const { u8 } = this.#readable;
    const bytes = Math.min(row.requestBytes, READABLE_BYTES);
    for (let at = 0; at < bytes; at += 1) u8[at] = row.request[at]!;
    peer.answer(this.#readable, row);
    this.#plain?.answer(this.#readable, row);
    if (!peer.agrees(row)) {
      this.#diverge(row, peer, null);
      return;
    }
    const fired = peer.device.firedQuirkSet;
    if (fired === 0 || this.#plain === null || this.#plain.agrees(row)) this.#tally.match();
    else this.#diverge(row, this.#plain, quirkNames(fired));
  }

  #diverge(row: RequestRow, answerer: Answerer, waivedBy: readonly string[] | null): void {
    this.#tally.diverge(row.line, waivedBy, () => {
      const expected = answerText(row.status, row.usedBytes);
      const got = answerText(answerer.status, answerer.usedBytes);
      const at = answerer.firstDifference(row);
      const place = expected === got && at >= 0 ? `, byte ${at} of it differs` : "";
      return [expected, `${got}${place}`, requestText(row.request, row.requestBytes)];
    });
  }
}

/**
 * Our device's settings for a recorded one. Reserved regions stand in no config space: every
 * endpoint gets the MSI region of x86, as QEMU's machines for x86 give it.
 */
function configOf(recorded: VectorDevice): Partial<IommuConfig> {
  const space = new Uint8Array(Math.max(Config.bytes, recorded.config.length));
  space.set(recorded.config);
  const fields = Config.decode(new DataView(space.buffer));
  const reserved = [X86_MSI_REGION];
  const { own } = recorded;
  return {
    pageSizeMask: fields.pageSizeMask,
    inputRange: { start: fields.inputStart, last: fields.inputLast },
    domainRange: { first: fields.domainFirst, last: fields.domainLast },
    probeSize: fields.probeSize,
    bypass: fields.bypass === 1,
    features: Number(recorded.offered & DEVICE_FEATURES),
    endpoints: recorded.endpoints.filter((id) => id !== own).map((id) => ({ id, reserved })),
    ownEndpoint: own === null ? null : { id: own, reserved },
  };
}
