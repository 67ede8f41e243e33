/** The metrics of a served machine: of every device, of its virtio-iommu, of its disks, of itself. */
import { type MetricDescription, MetricTable } from "../metrics/metric-table.ts";
import type { LiveMachine } from "./live-machine.ts";

/** Of every device: what its client sends, and what goes back. */
export const deviceMetrics: readonly MetricDescription[] = [
  {
    name: "iommukit_messages",
    help: "Messages from QEMU",
    type: "counter",
    label: {
      name: "command",
      values: ["region_read", "region_write", "dma_map", "dma_unmap", "set_irqs", "reset", "other"],
    },
  },
  { name: "iommukit_message_errors", help: "Messages that were refused", type: "counter" },
  { name: "iommukit_interrupts", help: "Interrupts that were sent", type: "counter" },
  { name: "iommukit_failures", help: "Calls that failed because the device did", type: "counter" },
  {
    name: "iommukit_message_seconds",
    help: "Time from a turn's first message to its replies",
    type: "histogram",
  },
  { name: "iommukit_connected", help: "Whether QEMU is connected", type: "gauge" },
  {
    name: "iommukit_guest_memory_bytes",
    help: "Guest memory that the device can reach",
    type: "gauge",
    label: { name: "state", values: ["mapped", "present", "pinned"] },
  },
  {
    name: "iommukit_stage_faults",
    help: "Page requests of the second stage, where memory is mapped on fault",
    type: "gauge",
  },
  {
    name: "iommukit_stage_seconds",
    help: "Time spent on the second stage",
    type: "gauge",
    label: { name: "part", values: ["map", "populate", "fault"] },
  },
];

/** Of the virtio-iommu. */
export const iommuMetrics: readonly MetricDescription[] = [
  {
    name: "iommukit_requests",
    help: "Requests of the guest's driver",
    type: "counter",
    label: { name: "kind", values: ["map", "unmap", "other"] },
  },
  { name: "iommukit_kicks", help: "Notifications of the request queue", type: "counter" },
  {
    name: "iommukit_syncs",
    help: "Batches of requests that the guest waited for",
    type: "counter",
  },
  { name: "iommukit_mappings", help: "Mappings of all domains", type: "gauge" },
  { name: "iommukit_domains", help: "Domains", type: "gauge" },
  { name: "iommukit_faults", help: "Accesses of devices that were refused", type: "counter" },
  { name: "iommukit_iotlb_hits", help: "Translations that the IOTLB had", type: "counter" },
  { name: "iommukit_iotlb_misses", help: "Translations that it had not", type: "counter" },
  { name: "iommukit_sync_seconds", help: "Time of a batch of requests", type: "histogram" },
];

/** Of a disk. */
export const diskMetrics: readonly MetricDescription[] = [
  {
    name: "iommukit_io",
    help: "Operations on the store",
    type: "counter",
    label: { name: "direction", values: ["read", "write", "flush", "discard", "zero"] },
  },
  {
    name: "iommukit_io_bytes",
    help: "Bytes read from the store and written to it",
    type: "counter",
    label: { name: "direction", values: ["read", "write"] },
  },
  { name: "iommukit_io_errors", help: "Operations that failed", type: "counter" },
  { name: "iommukit_io_seconds", help: "Time of an operation on the store", type: "histogram" },
];

/** Of the loop that serves all devices, under the machine's name. */
export const loopMetrics: readonly MetricDescription[] = [
  {
    name: "iommukit_turn_seconds",
    help: "Time of a turn of the loop: the longest that a message finds nobody to answer it",
    type: "histogram",
  },
];

/** What a machine's metrics are, by device. */
export function metricTableOf({ name, iommu, disks }: LiveMachine): MetricTable {
  const iommus = iommu === null ? [] : [iommu.name];
  const names = disks.map(({ name }) => name);
  return new MetricTable([
    { descriptions: deviceMetrics, devices: [...iommus, ...names] },
    { descriptions: iommuMetrics, devices: iommus },
    { descriptions: diskMetrics, devices: names },
    { descriptions: loopMetrics, devices: [name] },
  ]);
}
