/**
 * Verifies logs of QEMU's virtio-iommu: our device takes the requests in the order of the log.
 * Every request must be accepted, every mapping that QEMU removed must be one that ours removes,
 * every translation must lead where QEMU's did, and config space and PROBE must read alike.
 *
 * QEMU traces MAP once it is accepted, the other requests before they are looked at
 * (hw/virtio/virtio-iommu.c). Our device departs from the specification as QEMU does; a request for
 * which it had to counts as waived.
 */
import { StackError } from "../../errors.ts";
import { addressOf, hex } from "../../units.ts";
import { Config, Status, statusName } from "../../virtio/iommu/protocol.ts";
import { QEMU_QUIRKS, type QuirkName } from "../../virtio/iommu/quirks.ts";
import { type QemuEvent, QemuKind } from "../qemu-event.ts";
import { QemuLogReader } from "../qemu-log.ts";
import type { Checker, CheckOutcome } from "./checker.ts";
import { LogAccesses } from "./log-accesses.ts";
import { type LogDevice, LogSettings } from "./log-device.ts";
import { readingRemarks } from "./reading-remarks.ts";
import { RemovedRanges } from "./removed-ranges.ts";
import { addressText } from "./request-text.ts";
import { RowTally } from "./result.ts";

/** Mappings from before the log that are kept apart. */
const INFERRED_PAGES_MAX = 2 ** 20;
const READ_WRITE = 3;
/** Domains from before the log in which an endpoint is looked for. */
const STAND_INS_TRIED_MAX = 256;
/** Why rows match after a reset that should have left nothing to match. */
const STALE: readonly QuirkName[] = ["qemu-reset-keeps-domains"];

/** Events of QEMU's own bookkeeping: what they tell follows from the others. */
const bookkeeping: ReadonlySet<string> = new Set(
  ["switch_address_space", "get_endpoint", "put_endpoint", "get_domain", "put_domain"]
    .concat(["notify_map", "notify_unmap", "remap", "set_page_size_mask"])
    .concat(["notify_flag_add", "notify_flag_del", "host_resv_regions"])
    .map((name) => `virtio_iommu_${name}`),
);

/** Options of a {@link QemuChecker}. */
export interface QemuCheckerOptions {
  /** Departures of QEMU's device; by default those of QEMU 11. */
  readonly quirks?: readonly QuirkName[];
}

/** The verifier. */
export class QemuChecker implements Checker {
  readonly #file: string;
  readonly #quirks: readonly QuirkName[];
  readonly #reader = new QemuLogReader((event) => this.#event(event));
  readonly #tally = new RowTally();
  readonly #settings = new LogSettings();
  readonly #removed = new RemovedRanges(this.#tally);
  #log: LogDevice | null = null;
  #accesses: LogAccesses | null = null;
  /** Nothing is from before the log: it shows the device's start, or a reset. */
  #knowsAll = false;
  /** Reserved regions that were logged and not compared yet: line and endpoint. */
  readonly #reservedLines = new Map<number, { line: number; start: bigint; last: bigint }[]>();
  #inferred = 0;
  #isStale = false;

  constructor(file: string, options: QemuCheckerOptions = {}) {
    this.#file = file;
    this.#quirks = options.quirks ?? QEMU_QUIRKS;
  }

  push(chunk: Uint8Array): void {
    this.#reader.push(chunk);
  }

  get lines(): number {
    return this.#reader.notes.events;
  }

  end(): CheckOutcome {
    this.#reader.end();
    this.#removed.finish();
    this.#accesses?.finish();
    for (const endpoint of [...this.#reservedLines.keys()]) this.#compareReserved(endpoint);
    return {
      tally: this.#tally,
      inferredBefore: this.#inferred,
      lostEvents: 0,
      lostMarkers: 0,
      diagnostics: readingRemarks(
        this.#file,
        this.#reader.notes,
        this.#reader.unusedEvents().filter(({ name }) => !bookkeeping.has(name)),
        "error",
      ),
    };
  }

  #event(event: QemuEvent): void {
    switch (event.kind) {
      case QemuKind.translate:
        this.#theAccesses(event).ask(event);
        break;
      case QemuKind.translateOut:
        this.#theAccesses(event).answer(event);
        break;
      case QemuKind.fault:
        this.#theAccesses(event).refuse(event);
        break;
      case QemuKind.map:
        this.#map(event);
        break;
      case QemuKind.unmap:
        this.#unmap(event);
        break;
      case QemuKind.unmapDone:
        this.#unmapDone(event);
        break;
      case QemuKind.attach:
        this.#attach(event);
        break;
      case QemuKind.detach:
        this.#detach(event);
        break;
      default:
        this.#setting(event);
    }
  }

  /** Lines that are no request and no access. */
  #setting(event: QemuEvent): void {
    switch (event.kind) {
      case QemuKind.features:
        this.#knowsAll = true;
        this.#settings.features(event);
        break;
      case QemuKind.region:
        this.#knowsAll ||= this.#log === null;
        break;
      case QemuKind.getConfig:
        this.#getConfig(event);
        break;
      case QemuKind.setConfig:
        this.#theLog(event).device.writeConfig(Config.at.bypass, Uint8Array.of(event.flags));
        break;
      case QemuKind.reserved:
        this.#reserved(event);
        break;
      case QemuKind.status:
        if (event.flags === 0) this.#reset(false);
        break;
      case QemuKind.deviceReset:
      case QemuKind.systemReset:
        this.#reset(true);
        break;
      default:
    }
  }

  #reset(isSystem: boolean): void {
    this.#removed.finish();
    this.#accesses?.finish();
    this.#log?.reset(isSystem);
    if (isSystem || !this.#quirks.includes(STALE[0]!)) this.#knowsAll = true;
    this.#setStale((this.#log?.device.domainIds.length ?? 0) > 0);
  }

  /** What follows is only explained by domains that a reset should have ended. */
  #setStale(isStale: boolean): void {
    this.#isStale = isStale;
    this.#accesses?.setWaiver(isStale ? STALE : null);
  }

  #theLog(event: QemuEvent): LogDevice {
    if (this.#log !== null) return this.#log;
    const log = this.#settings.build(this.#quirks);
    if (log === null) {
      throw new StackError({
        code: "recording/bad-device",
        kind: "input",
        message: "The log describes a device that the specification does not allow",
        at: { file: this.#file, line: event.line },
        hint: "look at its virtio_iommu_get_config and virtio_iommu_get_features lines",
      });
    }
    this.#log = log;
    log.device.addListener({
      unmapped: (domain, startPfn, startOffset, lastPfn, lastOffset) =>
        this.#removed.ours({ domain, startPfn, startOffset, lastPfn, lastOffset }),
    });
    this.#accesses ??= new LogAccesses(log, this.#tally, (access) => this.#infer(access));
    this.#accesses.use(log);
    return log;
  }

  #theAccesses(event: QemuEvent): LogAccesses {
    this.#theLog(event);
    return this.#accesses!;
  }

  #getConfig(event: QemuEvent): void {
    if (this.#log === null) this.#settings.config(event);
    const log = this.#theLog(event);
    if (log.readsAs(event)) {
      this.#tally.match();
      return;
    }
    const isOther = log.device.configBytes().some((byte, at) => {
      if (at === Config.at.bypass) return false;
      this.#settings.config(event);
      const other = this.#settings.build([])?.device.configBytes();
      return other === undefined || other[at] !== byte;
    });
    if (!isOther) {
      const ours = log.device.configBytes()[Config.at.bypass]!;
      this.#tally.diverge(event.line, null, () => [`bypass ${event.flags}`, `bypass ${ours}`]);
      return;
    }
    // Another device: the log of a second run follows in the same file.
    this.#removed.finish();
    this.#log = null;
    this.#knowsAll = true;
    this.#theLog(event);
    this.#tally.match();
  }

  #reserved(event: QemuEvent): void {
    if (!this.#settings.reserve(event)) return;
    const start = addressOf(event.startPfn, event.startOffset);
    const last = addressOf(event.lastPfn, event.lastOffset);
    const lines = this.#reservedLines.get(event.endpoint) ?? [];
    if (lines.length < 64) lines.push({ line: event.line, start, last });
    this.#reservedLines.set(event.endpoint, lines);
  }

  /** Compares the logged PROBE replies of an endpoint with ours. */
  #compareReserved(endpoint: number): void {
    const lines = this.#reservedLines.get(endpoint);
    const log = this.#log;
    if (lines === undefined || log === null) return;
    this.#reservedLines.delete(endpoint);
    const ours = log.add(endpoint) ? log.client.probe(endpoint) : null;
    for (const { line, start, last } of lines) {
      const isOurs = ours?.some((region) => region.start === start && region.last === last);
      if (isOurs === true) {
        this.#tally.match();
        continue;
      }
      this.#tally.diverge(line, null, () => [
        `region ${hex(start)}-${hex(last)}`,
        ours === null
          ? "PROBE refused"
          : `${ours.length} other region${ours.length === 1 ? "" : "s"}`,
        `PROBE endpoint=${endpoint}`,
      ]);
    }
  }

  #attach(event: QemuEvent): void {
    this.#removed.finish();
    const log = this.#theLog(event);
    this.#compareReserved(event.endpoint);
    log.add(event.endpoint);
    // The driver is back and makes its domains anew.
    if (this.#isStale) this.#setStale(false);
    this.#accept(event, log, log.client.attach(event.domain, event.endpoint));
  }

  #detach(event: QemuEvent): void {
    this.#removed.finish();
    const log = this.#theLog(event);
    log.add(event.endpoint);
    if (!this.#knowsAll && log.device.domainOf(event.endpoint) === null) {
      this.#inferred += 1;
      return;
    }
    this.#accept(event, log, log.client.detach(event.domain, event.endpoint));
  }

  #map(event: QemuEvent): void {
    this.#removed.finish();
    const log = this.#theLog(event);
    const { client } = log;
    const { domain, physPfn, physOffset, flags } = event;
    let status = client.map(domain, event, physPfn, physOffset, flags);
    if (status === Status.NOENT && this.#inferDomain(log, domain)) {
      status = client.map(domain, event, physPfn, physOffset, flags);
    }
    this.#accept(event, log, status);
  }

  #unmap(event: QemuEvent): void {
    this.#removed.finish();
    const log = this.#theLog(event);
    this.#removed.start(event.line);
    let status = log.client.unmap(event.domain, event);
    if (status === Status.NOENT && this.#inferDomain(log, event.domain)) {
      status = log.client.unmap(event.domain, event);
    }
    this.#accept(event, log, status);
  }

  #unmapDone(event: QemuEvent): void {
    if (this.#removed.take(event)) return;
    if (!this.#knowsAll && this.#removed.takeInferred(event)) {
      this.#inferred += 1;
      return;
    }
    this.#tally.diverge(event.line, null, () => [
      `removes ${rangeText(event)}`,
      "no such mapping",
      `UNMAP domain=${event.domain}`,
    ]);
  }

  /** One row for a request: the recorded device took it, so must ours. */
  #accept(event: QemuEvent, log: LogDevice, status: Status): void {
    const fired = this.#isStale ? STALE : log.device.firedQuirks;
    if (status === Status.OK && fired.length === 0) {
      this.#tally.match();
      return;
    }
    this.#tally.diverge(event.line, fired.length === 0 ? null : fired, () => [
      "accepted",
      fired.length === 0 ? statusName(status) : "not accepted, or with another effect",
      requestLineText(event),
    ]);
  }

  #inferDomain(log: LogDevice, domain: number): boolean {
    if (this.#knowsAll) return false;
    this.#inferred += 1;
    return log.inferDomain(domain);
  }

  /** QEMU translated what ours does not know: was it mapped, or attached, before the log? */
  #infer(event: QemuEvent): boolean {
    const log = this.#log;
    if (this.#knowsAll || log === null) return false;
    const domain = log.device.domainOf(event.endpoint);
    this.#inferred += 1;
    if (domain === null) {
      this.#inferAttachment(log, event);
      return true;
    }
    if (this.#removed.inferredPages >= INFERRED_PAGES_MAX) return true;
    const page = {
      startPfn: event.startPfn,
      startOffset: 0,
      lastPfn: event.startPfn,
      lastOffset: 4095,
    };
    // Where the two are not equally far into their pages, the mapping is finer than pages.
    if (event.startOffset !== event.physOffset) return true;
    if (log.client.map(domain, page, event.physPfn, 0, READ_WRITE) === Status.OK) {
      this.#removed.infer({ domain, ...page });
    }
    return true;
  }

  /** Puts an endpoint into the one domain from before the log in which its access fits. */
  #inferAttachment(log: LogDevice, event: QemuEvent): void {
    if (log.standIns.size > STAND_INS_TRIED_MAX) return;
    const fitting: number[] = [];
    const { startPfn, startOffset, physPfn, physOffset } = event;
    for (const [domain, standIn] of log.standIns) {
      let fits = false;
      log.device.translate(standIn, startPfn, startOffset, 1, 0, {
        segment(pfn, offset) {
          fits = pfn === physPfn && offset === physOffset;
        },
      });
      if (fits) fitting.push(domain);
    }
    if (fitting.length === 1) log.client.attach(fitting[0]!, event.endpoint);
  }
}

function rangeText({ startPfn, startOffset, lastPfn, lastOffset }: QemuEvent): string {
  return `${addressText(startPfn, startOffset)}-${addressText(lastPfn, lastOffset)}`;
}

function requestLineText(event: QemuEvent): string {
  const { kind, domain, endpoint } = event;
  switch (kind) {
    case QemuKind.attach:
      return `ATTACH domain=${domain} endpoint=${endpoint}`;
    case QemuKind.detach:
      return `DETACH domain=${domain} endpoint=${endpoint}`;
    case QemuKind.map: {
      const target = addressText(event.physPfn, event.physOffset);
      return `MAP domain=${domain} ${rangeText(event)} to ${target} flags=${event.flags}`;
    }
    default:
      return `UNMAP domain=${domain} ${rangeText(event)}`;
  }
}
