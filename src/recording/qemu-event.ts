/**
 * One line of QEMU's trace of its virtio-iommu, as the reader gives it out: a record that is
 * written anew for each line. Events: QEMU hw/virtio/trace-events, "virtio-iommu.c".
 */

/** What a line says. */
export const QemuKind = {
  attach: 0,
  detach: 1,
  /** A MAP request, traced once it has been accepted. */
  map: 2,
  /** An UNMAP request, traced before it is looked at. */
  unmap: 3,
  /** One mapping removed by the UNMAP above. */
  unmapDone: 4,
  /** A device access that asks for a translation. */
  translate: 5,
  /** The mapping found for it; absent when no mapping was used. */
  translateOut: 6,
  /** The driver read the config space. */
  getConfig: 7,
  /** The driver wrote `bypass`. */
  setConfig: 8,
  /** A RESV_MEM property in a PROBE reply. */
  reserved: 9,
  /** A fault record. */
  fault: 10,
  /** The driver wrote the device status. */
  status: 11,
  deviceReset: 12,
  systemReset: 13,
  /** The features that the device offers. */
  features: 14,
  /** A memory region for an endpoint was made: names it. */
  region: 15,
  /** The granule was fixed. */
  granule: 16,
} as const;

/** A line. Fields that a kind does not have keep old values. */
export class QemuEvent {
  kind: number = 0;
  /** Line in the log, from 1. */
  line = 0;
  /** Wall-clock time in microseconds where the log has one, else −1. */
  timeUs = -1;
  domain = 0;
  endpoint = 0;
  /** First and last address of a range, or the address of an access. */
  startPfn = 0;
  startOffset = 0;
  lastPfn = 0;
  lastOffset = 0;
  /** Where it leads. */
  physPfn = 0;
  physOffset = 0;
  /** MAP flags; access (1 read, 2 write); RESV_MEM subtype; fault flags; status; `bypass`. */
  flags = 0;
  /** getConfig: page_size_mask, as frame and offset; features likewise. */
  maskPfn = 0;
  maskOffset = 0;
  domainFirst = 0;
  domainLast = 0;
  probeSize = 0;
  /** fault: reason. */
  reason = 0;
}

/** Receives lines; the record is only valid during the call. */
export type QemuEventSink = (event: QemuEvent) => void;
