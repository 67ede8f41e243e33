/**
 * What `iommukit top` shows of a served machine: rates between two scrapes, latency percentiles,
 * what is mapped; as lines for a terminal and as one object.
 */
import { percentile, type Scrape } from "../live/machine/open-metrics.ts";
import { sizeText } from "../units.ts";
import { cellText, countText, durationText } from "./column.ts";
import type { Style } from "./table.ts";

/** A disk's share. */
export interface TopDisk {
  readonly name: string;
  readonly readsPerSecond: number;
  readonly writesPerSecond: number;
  readonly readBytesPerSecond: number;
  readonly writeBytesPerSecond: number;
  readonly interruptsPerSecond: number;
  readonly latencyNsP50: number | null;
  readonly latencyNsP99: number | null;
}

/** One view. */
export interface TopView {
  readonly machine: string;
  readonly seconds: number;
  /** Requests of the virtio-iommu by kind, per second. */
  readonly requestsPerSecond: Readonly<Record<string, number>>;
  readonly kicksPerSecond: number;
  readonly syncsPerSecond: number;
  readonly messagesPerSecond: number;
  readonly mappings: number;
  readonly faults: number;
  readonly faultsPerSecond: number;
  /** Share of translations that the IOTLB had; null when there was none. */
  readonly iotlbHitRate: number | null;
  readonly syncNsP50: number | null;
  readonly syncNsP99: number | null;
  readonly messageNsP50: number | null;
  readonly messageNsP99: number | null;
  readonly guestBytesMapped: number;
  readonly guestBytesPinned: number;
  /** Of the second stages, since the start. */
  readonly memoryFaults: number;
  readonly workerRestarts: number;
  readonly disks: readonly TopDisk[];
}

const NS = 1e9;

/**
 * Makes a view of two scrapes.
 *
 * @param before - null right after the start: everything since the server's start counts
 * @param seconds - between the two
 */
export function topView(now: Scrape, before: Scrape | null, seconds: number): TopView {
  const since = (name: string, labels = {}) =>
    now.value(`${name}_total`, labels) - (before?.value(`${name}_total`, labels) ?? 0);
  const rate = (name: string, labels = {}) => (seconds > 0 ? since(name, labels) / seconds : 0);
  const timeNs = (name: string, share: number, labels = {}) => {
    const value = percentile(
      now.buckets(name, labels),
      before?.buckets(name, labels) ?? null,
      share,
    );
    return value === null ? null : value * NS;
  };
  const hits = since("iommukit_iotlb_hits");
  const lookups = hits + since("iommukit_iotlb_misses");
  const kinds = now.labelValues("iommukit_requests_total", "kind");
  const disks = now.labelValues("iommukit_io_total", "device").map((device): TopDisk => {
    const read = { device, direction: "read" };
    const write = { device, direction: "write" };
    return {
      name: device,
      readsPerSecond: rate("iommukit_io", read),
      writesPerSecond: rate("iommukit_io", write),
      readBytesPerSecond: rate("iommukit_io_bytes", read),
      writeBytesPerSecond: rate("iommukit_io_bytes", write),
      interruptsPerSecond: rate("iommukit_interrupts", { device }),
      latencyNsP50: timeNs("iommukit_io_seconds", 0.5, { device }),
      latencyNsP99: timeNs("iommukit_io_seconds", 0.99, { device }),
    };
  });
  return {
    machine: now.labelValues("iommukit_machine", "name")[0] ?? "",
    seconds,
    requestsPerSecond: Object.fromEntries(
      kinds.map((kind) => [kind, rate("iommukit_requests", { kind })]),
    ),
    kicksPerSecond: rate("iommukit_kicks"),
    syncsPerSecond: rate("iommukit_syncs"),
    messagesPerSecond: rate("iommukit_messages"),
    mappings: now.value("iommukit_mappings"),
    faults: now.value("iommukit_faults_total"),
    faultsPerSecond: rate("iommukit_faults"),
    iotlbHitRate: lookups > 0 ? hits / lookups : null,
    syncNsP50: timeNs("iommukit_sync_seconds", 0.5),
    syncNsP99: timeNs("iommukit_sync_seconds", 0.99),
    messageNsP50: timeNs("iommukit_message_seconds", 0.5),
    messageNsP99: timeNs("iommukit_message_seconds", 0.99),
    guestBytesMapped: largest(now, "mapped"),
    guestBytesPinned: largest(now, "pinned"),
    memoryFaults: now.value("iommukit_stage_faults"),
    workerRestarts: now.value("iommukit_worker_restarts_total"),
    disks,
  };
}

/** Each device has a mapping of its own of the same memory. */
function largest(now: Scrape, state: string): number {
  const name = "iommukit_guest_memory_bytes";
  const devices = now.labelValues(name, "device");
  return Math.max(0, ...devices.map((device) => now.value(name, { device, state })));
}

function perSecond(value: number): string {
  return value >= 10 || value === 0 ? countText(value) : value.toFixed(1);
}

function timeText(ns: number | null): string {
  return ns === null ? "-" : durationText(ns);
}

/** A view as lines, for 80 columns. */
export function renderTop(view: TopView, style: Style = (_, text) => text): string[] {
  const requests = Object.entries(view.requestsPerSecond).map(
    ([kind, value]) => `${kind} ${perSecond(value)}/s`,
  );
  const hit = view.iotlbHitRate === null ? "-" : `${(view.iotlbHitRate * 100).toFixed(1)} %`;
  const memory =
    `${sizeText(view.guestBytesMapped)} mapped` +
    (view.guestBytesPinned > 0 ? `, ${sizeText(view.guestBytesPinned)} pinned` : "");
  const rows: [string, string][] = [
    ["requests", requests.join("  ")],
    [
      "queue",
      `kicks ${perSecond(view.kicksPerSecond)}/s  syncs ${perSecond(view.syncsPerSecond)}/s`,
    ],
    ["sync time", `p50 ${timeText(view.syncNsP50)}  p99 ${timeText(view.syncNsP99)}`],
    [
      "messages",
      `${perSecond(view.messagesPerSecond)}/s  p50 ${timeText(view.messageNsP50)}  p99 ${timeText(view.messageNsP99)}`,
    ],
    ["mappings", `${countText(view.mappings)} live  IOTLB hits ${hit}`],
    ["faults", `${countText(view.faults)} in all  ${perSecond(view.faultsPerSecond)}/s`],
    ["guest RAM", memory],
    ["RAM faults", `${countText(view.memoryFaults)} page requests of the second stage`],
    ["worker", `${countText(view.workerRestarts)} restarts`],
  ];
  const name = 11;
  const lines = [
    style("title", `${view.machine}  over ${view.seconds.toFixed(1)} s`),
    ...rows.map(([key, value]) => `${style("name", key.padEnd(name))}${value}`),
    "",
    style(
      "heading",
      `${"disk".padEnd(name)}   reads/s  writes/s     read/s    write/s   irq/s  p50      p99`,
    ),
    ...view.disks.map((disk) => diskLine(disk, name, style)),
  ];
  return lines;
}

function diskLine(disk: TopDisk, name: number, style: Style): string {
  const bytes = (value: number) => cellText(value, "bytes").replace(" ", "").padStart(11);
  return [
    style("name", disk.name.padEnd(name)),
    perSecond(disk.readsPerSecond).padStart(9),
    perSecond(disk.writesPerSecond).padStart(10),
    bytes(disk.readBytesPerSecond),
    bytes(disk.writeBytesPerSecond),
    perSecond(disk.interruptsPerSecond).padStart(8),
    `  ${timeText(disk.latencyNsP50).padEnd(9)}${timeText(disk.latencyNsP99)}`,
  ].join("");
}
