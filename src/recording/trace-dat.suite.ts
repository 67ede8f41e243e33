/**
 * Writes trace-cmd's file format, so that the real `trace-cmd report` can be asked how it prints
 * IOMMU events. Source: trace-cmd.dat.v6(5); ring-buffer pages: kernel/trace/ring_buffer.c.
 */

/** One event of one CPU. */
export interface DatEvent {
  readonly kind: "map" | "unmap";
  readonly pid: number;
  readonly timeNs: number;
  /** Bits of `common_flags`: 1 interrupts off, 4 need-resched, 8 hard, 16 soft interrupt. */
  readonly flags: number;
  readonly iova: bigint;
  readonly paddr: bigint;
  readonly size: bigint;
}

/** What one CPU recorded. */
export interface DatCpu {
  readonly events: readonly DatEvent[];
  /** Events lost in front of them: a number, or not known. */
  readonly lost?: number | "unknown";
}

const PAGE_BYTES = 4096;
const PAGE_HEAD_BYTES = 16;
/** Bits of a page's commit word. */
const MISSED_EVENTS = 2 ** 31;
const MISSED_STORED = 2 ** 30;

const headerPage = `	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:8;	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:16;	size:4080;	signed:1;
`;

const headerEvent = `# compressed entry header
	type_len    :    5 bits
	time_delta  :   27 bits
	array       :   32 bits

	padding     : type == 29
	time_extend : type == 30
	time_stamp : type == 31
	data max type_len  == 28
`;

const commonFields = `	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
`;

const formats = {
  map: {
    id: 501,
    text: `name: map
ID: 501
format:
${commonFields}
	field:u64 iova;	offset:8;	size:8;	signed:0;
	field:u64 paddr;	offset:16;	size:8;	signed:0;
	field:size_t size;	offset:24;	size:8;	signed:0;

print fmt: "IOMMU: iova=0x%016llx - 0x%016llx paddr=0x%016llx size=%zu", REC->iova, REC->iova + REC->size, REC->paddr, REC->size
`,
  },
  unmap: {
    id: 502,
    text: `name: unmap
ID: 502
format:
${commonFields}
	field:u64 iova;	offset:8;	size:8;	signed:0;
	field:size_t size;	offset:16;	size:8;	signed:0;
	field:size_t unmapped_size;	offset:24;	size:8;	signed:0;

print fmt: "IOMMU: iova=0x%016llx - 0x%016llx size=%zu unmapped_size=%zu", REC->iova, REC->iova + REC->size, REC->size, REC->unmapped_size
`,
  },
} as const;

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

function u64(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

const sized = (text: string): Buffer => Buffer.concat([u64(text.length), Buffer.from(text)]);

function eventBytes(event: DatEvent, deltaNs: number): Buffer {
  const payload = Buffer.concat([
    u16(formats[event.kind].id),
    Buffer.from([event.flags, 0]),
    u32(event.pid),
    u64(event.iova),
    ...(event.kind === "map"
      ? [u64(event.paddr), u64(event.size)]
      : [u64(event.size), u64(event.size)]),
  ]);
  return Buffer.concat([u32(payload.length / 4 + deltaNs * 32), payload]);
}

/** The pages of one CPU. */
function pagesOf({ events, lost }: DatCpu): Buffer {
  const pages: Buffer[] = [];
  let rest = [...events];
  while (rest.length > 0) {
    const data: Buffer[] = [];
    const startNs = rest[0]!.timeNs;
    let lastNs = startNs;
    let bytes = 0;
    let taken = 0;
    for (const event of rest) {
      const next = eventBytes(event, event.timeNs - lastNs);
      if (PAGE_HEAD_BYTES + bytes + next.length + 8 > PAGE_BYTES) break;
      data.push(next);
      bytes += next.length;
      lastNs = event.timeNs;
      taken += 1;
    }
    const isFirst = pages.length === 0 && lost !== undefined;
    const isCounted = isFirst && lost !== "unknown";
    const flags = isFirst ? MISSED_EVENTS + (isCounted ? MISSED_STORED : 0) : 0;
    const page = Buffer.alloc(PAGE_BYTES);
    Buffer.concat([
      u64(startNs),
      u64(bytes + flags),
      ...data,
      ...(isCounted ? [u64(lost as number)] : []),
    ]).copy(page);
    pages.push(page);
    rest = rest.slice(taken);
  }
  return Buffer.concat(pages);
}

/**
 * Writes a file that trace-cmd reads.
 *
 * @param tasks - names of tasks by process number
 */
export function traceDat(
  cpus: readonly DatCpu[],
  tasks: Readonly<Record<number, string>>,
): Uint8Array {
  const cmdlines = Object.entries(tasks)
    .map(([pid, name]) => `${pid} ${name}\n`)
    .join("");
  const head = Buffer.concat([
    Buffer.from([0x17, 0x08, 0x44]),
    Buffer.from("tracing6\0"),
    Buffer.from([0, 8]),
    u32(PAGE_BYTES),
    Buffer.from("header_page\0"),
    sized(headerPage),
    Buffer.from("header_event\0"),
    sized(headerEvent),
    u32(0),
    u32(1),
    Buffer.from("iommu\0"),
    u32(2),
    sized(formats.map.text),
    sized(formats.unmap.text),
    u32(0),
    u32(0),
    sized(cmdlines),
    u32(cpus.length),
    Buffer.from("flyrecord\0"),
  ]);
  const data = cpus.map(pagesOf);
  const dataStart = Math.ceil((head.length + 16 * cpus.length) / PAGE_BYTES) * PAGE_BYTES;
  const places: Buffer[] = [];
  let offset = dataStart;
  for (const bytes of data) {
    places.push(u64(offset), u64(bytes.length));
    offset += bytes.length;
  }
  const file = Buffer.alloc(offset);
  Buffer.concat([head, ...places]).copy(file);
  Buffer.concat(data).copy(file, dataStart);
  return file;
}
