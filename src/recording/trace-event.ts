/**
 * One event of a kernel trace, as every reader of trace text gives it out: a record that is
 * written anew for each event.
 *
 * Events and fields: include/trace/events/iommu.h. The flag columns: kernel/trace/trace_output.c,
 * trace_print_lat_fmt.
 */

/** What happened. */
export const TraceKind = {
  /** `iommu:map`: emitted after the mapping was made. */
  map: 0,
  /** `iommu:unmap`: emitted before the IOVA is given back. */
  unmap: 1,
  /** `iommu:attach_device_to_domain`. */
  attach: 2,
  /** `iommu:add_device_to_group`. */
  addDevice: 3,
  /** `iommu:remove_device_from_group`. */
  removeDevice: 4,
  /** `iommu:io_page_fault`. */
  fault: 5,
} as const;

/** One of {@link TraceKind}. */
export type TraceKind = (typeof TraceKind)[keyof typeof TraceKind];

/** Bits of {@link TraceEvent.context}: where the CPU was when it wrote the event. */
export const ContextFlag = {
  irqsOff: 1,
  needResched: 2,
  /** In a hard interrupt (`h`, `H`). */
  hardIrq: 4,
  /** In, or interrupting, a soft interrupt (`s`, `H`). */
  softIrq: 8,
  /** In a non-maskable interrupt. */
  nmi: 16,
  bottomHalvesOff: 32,
  /** The recording has no such column. */
  unknown: 64,
} as const;

/** In any interrupt. */
export const CONTEXT_IN_INTERRUPT = ContextFlag.hardIrq | ContextFlag.softIrq | ContextFlag.nmi;

/** An event. Fields that a kind does not have are 0. */
export class TraceEvent {
  kind: number = 0;
  /** Line in the recording, from 1. */
  line = 0;
  /** Time in whole microseconds of the trace clock. */
  timeUs = 0;
  /** The nanoseconds past `timeUs`, 0 … 999. */
  timeNs = 0;
  cpu = 0;
  pid = 0;
  /** {@link ContextFlag} bits. */
  context = 0;
  /** Number of the task's name: see {@link TraceTextReader.commName}. */
  comm = 0;
  /** map, unmap, fault: the I/O virtual address. */
  iovaPfn = 0;
  iovaOffset = 0;
  /** map: the physical address. */
  physPfn = 0;
  physOffset = 0;
  /** map, unmap: size in whole frames, and the bytes past them. */
  pages = 0;
  pagesRest = 0;
  /** unmap: what the driver removed, in frames, and the bytes past them. */
  unmappedPages = 0;
  unmappedRest = 0;
  /** attach, addDevice, removeDevice, fault: number of the device's name: see `deviceName`. */
  device = 0;
  /** addDevice, removeDevice: IOMMU group. */
  group = 0;
  /** fault: 0 read, 1 write. */
  flags = 0;
}

/** Receives events; the record is only valid during the call. */
export type TraceEventSink = (event: TraceEvent) => void;
