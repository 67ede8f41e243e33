/** Excerpts of every kind of recording, good lines and bad ones, and a way to read them as text. */
import type { RecordingFamily } from "./kinds.ts";
import { QemuLogReader } from "./qemu-log.ts";
import { RequestVectorReader } from "./request-vectors.ts";
import { TraceTextReader } from "./trace-text.ts";
import { MapTimeReader } from "./vfio-map-time.ts";
import { VfioType1Reader } from "./vfio-type1-reader.ts";

const trace = `# tracer: nop
# entries-in-buffer/entries-written: 9435/9500   #P:2
          insmod-113     [001] .....     8.416950: add_device_to_group: IOMMU: groupID=0 device=0000:00:00.0
          insmod-113     [001] .....     8.416951: attach_device_to_domain: IOMMU: device=0000:00:00.0
             fio-614   (    614) [000] .....    90.080026: map: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 paddr=0x0000000012f94000 size=4096
    kworker/0:1H-115   (-------) [001] d.h1.    90.080400: unmap: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 size=4096 unmapped_size=4096\r
CPU:0 [LOST 180 EVENTS]
            bash-20  [001] d..2.  1.0: sched_switch: prev_comm=bash ==> next_comm=fio

  [x] [1] y-20280 [001] d..2.  3154.172845: map: IOMMU: iova=0xfffffffffffff000 - 0x0000000000000000 paddr=0xfedcba9876543000 size=4096
0000fffbe000 - 0x00000000fffbf000 size=4096 unmapped_size=4096
          <idle>-0     [000] d.H1.    75.111409: unmap: IOMMU: iova=0x00000000ff670000 - 0x00000000ff680000 size=65536 unmapped_size=6553
  a-1 [000] ..s.. 75.2: io_page_fault: IOMMU:nvme 0000:01:00.0 iova=0x00000000fffbe123 flags=0x0001
  a-1 [000] ..s.. 75.2: io_page_fault: IOMMU:nvme 0000:01:00.0 iova=0x00000000fffbe123 fl
`;

const perf = `             fio   614 [000]    90.080026: iommu:map: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 paddr=0x0000000012f94000 size=4096
\tffffffff821e5ae3 iommu_map+0x53 ([kernel.kallsyms])
     migration/0  18/20 [001]  3754.687764123:          1 iommu:unmap: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 size=4096 unmapped_size=4096
perf 24815 [000]  3754.687734: PERF_RECORD_LOST lost 12
             fio   614 [000]    90.080027: iommu:map: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 paddr=0x0000000012f94000 size=0
             fio   614 [000]    90.080028: iommu:map: IOMMU: iova=0x1000 paddr=0x2000 size=99999999999999999999
             fio   614 [000]    90.080029: iommu:map:   IOMMU: iova=0x1000 paddr=0x2000 size=4096`;

const traceCmd = `version = 7
CPU 1 is empty
cpus=2
             fio-614   [000]    90.080026: map:                  IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 paddr=0x0000000012f94000 size=4096
             fio-614   [001] d.h1.    90.080400123: unmap:                IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 size=4096 unmapped_size=4096
CPU:1 [7 EVENTS DROPPED]
             fio-614   [000]    90.080426: kfree: 0x12 [LOST]
             fio-614   [000]    90.080526: map:                  IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 paddr=0x0000000012f94000 size=4096
             fio-614   [000]    90.080626: unmap:                IOMMU: iova=0x00000000fffbe000 - 0x00000000fffbf000 size=4096 unmapped_size=4096`;

const qemu = `virtio_iommu_get_config page_size_mask=0xfffffffffffff000 input range start=0x0 input range end=0x7fffffffff domain range start=0 domain range end=4294967295 probe_size=0x200 bypass=0x1
virtio_iommu_attach domain=3 endpoint=24
1234@1700000000.123456:virtio_iommu_map domain=3 virt_start=0xfffff000 virt_end=0xffffffff phys_start=0x57ff000 flags=3
1234@1700000000.123455:virtio_iommu_translate mr=virtio-iommu-memory-region-3-24 rid=24 addr=0xfffff040 flag=1\r
virtio_iommu_translate_out 0xfffff040 -> 0x57ff040 for sid=24
virtio_iommu_get_domain Alloc domain=1

qemu-system-x86_64: warning: something
virtio_iommu_unmap domain=3 virt_start=0xfffff000 virt_end=0xffffffff
virtio_iommu_unmap_done domain=3 virt_start=0xfff
virtio_iommu_unmap_done domain=3 virt_start=0xfffff000 virt_end=0xffffffff`;

const requests = `{"qemu": "11.1.3", "device_features": "0x10130000077", "acked": "0x100000077", "config": "00f0ffffffffffff0000000000000000ffffffff7f00000000000000ffffffff0002000001000000", "endpoints": ["0x18", "0x28", "0x30"]}
{"i": 0, "req": "0200000002000000280000000000000000000000", "tail": 4, "used_len": 4, "status": 6, "buf": null}
{"i": 1, "req": "05000000", "tail": 516, "used_len": 516, "status": null, "buf": "010014000100000000"}\r
{"i": 2, "req": "0400
{"status":0,"buf":null,"extra":true,"used_len":4,"tail":4,"req":"ff00","i":3}
{"i": 4, "req": "03", "tail": 4, "used_len": 0, "status": 4, "buf": null}
`;

const vfioCalls =
  '{"op":"open","seed":1,"type":3,"memlock":-1,"api":0,"group_flags":1}\n' +
  '{"op":"info","flags":3,"pgsizes":"0x1000","caps":[{"id":3,"version":1,"dma_avail":9}]}\n' +
  '{"op":"map","argsz":32,"flags":3,"region":"buf","offset":"0x0","iova":"0x1000","size":"0x2000","errno":0}\n' +
  '{"op":"unmap","flags":1,"iova":"0x0","size":"0x4000","pgsize":4096,"bitmap_size":8,"errno":0,"unmapped":"0x2000","bitmap":"0600000000000000"}\n' +
  '{"op":"check_extension","ext":3,"ret":1}\n{"op":"dirty","argsz":8,"flags":1,"errno":0}\n' +
  '{"op":"final","dma_avail":9}\n';

const mapTime =
  '{"bar":2,"size":"0x400000","flags":7}\n' +
  '{"kind":"bar","size":"0x200000","errno":0,"map_s":0.005480,"unmap_s":0.002236}\n' +
  '{"kind":"anon","thp":1,"size":"0x200000","errno":0,"unmap_errno":0,"unmapped":"0x200000"}\n';

/** Every kind of recording in a few lines. */
export const familyExcerpts: Readonly<
  Record<string, { readonly family: RecordingFamily; readonly text: string }>
> = {
  "ftrace text": { family: "trace", text: trace },
  "perf script text": { family: "trace", text: perf },
  "trace-cmd report text": { family: "trace", text: traceCmd },
  "QEMU logs": { family: "qemu-log", text: qemu },
  "request vectors": { family: "requests", text: requests },
  "VFIO calls": { family: "vfio-type1", text: vfioCalls },
  "VFIO mappings with times": { family: "vfio-map-time", text: mapTime },
};

/** Reads chunks with the reader of a family; returns all it gave, as text, notes last. */
export function readWith(family: RecordingFamily, chunks: readonly Uint8Array[]): string[] {
  const entries: string[] = [];
  const add = (kind: string, value: unknown) =>
    entries.push(`${kind} ${JSON.stringify(value, (_key, item) => plain(item))}`);
  if (family === "requests") {
    const reader = new RequestVectorReader({
      device: (device) => add("device", device),
      row: (row) =>
        add("event", {
          ...row,
          request: row.request.slice(0, row.requestBytes),
          reply: row.reply.slice(0, Math.max(0, row.replyBytes)),
        }),
    });
    pushAll(reader, chunks);
    add("notes", reader.notes);
    return entries;
  }
  if (family === "vfio-type1") {
    const reader = new VfioType1Reader({
      open: (open) => add("open", open),
      call: (call) => add("event", call),
    });
    pushAll(reader, chunks);
    add("unused", reader.unknownCalls());
    add("notes", reader.notes);
    return entries;
  }
  if (family === "vfio-map-time") {
    const reader = new MapTimeReader({
      bar: (bar) => add("bar", bar),
      mapping: (mapping) => add("event", mapping),
    });
    pushAll(reader, chunks);
    add("notes", reader.notes);
    return entries;
  }
  const reader =
    family === "trace"
      ? new TraceTextReader((event) => add("event", event))
      : new QemuLogReader((event) => add("event", event));
  pushAll(reader, chunks);
  if (reader instanceof TraceTextReader) add("cpus", [reader.cpus, reader.ticks]);
  add("unused", reader.unusedEvents());
  add("notes", reader.notes);
  return entries;
}

function pushAll(
  reader: { push(chunk: Uint8Array): void; end(): void },
  chunks: readonly Uint8Array[],
): void {
  // A chunk of its own memory each, overwritten afterwards: nothing may be kept of it.
  for (const chunk of chunks) {
    const copy = chunk.slice();
    reader.push(copy);
    copy.fill(0x21);
  }
  reader.end();
}

function plain(item: unknown): unknown {
  if (typeof item === "bigint") return item.toString();
  return item instanceof Uint8Array ? [...item] : item;
}
